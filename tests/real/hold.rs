//! Held pods on a real API server, under the role in `deploy/` and that of `deploy/hold.yaml`. Each test has a cluster of its own: the
//! podherald of another test would let its pods go.

use k8s_openapi::api::core::v1::{Namespace as Space, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use podherald::monitor::hold::command;
use podherald_core::hold::{FINALIZER, OUTCOME_ANNOTATION};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{
    cluster::{Cluster, Namespace, Play, has_ended, is_gone, runs},
    herald::{Herald, ends},
};

const HOLD: [(&str, &str); 1] = [("PODHERALD_MONITOR__HOLD", "true")];

fn is_held(pod: Option<&Pod>) -> bool {
    pod.is_some_and(|pod| pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER))
}

/// What a kubelet says of a deleted pod whose container it has stopped; KWOK does not.
async fn is_stopped(namespace: &Namespace<'_>, id: &str) {
    namespace.until(id, |pod| pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some())).await;
    let name = format!("executor-{id}");
    let pod = serde_json::to_value(namespace.pods.get(&name).await.unwrap()).unwrap();
    let mut status = pod["status"]["containerStatuses"][0].clone();
    status["state"] = json!({"terminated": {"exitCode": 143, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}});
    let patch = Patch::Merge(json!({"status": {"phase": "Failed", "containerStatuses": [status]}}));
    namespace.pods.patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
}

async fn delete_namespace(client: &Client, name: &str) {
    Api::<Space>::all(client.clone()).delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_held_pod_goes_with_its_outcome_and_none_that_is_deleted_while_podherald_is_down_is_lost() {
    let cluster = Cluster::own().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let settings = [HOLD[0], ("PODHERALD_KUBE__NAMESPACES", namespace.name.as_str())];
    let herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let [told, lost] = ["told", "lost"].map(|name| namespace.id(name));
    for id in [&told, &lost] {
        namespace.create(id, &Play::runs()).await;
        namespace.until(id, |pod| is_held(pod) && runs(pod)).await;
    }
    namespace.end(&told, 3).await;
    let execution = herald.ended(&told).await;
    assert_eq!(execution["exit"]["code"], 3);
    namespace.until(&told, |pod| !is_held(pod)).await;
    let pod = namespace.pods.get(&format!("executor-{told}")).await.unwrap();
    let terminal: Vec<Value> = herald.events(&told).await.into_iter().filter(ends).collect();
    assert_eq!(terminal.len(), 1);
    assert_eq!(terminal[0]["event_id"], pod.metadata.annotations.unwrap()[OUTCOME_ANNOTATION]);
    herald.kill().await;

    namespace.end(&lost, 4).await;
    namespace.until(&lost, has_ended).await;
    namespace.force_delete(&lost).await;
    namespace.until(&lost, is_held).await;
    let herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let execution = herald.ended(&lost).await;
    assert_eq!((&execution["status"], &execution["exit"]["code"]), (&json!("failed"), &json!(4)), "{execution}");
    namespace.until(&lost, is_gone).await;
}

/// T95.
#[tokio::test]
async fn the_deletion_of_a_namespace_waits_for_held_pods_and_not_for_ever() {
    let cluster = Cluster::own().await;
    cluster.script(&["start", "kcm"]).await;
    let data = tempdir().unwrap();
    let (served, released) = (cluster.namespace().await, cluster.namespace().await);
    let herald = Herald::start(&cluster.kubeconfig(), &data, &HOLD).await;
    for namespace in [&served, &released] {
        let id = namespace.id("held");
        namespace.create(&id, &Play::runs()).await;
        namespace.until(&id, |pod| is_held(pod) && runs(pod)).await;
    }
    // Its own pods' ends are told, and it goes.
    delete_namespace(&cluster.admin, &served.name).await;
    is_stopped(&served, &served.id("held")).await;
    served.until(&served.id("held"), is_gone).await;
    assert_eq!(herald.ended(&served.id("held")).await["exit"]["code"], 143);
    herald.kill().await;

    // Nobody is there to tell it: the command lets it go.
    delete_namespace(&cluster.admin, &released.name).await;
    let id = released.id("held");
    released.until(&id, |pod| pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_some())).await;
    let mut said = Vec::new();
    command::release(&cluster.admin, Some(&released.name), false, &mut said).await.unwrap();
    assert_eq!(String::from_utf8(said).unwrap(), format!("released {}/executor-{id}\n", released.name));
    released.until(&id, is_gone).await;
}
