//! Pods that are played: what their node and others do to them, at which time, without a process anywhere.
//!
//! A [`Life`] is drawn from dice, then played on a cluster by [`play`]. What really happened is a [`Truth`], told apart from
//! what the API showed of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::StatusCode;
use jiff::Timestamp;
use rand::{Rng, RngExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    cluster::{Cluster, Kind},
    logs::{LogRequest, LogStream, Logs, NoLog},
};

const NODE: &str = "played-0";
/// Name of the container in every played pod.
pub const CONTAINER: &str = "executor";

/// What happens to a pod, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// It gets a node.
    Schedule,
    /// An init container ends with this code; the pod fails unless it is 0.
    Init(i32),
    /// The main container starts.
    Start,
    /// The main container ends; `OOMKilled` if so.
    Exit {
        /// Its exit code.
        code: i32,
        /// The kernel killed it.
        oom: bool,
    },
    /// The main container ends with this code and is started anew.
    Restart(i32),
    /// The pod is Failed with `DeadlineExceeded`; its container may still run (T24).
    Deadline,
    /// The pod is Failed with `Evicted`, and its container with it (T35).
    Evict,
    /// Its node is heard of no more (T33).
    LoseNode,
    /// Somebody deletes it; it stays until [`Deed::Remove`].
    Delete,
    /// It is gone from the API, whatever its state was.
    Remove,
}

/// A pod's deeds, each after a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// `restartPolicy`.
    pub restart_policy: &'static str,
    /// `activeDeadlineSeconds`.
    pub deadline_seconds: Option<u32>,
    /// In their order.
    pub deeds: Vec<(Duration, Deed)>,
    /// What the main container prints.
    pub output: Bytes,
}

/// What really became of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// The main container started.
    pub started: bool,
    /// The last end of the main container.
    pub exit: Option<i32>,
    /// The kernel ended it.
    pub oom: bool,
    /// The node ended the pod for this reason.
    pub reason: Option<&'static str>,
    /// An init container failed with this code.
    pub init_failed: Option<i32>,
    /// Somebody asked for its deletion.
    pub deleted: bool,
    /// The API has nothing of it any more.
    pub removed: bool,
}

/// What became of all played pods, by uid, and what they printed.
#[derive(Clone, Default)]
pub struct Chronicle(Arc<Mutex<BTreeMap<String, (Truth, Bytes)>>>);

impl Chronicle {
    /// The truth about a pod.
    pub fn truth(&self, uid: &str) -> Option<Truth> {
        self.with(|pods| pods.get(uid).map(|(truth, _)| truth.clone()))
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, (Truth, Bytes)>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The whole log at once, for as long as the pod is there.
impl Logs for Chronicle {
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, NoLog>> {
        let found = self.with(|pods| pods.get(&request.uid).cloned());
        let answer = match found {
            Some((truth, output)) if truth.started => Ok(stream::iter([Ok(output)]).boxed()),
            Some(_) => Err(NoLog {
                status: StatusCode::BAD_REQUEST,
                message: format!(
                    "container \"{}\" in pod \"{}\" is waiting to start: ContainerCreating",
                    request.container, request.pod
                ),
            }),
            None => {
                Err(NoLog { status: StatusCode::NOT_FOUND, message: format!("pods \"{}\" not found", request.pod) })
            }
        };
        futures::future::ready(answer).boxed()
    }
}

impl Life {
    /// One of those that pods have in the field.
    pub fn drawn(dice: &mut impl Rng) -> Self {
        let mut plot = Plot { dice, deeds: Vec::new() };
        let code = plot.one_of([0, 0, 0, 1, 3, 137, 143, 255]);
        let end = Deed::Exit { code, oom: false };
        let (mut restart_policy, mut deadline_seconds) = ("Never", None);
        plot.then(5, Deed::Schedule);
        match plot.dice.random_range(0..12) {
            // It never starts.
            0 => plot.then(60, Deed::Delete),
            1 => {
                let code = plot.one_of([1, 2, 137]);
                plot.then(10, Deed::Init(code));
            }
            2 => {
                plot.then(10, Deed::Start);
                plot.then(60, Deed::Exit { code: 137, oom: true });
            }
            3 => {
                let seconds = plot.dice.random_range(1..60);
                deadline_seconds = Some(seconds);
                plot.deeds.push((Duration::ZERO, Deed::Start));
                plot.deeds.push((Duration::from_secs(seconds.into()), Deed::Deadline));
                let code = plot.one_of([137, 143]);
                plot.then(8, Deed::Exit { code, oom: false });
            }
            4 => {
                plot.then(10, Deed::Start);
                plot.then(60, Deed::Evict);
            }
            // Deleted while it runs, and given the time to end.
            5 => {
                plot.then(10, Deed::Start);
                plot.then(60, Deed::Delete);
                plot.then(30, end);
            }
            // Forced.
            6 => {
                plot.then(10, Deed::Start);
                plot.then(60, Deed::Remove);
            }
            7 => {
                plot.then(10, Deed::Start);
                plot.then(60, Deed::LoseNode);
                plot.then(300, Deed::Delete);
            }
            8 => {
                restart_policy = "OnFailure";
                plot.then(10, Deed::Start);
                for _ in 0..plot.dice.random_range(1..4) {
                    plot.then(30, Deed::Restart(1));
                }
                plot.then(30, Deed::Exit { code: 0, oom: false });
            }
            _ => {
                plot.then(10, Deed::Start);
                plot.then(120, end);
            }
        }
        // Most stay where they ended, as long as somebody looks.
        if plot.dice.random_bool(0.4) || plot.deeds.iter().any(|(_, deed)| *deed == Deed::Delete) {
            plot.then(200, Deed::Remove);
        }
        let output = output(plot.dice);
        Self { restart_policy, deadline_seconds, deeds: plot.deeds, output }
    }

    /// The pod as somebody creates it.
    pub fn pod(&self, name: &str, execution_id: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"execution-id": execution_id}},
            "spec": {
                "restartPolicy": self.restart_policy,
                "activeDeadlineSeconds": self.deadline_seconds,
                "containers": [{"name": CONTAINER, "image": "played"}],
            },
        })
    }
}

struct Plot<'a, R> {
    dice: &'a mut R,
    deeds: Vec<(Duration, Deed)>,
}

impl<R: Rng> Plot<'_, R> {
    fn then(&mut self, most_seconds: u64, deed: Deed) {
        // Often two things happen in one moment.
        let pause = if self.dice.random_bool(0.3) { 0 } else { self.dice.random_range(0..=most_seconds * 1000) };
        self.deeds.push((Duration::from_millis(pause), deed));
    }

    fn one_of<const N: usize>(&mut self, codes: [i32; N]) -> i32 {
        codes[self.dice.random_range(0..N)]
    }
}

fn output(dice: &mut impl Rng) -> Bytes {
    let lines = [0, 1, 3, 200][dice.random_range(0..4)];
    (0..lines).map(|line| format!("line {line} of what it prints\n")).collect::<String>().into()
}

/// Plays a life on a pod that is there, to its end or until the pod is gone.
pub async fn play(cluster: &Cluster, chronicle: &Chronicle, namespace: &str, name: &str, uid: &str, life: &Life) {
    chronicle.with(|pods| pods.insert(uid.to_owned(), (Truth::default(), life.output.clone())));
    for (pause, deed) in &life.deeds {
        sleep(*pause).await;
        let done = match deed {
            Deed::Remove => cluster.remove(Kind::Pod, namespace, name, uid),
            deed => {
                cluster.update(Kind::Pod, namespace, name, Some(uid), |pod| happen(pod, deed, cluster.now())).map(drop)
            }
        };
        if done.is_err() {
            return;
        }
        chronicle.with(|pods| {
            if let Some((truth, _)) = pods.get_mut(uid) {
                truth.learn(deed);
            }
            if *deed == Deed::Remove {
                // Its log went with it; the truth stays.
                if let Some((_, output)) = pods.get_mut(uid) {
                    output.clear();
                }
            }
        });
    }
}

impl Truth {
    fn learn(&mut self, deed: &Deed) {
        match deed {
            Deed::Schedule | Deed::LoseNode | Deed::Restart(_) => {}
            Deed::Init(code) => self.init_failed = Some(*code).filter(|code| *code != 0),
            Deed::Start => self.started = true,
            Deed::Exit { code, oom } => (self.exit, self.oom) = (Some(*code), *oom),
            Deed::Deadline => self.reason = Some("DeadlineExceeded"),
            Deed::Evict => self.reason = Some("Evicted"),
            Deed::Delete => self.deleted = true,
            Deed::Remove => self.removed = true,
        }
    }
}

/// What the API shows of a deed.
fn happen(pod: &mut Value, deed: &Deed, now: Timestamp) {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    match deed {
        Deed::Schedule => {
            pod["spec"]["nodeName"] = json!(NODE);
            set_condition(pod, "PodScheduled", "True", None, &now);
            pod["status"]["startTime"] = json!(now);
        }
        Deed::Init(code) => {
            pod["status"]["initContainerStatuses"] = json!([ended("init", *code, false, &now, &now, 0)]);
            if *code != 0 {
                pod["status"]["phase"] = json!("Failed");
                pod["status"]["containerStatuses"] = json!([{
                    "name": CONTAINER, "image": "played", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "PodInitializing"}},
                }]);
            }
        }
        Deed::Start => {
            pod["status"]["phase"] = json!("Running");
            set_condition(pod, "Ready", "True", None, &now);
            pod["status"]["containerStatuses"] = json!([running(&now, 0)]);
        }
        Deed::Exit { code, oom } => {
            let begun = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
                .as_str()
                .unwrap_or(&now)
                .to_owned();
            let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
            pod["status"]["containerStatuses"] = json!([ended(CONTAINER, *code, *oom, &begun, &now, restarts)]);
            set_condition(pod, "Ready", "False", Some("PodCompleted"), &now);
            if pod["status"]["phase"] != "Failed" {
                pod["status"]["phase"] = json!(if *code == 0 { "Succeeded" } else { "Failed" });
            }
        }
        Deed::Restart(code) => {
            let status = &mut pod["status"]["containerStatuses"][0];
            let begun = status["state"]["running"]["startedAt"].as_str().unwrap_or(&now).to_owned();
            let restarts = status["restartCount"].as_u64().unwrap_or_default();
            let last = ended(CONTAINER, *code, false, &begun, &now, restarts)["state"].clone();
            *status = running(&now, restarts + 1);
            status["lastState"] = last;
        }
        Deed::Deadline => {
            pod["status"]["phase"] = json!("Failed");
            pod["status"]["reason"] = json!("DeadlineExceeded");
            pod["status"]["message"] = json!("Pod was active on the node longer than the specified deadline");
        }
        Deed::Evict => {
            pod["status"]["phase"] = json!("Failed");
            pod["status"]["reason"] = json!("Evicted");
            pod["status"]["message"] = json!("The node was low on resource: memory.");
            pod["status"]["containerStatuses"] = json!([]);
            set_condition(pod, "DisruptionTarget", "True", Some("TerminationByKubelet"), &now);
        }
        Deed::LoseNode => {
            pod["status"]["reason"] = json!("NodeLost");
            set_condition(pod, "Ready", "False", Some("NodeStatusUnknown"), &now);
        }
        Deed::Delete => {
            pod["metadata"]["deletionTimestamp"] = json!(now);
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        }
        Deed::Remove => {}
    }
}

fn set_condition(pod: &mut Value, kind: &str, status: &str, reason: Option<&str>, now: &str) {
    let condition = json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": now});
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let conditions = conditions.as_array_mut().expect("it is one by now");
    conditions.retain(|known| known["type"] != kind);
    conditions.push(condition);
}

fn running(since: &str, restarts: u64) -> Value {
    json!({
        "name": CONTAINER, "image": "played", "imageID": "", "ready": true, "started": true, "restartCount": restarts,
        "containerID": format!("played://{restarts}"), "state": {"running": {"startedAt": since}},
    })
}

fn ended(container: &str, code: i32, oom: bool, begun: &str, now: &str, restarts: u64) -> Value {
    let reason = match code {
        _ if oom => "OOMKilled",
        0 => "Completed",
        _ => "Error",
    };
    let id = format!("played://{restarts}");
    json!({
        "name": container, "image": "played", "imageID": "", "ready": false, "started": false, "restartCount": restarts,
        "containerID": id,
        "state": {"terminated": {"exitCode": code, "reason": reason, "startedAt": begun, "finishedAt": now, "containerID": id}},
    })
}
