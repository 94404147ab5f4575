//! A real API server whose pods KWOK plays or a real node runs, started by `tests/env/k8s/cluster.sh`.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::herald::LIMIT;

/// One cluster and its administrator's client.
pub(crate) struct Cluster {
    run: PathBuf,
    /// A test's own cluster ends with the test.
    own: bool,
    /// The administrator, at the API server that podherald uses too.
    pub(crate) admin: Client,
}

impl Cluster {
    /// The cluster that all tests use; each in a namespace of its own.
    pub(crate) async fn shared() -> Self {
        let run = PathBuf::from(variable("PODHERALD_REAL_RUN"));
        Self { admin: client(&run.join("admin.kubeconfig")).await, run, own: false }
    }

    /// A cluster of the test's own, to be broken.
    pub(crate) async fn own() -> Self {
        let run = tempfile::Builder::new().prefix("own.").tempdir().unwrap().keep();
        script(&run, &["start"]).await;
        script(&run, &["grant"]).await;
        Self { admin: client(&run.join("admin.kubeconfig")).await, run, own: true }
    }

    /// podherald's own kubeconfig, of the role in `deploy/`.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.run.join("podherald.kubeconfig")
    }

    /// A client with podherald's own role.
    pub(crate) async fn as_podherald(&self) -> Client {
        client(&self.kubeconfig()).await
    }

    /// Runs a command of `cluster.sh`, such as `["stop", "apiserver"]`.
    pub(crate) async fn script(&self, arguments: &[&str]) {
        script(&self.run, arguments).await;
    }

    /// The administrator at a second API server over the same etcd, which this call starts.
    pub(crate) async fn second_api_server(&self) -> Client {
        self.script(&["start", "second"]).await;
        client(&self.run.join("second.kubeconfig")).await
    }

    /// A fresh namespace in which pods can be made.
    pub(crate) async fn namespace(&self) -> Namespace<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.admin.clone());
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        // No pod is admitted without it, and the controller that would make it may not run here, or be faster.
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
        let accounts = Api::namespaced(self.admin.clone(), &name);
        match accounts.create(&PostParams::default(), &account).await {
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {}
            created => drop(created.unwrap()),
        }
        Namespace { cluster: self, pods: Api::namespaced(self.admin.clone(), &name), name }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.own {
            let status = command(&self.run, &["stop"]).status().unwrap();
            assert!(status.success() || std::thread::panicking(), "a test's cluster did not stop");
        }
    }
}

/// The real node of the shared cluster. One test at a time has it: some break it.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    _alone: MutexGuard<'static, ()>,
}

impl Node {
    /// The node with a fresh kubelet, which begins a log anew when it is larger than this.
    pub(crate) async fn start(log_max_size: &str) -> Self {
        static NODE: Mutex<()> = Mutex::const_new(());
        let alone = NODE.lock().await;
        let cluster = Cluster::shared().await;
        cluster.script(&["stop", "kubelet"]).await;
        let mut start = tokio::process::Command::from(command(&cluster.run, &["start", "kubelet"]));
        let status = start.env("KUBELET_LOG_MAX_SIZE", log_max_size).status().await.unwrap();
        assert!(status.success(), "there is no real node");
        Self { cluster, _alone: alone }
    }
}

/// A pod for KWOK to play.
#[derive(Debug, Clone, Default)]
pub(crate) struct Play {
    /// The container's exit code; without one it runs until the pod is deleted.
    pub(crate) exit_code: Option<i32>,
    /// `reason` of the termination, where it is not `Completed` or `Error`.
    pub(crate) reason: Option<&'static str>,
    /// How long it runs, `2s` for instance; at once when empty.
    pub(crate) run_for: &'static str,
    /// What it prints.
    pub(crate) log: Option<&'static str>,
}

impl Play {
    /// Ends with this code.
    pub(crate) fn exits(exit_code: i32) -> Self {
        Self { exit_code: Some(exit_code), ..Self::default() }
    }

    /// Runs until the pod is deleted.
    pub(crate) fn runs() -> Self {
        Self::default()
    }
}

/// A test's namespace.
pub(crate) struct Namespace<'a> {
    cluster: &'a Cluster,
    /// Its name.
    pub(crate) name: String,
    /// Its pods, as the administrator.
    pub(crate) pods: Api<Pod>,
}

impl Namespace<'_> {
    /// Where it is.
    pub(crate) fn cluster(&self) -> &Cluster {
        self.cluster
    }

    /// An id that no other namespace's execution has.
    pub(crate) fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Takes all its pods away.
    pub(crate) async fn clear(&self) {
        self.pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await.unwrap();
    }

    /// Makes pod `executor-<id>` of execution `id`.
    pub(crate) async fn create(&self, id: &str, play: &Play) {
        self.create_named(&format!("executor-{id}"), id, play).await;
    }

    /// Makes a second pod of execution `id`, `executor-<id>-a2`.
    pub(crate) async fn create_again(&self, id: &str, play: &Play) {
        self.create_named(&format!("executor-{id}-a2"), id, play).await;
    }

    async fn create_named(&self, name: &str, id: &str, play: &Play) {
        if let Some(log) = play.log {
            self.prints(name, log).await;
        }
        self.pods.create(&PostParams::default(), &pod(name, id, play)).await.unwrap();
    }

    /// Has KWOK end a running pod with this code.
    pub(crate) async fn end(&self, id: &str, exit_code: i32) {
        let annotation = json!({"metadata": {"annotations": {"test/exit-code": exit_code.to_string()}}});
        let name = format!("executor-{id}");
        self.pods.patch(&name, &PatchParams::default(), &Patch::Merge(annotation)).await.unwrap();
    }

    /// Deletes the pod of execution `id`.
    pub(crate) async fn delete(&self, id: &str) {
        self.pods.delete(&format!("executor-{id}"), &DeleteParams::default()).await.unwrap();
    }

    /// Deletes it without leaving the node a say (T32).
    pub(crate) async fn force_delete(&self, id: &str) {
        self.pods.delete(&format!("executor-{id}"), &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    /// Waits until the API server shows the pod as this says, none meaning that it is gone.
    pub(crate) async fn until(&self, id: &str, shown: impl Fn(Option<&Pod>) -> bool) {
        let name = format!("executor-{id}");
        let waiting = kube::runtime::wait::await_condition(self.pods.clone(), &name, shown);
        let waited = tokio::time::timeout(LIMIT, waiting).await;
        waited.unwrap_or_else(|_| panic!("{id} was not so in time")).unwrap();
    }

    /// What KWOK serves as the pod's log.
    async fn prints(&self, pod: &str, log: &str) {
        // The format of the container runtime's own files.
        let lines: String =
            log.lines().map(|line| format!("2026-01-01T00:00:00.000000000Z stdout F {line}\n")).collect();
        let file = self.cluster.run.join("logs").join(format!("{}-{pod}.log", self.name));
        fs::write(&file, lines).unwrap();
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("kwok.x-k8s.io", "v1alpha1", "Logs"));
        let kind = ApiResource { plural: "logs".into(), ..kind };
        let object = DynamicObject::new(pod, &kind)
            .data(json!({"spec": {"logs": [{"containers": ["executor"], "logsFile": file, "follow": false}]}}));
        let logs: Api<DynamicObject> = Api::namespaced_with(self.cluster.admin.clone(), &self.name, &kind);
        logs.create(&PostParams::default(), &object).await.unwrap();
        let arguments = ["printed", &self.name, pod, file.to_str().unwrap()];
        script(&self.cluster.run, &arguments).await;
    }
}

/// True once the pod runs.
pub(crate) fn runs(pod: Option<&Pod>) -> bool {
    phase(pod) == Some("Running")
}

/// True once the pod has ended.
pub(crate) fn has_ended(pod: Option<&Pod>) -> bool {
    matches!(phase(pod), Some("Succeeded" | "Failed"))
}

/// True once the pod is gone.
pub(crate) fn is_gone(pod: Option<&Pod>) -> bool {
    pod.is_none()
}

fn phase(pod: Option<&Pod>) -> Option<&str> {
    pod?.status.as_ref()?.phase.as_deref()
}

fn pod(name: &str, id: &str, play: &Play) -> Pod {
    let mut annotations = BTreeMap::new();
    if let Some(code) = play.exit_code {
        annotations.insert("test/exit-code", code.to_string());
    }
    if let Some(reason) = play.reason {
        annotations.insert("test/reason", reason.to_owned());
    }
    if !play.run_for.is_empty() {
        annotations.insert("test/run-for", play.run_for.to_owned());
    }
    let pod: Value = json!({
        "metadata": {"name": name, "labels": {"execution-id": id}, "annotations": annotations},
        "spec": {
            "nodeSelector": {"type": "kwok"},
            "restartPolicy": "Never",
            "containers": [{"name": "executor", "image": "none"}],
        },
    });
    serde_json::from_value(pod).unwrap()
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // As in podherald: it would hide a refusal for minutes.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

async fn script(run: &Path, arguments: &[&str]) {
    let mut command = tokio::process::Command::from(command(run, arguments));
    let status = command.status().await.unwrap();
    assert!(status.success(), "cluster.sh {} failed", arguments.join(" "));
}

fn command(run: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(variable("PODHERALD_REAL_CLUSTER"));
    command.args(arguments).env("RUN", run).stdout(Stdio::null());
    command
}

#[expect(clippy::disallowed_methods, reason = "these are no settings of podherald")]
/// Set by tests/real.sh.
pub(crate) fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests by tests/real.sh"))
}
