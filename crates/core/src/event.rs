//! Execution events: their names, payloads, ids and final bytes.
//!
//! A [`Draft`] is an event that lacks only what its writer gives it: `source` and `seq`. [`Draft::number`] and
//! [`Event::to_bytes`] make the bytes that the journal keeps and everybody reads; an event is never rendered a second time.

mod carried;
mod indexes;
mod terminal;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use carried::{Carried, carried};
pub use indexes::{IndexOutput, Indexes};
pub use terminal::{
    Cause, CauseClass, ErrorType, Exit, ExitSource, Oom, Output, ResourceUsage, StreamSummary, Terminal, Verdict,
};

/// `event_version` of every event of this catalogue.
pub const EVENT_VERSION: &str = "1.0";

/// The namespace of all event ids: fixed for ever, or a lost disk would derive other ids.
pub const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x8f0e_5b4c_6f57_5d0e_9b7a_1d2c_70d4_e7a1);

/// An event without its output is rarely longer.
const USUAL_BYTES: usize = 1024;

/// The place of an event within its attempt; one event at most per attempt and slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// `pod_scheduled`.
    PodScheduled,
    /// `execution_started`.
    Started,
    /// `pod_running`.
    PodRunning,
    /// `execution_running`.
    Running,
    /// `pod_terminated`.
    PodTerminated,
    /// Whichever terminal event ends the attempt: the type is not part of the id.
    Terminal,
    /// `pod_deleted`.
    PodDeleted,
    /// `execution_amended`, counted from 1.
    Amended(u32),
    /// `execution_progress`, by the place of its line.
    Progress {
        /// Of the main container, 0 for the first.
        run: u32,
        /// Of the line in that run's log.
        offset: u64,
    },
    /// `result_stored`; the key is the id of the event that ended the attempt.
    ResultStored,
    /// `result_failed`; the key is the id of the event that ended the attempt.
    ResultFailed,
}

/// The id of the event in `slot` of the attempt with this key.
pub fn event_id(execution_id: &str, attempt_key: &str, slot: Slot) -> Uuid {
    let slot = match slot {
        Slot::PodScheduled => "pod_scheduled".to_owned(),
        Slot::Started => "started".to_owned(),
        Slot::PodRunning => "pod_running".to_owned(),
        Slot::Running => "running".to_owned(),
        Slot::PodTerminated => "pod_terminated".to_owned(),
        Slot::Terminal => "terminal".to_owned(),
        Slot::PodDeleted => "pod_deleted".to_owned(),
        Slot::ResultStored => "result_stored".to_owned(),
        Slot::ResultFailed => "result_failed".to_owned(),
        Slot::Amended(n) => format!("amended/{n}"),
        Slot::Progress { run, offset } => format!("progress/{run}/{offset}"),
    };
    let name = format!("{execution_id}\0{attempt_key}\0{slot}");
    Uuid::new_v5(&EVENT_NAMESPACE, name.as_bytes())
}

/// An event before its writer numbers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// Derived from the attempt and the slot, so a second observer derives the same.
    pub event_id: Uuid,
    /// Whose event it is.
    pub execution_id: String,
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// The evidence's time, not the time of writing.
    pub timestamp: Timestamp,
    /// True for a step that nobody saw but that must have happened.
    pub synthesized: bool,
    /// Who says it and for whom.
    pub metadata: Metadata,
    /// What happened.
    pub payload: Payload,
}

/// `metadata` of every event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Metadata {
    /// The role in kebab case, `pod-monitor` for instance.
    pub service_name: String,
    /// Version of the program.
    pub service_version: String,
    /// `telemetry.environment`.
    pub environment: String,
    /// Annotation `integr8s.io/correlation-id`, else label `correlation-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Label `user-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// An event as its readers see it. The field order is that of the bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Event {
    /// Made of the execution, the attempt and what happened: an event that comes again has it again.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = "uuid"))]
    pub event_id: Uuid,
    /// Of this catalogue.
    pub event_version: String,
    /// Absent when false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub synthesized: bool,
    /// RFC 3339, UTC, microseconds.
    #[serde(with = "crate::time")]
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub timestamp: Timestamp,
    /// Whose event it is.
    pub execution_id: String,
    /// Counted from 1.
    #[cfg_attr(feature = "schema", schema(minimum = 1))]
    pub attempt: u32,
    /// `<service_name>:<epoch>` of the writer.
    pub source: String,
    /// Counted from 1 without a gap per execution and source.
    #[cfg_attr(feature = "schema", schema(minimum = 1))]
    pub seq: u64,
    /// Who says it and for whom.
    pub metadata: Metadata,
    /// `event_type` and the fields of that type.
    #[serde(flatten)]
    pub payload: Payload,
}

impl Draft {
    /// The event with its final place in its writer's order.
    pub fn number(self, source: &str, seq: u64) -> Event {
        Event {
            event_id: self.event_id,
            event_version: EVENT_VERSION.to_owned(),
            synthesized: self.synthesized,
            timestamp: self.timestamp,
            execution_id: self.execution_id,
            attempt: self.attempt,
            source: source.to_owned(),
            seq,
            metadata: self.metadata,
            payload: self.payload,
        }
    }
}

impl Event {
    /// The event's one and only JSON rendering.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = self.payload.terminal().map_or(0, |terminal| terminal.stdout.len() + terminal.stderr.len());
        let mut bytes = Vec::with_capacity(text + USUAL_BYTES);
        serde_json::to_writer(&mut bytes, self).expect("an event holds only strings, numbers and booleans");
        bytes
    }
}

/// `event_type` together with the fields that belong to it (see EVENTS in ARCHITECTURE.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "event_type", rename_all = "snake_case")]
pub enum Payload {
    /// The pod has a node.
    PodScheduled {
        /// `metadata.name`.
        pod_name: String,
        /// The node, once known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node_name: Option<String>,
    },
    /// The main container started.
    ExecutionStarted {
        /// `metadata.name`.
        pod_name: String,
        /// The node, once known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node_name: Option<String>,
        /// `containerID` of the main container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container_id: Option<String>,
    },
    /// The pod runs.
    PodRunning {
        /// `metadata.name`.
        pod_name: String,
        /// In the order of the status.
        container_statuses: Vec<ContainerSummary>,
    },
    /// The execution runs.
    ExecutionRunning {
        /// `metadata.name`.
        pod_name: String,
    },
    /// The program printed a line `::progress`, while its log was followed; at most one a second.
    ExecutionProgress {
        /// From 0 to 100.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "schema", schema(minimum = 0, maximum = 100))]
        progress_percentage: Option<f64>,
        /// What the program said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// Of the line in the log, in bytes.
        offset: u64,
    },
    /// The pod reached a terminal phase or is gone.
    PodTerminated {
        /// `metadata.name`.
        pod_name: String,
        /// The main container's code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// `status.reason` of the pod, else of the main container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// `status.message` of the pod, else of the main container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// The pod is gone from the API server.
    PodDeleted {
        /// `metadata.name`.
        pod_name: String,
        /// `deleted` or `vanished`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The attempt ended with code 0.
    ExecutionCompleted(Terminal),
    /// The attempt failed.
    ExecutionFailed(Terminal),
    /// The pod's deadline ended the attempt.
    ExecutionTimeout(Terminal),
    /// Somebody ended the attempt on purpose.
    ExecutionCancelled(Terminal),
    /// Evidence that came after the terminal event; it never changes the status.
    ExecutionAmended {
        /// Id of the terminal event.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = "uuid"))]
        amends: Uuid,
        /// The exit as it is known now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
        /// What was seen, one fact a line.
        evidence: Vec<String>,
    },
    /// What the attempt came to is kept for good.
    ResultStored(StoredResult),
    /// What the attempt came to cannot be kept, and will not be tried again.
    ResultFailed {
        /// Id of the event that ended the attempt.
        #[cfg_attr(feature = "schema", schema(value_type = String, format = "uuid"))]
        result_of: Uuid,
        /// Why, and what would be right.
        error: String,
    },
}

/// All names that [`Payload::event_type`] gives.
pub const EVENT_TYPES: [&str; 14] = [
    "pod_scheduled",
    "execution_started",
    "pod_running",
    "execution_running",
    "execution_progress",
    "pod_terminated",
    "pod_deleted",
    "execution_completed",
    "execution_failed",
    "execution_timeout",
    "execution_cancelled",
    "execution_amended",
    "result_stored",
    "result_failed",
];

impl Payload {
    /// `event_type` on the wire.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::PodScheduled { .. } => "pod_scheduled",
            Self::ExecutionStarted { .. } => "execution_started",
            Self::PodRunning { .. } => "pod_running",
            Self::ExecutionRunning { .. } => "execution_running",
            Self::ExecutionProgress { .. } => "execution_progress",
            Self::PodTerminated { .. } => "pod_terminated",
            Self::PodDeleted { .. } => "pod_deleted",
            Self::ExecutionCompleted(_) => "execution_completed",
            Self::ExecutionFailed(_) => "execution_failed",
            Self::ExecutionTimeout(_) => "execution_timeout",
            Self::ExecutionCancelled(_) => "execution_cancelled",
            Self::ExecutionAmended { .. } => "execution_amended",
            Self::ResultStored(_) => "result_stored",
            Self::ResultFailed { .. } => "result_failed",
        }
    }

    /// The outcome, if this event ends an attempt.
    pub fn terminal(&self) -> Option<&Terminal> {
        match self {
            Self::ExecutionCompleted(t)
            | Self::ExecutionFailed(t)
            | Self::ExecutionTimeout(t)
            | Self::ExecutionCancelled(t) => Some(t),
            _ => None,
        }
    }
}

/// What a `result_stored` says: where the result is, and the result itself, so that who waits for it need not ask again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StoredResult {
    /// Id of the event that ended the attempt.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = "uuid"))]
    pub result_of: Uuid,
    /// What kind of place it is in.
    pub storage_type: StorageType,
    /// Where in it.
    pub storage_path: String,
    /// Bytes of `stdout` and `stderr` that are kept there.
    pub size_bytes: u64,
    /// `completed`, `failed`, `timeout` or `cancelled`.
    pub status: crate::execution::Status,
    /// Code, signal and who says so.
    pub exit: Exit,
    /// Why it ended as it did; absent on a plain success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What the program used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_usage: Option<ResourceUsage>,
    /// As in the event that ended the attempt.
    pub stdout: String,
    /// As in the event that ended the attempt.
    pub stderr: String,
    /// How complete they are, and where the rest is.
    pub output: Output,
}

/// Where results are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum StorageType {
    /// In a database.
    Database,
}

/// One entry of `container_statuses`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ContainerSummary {
    /// Container name.
    pub name: String,
    /// `ready`.
    pub ready: bool,
    /// `restartCount`.
    pub restart_count: u32,
    /// `running`, `waiting (Reason)`, `terminated (exit_code=N)` or `unknown`.
    pub state: String,
}
