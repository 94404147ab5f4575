//! Pods' lives, from creation to the last frame of the stream.

use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SelfSubjectRulesReview};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{
    cluster::{Cluster, Play, runs},
    herald::{Frame, Herald, types},
};

#[tokio::test]
async fn pods_end_as_their_containers_did_with_what_they_printed() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let herald = Herald::start(&cluster.kubeconfig(), &data, &[]).await;
    let id = |name: &str| format!("{}-{name}", namespace.name);
    let report = r#"{"exit_code":4,"resource_usage":{"execution_time_wall_seconds":1.5,"cpu_time_jiffies":70,"clk_tck_hertz":100,"peak_memory_kb":9000},"stdout":"row 1\n","stderr":"row 2: no number\n"}"#;
    let plays = [
        ("fine", Play { log: Some("hello\nworld\n"), run_for: "1s", ..Play::exits(0) }),
        ("crash", Play { log: Some("input is empty\n"), ..Play::exits(3) }),
        ("memory", Play { reason: Some("OOMKilled"), log: Some("loading\n"), ..Play::exits(137) }),
        ("report", Play { log: Some(report), ..Play::exits(0) }),
    ];
    for (name, play) in &plays {
        namespace.create(&id(name), play).await;
    }

    let fine = herald.ended(&id("fine")).await;
    assert_eq!(fine["status"], "completed", "{fine}");
    assert_eq!(fine["exit"], json!({"code": 0, "signal": null, "source": "kubelet"}));
    assert_eq!(fine["stdout"], "hello\nworld\n");
    assert_eq!(fine["output"]["stdout"]["verdict"], "complete");
    assert_eq!(fine["pods"][0]["node_name"], "fake-0");

    let crash = herald.ended(&id("crash")).await;
    assert_eq!(crash["status"], "failed", "{crash}");
    assert_eq!(crash["exit"]["code"], 3);
    assert_eq!(crash["cause"]["class"], "user_code");
    assert_eq!(crash["error_type"], "script_error");
    assert_eq!(crash["stdout"], "input is empty\n");

    let memory = herald.ended(&id("memory")).await;
    assert_eq!(memory["status"], "failed", "{memory}");
    assert_eq!(memory["exit"]["code"], 137);
    assert_eq!(memory["cause"]["class"], "resource_limit");
    assert_eq!(memory["cause"]["reason"], "OOMKilled");

    let report = herald.ended(&id("report")).await;
    assert_eq!(report["status"], "failed", "{report}");
    assert_eq!(report["exit"], json!({"code": 4, "signal": null, "source": "report"}));
    assert_eq!(report["resource_usage"]["peak_memory_kb"], 9000);
    assert_eq!([&report["stdout"], &report["stderr"]], ["row 1\n", "row 2: no number\n"]);

    let output = herald.text(&format!("/executions/{}/output?stream=stdout", id("fine"))).await;
    assert_eq!(output, "hello\nworld\n");
}

#[tokio::test]
async fn a_stream_follows_a_pod_from_its_birth_to_the_end() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let herald = Herald::start(&cluster.kubeconfig(), &data, &[("PODHERALD_KUBE__NAMESPACES", &namespace.name)]).await;
    let id = format!("{}-followed", namespace.name);
    let path = format!("/executions/{id}/events");
    let create = async {
        namespace.create(&id, &Play { log: Some("done\n"), run_for: "1s", ..Play::exits(0) }).await;
    };
    // The stream is asked for before there is anything to follow.
    let (frames, ()) = tokio::join!(herald.follow(&path), create);

    let (first, last) = (frames.first().unwrap(), frames.last().unwrap());
    assert_eq!([first.name.as_str(), last.name.as_str()], ["snapshot", "end"], "{frames:?}");
    let told = events(&frames);
    let terminal = told.iter().find(|event| event["event_type"] == "execution_completed").unwrap();
    assert_eq!(terminal["stdout"], "done\n");
    assert_eq!(terminal["exit_code"], 0);
    assert!(!first.id.is_empty() && !last.id.is_empty());

    // What was streamed is what is on record, and a later visitor is told the same.
    let recorded = herald.events(&id).await;
    assert!(recorded.ends_with(&told), "{told:?}\n{recorded:?}");
    let again = herald.follow(&path).await;
    assert_eq!(again.first().unwrap().name, "snapshot");
    assert_eq!(again.last().unwrap().name, "end");
    assert_eq!(events(&again), recorded);
    let order = ["pod_scheduled", "execution_started", "execution_running", "execution_completed"];
    let known: Vec<_> = types(&recorded).into_iter().filter(|kind| order.contains(kind)).collect();
    assert_eq!(known, order);
}

#[tokio::test]
async fn a_running_pod_that_is_deleted_ends_as_deleted() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let herald = Herald::start(&cluster.kubeconfig(), &data, &[("PODHERALD_KUBE__NAMESPACES", &namespace.name)]).await;
    for (id, force) in [("asked", false), ("forced", true)] {
        let id = format!("{}-{id}", namespace.name);
        namespace.create(&id, &Play::runs()).await;
        namespace.until(&id, runs).await;
        if force {
            namespace.force_delete(&id).await;
        } else {
            namespace.delete(&id).await;
        }
        let execution = herald.ended(&id).await;
        assert_eq!(execution["status"], "failed", "{execution}");
        assert_eq!(execution["exit"]["code"], Value::Null);
        assert_eq!(execution["cause"]["class"], "deleted");
    }
}

#[tokio::test]
async fn the_role_allows_what_podherald_needs_and_nothing_else() {
    let cluster = Cluster::shared().await;
    let client = cluster.as_podherald().await;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    for (verb, resource, subresource) in
        [("get", "pods", ""), ("list", "pods", ""), ("watch", "pods", ""), ("get", "pods", "log")]
    {
        let asked = json!({"verb": verb, "resource": resource, "subresource": subresource});
        let review = serde_json::from_value(json!({"spec": {"resourceAttributes": asked}})).unwrap();
        let review = reviews.create(&PostParams::default(), &review).await.unwrap();
        assert!(review.status.unwrap().allowed, "{asked}");
    }
    let rules: Api<SelfSubjectRulesReview> = Api::all(client);
    let asked = serde_json::from_value(json!({"spec": {"namespace": "default"}})).unwrap();
    let rules = rules.create(&PostParams::default(), &asked).await.unwrap().status.unwrap();
    for rule in rules.resource_rules {
        // What every authenticated client has: asking what it is and may.
        if rule.resources.iter().flatten().all(|resource| resource.starts_with("selfsubject")) {
            continue;
        }
        let changes = rule.verbs.iter().filter(|verb| !["get", "list", "watch"].contains(&verb.as_str()));
        for change in changes {
            // What deploy/hold.yaml and deploy/cleaner.yaml give besides.
            let besides = [("pods", "patch"), ("pods", "delete"), ("configmaps", "delete")];
            let is_besides = |resource: &String| besides.contains(&(resource, change));
            assert!(rule.resources.iter().flatten().all(is_besides), "{rule:?}");
        }
    }
}

fn events(frames: &[Frame]) -> Vec<Value> {
    frames.iter().filter(|frame| frame.name.is_empty()).map(|frame| frame.data.clone()).collect()
}
