//! A cluster with a node, and what to look at.

use std::{fs, future::Future, path::Path, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use kube_sim::{
    api::Api,
    cluster::{Change, Cluster, Kind, Options},
    logs::{LogRequest, LogStream, Logs, NoLog},
    node::{self, Counters, Node},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The program that these tests start besides.
pub(crate) const PROCESS: &str = env!("CARGO_BIN_EXE_kube-sim-test-process");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) directory: TempDir,
    pub(crate) stop: CancellationToken,
    pub(crate) counters: Counters,
    logs: Arc<dyn Logs>,
    tasks: JoinSet<()>,
}

/// All versions of a pod, from now on.
pub(crate) struct Story {
    name: String,
    changes: BoxStream<'static, Change>,
    pub(crate) versions: Vec<Arc<Value>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    #[expect(clippy::disallowed_methods, reason = "processes run in real time")]
    pub(crate) fn with(change: impl FnOnce(&mut node::Options)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cluster = Cluster::new(Options { clock: Arc::new(jiff::Timestamp::now), seed: None });
        let mut options = node::Options::new(directory.path().join("node"), PROCESS, "shim");
        change(&mut options);
        let node = Node::new(cluster.clone(), options).unwrap();
        let (logs, counters, stop) = (node.logs(), node.counters(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(node.run(stop.clone()));
        Self { cluster, directory, stop, counters, logs, tasks }
    }

    pub(crate) fn create(&self, pod: Value) -> Story {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.cluster.create(Kind::Pod, "default", pod).unwrap();
        Story { name, changes: self.cluster.follow(Kind::Pod), versions: Vec::new() }
    }

    pub(crate) fn create_config_map(&self, name: &str, data: &Value) {
        let map = json!({"metadata": {"name": name}, "data": data});
        self.cluster.create(Kind::ConfigMap, "default", map).unwrap();
    }

    /// Runs a pod to its end.
    pub(crate) async fn run(&self, pod: Value) -> Story {
        let mut story = self.create(pod);
        story.until_over().await;
        story
    }

    pub(crate) async fn delete(&self, name: &str, grace_seconds: u32) {
        let client = kube::Client::new(Api::new(self.cluster.clone()), "default");
        let pods: kube::Api<Pod> = kube::Api::default_namespaced(client);
        in_time(pods.delete(name, &DeleteParams::default().grace_period(grace_seconds))).await.unwrap();
    }

    /// Takes it away at once.
    pub(crate) fn delete_by_force(&self, name: &str) {
        let pod = self.cluster.get(Kind::Pod, "default", name).unwrap();
        self.cluster.remove(Kind::Pod, "default", name, pod["metadata"]["uid"].as_str().unwrap()).unwrap();
    }

    /// Reasons and messages of all events.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let events = self.cluster.list(Kind::Event, "default").into_iter();
        events.map(|event| (text(&event["reason"]), text(&event["message"]))).collect()
    }

    pub(crate) fn request(&self, name: &str) -> LogRequest {
        let pod = self.cluster.get(Kind::Pod, "default", name).unwrap();
        LogRequest {
            namespace: "default".into(),
            pod: name.into(),
            uid: pod["metadata"]["uid"].as_str().unwrap().into(),
            container: "main".into(),
            previous: false,
            follow: false,
            timestamps: false,
            since: None,
            tail_lines: None,
            limit_bytes: None,
        }
    }

    pub(crate) async fn open(&self, request: LogRequest) -> Result<LogStream, NoLog> {
        self.logs.open(request).await
    }

    pub(crate) async fn log(&self, name: &str) -> Vec<u8> {
        let log = self.open(self.request(name)).await.unwrap();
        in_time(log.map(Result::unwrap).collect::<Vec<_>>()).await.concat()
    }

    pub(crate) async fn log_text(&self, name: &str) -> String {
        String::from_utf8(self.log(name).await).unwrap()
    }

    /// Ends the node, and waits for that.
    pub(crate) async fn shut_down(mut self) {
        self.stop.cancel();
        in_time(self.tasks.join_next()).await.unwrap().unwrap();
    }
}

impl Story {
    /// The first version that is so; panics with the last one if none is in time.
    pub(crate) async fn until(&mut self, is_so: impl Fn(&Value) -> bool) -> Arc<Value> {
        let found = async {
            loop {
                match self.changes.next().await.expect("a cluster's changes never end") {
                    Change::Added(pod) | Change::Modified(pod) if pod["metadata"]["name"] == *self.name => {
                        self.versions.push(pod.clone());
                        if is_so(&pod) {
                            return pod;
                        }
                    }
                    _ => {}
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await.ok();
        found.unwrap_or_else(|| panic!("never came: {:#?}", self.versions.last()))
    }

    pub(crate) async fn until_over(&mut self) -> Arc<Value> {
        self.until(|pod| matches!(phase(pod), "Succeeded" | "Failed")).await
    }

    pub(crate) async fn until_running(&mut self) -> Arc<Value> {
        self.until(|pod| !pod["status"]["containerStatuses"][0]["state"]["running"].is_null()).await
    }

    /// Until the API has nothing of it any more; gives its last state.
    pub(crate) async fn until_gone(&mut self) -> Arc<Value> {
        let gone = async {
            loop {
                match self.changes.next().await.expect("a cluster's changes never end") {
                    Change::Deleted(pod) if pod["metadata"]["name"] == *self.name => return pod,
                    Change::Added(pod) | Change::Modified(pod) if pod["metadata"]["name"] == *self.name => {
                        self.versions.push(pod);
                    }
                    _ => {}
                }
            }
        };
        in_time(gone).await
    }

    pub(crate) fn last(&self) -> &Value {
        self.versions.last().unwrap()
    }
}

/// A pod with the container `main`, a shell with this script, that is not restarted.
pub(crate) fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 30,
            "containers": [container("main", script)],
        },
    })
}

/// A volume for the pod, and where all its containers have it.
pub(crate) fn mount(pod: &mut Value, volume: &Value, path: &str) {
    let mount = json!({"name": volume["name"], "mountPath": path});
    push(&mut pod["spec"]["volumes"], volume.clone());
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            push(&mut container["volumeMounts"], mount.clone());
        }
    }
}

fn push(list: &mut Value, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().push(item);
}

pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "none", "command": ["sh", "-c", script]})
}

pub(crate) fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

/// How the container at this place of the status ended.
pub(crate) fn terminated(pod: &Value, index: usize) -> &Value {
    &pod["status"]["containerStatuses"][index]["state"]["terminated"]
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    let mut waited = pin!(tokio::time::sleep(PATIENCE));
    while !is_so() {
        tokio::select! {
            () = &mut waited => panic!("it never came to be"),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Waits until a program has written so many process ids, one a line, to a file.
pub(crate) async fn pids(path: &Path, count: usize) -> Vec<u32> {
    let read = || -> Vec<u32> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')?.parse().ok()).collect()
    };
    until(|| read().len() >= count).await;
    read()
}

pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
