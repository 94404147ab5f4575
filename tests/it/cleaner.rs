//! The whole program tidies up after itself: monitor, result processor and cleaner on the embedded cluster's API, on a paused
//! clock.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use kube_sim::cluster::{Cluster, Options};
use podherald::clock::{Clock, TokioClock};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::inside::{Inside, MOMENT};

const BEGIN: &str = "2026-02-10T12:00:00Z";
const SETTINGS: [(&str, &str); 4] = [
    ("roles", "api,monitor,result_processor,resource_cleaner"),
    ("kube.label_selectors", "execution-id"),
    ("cleaner.min_age", "10s"),
    ("cleaner.keep_failed", "10m"),
];

struct Place {
    client: Client,
    inside: Inside,
}

impl Place {
    async fn start() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::starting_at(BEGIN.parse::<Timestamp>().unwrap()));
        let told = clock.clone();
        let cluster = Cluster::new(Options { clock: Arc::new(move || told.now()), seed: Some(1) });
        let client = Client::new(kube_sim::api::Api::new(cluster), "default");
        let mut place = Self { client, inside: Inside::new(clock, &SETTINGS) };
        place.launch().await;
        place
    }

    async fn launch(&mut self) {
        self.inside.launch(self.client.clone(), Box::new(|journal| journal)).await;
        sleep(MOMENT).await;
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    fn scripts(&self) -> Api<ConfigMap> {
        Api::default_namespaced(self.client.clone())
    }

    /// A pod and its script, as a K8s worker makes them; or without the mark.
    async fn create(&self, id: &str, is_marked: bool) {
        let labels = if is_marked {
            json!({"app": "podherald", "component": "executor", "execution-id": id})
        } else {
            json!({"execution-id": id})
        };
        let script = json!({"metadata": {"name": format!("script-{id}"), "labels": labels}, "data": {"script": ""}});
        self.scripts().create(&PostParams::default(), &serde_json::from_value(script).unwrap()).await.unwrap();
        let pod = json!({
            "metadata": {"name": format!("executor-{id}"), "labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "executor", "image": "none"}]},
        });
        self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    async fn end(&self, id: &str, code: i32) {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        let now = self.inside.clock.now().to_string();
        let state = json!({"terminated": {"exitCode": code, "reason": "Error", "startedAt": now, "finishedAt": now}});
        let status = json!({"status": {"phase": phase, "containerStatuses": [{
            "name": "executor", "image": "none", "imageID": "", "ready": false, "restartCount": 0, "state": state,
        }]}});
        let name = format!("executor-{id}");
        self.pods().patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    async fn is_there(&self, id: &str) -> (bool, bool) {
        let pod = self.pods().get_opt(&format!("executor-{id}")).await.unwrap();
        let script = self.scripts().get_opt(&format!("script-{id}")).await.unwrap();
        (pod.is_some(), script.is_some())
    }

    async fn until_gone(&self, id: &str, limit: Duration) {
        let begun = Instant::now();
        while self.is_there(id).await != (false, false) {
            assert!(begun.elapsed() < limit, "{id} is still there: {:?}", self.is_there(id).await);
            sleep(MOMENT).await;
        }
    }

    async fn until_stored(&self, id: &str, limit: Duration) {
        let begun = Instant::now();
        while self.inside.get(&format!("/executions/{id}/result")).await.0 != StatusCode::OK {
            assert!(begun.elapsed() < limit, "{id} has no result");
            sleep(MOMENT).await;
        }
    }

    async fn ends_of(&self, id: &str) -> Vec<(String, Value)> {
        let events = self.inside.events().await;
        let of_it = events.into_iter().filter(|event| event["execution_id"] == id);
        of_it
            .map(|event| (event["event_type"].as_str().unwrap().to_owned(), event["cause"]["class"].clone()))
            .filter(|(event_type, _)| event_type.starts_with("execution_") || event_type == "pod_deleted")
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_is_tidied_away_and_how_it_ended_stays() {
    let mut place = Place::start().await;
    for (id, is_marked) in [("done", true), ("killed", true), ("runs", true), ("foreign", false)] {
        place.create(id, is_marked).await;
    }
    sleep(Duration::from_secs(11)).await;
    place.end("done", 0).await;
    place.end("foreign", 0).await;
    // As a deletion ends programs, too.
    place.end("killed", 137).await;
    place.until_gone("done", Duration::from_secs(120)).await;
    place.until_stored("killed", Duration::from_secs(120)).await;
    let (status, page) = place.inside.get("/cleanup").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let items = page["items"].as_array().unwrap();
    let found: Vec<_> =
        items.iter().map(|item| (item["execution_id"].as_str().unwrap(), item["reason"].as_str().unwrap())).collect();
    assert_eq!(found, [("killed", "failed"), ("runs", "result_not_stored")], "{page}");
    assert!(page["next"].is_string(), "the ConfigMaps follow");
    // A restart knows no more than the cluster and the store, and that is enough.
    place.inside.kill().await;
    place.launch().await;
    place.until_gone("killed", Duration::from_secs(720)).await;
    assert_eq!((place.is_there("runs").await, place.is_there("foreign").await), ((true, true), (true, true)));
    sleep(Duration::from_secs(5)).await;
    let told = |event_type: &str, class: Value| (event_type.to_owned(), class);
    let done = place.ends_of("done").await;
    assert!(done.iter().any(|(event_type, _)| event_type == "execution_completed"), "{done:?}");
    assert_eq!(done.last(), Some(&told("pod_deleted", Value::Null)));
    let killed = place.ends_of("killed").await;
    assert!(killed.contains(&told("execution_failed", json!("unknown"))), "{killed:?}");
    assert_eq!(killed.last(), Some(&told("pod_deleted", Value::Null)));
    for (id, status) in [("done", "completed"), ("killed", "failed")] {
        assert_eq!(place.inside.execution(id).await["status"], status);
        assert_eq!(place.inside.get(&format!("/executions/{id}/result")).await.1["status"], status);
    }
    let (_, metrics) = place.inside.text("/metrics").await;
    let deleted = r#"podherald_cleaner_deleted_total{kind="Pod",reason="stored"} 1"#;
    assert!(metrics.contains(deleted), "{metrics}");
    assert_eq!(place.inside.problem("resource_cleaner").await, None);
}
