//! The resource cleaner on a real API server, under its own role: what it takes, what it leaves, and a kill -9 between any two of
//! its steps.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, Request};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    client::Body,
};
use podherald::{
    clock::SystemClock,
    store::sqlite::Sqlite,
    worker::resource_cleaner::{Options, ResourceCleaner, metrics::Metrics, plan::Policy},
};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Namespace, variable},
    herald::{Herald, LIMIT, POLL, assert_in_order, ends, types},
};

/// A namespace, and what a K8s worker makes in it.
struct Place<'a> {
    cluster: &'a Cluster,
    namespace: &'a Namespace<'a>,
    scripts: Api<ConfigMap>,
}

impl<'a> Place<'a> {
    fn of(cluster: &'a Cluster, namespace: &'a Namespace<'a>) -> Self {
        Self { cluster, namespace, scripts: Api::namespaced(cluster.admin.clone(), &namespace.name) }
    }

    /// podherald with all roles, nothing of which waits for long.
    fn launch(&self, binary: &Path, data: &TempDir, more: &[(&str, &str)]) -> Herald {
        let settings = [
            ("PODHERALD_KUBE__NAMESPACES", &*self.namespace.name),
            ("PODHERALD_ROLES", "api,monitor,result_processor,resource_cleaner"),
            ("PODHERALD_CLEANER__MIN_AGE", "1s"),
            ("PODHERALD_CLEANER__KEEP_FAILED", "0s"),
            ("PODHERALD_CLEANER__ORPHAN_AGE", "3s"),
            ("PODHERALD_CLEANER__INTERVAL", "1s"),
        ];
        let settings: Vec<_> = settings.into_iter().chain(more.iter().copied()).collect();
        Herald::launch(binary, &self.cluster.kubeconfig(), data, &settings)
    }

    /// A pod that KWOK ends with this code, if there is one, and its script, with these labels.
    async fn create_with(&self, id: &str, code: Option<i32>, labels: &Value) {
        let annotations = code.map_or(json!({}), |code| json!({"test/exit-code": code.to_string()}));
        let pod = json!({
            "metadata": {"name": format!("executor-{id}"), "labels": labels, "annotations": annotations},
            "spec": {
                "nodeSelector": {"type": "kwok"},
                "restartPolicy": "Never",
                "containers": [{"name": "executor", "image": "none"}],
            },
        });
        let pod = self.namespace.pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await;
        let pod = pod.unwrap();
        let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.uid()}]);
        self.create_script(&format!("script-{id}"), labels, &owner).await;
    }

    async fn create(&self, id: &str, code: Option<i32>) {
        self.create_with(id, code, &labels(id)).await;
    }

    async fn create_script(&self, name: &str, labels: &Value, owners: &Value) {
        let script =
            json!({"metadata": {"name": name, "labels": labels, "ownerReferences": owners}, "data": {"a": "b"}});
        self.scripts.create(&PostParams::default(), &serde_json::from_value(script).unwrap()).await.unwrap();
    }

    async fn there(&self) -> Vec<String> {
        let all = ListParams::default();
        let pods = self.namespace.pods.list(&all).await.unwrap().into_iter().map(|pod| pod.name_any());
        let scripts = self.scripts.list(&all).await.unwrap().into_iter().map(|script| script.name_any());
        let mut names: Vec<_> = pods.chain(scripts).filter(|name| name != "kube-root-ca.crt").collect();
        names.sort();
        names
    }

    async fn until_there(&self, expected: &[String], herald: &Herald) {
        let deadline = Instant::now() + LIMIT;
        while self.there().await != expected {
            let there = self.there().await;
            assert!(Instant::now() < deadline, "{there:?} are there and not {expected:?}:\n{}", herald.log());
            sleep(POLL).await;
        }
    }
}

fn labels(id: &str) -> Value {
    json!({"app": "podherald", "component": "executor", "execution-id": id})
}

async fn until_deleted(herald: &Herald, id: &str) -> Vec<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let events = herald.events(id).await;
        if types(&events).contains(&"pod_deleted") {
            return events;
        }
        assert!(Instant::now() < deadline, "{id}: {events:?}");
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn what_is_stored_goes_and_what_runs_or_is_somebody_elses_stays() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let place = Place::of(&cluster, &namespace);
    let [done, failed, killed, runs, lone, foreign] =
        ["done", "failed", "killed", "runs", "lone", "foreign"].map(|name| namespace.id(name));
    for (id, code) in [(&done, Some(0)), (&failed, Some(3)), (&killed, Some(137)), (&runs, None)] {
        place.create(id, code).await;
    }
    place.create_script(&format!("script-{lone}"), &labels(&lone), &json!([])).await;
    place.create_with(&foreign, Some(0), &json!({"execution-id": foreign, "component": "executor"})).await;
    place.create_script("settings", &labels(&done), &json!([])).await;
    let data = tempdir().unwrap();
    let mut herald = place.launch(Path::new(env!("CARGO_BIN_EXE_podherald")), &data, &[]);
    herald.until_listening().await;
    let mut stays = vec![
        format!("executor-{foreign}"),
        format!("executor-{runs}"),
        format!("script-{foreign}"),
        format!("script-{runs}"),
        "settings".to_owned(),
    ];
    stays.sort();
    place.until_there(&stays, &herald).await;
    for (id, ended, status) in [
        (&done, "execution_completed", "completed"),
        (&failed, "execution_failed", "failed"),
        (&killed, "execution_failed", "failed"),
    ] {
        let events = until_deleted(&herald, id).await;
        assert!(types(&events).contains(&ended), "{events:?}");
        assert_eq!(herald.result(id).await["status"], status);
    }
    let page = herald.get("/cleanup").await;
    assert_eq!(page["items"][0]["reason"], "result_not_stored", "{page}");
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "{page}");
    herald.kill().await;
}

#[tokio::test]
async fn a_kill_between_any_two_steps_leaves_all_of_it_to_the_next() {
    const POINTS: u32 = 8;
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let place = Place::of(&cluster, &namespace);
    let binary = PathBuf::from(variable("PODHERALD_CRASH_BINARY"));
    let data = tempdir().unwrap();
    let mut ids = Vec::new();
    for n in 1..=POINTS {
        for code in [0, 3, 137] {
            let id = namespace.id(&format!("{n}-{code}"));
            place.create(&id, Some(code)).await;
            ids.push(id);
        }
        let mut herald = place.launch(&binary, &data, &[("PODHERALD_CRASH_AT", &format!("clean:{n}"))]);
        let status = tokio::time::timeout(LIMIT, herald.end()).await;
        let status = status.unwrap_or_else(|_| panic!("point {n} was not reached:\n{}", herald.log()));
        assert_eq!(status.signal(), Some(9), "point {n}: {status}\n{}", herald.log());
        assert!(herald.log().contains("dying at a crash point"), "point {n}:\n{}", herald.log());
    }
    let mut herald = place.launch(&binary, &data, &[]);
    herald.until_listening().await;
    place.until_there(&[], &herald).await;
    let mut events = Vec::new();
    for id in &ids {
        let of_it = until_deleted(&herald, id).await;
        let ended: Vec<_> = of_it.iter().filter(|event| ends(event)).collect();
        let expected = if id.ends_with("-0") { "execution_completed" } else { "execution_failed" };
        assert_eq!(ended.iter().map(|event| &event["event_type"]).collect::<Vec<_>>(), [expected], "{id}");
        herald.result(id).await;
        events.extend(of_it);
    }
    assert_in_order(&events, &ids);
}

/// Between the cleaner's look and what it does another pod takes the name (T16, T92).
#[tokio::test]
async fn a_pod_that_took_the_name_meanwhile_is_neither_annotated_nor_deleted() {
    let cluster = Cluster::shared().await;
    for method in [Method::PATCH, Method::DELETE] {
        let namespace = cluster.namespace().await;
        let place = Place::of(&cluster, &namespace);
        let id = namespace.id("twice");
        let pod = json!({
            "metadata": {"name": format!("executor-{id}"), "labels": labels(&id)},
            "spec": {"schedulerName": "nobody", "containers": [{"name": "executor", "image": "none"}]},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let first = namespace.pods.create(&PostParams::default(), &pod).await.unwrap();
        let client = swapping(cluster.as_podherald().await, method.clone(), namespace.pods.clone(), pod);
        let data = tempdir().unwrap();
        let options = Options {
            policy: Policy {
                min_age: Duration::ZERO,
                keep_failed: Duration::ZERO,
                orphan_age: Duration::ZERO,
                unstored_age: Some(Duration::ZERO),
            },
            places: podherald_core::identity::default_places(),
            namespaces: vec![namespace.name.clone()],
            selector: "app=podherald".to_owned(),
            interval: Duration::from_secs(60),
            dry_run: false,
        };
        let store = Arc::new(Sqlite::open(&data.path().join("store.db")).await.unwrap());
        let cleaner = ResourceCleaner::new(client, options, store, Arc::new(SystemClock), Metrics::default());
        cleaner.sweep().await.unwrap();
        let there = namespace.pods.get(&first.name_any()).await.unwrap();
        assert_ne!(there.uid(), first.uid(), "{method}");
        assert!(there.annotations().is_empty() && there.metadata.deletion_timestamp.is_none(), "{method}: {there:?}");
        // Of the one that it knows it is as sure as can be.
        cleaner.sweep().await.unwrap();
        assert!(place.there().await.is_empty(), "{method}: {:?}", place.there().await);
    }
}

/// The same client, but before its first request of this method the pod is made anew.
fn swapping(client: Client, method: Method, pods: Api<Pod>, pod: Pod) -> Client {
    let done = Arc::new(AtomicBool::new(false));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, pods, pod, done) = (client.clone(), pods.clone(), pod.clone(), done.clone());
        let is_now = request.method() == method && !done.swap(request.method() == method, Ordering::Relaxed);
        async move {
            if is_now {
                pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
                pods.create(&PostParams::default(), &pod).await?;
            }
            client.send(request).await
        }
    });
    Client::new(service, "default")
}
