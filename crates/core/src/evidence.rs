//! What podherald has seen of one pod: the private record from which events are made.
//!
//! Evidence only grows. A later status can be poorer than an earlier one (T65a), frames repeat and arrive late, so
//! [`crate::mapper`] merges and never overwrites. The journal keeps the record; after a restart it is all that is known.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    event::{Cause, Exit, Oom},
    pod::{Container, Phase, RestartPolicy, Termination},
};

/// One pod of one attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// `metadata.uid`: the record's key.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The execution that the pod belongs to.
    pub execution_id: String,
    /// Annotation `podherald.dev/attempt`, else the pod's uid; never a name.
    pub attempt_key: String,
    /// Counted from 1, given at first sight and kept.
    pub attempt: u32,
    /// True if the execution is another namespace's: shown, but without events.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conflict: bool,
    /// All labels at first sight.
    pub labels: BTreeMap<String, String>,
    /// Annotation `integr8s.io/correlation-id`, else label `correlation-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// `metadata.creationTimestamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When this record was made.
    pub first_seen: Timestamp,
    /// When the pod was last seen; refreshed at most once a minute.
    pub last_seen: Timestamp,

    /// The container that decides; chosen once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<Container>,
    /// `spec.restartPolicy`.
    pub restart_policy: RestartPolicy,
    /// `spec.activeDeadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// `status.startTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// `spec.nodeName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// The furthest phase seen.
    pub phase: Phase,
    /// `status.reason` of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `status.message` of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the pod was bound to its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Timestamp>,
    /// First start of the main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// `containerID` of that start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// The main container as last seen.
    pub state: MainState,
    /// `restartCount` of the main container that `state` belongs to.
    pub restart_count: u32,
    /// Latest end of the main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<RunEnd>,
    /// End of the init container that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_failure: Option<InitFailure>,
    /// `DisruptionTarget`, once true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Disruption>,
    /// Why the program is not running yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Somebody asked for the pod's deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
    /// Annotation `podherald.dev/intent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// First seen: the pod ended, or its node was lost, while the main container still ran (T24).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off_at: Option<Timestamp>,
    /// The pod is no longer there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,

    /// The decision, made once; the terminal event follows when the output is collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Id of the terminal event, once it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Uuid>,
    /// The last progress line that became an event: run and offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<(u32, u64)>,
    /// Amendments made so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub amendments: u32,
    /// Which of the non-terminal events were made.
    pub emitted: Emitted,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Evidence {
    /// True once nothing more will come of this pod: its attempt ended (or never counted) and it is gone.
    pub fn is_closed(&self) -> bool {
        self.gone.is_some() && (self.conflict || (self.terminal.is_some() && self.emitted.pod_deleted))
    }

    /// True while the decision waits for the output.
    pub fn is_collecting(&self) -> bool {
        self.ending.is_some() && self.terminal.is_none()
    }

    /// Name of the main container while it runs.
    pub fn running_container(&self) -> Option<&str> {
        let runs = self.state == MainState::Running && self.ending.is_none() && self.gone.is_none() && !self.conflict;
        self.main.as_ref().filter(|_| runs).map(|main| main.name.as_str())
    }

    /// Where the monitor stands with this pod, in the words of `/pods`.
    pub fn monitor_state(&self) -> MonitorState {
        match () {
            () if self.conflict => MonitorState::Conflict,
            () if self.terminal.is_some() => MonitorState::Ended,
            () if self.ending.is_some() => MonitorState::Collecting,
            () => MonitorState::Tracked,
        }
    }
}

/// `state` of `/pods`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MonitorState {
    /// Under way.
    Tracked,
    /// Ended; its output is being read.
    Collecting,
    /// Its terminal event is in the journal.
    Ended,
    /// It claims an execution of another namespace.
    Conflict,
    /// It should be held by our finalizer and cannot be.
    Unheld,
}

/// The main container as last seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MainState {
    /// No status of it yet.
    #[default]
    Unknown,
    /// Waiting to start, for the first time or again.
    Waiting,
    /// Running.
    Running,
    /// Ended.
    Terminated,
}

/// An end of the main container and the run that it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// 0 for the first run.
    pub run: u32,
    /// How it ended.
    #[serde(flatten)]
    pub end: Termination,
}

/// A failed init container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitFailure {
    /// Its name.
    pub container: String,
    /// False while the kubelet may still run it again.
    pub is_final: bool,
    /// How it ended.
    #[serde(flatten)]
    pub end: Termination,
}

/// Condition `DisruptionTarget`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disruption {
    /// `reason`, `PreemptionByScheduler` for instance.
    pub reason: String,
    /// `message`.
    pub message: Option<String>,
}

/// Why a program is not running yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Which deadline applies.
    pub class: PendingClass,
    /// The API's own word.
    pub reason: String,
    /// The API's own sentence.
    pub message: Option<String>,
    /// When this class of problem was first seen.
    pub since: Timestamp,
}

/// Classes of waiting; each has its own deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PendingClass {
    /// Normal: creating, initialising, gated, suspended.
    Benign,
    /// The image name can never be right.
    InvalidImage,
    /// The image does not come.
    ImagePull,
    /// A ConfigMap, Secret or setting is missing or wrong.
    ConfigError,
    /// No node fits.
    Unschedulable,
}

/// `metadata.deletionTimestamp` was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// When podherald first saw it.
    pub seen_at: Timestamp,
    /// True if the main container was seen running with it: its end came after the request.
    pub while_running: bool,
    /// What the pod was given to end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<i64>,
}

/// Who wants the pod gone, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Free text.
    pub reason: String,
    /// Who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// The pod is no longer there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// When podherald learned of it.
    pub at: Timestamp,
    /// True if a deletion was seen; false if it was missing from a complete list and a GET confirmed it.
    pub deleted: bool,
}

/// How an attempt ended, before its output is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Which terminal event it will be, unless the program's report turns a 0 into a failure.
    pub outcome: Outcome,
    /// Code, signal and source.
    pub exit: Exit,
    /// None on a plain success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Out-of-memory kills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<Oom>,
    /// The event's timestamp.
    pub at: Timestamp,
    /// When podherald decided; `logs.deadline` counts from here.
    pub decided_at: Timestamp,
    /// Whose log is the output; none where no program ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Termination or waiting message: stands in for stderr when no log has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The four ways to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Code 0.
    Completed,
    /// Anything else.
    Failed,
    /// The pod's deadline.
    Timeout,
    /// On purpose.
    Cancelled,
}

/// Which non-terminal events exist already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "a set of six named members")]
pub struct Emitted {
    /// `pod_scheduled`.
    #[serde(default)]
    pub pod_scheduled: bool,
    /// `execution_started`.
    #[serde(default)]
    pub started: bool,
    /// `pod_running`.
    #[serde(default)]
    pub pod_running: bool,
    /// `execution_running`.
    #[serde(default)]
    pub running: bool,
    /// `pod_terminated`.
    #[serde(default)]
    pub pod_terminated: bool,
    /// `pod_deleted`.
    #[serde(default)]
    pub pod_deleted: bool,
}
