//! A node that runs containers as local process groups.
//!
//! It plays the scheduler and the kubelet for pods without a node: binds them, makes their volumes, runs their containers'
//! commands, writes their statuses, keeps their logs, and takes them away when they are deleted. There are no images and
//! there is no isolation: a container is a [`shim`] and the processes below it, as this process's user, in a directory of
//! its own. Nothing of it outlives this process, however that ends.

mod container;
mod counters;
mod disk;
mod environment;
mod events;
mod log;
mod pod;
pub mod shim;
mod status;

use std::{
    collections::HashMap,
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use self::counters::Counters;
pub(crate) use self::status::set_condition;
use self::{container::Launcher, log::Log};
use crate::{
    cluster::{Change, Cluster, Kind},
    logs::{LogRequest, LogStream, Logs, NoLog},
};

/// How a node is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// `metadata.name` of the node.
    pub name: String,
    /// Where volumes and logs are; made anew by each node.
    pub directory: PathBuf,
    /// The program that calls [`shim::main`] with what follows its arguments here.
    pub shim: PathBuf,
    /// Its arguments: one, the name of its subcommand.
    pub shim_arguments: Vec<String>,
    /// Pods that run at once; more wait.
    pub max_pods: usize,
    /// Processes of one container; one that has more is killed.
    pub max_processes: usize,
    /// A log that is longer is begun anew.
    pub max_log_bytes: u64,
}

impl Options {
    /// The usual ones.
    pub fn new(directory: PathBuf, shim: impl Into<PathBuf>, shim_argument: impl Into<String>) -> Self {
        Self {
            name: "embedded".to_owned(),
            directory,
            shim: shim.into(),
            shim_arguments: vec![shim_argument.into()],
            max_pods: 64,
            max_processes: 256,
            max_log_bytes: 64 << 20,
        }
    }
}

/// Why a node cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its directory cannot be made or cleared.
    #[error("the node's directory {path} cannot be made anew")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A node, ready to run.
pub struct Node {
    name: String,
    shared: Arc<Shared>,
}

/// The cluster's.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What all pods of a node share.
struct Shared {
    cluster: Cluster,
    clock: Clock,
    directory: PathBuf,
    launcher: Launcher,
    places: Arc<Semaphore>,
    logs: Arc<Kept>,
    max_log_bytes: u64,
    counters: Counters,
}

impl Node {
    /// A node of this cluster, whose log endpoint it answers from now on.
    ///
    /// # Errors
    /// [`Error::Directory`].
    pub fn new(cluster: Cluster, options: Options) -> Result<Self, Error> {
        let failed = |source| Error::Directory { path: options.directory.display().to_string(), source };
        match fs::remove_dir_all(&options.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fs::create_dir_all(&options.directory).map_err(failed)?;
        // Programs start in directories of their own, so theirs must be a whole path.
        let directory = fs::canonicalize(&options.directory).map_err(failed)?;
        let logs = Arc::new(Kept::default());
        cluster.set_logs(logs.clone());
        let clock = {
            let cluster = cluster.clone();
            Arc::new(move || cluster.now())
        };
        let launcher =
            Launcher { program: options.shim, arguments: options.shim_arguments, max_processes: options.max_processes };
        let shared = Shared {
            cluster,
            clock,
            directory,
            launcher,
            places: Arc::new(Semaphore::new(options.max_pods)),
            logs,
            max_log_bytes: options.max_log_bytes,
            counters: Counters::default(),
        };
        Ok(Self { name: options.name, shared: Arc::new(shared) })
    }

    /// The logs of its containers.
    pub fn logs(&self) -> Arc<dyn Logs> {
        self.shared.logs.clone()
    }

    /// What it drops or leaves.
    pub fn counters(&self) -> Counters {
        self.shared.counters.clone()
    }

    /// Runs pods until cancelled, then kills what runs and waits for its end.
    pub async fn run(self, stop: CancellationToken) {
        self.register();
        let mut pods = self.shared.cluster.follow(Kind::Pod);
        let mut workers = JoinSet::new();
        let mut latest: HashMap<String, watch::Sender<Option<Arc<Value>>>> = HashMap::new();
        loop {
            let change = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = workers.join_next() => continue,
                change = pods.next() => change,
            };
            match change {
                None => break,
                Some(Change::Deleted(pod)) => {
                    if let Some(worker) = latest.remove(uid_of(&pod)) {
                        worker.send_replace(None);
                    }
                }
                Some(Change::Added(pod) | Change::Modified(pod)) => {
                    if pod["spec"]["nodeName"].is_null() {
                        self.schedule(&pod);
                    } else if let Some(worker) = latest.get(uid_of(&pod)) {
                        worker.send_replace(Some(pod));
                    } else if pod["spec"]["nodeName"] == *self.name && !is_over(&pod) {
                        let (sender, receiver) = watch::channel(Some(pod.clone()));
                        latest.insert(uid_of(&pod).to_owned(), sender);
                        workers.spawn(pod::Worker::new(self.shared.clone(), pod).run(receiver, stop.clone()));
                    }
                }
            }
        }
        while workers.join_next().await.is_some() {}
    }

    fn register(&self) {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
            "spec": {},
            "status": {
                "conditions": [{"type": "Ready", "status": "True", "reason": "EmbeddedNodeReady"}],
                "addresses": [{"type": "InternalIP", "address": status::ADDRESS}, {"type": "Hostname", "address": self.name}],
                "nodeInfo": {"kubeletVersion": concat!("embedded-", env!("CARGO_PKG_VERSION")), "operatingSystem": "linux"},
            },
        });
        if let Err(error) = self.shared.cluster.create(Kind::Node, "", node) {
            tracing::warn!(%error, "the node could not be registered");
        }
    }

    /// As the scheduler does: binds the pod, or says why not.
    fn schedule(&self, pod: &Value) {
        let metadata = &pod["metadata"];
        let (namespace, name) =
            (metadata["namespace"].as_str().unwrap_or_default(), metadata["name"].as_str().unwrap_or_default());
        let is_gated = pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty());
        let selector = pod["spec"]["nodeSelector"].as_object();
        let fits = selector.is_none_or(|labels| {
            labels.iter().all(|(key, value)| key == "kubernetes.io/hostname" && *value == *self.name)
        });
        let refusal = match (is_gated, fits) {
            (true, _) => Some(("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")),
            (_, false) => {
                Some(("Unschedulable", "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."))
            }
            _ => None,
        };
        let now = self.shared.cluster.now();
        let change = |pod: &mut Value| {
            status::set_condition(&mut pod["status"], "PodScheduled", refusal.is_none(), refusal, now);
            if refusal.is_none() {
                pod["spec"]["nodeName"] = json!(self.name);
            }
        };
        // A pod that went meanwhile needs no node.
        let _ = self.shared.cluster.update(Kind::Pod, namespace, name, Some(uid_of(pod)), change);
    }
}

fn uid_of(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap_or_default()
}

fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// The logs of all containers here: of each the run now and the one before.
#[derive(Default)]
struct Kept(Mutex<HashMap<(String, String), Vec<Log>>>);

impl Kept {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<(String, String), Vec<Log>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, uid: &str, container: &str, log: Log) {
        self.with(|logs| {
            let runs = logs.entry((uid.to_owned(), container.to_owned())).or_default();
            runs.push(log);
            if runs.len() > 2 {
                runs.remove(0);
            }
        });
    }

    fn forget(&self, uid: &str) {
        self.with(|logs| logs.retain(|(of, _), _| of != uid));
    }
}

impl Logs for Kept {
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, NoLog>> {
        let key = (request.uid.clone(), request.container.clone());
        let runs = self.with(|logs| logs.get(&key).cloned().unwrap_or_default());
        let log = if request.previous { runs.iter().rev().nth(1) } else { runs.last() };
        let Some(log) = log.cloned() else {
            let LogRequest { container, pod, .. } = &request;
            let message = if request.previous {
                format!("previous terminated container {container:?} in pod {pod:?} not found")
            } else {
                format!("container {container:?} in pod {pod:?} is waiting to start: ContainerCreating")
            };
            return futures::future::ready(Err(NoLog { status: StatusCode::BAD_REQUEST, message })).boxed();
        };
        async move {
            log.open(&request).await.map_err(|error| NoLog {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                message: format!("failed to open the log: {error}"),
            })
        }
        .boxed()
    }
}
