//! Held pods: on the embedded cluster, on virtual time.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use kube_sim::{
    cluster::{Cluster, Kind, Options},
    fault::life::Chronicle,
};
use podherald::{clock::TokioClock, monitor::hold::command};
use podherald_core::hold::{FINALIZER, OUTCOME_ANNOTATION};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    faulty_journal::{Faults, FaultyJournal},
    inside::Inside,
    pods,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const NAMESPACE: &str = "default";
const HOLD: [(&str, &str); 1] = [("monitor.hold", "true")];

struct World {
    cluster: Cluster,
    client: Client,
    faults: Faults,
    herald: Inside,
}

/// The node that all pods are on.
fn node(ready: &str) -> Value {
    let conditions = json!([{"type": "Ready", "status": ready}]);
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}, "status": {"conditions": conditions}})
}

impl World {
    async fn new(settings: &[(&str, &str)]) -> Self {
        let clock = Arc::new(TokioClock::starting_at("2026-02-10T12:00:03Z".parse::<Timestamp>().unwrap()));
        let honest = clock.clone();
        let now = move || podherald::clock::Clock::now(&*honest);
        let cluster = Cluster::new(Options { clock: Arc::new(now), seed: Some(1) });
        cluster.set_logs(Arc::new(Chronicle::default()));
        cluster.create(Kind::Node, "", node("True")).unwrap();
        let client = Client::new(kube_sim::api::Api::new(cluster.clone()), NAMESPACE);
        let mut world = Self { cluster, client, faults: Faults::default(), herald: Inside::new(clock, settings) };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        let faults = self.faults.clone();
        self.herald.launch(self.client.clone(), Box::new(|inner| Arc::new(FaultyJournal { inner, faults }))).await;
        sleep(SECOND).await;
    }

    /// Another process on a disk that knows nothing.
    async fn lose_disk(&mut self) {
        self.herald.kill().await;
        self.herald = Inside::new(self.herald.clock.clone(), &HOLD);
        self.start().await;
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// A running pod of execution `id`.
    async fn run(&self, id: &str, metadata: Value) {
        let mut pod = pods::running(id);
        let status = pod["status"].take();
        pod["metadata"] = json!({"name": format!("executor-{id}"), "labels": {"execution-id": id}});
        pod["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        self.cluster.create(Kind::Pod, NAMESPACE, pod).unwrap();
        self.becomes(id, status).await;
    }

    async fn ends(&self, id: &str, code: i32) {
        self.becomes(id, pods::ended(id, code)["status"].take()).await;
    }

    async fn becomes(&self, id: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.pods().patch_status(&format!("executor-{id}"), &PatchParams::default(), &patch).await.unwrap();
        sleep(SECOND).await;
    }

    async fn delete(&self, id: &str) {
        let params = DeleteParams::default().grace_period(0);
        self.pods().delete(&format!("executor-{id}"), &params).await.unwrap();
        sleep(SECOND).await;
    }

    /// The pod's metadata; none if it is gone.
    fn metadata(&self, id: &str) -> Option<Value> {
        self.cluster.get(Kind::Pod, NAMESPACE, &format!("executor-{id}")).map(|pod| pod["metadata"].clone())
    }

    fn is_held(&self, id: &str) -> bool {
        let metadata = self.metadata(id).unwrap();
        metadata["finalizers"].as_array().into_iter().flatten().any(|finalizer| finalizer == FINALIZER)
    }

    async fn terminal(&self, id: &str) -> Vec<Value> {
        let events = self.herald.events().await.into_iter().filter(|event| event["execution_id"] == id);
        let ends = ["execution_completed", "execution_failed", "execution_timeout", "execution_cancelled"];
        events.filter(|event| ends.contains(&event["event_type"].as_str().unwrap())).collect()
    }
}

/// T56, T93, T94: beside another's finalizer and annotation, which stay.
#[tokio::test(start_paused = true)]
async fn a_pod_is_held_as_soon_as_it_is_seen_and_goes_with_its_outcome_once_every_sink_has_it() {
    let world = World::new(&HOLD).await;
    let others = json!({"finalizers": ["batch.kubernetes.io/job-tracking"], "annotations": {"mine": "too"}});
    world.run("e1", others).await;
    assert_eq!(world.metadata("e1").unwrap()["finalizers"], json!(["batch.kubernetes.io/job-tracking", FINALIZER]));
    world.run("bare", json!({})).await;

    world.faults.hold_sinks(true);
    world.ends("e1", 3).await;
    world.ends("bare", 0).await;
    sleep(HOUR).await;
    assert!(world.is_held("e1") && world.is_held("bare"), "no sink has their end yet");
    world.faults.hold_sinks(false);
    sleep(SECOND * 20).await;
    for (id, finalizers) in [("e1", json!(["batch.kubernetes.io/job-tracking"])), ("bare", Value::Null)] {
        let metadata = world.metadata(id).unwrap();
        let told = world.terminal(id).await;
        assert_eq!(told.len(), 1);
        assert_eq!(metadata["annotations"][OUTCOME_ANNOTATION], told[0]["event_id"], "{metadata}");
        assert!(metadata["finalizers"] == finalizers || metadata["finalizers"] == json!([]), "{metadata}");
    }
    assert_eq!(world.metadata("e1").unwrap()["annotations"]["mine"], "too");
    // It is not held a second time.
    sleep(HOUR).await;
    assert_eq!(world.herald.metric("podherald_hold_held_total").await, 2);
    assert_eq!(world.herald.metric("podherald_hold_released_total").await, 2);
}

/// T32: and born and gone while nobody looks.
#[tokio::test(start_paused = true)]
async fn a_held_pod_that_is_deleted_by_force_while_podherald_is_away_still_tells_its_end() {
    let mut world = World::new(&HOLD).await;
    world.run("seen", json!({})).await;
    world.herald.kill().await;
    world.run("born", json!({"finalizers": [FINALIZER]})).await;
    for (id, code) in [("seen", 3), ("born", 0)] {
        world.ends(id, code).await;
        world.delete(id).await;
        assert!(world.is_held(id));
    }
    world.start().await;
    sleep(SECOND * 30).await;
    for (id, status, code) in [("seen", "failed", 3), ("born", "completed", 0)] {
        let execution = world.herald.execution(id).await;
        assert_eq!((&execution["status"], &execution["exit"]["code"]), (&json!(status), &json!(code)));
        assert_eq!(world.terminal(id).await.len(), 1);
        assert_eq!(world.metadata(id), None, "it is let go");
    }
}

/// T94: after each of append, acknowledgement and patch.
#[tokio::test(start_paused = true)]
async fn wherever_podherald_dies_a_held_pod_is_told_once_and_let_go() {
    let mut world = World::new(&HOLD).await;
    for step in 0..60 {
        let id = format!("e{step}");
        world.run(&id, json!({})).await;
        world.faults.hold_sinks(true);
        let patch = Patch::Merge(json!({"status": pods::ended(&id, 3)["status"].take()}));
        world.pods().patch_status(&format!("executor-{id}"), &PatchParams::default(), &patch).await.unwrap();
        if step % 2 == 0 {
            sleep(SECOND).await;
            world.faults.hold_sinks(false);
        }
        for _ in 0..step {
            tokio::task::yield_now().await;
        }
        world.herald.kill().await;
        world.faults.hold_sinks(false);
        world.start().await;
        sleep(SECOND * 20).await;
        assert!(!world.is_held(&id), "step {step}");
        let told = world.terminal(&id).await;
        assert_eq!(told.len(), 1, "step {step}");
        assert_eq!(world.metadata(&id).unwrap()["annotations"][OUTCOME_ANNOTATION], told[0]["event_id"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_a_pod_bears_is_believed_after_a_lost_disk_and_another_pods_is_not() {
    let mut world = World::new(&HOLD).await;
    world.run("e1", json!({})).await;
    world.ends("e1", 3).await;
    let outcome = world.metadata("e1").unwrap()["annotations"][OUTCOME_ANNOTATION].clone();
    assert!(outcome.is_string());
    world.run("copy", json!({"annotations": {OUTCOME_ANNOTATION: outcome}})).await;
    world.lose_disk().await;
    world.ends("copy", 0).await;
    world.delete("e1").await;
    sleep(SECOND * 30).await;
    let events = world.herald.events().await;
    assert!(events.iter().all(|event| event["execution_id"] == "copy"), "{events:?}");
    assert_eq!(world.terminal("copy").await.len(), 1);
    assert!(!world.is_held("copy"));
}

/// T95: and the end that is told nevertheless says so.
#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_let_go_at_the_ceiling_and_its_record_says_that_its_result_is_unproven() {
    let world = World::new(&[("monitor.hold", "true"), ("monitor.hold_ceiling", "1h")]).await;
    world.run("told", json!({})).await;
    world.run("runs", json!({})).await;
    world.run("stays", json!({})).await;
    world.faults.hold_sinks(true);
    world.ends("told", 3).await;
    world.ends("stays", 3).await;
    world.delete("told").await;
    world.delete("runs").await;
    sleep(HOUR - SECOND * 10).await;
    assert!(world.is_held("told") && world.is_held("runs"));
    assert_eq!(world.herald.metric("podherald_hold_result_unproven_total").await, 0);
    sleep(HOUR).await;
    assert_eq!((world.metadata("told"), world.metadata("runs")), (None, None));
    assert!(world.is_held("stays"), "nobody wants it gone");
    assert_eq!(world.herald.metric("podherald_hold_result_unproven_total").await, 2);
    let runs = world.terminal("runs").await;
    let facts = runs[0]["cause"]["evidence"].as_array().unwrap();
    assert!(facts.iter().any(|fact| fact.as_str().unwrap().starts_with("result_unproven: ")), "{facts:?}");
}

/// T33: whose end is made up, but not before it is overdue.
#[tokio::test(start_paused = true)]
async fn a_held_pod_on_a_lost_node_goes_once_its_end_is_told_and_long_before_the_ceiling() {
    let world = World::new(&HOLD).await;
    world.run("e1", json!({})).await;
    let lost = Patch::Merge(json!({"status": node("Unknown")["status"]}));
    Api::<Node>::all(world.client.clone()).patch_status("node-1", &PatchParams::default(), &lost).await.unwrap();
    world.faults.hold_sinks(true);
    world.delete("e1").await;
    sleep(SECOND * 300).await;
    assert_eq!(world.terminal("e1").await, Vec::<Value>::new());
    sleep(SECOND * 120).await;
    let told = world.terminal("e1").await;
    assert_eq!((told.len(), told[0]["cause"]["class"].as_str()), (1, Some("node_lost")), "{told:?}");
    assert!(world.is_held("e1"), "no sink has its end yet");
    world.faults.hold_sinks(false);
    sleep(SECOND * 20).await;
    assert_eq!(world.metadata("e1"), None);
    assert_eq!(world.herald.metric("podherald_hold_result_unproven_total").await, 0);
    assert_eq!(world.terminal("e1").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_bears_the_finalizer_goes_its_way_whatever_the_setting() {
    let world = World::new(&[]).await;
    world.run("ours", json!({"finalizers": [FINALIZER]})).await;
    world.run("plain", json!({})).await;
    // No execution id: nothing will ever be told of it.
    let labels = json!({"name": "stranger", "labels": {"eval-id": ""}, "finalizers": [FINALIZER]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": labels, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    world.cluster.create(Kind::Pod, NAMESPACE, pod).unwrap();
    sleep(SECOND).await;
    assert!(world.is_held("ours") && !world.is_held("plain"));
    let stranger = world.cluster.get(Kind::Pod, NAMESPACE, "stranger").unwrap();
    assert!(stranger["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty), "{stranger}");
    world.ends("ours", 0).await;
    assert!(!world.is_held("ours"));
    assert!(world.metadata("ours").unwrap()["annotations"][OUTCOME_ANNOTATION].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_being_deleted_when_it_is_first_seen_is_unheld() {
    let mut world = World::new(&HOLD).await;
    world.herald.kill().await;
    world.run("late", json!({"finalizers": ["example.com/other"]})).await;
    world.delete("late").await;
    world.start().await;
    let (_, page) = world.herald.get("/pods").await;
    assert_eq!(page["items"][0]["state"], "unheld", "{page}");
    assert_eq!(world.metadata("late").unwrap()["finalizers"], json!(["example.com/other"]));
}

#[tokio::test(start_paused = true)]
async fn a_held_pod_waits_for_a_journal_that_takes_nothing() {
    let world = World::new(&HOLD).await;
    world.run("e1", json!({})).await;
    world.faults.refuse_ends(true);
    world.ends("e1", 3).await;
    world.delete("e1").await;
    sleep(HOUR).await;
    assert!(world.is_held("e1"), "its end is not durable");
    world.faults.refuse_ends(false);
    sleep(SECOND * 30).await;
    assert_eq!(world.metadata("e1"), None);
    assert_eq!(world.terminal("e1").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_command_shows_what_is_held_and_lets_it_go_but_not_on_a_dry_run() {
    let mut world = World::new(&[]).await;
    world.herald.kill().await;
    world.run("a", json!({"finalizers": ["example.com/other", FINALIZER]})).await;
    world.run("b", json!({})).await;
    let mut said = Vec::new();
    command::list(&world.client, None, &mut said).await.unwrap();
    command::release(&world.client, Some("elsewhere"), false, &mut said).await.unwrap();
    command::release(&world.client, Some(NAMESPACE), true, &mut said).await.unwrap();
    assert!(world.is_held("a"));
    command::release(&world.client, None, false, &mut said).await.unwrap();
    assert_eq!(world.metadata("a").unwrap()["finalizers"], json!(["example.com/other"]));
    command::list(&world.client, None, &mut said).await.unwrap();
    let said = String::from_utf8(said).unwrap();
    let expected = "NAMESPACE\tNAME\tDELETED\tOUTCOME\ndefault\texecutor-a\t-\t-\nno pod is held\n\
                    would release default/executor-a\nreleased default/executor-a\nNAMESPACE\tNAME\tDELETED\tOUTCOME\n";
    assert_eq!(said, expected);
}

#[tokio::test]
async fn whoever_may_not_list_or_patch_is_told_which_role_gives_it() {
    let forbidden = |verb: &'static str| {
        move |request: http::Request<kube::client::Body>| {
            let is_patch = request.method() == http::Method::PATCH;
            let (code, body) = if is_patch || verb == "list" {
                (
                    403,
                    json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403, "message": format!("cannot {verb} pods")}),
                )
            } else {
                let metadata = json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1", "finalizers": [FINALIZER]});
                let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata});
                let is_list = request.uri().path().ends_with("/pods");
                (
                    200,
                    if is_list {
                        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": [pod]})
                    } else {
                        pod
                    },
                )
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            std::future::ready(Ok::<_, std::convert::Infallible>(
                http::Response::builder().status(code).body(body).unwrap(),
            ))
        }
    };
    let mut said = Vec::new();
    let client = Client::new(tower::service_fn(forbidden("list")), "n");
    let error = command::list(&client, None, &mut said).await.unwrap_err().to_string();
    assert!(error.contains("cannot list pods (403)") && error.contains("deploy/rbac.yaml"), "{error}");
    let client = Client::new(tower::service_fn(forbidden("patch")), "n");
    let error = command::release(&client, None, false, &mut said).await.unwrap_err().to_string();
    assert!(
        error.contains("1 of 1") && error.contains("cannot patch pods (403)") && error.contains("deploy/hold.yaml"),
        "{error}"
    );
}
