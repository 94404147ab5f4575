//! The cleaner on the embedded cluster, with a store that says what it is told to, at any time of day.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use kube_sim::cluster::{self, Cluster as Sim};
use podherald_core::{
    event::{Draft, Event, Payload, Slot, event_id},
    execution::Status,
    identity::default_places,
    pod::INTENT_ANNOTATION,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{inbox::Place as Found, journal::fixture, store::sqlite::Sqlite};

/// Shows the time that it was last set to.
struct Hands(Mutex<Timestamp>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct World {
    cleaner: ResourceCleaner,
    client: Client,
    clock: Arc<Hands>,
    store: Arc<dyn Store>,
    _dir: TempDir,
}

/// What a test changes of the options.
type Change = fn(&mut Options);

impl World {
    /// It is noon. Nothing has to wait but for failed pods an hour, for scripts two.
    async fn new(change: Change) -> Self {
        let clock = Arc::new(Hands(Mutex::new(fixture::at(0))));
        let told = clock.clone();
        let sim = Sim::new(cluster::Options { clock: Arc::new(move || told.now()), seed: Some(1) });
        Self::over(Client::new(kube_sim::api::Api::new(sim), "default"), clock, change).await
    }

    async fn over(client: Client, clock: Arc<Hands>, change: Change) -> Self {
        let dir = TempDir::new().unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&dir.path().join("store.db")).await.unwrap());
        let mut options = Options {
            policy: Policy {
                min_age: Duration::ZERO,
                keep_failed: Duration::from_hours(1),
                orphan_age: Duration::from_hours(2),
                unstored_age: None,
            },
            places: default_places(),
            namespaces: Vec::new(),
            selector: "app=podherald".to_owned(),
            interval: Duration::from_secs(60),
            dry_run: false,
        };
        change(&mut options);
        let cleaner = ResourceCleaner::new(client.clone(), options, store.clone(), clock.clone(), Metrics::default());
        Self { cleaner, client, clock, store, _dir: dir }
    }

    fn pass(&self, minutes: i64) {
        *self.clock.0.lock().unwrap() += SignedDuration::from_mins(minutes);
    }

    fn pods(&self) -> Api<v1::Pod> {
        Api::default_namespaced(self.client.clone())
    }

    fn scripts(&self) -> Api<v1::ConfigMap> {
        Api::default_namespaced(self.client.clone())
    }

    /// Makes a pod of this name, with what is given over that of a K8s worker's.
    async fn pod(&self, name: &str, execution_id: &str, metadata: Value) -> v1::Pod {
        let mut object = json!({
            "metadata": {"name": name, "labels": labels(execution_id)},
            "spec": {"containers": [{"name": "executor", "image": "none"}]},
        });
        merge(&mut object["metadata"], metadata);
        self.pods().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
    }

    async fn script(&self, name: &str, execution_id: &str, metadata: Value) {
        let mut object = json!({"metadata": {"name": name, "labels": labels(execution_id)}, "data": {"script": "1"}});
        merge(&mut object["metadata"], metadata);
        self.scripts().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    /// Stores what the attempt of this pod came to now; gives the event that says so.
    async fn store(&self, execution_id: &str, attempt: u32, pod: &v1::Pod, status: Status) -> Message {
        let changes = fixture::Pod::new(execution_id, "any", attempt).life(0);
        let drafts = changes.iter().flat_map(|change| change.events.iter().cloned());
        let events: Vec<Event> = (1..).zip(drafts).map(|(seq, draft)| draft.number("pod-monitor:x", seq)).collect();
        let mut event = events.into_iter().find(|event| event.payload.terminal().is_some()).unwrap();
        event.event_id = event_id(execution_id, pod.metadata.uid.as_ref().unwrap(), Slot::Terminal);
        event.timestamp = self.clock.now();
        let outcome = Outcome { status, ..Outcome::of(&event).unwrap() };
        self.store.put_result(outcome).await.unwrap();
        stored(&event, status)
    }

    async fn names(&self) -> BTreeSet<String> {
        let all = ListParams::default();
        let (pods, scripts) =
            (Api::<v1::Pod>::all(self.client.clone()), Api::<v1::ConfigMap>::all(self.client.clone()));
        let pods = pods.list(&all).await.unwrap().into_iter().map(|pod| pod.name_any());
        let scripts = scripts.list(&all).await.unwrap().into_iter().map(|script| script.name_any());
        pods.chain(scripts).filter(|name| name != "kube-root-ca.crt").collect()
    }

    async fn assert_names<const N: usize>(&self, expected: [&str; N]) {
        assert_eq!(self.names().await, expected.map(str::to_owned).into());
    }
}

fn labels(execution_id: &str) -> Value {
    json!({"app": "podherald", "component": "executor", "execution-id": execution_id})
}

fn merge(object: &mut Value, over: Value) {
    match (object, over) {
        (Value::Object(object), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    object.remove(&key);
                } else {
                    merge(object.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (object, over) => *object = over,
    }
}

fn stored(end: &Event, status: Status) -> Message {
    let terminal = end.payload.terminal().unwrap();
    let payload = Payload::ResultStored(podherald_core::event::StoredResult {
        result_of: end.event_id,
        storage_type: podherald_core::event::StorageType::Database,
        storage_path: "/".to_owned(),
        size_bytes: 0,
        status,
        exit: terminal.exit,
        cause: None,
        resource_usage: None,
        stdout: String::new(),
        stderr: String::new(),
        output: terminal.output.clone(),
    });
    let draft = Draft {
        event_id: event_id(&end.execution_id, &end.event_id.to_string(), Slot::ResultStored),
        execution_id: end.execution_id.clone(),
        attempt: end.attempt,
        timestamp: end.timestamp,
        synthesized: false,
        metadata: end.metadata.clone(),
        payload,
    };
    let event = draft.number("result-processor:x", 1);
    Message {
        event_id: event.event_id,
        event_type: "result_stored".into(),
        execution_id: event.execution_id.as_str().into(),
        about: Default::default(),
        bytes: Bytes::from(serde_json::to_vec(&event).unwrap()),
        tries: 1,
        place: Found { topic: "execution_results".into(), partition: 0 },
        offset: 0,
    }
}

#[tokio::test]
async fn a_stored_result_takes_its_pod_and_its_script_and_nothing_that_still_runs() {
    // T37: the intent is there before the deletion; a finalizer holds the pod so that it can be seen.
    let world = World::new(|_| {}).await;
    let pod = world.pod("executor-e1", "e1", json!({"finalizers": ["tests.example/hold"]})).await;
    world.script("script-e1", "e1", json!({})).await;
    world.pod("executor-e2", "e2", json!({})).await;
    world.script("script-e2", "e2", json!({})).await;
    let message = world.store("e1", 1, &pod, Status::Completed).await;
    world.cleaner.process(&message).await.unwrap();
    world.assert_names(["executor-e1", "executor-e2", "script-e2"]).await;
    let held = world.pods().get("executor-e1").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    let intent: Value = serde_json::from_str(&held.annotations()[INTENT_ANNOTATION]).unwrap();
    assert_eq!(intent, json!({"reason": "its result is stored", "by": "resource-cleaner", "purpose": "cleanup"}));
    // All of it may come again (T98).
    world.cleaner.process(&message).await.unwrap();
    world.cleaner.sweep().await.unwrap();
    world.assert_names(["executor-e1", "executor-e2", "script-e2"]).await;
}

#[tokio::test]
async fn an_intent_that_somebody_else_has_said_stays() {
    let world = World::new(|_| {}).await;
    let said = json!({"finalizers": ["tests.example/hold"], "annotations": {INTENT_ANNOTATION: "a user's"}});
    let pod = world.pod("executor-e1", "e1", said).await;
    let message = world.store("e1", 1, &pod, Status::Cancelled).await;
    world.cleaner.process(&message).await.unwrap();
    let held = world.pods().get("executor-e1").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    assert_eq!(held.annotations()[INTENT_ANNOTATION], "a user's");
}

#[tokio::test]
async fn what_is_not_stored_stays_whatever_an_event_says_and_however_old_it_is() {
    let world = World::new(|_| {}).await;
    let pod = world.pod("executor-e1", "e1", json!({})).await;
    world.script("script-e1", "e1", json!({})).await;
    // The store of another life: of the same execution there is a result, but this pod's attempt did not end by it.
    let other = v1::Pod {
        metadata: kube::core::ObjectMeta { uid: Some("gone".to_owned()), ..pod.metadata.clone() },
        ..pod.clone()
    };
    let message = world.store("e1", 1, &other, Status::Completed).await;
    world.cleaner.process(&message).await.unwrap();
    world.pass(1_000_000);
    world.cleaner.sweep().await.unwrap();
    world.assert_names(["executor-e1", "script-e1"]).await;
}

#[tokio::test]
async fn each_attempt_goes_by_its_own_result_and_the_script_with_the_last() {
    let world = World::new(|_| {}).await;
    let first = world.pod("executor-e1", "e1", json!({})).await;
    let second = world.pod("executor-e1-a2", "e1", json!({})).await;
    world.script("script-e1", "e1", json!({})).await;
    let message = world.store("e1", 1, &first, Status::Completed).await;
    world.cleaner.process(&message).await.unwrap();
    world.assert_names(["executor-e1-a2", "script-e1"]).await;
    world.store("e1", 2, &second, Status::Completed).await;
    // The event is lost: the sweep finds it all the same. An earlier attempt's pod is there, too.
    let again =
        world.pod("executor-e1-late", "e1", json!({"annotations": {"podherald.dev/attempt": first.uid().unwrap()}}));
    again.await;
    world.cleaner.sweep().await.unwrap();
    world.assert_names([]).await;
}

#[tokio::test]
async fn strangers_are_never_touched() {
    let world = World::new(|options| {
        options.policy.unstored_age = Some(Duration::from_secs(1));
        options.policy.orphan_age = Duration::from_secs(1);
    })
    .await;
    let no_label = |key: &str| json!({"labels": {key: null}});
    let of_a_job = json!({"ownerReferences": [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j1", "controller": true}]});
    let of_an_app =
        json!({"ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "d1"}]});
    for (name, metadata) in [
        ("another-app", json!({"labels": {"app": "shop"}})),
        ("no-app", no_label("app")),
        ("no-component", no_label("component")),
        ("another-component", json!({"labels": {"component": "web"}})),
        ("no-execution", no_label("execution-id")),
        ("of-a-job", of_a_job.clone()),
    ] {
        let pod = world.pod(name, "e1", metadata).await;
        let message = world.store("e1", 1, &pod, Status::Completed).await;
        world.cleaner.process(&message).await.unwrap();
    }
    for (name, metadata) in [
        ("settings-e9", json!({})),
        ("script-another-app", json!({"labels": {"app": "shop"}})),
        ("script-no-component", no_label("component")),
        ("script-no-execution", no_label("execution-id")),
        ("script-of-an-app", of_an_app),
    ] {
        world.script(name, "e9", metadata).await;
    }
    let before = world.names().await;
    assert_eq!(before.len(), 11);
    world.pass(100_000);
    world.cleaner.sweep().await.unwrap();
    assert_eq!(world.names().await, before);
    for pod in world.pods().list(&ListParams::default()).await.unwrap() {
        assert_eq!(pod.annotations().len(), 0, "{}", pod.name_any());
    }
    // Beside them is one of ours, which shows that somebody was at work.
    world.script("script-e9", "e9", json!({})).await;
    world.pass(1);
    world.cleaner.sweep().await.unwrap();
    assert_eq!(world.names().await, before);
}

#[tokio::test]
async fn another_pod_of_the_name_is_left_alone() {
    // T92, T16: between the look and the deletion the pod was made anew.
    let world = World::new(|_| {}).await;
    world.pod("executor-e1", "e1", json!({})).await;
    world.script("script-e1", "e1", json!({})).await;
    let pods = world.cleaner.cluster.of_execution(Kind::Pod, "e1").await.unwrap();
    let scripts = world.cleaner.cluster.of_execution(Kind::Script, "e1").await.unwrap();
    for object in pods.iter().chain(&scripts) {
        match object.kind {
            Kind::Pod => drop(world.pods().delete(&object.name, &DeleteParams::default()).await.unwrap()),
            Kind::Script => drop(world.scripts().delete(&object.name, &DeleteParams::default()).await.unwrap()),
        }
        assert_eq!(world.cleaner.cluster.remove(object, Cause::Stored).await.unwrap(), Gone::Before, "T98");
    }
    world.pod("executor-e1", "e1", json!({})).await;
    world.script("script-e1", "e1", json!({})).await;
    let annotated = Object {
        annotations: [(INTENT_ANNOTATION.to_owned(), String::new())].into_iter().collect(),
        ..pods[0].clone()
    };
    for object in pods.iter().chain(&scripts).chain([&annotated]) {
        assert_eq!(world.cleaner.cluster.remove(object, Cause::Stored).await.unwrap(), Gone::Another);
    }
    world.assert_names(["executor-e1", "script-e1"]).await;
    assert_eq!(world.pods().get("executor-e1").await.unwrap().annotations().len(), 0);
}

#[tokio::test]
async fn a_sweep_takes_what_was_too_early_and_what_never_came_to_anything() {
    let world = World::new(|options| options.policy.min_age = Duration::from_mins(5)).await;
    let done = world.pod("executor-done", "done", json!({})).await;
    let failed = world.pod("executor-failed", "failed", json!({})).await;
    world.script("script-failed", "failed", json!({})).await;
    // T96: its pod never came. The other's went before podherald could tidy up.
    world.script("script-lone", "lone", json!({})).await;
    world.script("script-done", "done", json!({})).await;
    for (id, pod, status) in [("done", &done, Status::Completed), ("failed", &failed, Status::Failed)] {
        let message = world.store(id, 1, pod, status).await;
        world.cleaner.process(&message).await.unwrap();
    }
    world.assert_names(["executor-done", "executor-failed", "script-done", "script-failed", "script-lone"]).await;
    for (minutes, expected) in [
        (4, vec!["executor-done", "executor-failed", "script-done", "script-failed", "script-lone"]),
        (5, vec!["executor-failed", "script-failed", "script-lone"]),
        (59, vec!["executor-failed", "script-failed", "script-lone"]),
        (60, vec!["script-lone"]),
        (119, vec!["script-lone"]),
        (120, vec![]),
    ] {
        world.pass(minutes - (world.clock.now() - fixture::at(0)).get_seconds() / 60);
        world.cleaner.sweep().await.unwrap();
        assert_eq!(world.names().await, expected.into_iter().map(str::to_owned).collect(), "at {minutes}");
    }
}

#[tokio::test]
async fn a_preview_says_what_would_go_page_by_page_and_a_dry_run_leaves_it() {
    let world = World::new(|options| options.dry_run = true).await;
    for id in ["a", "b", "c"] {
        let pod = world.pod(&format!("executor-{id}"), id, json!({})).await;
        world.script(&format!("script-{id}"), id, json!({})).await;
        if id != "b" {
            let message = world.store(id, 1, &pod, if id == "a" { Status::Completed } else { Status::Timeout }).await;
            world.cleaner.process(&message).await.unwrap();
        }
    }
    world.script("script-d", "d", json!({})).await;
    world.pass(30);
    world.cleaner.sweep().await.unwrap();
    assert_eq!(world.names().await.len(), 7);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (items, next) = world.cleaner.preview(after, 2).await.unwrap();
        assert!(items.len() <= 2);
        found.extend(items.into_iter().map(|item| (item.object.name, item.verdict)));
        after = next;
        if after.is_none() {
            break;
        }
    }
    let keep = |reason, due: Option<i64>| Verdict::Keep(reason, due.map(fixture::at));
    let expected = [
        ("executor-a", Verdict::Delete(Cause::Stored)),
        ("executor-b", keep(Reason::ResultNotStored, None)),
        ("executor-c", keep(Reason::Failed, Some(3600))),
        ("script-a", keep(Reason::InUse, None)),
        ("script-b", keep(Reason::InUse, None)),
        ("script-c", keep(Reason::InUse, None)),
        ("script-d", keep(Reason::PodMayCome, Some(7200))),
    ];
    assert_eq!(found, expected.map(|(name, verdict)| (name.to_owned(), verdict)));
    let nowhere = Position { kind: Kind::Pod, scope: 1, token: None };
    assert_eq!(world.cleaner.preview(Some(nowhere), 2).await, Err(Fault::Expired.into()));
}

#[tokio::test]
async fn what_the_api_server_does_not_do_waits_or_names_the_right_that_is_missing() {
    for (code, expected) in [(403, "deploy/cleaner.yaml"), (503, "the API server could not list pods")] {
        let clock = Arc::new(Hands(Mutex::new(fixture::at(0))));
        let status = json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "X", "code": code});
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let body = kube::client::Body::from(status.to_string().into_bytes());
            std::future::ready(http::Response::builder().status(code).body(body))
        });
        let world = World::over(Client::new(service, "default"), clock, |_| {}).await;
        let error = world.cleaner.sweep().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let pod = v1::Pod {
            metadata: kube::core::ObjectMeta { uid: Some("u".to_owned()), ..Default::default() },
            ..Default::default()
        };
        let message = world.store("e1", 1, &pod, Status::Completed).await;
        let processed = world.cleaner.process(&message).await;
        assert_eq!(processed.is_err(), code == 503, "{processed:?}");
    }
}

#[tokio::test]
async fn an_id_that_is_no_label_gets_into_no_selector() {
    let world = World::new(|_| {}).await;
    let pod = world.pod("executor-e1", "e1", json!({})).await;
    for id in ["e1,app=shop", "e1)", "", "-e1", &"e".repeat(64)] {
        if !id.is_empty() {
            let message = world.store(id, 1, &pod, Status::Completed).await;
            world.cleaner.process(&message).await.unwrap();
        }
        assert!(!plan::is_label(id), "{id}");
    }
    world.assert_names(["executor-e1"]).await;
}
