//! The API server goes away under the watch, and podherald goes away under the pods.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{
    cluster::{Cluster, Play, has_ended, is_gone, runs},
    herald::{Herald, assert_in_order, types},
};

/// An API server that starts anew has no history: the watch's version is gone (T5). What happened meanwhile, through
/// another API server over the same etcd, is only in the list.
#[tokio::test]
async fn pods_that_ended_or_went_while_the_api_server_was_away_end_once() {
    let cluster = Cluster::own().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let mut herald = Herald::start(&cluster.kubeconfig(), &data, &[]).await;
    for id in ["ends", "crashes", "deleted", "stays"] {
        namespace.create(id, &Play::runs()).await;
        namespace.until(id, runs).await;
        herald.until_running(id).await;
    }

    let lists = herald.counter("podherald_monitor_lists_total").await;
    let second = cluster.second_api_server().await;
    let pods: Api<Pod> = Api::namespaced(second, &namespace.name);
    cluster.script(&["stop", "kwok", "sched", "apiserver"]).await;
    for (id, phase, code) in [("ends", "Succeeded", 0), ("crashes", "Failed", 5)] {
        let name = format!("executor-{id}");
        let ended =
            json!({"exitCode": code, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:05Z"});
        let status = json!({"status": {"phase": phase, "containerStatuses": [{"name": "executor", "image": "none",
            "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": ended}}]}});
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
    pods.delete("executor-deleted", &DeleteParams::default().grace_period(0)).await.unwrap();
    cluster.script(&["start", "core", "sched", "kwok"]).await;

    let [ends, crashes, deleted] =
        [herald.ended("ends").await, herald.ended("crashes").await, herald.ended("deleted").await];
    assert_eq!([&ends["status"], &ends["exit"]["code"]], [&json!("completed"), &json!(0)], "{ends}");
    assert_eq!([&crashes["status"], &crashes["exit"]["code"]], [&json!("failed"), &json!(5)], "{crashes}");
    assert_eq!([&deleted["status"], &deleted["exit"]["code"]], [&json!("failed"), &Value::Null], "{deleted}");
    assert!(["deleted", "unknown"].contains(&deleted["cause"]["class"].as_str().unwrap()), "{deleted}");

    // The watches were refused and listed anew, and are whole again.
    herald.until_ready().await;
    assert!(herald.counter("podherald_monitor_lists_total").await > lists);
    assert_eq!(herald.get("/executions/stays").await["status"], "running");
    namespace.end("stays", 7).await;
    assert_eq!(herald.ended("stays").await["exit"]["code"], 7);
    let ids = ["ends", "crashes", "deleted", "stays"].map(str::to_owned);
    assert_in_order(&herald.pages("/events?limit=100").await, &ids);
}

#[tokio::test]
async fn pods_that_ended_or_went_while_podherald_was_down_end_once() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let settings = [("PODHERALD_KUBE__NAMESPACES", namespace.name.as_str())];
    let herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let id = |name: &str| format!("{}-{name}", namespace.name);
    let names = ["ended", "ended-and-gone", "deleted", "forced", "stays", "known"];
    for name in names {
        namespace.create(&id(name), &Play::runs()).await;
        namespace.until(&id(name), runs).await;
        herald.until_running(&id(name)).await;
    }
    namespace.end(&id("known"), 9).await;
    let known = herald.ended(&id("known")).await;
    let before = herald.events(&id("known")).await;
    herald.kill().await;

    namespace.end(&id("ended"), 3).await;
    namespace.until(&id("ended"), has_ended).await;
    namespace.end(&id("ended-and-gone"), 0).await;
    namespace.until(&id("ended-and-gone"), has_ended).await;
    namespace.delete(&id("ended-and-gone")).await;
    namespace.until(&id("ended-and-gone"), is_gone).await;
    namespace.delete(&id("deleted")).await;
    namespace.until(&id("deleted"), is_gone).await;
    namespace.force_delete(&id("forced")).await;
    namespace.until(&id("forced"), is_gone).await;
    namespace.create(&id("new"), &Play::exits(0)).await;
    namespace.until(&id("new"), has_ended).await;

    let herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let ended = herald.ended(&id("ended")).await;
    assert_eq!([&ended["status"], &ended["exit"]["code"]], [&json!("failed"), &json!(3)], "{ended}");
    // Nobody saw how these ended, and nobody claims to know.
    for name in ["ended-and-gone", "deleted", "forced"] {
        let gone = herald.ended(&id(name)).await;
        assert_eq!([&gone["status"], &gone["exit"]["code"]], [&json!("failed"), &Value::Null], "{gone}");
        assert!(["deleted", "unknown"].contains(&gone["cause"]["class"].as_str().unwrap()), "{gone}");
    }
    assert_eq!(herald.ended(&id("new")).await["status"], "completed");
    assert_eq!(herald.get(&format!("/executions/{}", id("stays"))).await["status"], "running");
    // The relist shows an ended pod again: what is on record stays as it is (T6).
    let known_after = herald.ended(&id("known")).await;
    assert_eq!([&known["status"], &known["exit"]], [&known_after["status"], &known_after["exit"]]);
    let after = herald.events(&id("known")).await;
    assert_eq!(after, before, "{:?}", types(&after));

    let ended: Vec<_> = names.into_iter().filter(|name| *name != "stays").chain(["new"]).map(id).collect();
    assert_in_order(&herald.pages("/events?limit=100").await, &ended);
}
