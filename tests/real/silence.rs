//! A node that dies with its kubelet, on a real API server, under the role in `deploy/` and that of `deploy/nodes.yaml`. The test plays
//! the node controller, which would take its time, and no pod is taken away by anybody.

use k8s_openapi::api::{core::v1::Node, rbac::v1::ClusterRoleBinding};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Namespace, Play, runs},
    herald::{Herald, LIMIT, POLL},
};

const SETTINGS: [(&str, &str); 1] = [("PODHERALD_MONITOR__MUST_HEAR_GRACE", "2s")];

/// Its deadline is over a second after its start. KWOK keeps no deadlines.
async fn must_end(namespace: &Namespace<'_>, id: &str) {
    let lowered = json!({"spec": {"activeDeadlineSeconds": 1}});
    let name = format!("executor-{id}");
    namespace.pods.patch(&name, &PatchParams::default(), &Patch::Merge(lowered)).await.unwrap();
}

/// Twice: what is doubtful once may be so no more.
async fn until_found_ready(herald: &Herald) {
    let deadline = Instant::now() + LIMIT;
    while !herald.text("/metrics").await.contains("podherald_monitor_unheard_looks_total{node=\"ready\"} 2") {
        assert!(Instant::now() < deadline, "nobody looked: {}", herald.log());
        sleep(POLL).await;
    }
}

fn said(execution: &Value) -> String {
    assert_eq!(
        (execution["status"].as_str(), &execution["exit"]["code"]),
        (Some("failed"), &Value::Null),
        "{execution}"
    );
    execution["cause"].to_string()
}

/// T33
#[tokio::test]
async fn pods_on_a_dead_node_end_and_without_the_right_to_nodes_as_unknown() {
    let cluster = Cluster::own().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let mut herald = Herald::start(&cluster.kubeconfig(), &data, &SETTINGS).await;
    for id in ["overdue", "deleted", "lives", "gone", "forbidden"] {
        namespace.create(id, &Play::runs()).await;
        namespace.until(id, runs).await;
        herald.until_running(id).await;
    }

    must_end(&namespace, "lives").await;
    until_found_ready(&herald).await;
    assert_eq!(herald.get("/executions/lives").await["status"], "running");
    namespace.end("lives", 0).await;
    assert_eq!(herald.ended("lives").await["status"], "completed");

    cluster.script(&["stop", "kwok"]).await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let unknown =
        json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}});
    nodes.patch_status("fake-0", &PatchParams::default(), &Patch::Strategic(unknown)).await.unwrap();
    must_end(&namespace, "overdue").await;
    namespace.pods.delete("executor-deleted", &DeleteParams::default().grace_period(1)).await.unwrap();
    for id in ["overdue", "deleted"] {
        let cause = said(&herald.ended(id).await);
        assert!(
            cause.contains("\"NodeUnreachable\"") && cause.contains("node fake-0: condition Ready Unknown since"),
            "{cause}"
        );
    }

    nodes.delete("fake-0", &DeleteParams::default()).await.unwrap();
    must_end(&namespace, "gone").await;
    let cause = said(&herald.ended("gone").await);
    assert!(cause.contains("\"NodeGone\""), "{cause}");

    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.admin.clone());
    bindings.delete("podherald-nodes", &DeleteParams::default()).await.unwrap();
    must_end(&namespace, "forbidden").await;
    let cause = said(&herald.ended("forbidden").await);
    assert!(cause.contains("\"unknown\"") && cause.contains("may not ask"), "{cause}");
    let warnings = herald.log().matches("nodes may not be asked for").count();
    assert_eq!(warnings, 1);
    herald.until_ready().await;
}
