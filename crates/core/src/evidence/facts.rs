//! The facts that evidence consists of.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Cause, Exit, Oom},
    pod::Termination,
};

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
    /// What for.
    #[serde(default, skip_serializing_if = "Purpose::is_cancel")]
    pub purpose: Purpose,
}

/// What a pod is to go for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The execution is to end.
    #[default]
    Cancel,
    /// It has ended, and its result is kept: how it ended is not for this deletion to say.
    Cleanup,
}

impl Purpose {
    fn is_cancel(&self) -> bool {
        *self == Self::Cancel
    }
}

impl Intent {
    /// That of whoever tidies up after an attempt.
    pub fn to_clean_up(reason: impl Into<String>, by: impl Into<String>) -> Self {
        Self { reason: reason.into(), by: Some(by.into()), purpose: Purpose::Cleanup }
    }

    /// True if it makes a cancellation of a deletion.
    pub fn cancels(&self) -> bool {
        self.purpose.is_cancel()
    }
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
    /// `activeDeadlineSeconds` of the Job's pod that ran out of time, where that and not the Job's ended the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<i64>,
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
