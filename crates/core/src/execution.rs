//! What an execution is: a fold of its attempts' evidence and events, by rank.
//!
//! Ranks make the fold independent of the order in which different writers' events arrive.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    about::About,
    event::{Cause, ErrorType, Event, Exit, Oom, Output, Payload, ResourceUsage},
    evidence::Evidence,
    pod::Phase,
};

/// `status` of an execution, in the order of its rank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A pod was seen, no event yet.
    #[default]
    Pending,
    /// Requested or queued.
    Queued,
    /// Accepted, or its pod has a node.
    Scheduled,
    /// The program runs.
    Running,
    /// Ended with 0.
    Completed,
    /// Ended otherwise.
    Failed,
    /// Ended by its deadline.
    Timeout,
    /// Ended on purpose.
    Cancelled,
}

impl Status {
    /// A status never goes to a lower rank within an attempt; the first of rank 9 stays.
    pub fn rank(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Queued => 1,
            Self::Scheduled => 2,
            Self::Running => 3,
            Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled => 9,
        }
    }

    /// True once the attempt has its terminal event.
    pub fn is_terminal(self) -> bool {
        self.rank() == 9
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status that an event brings about, if any.
    pub fn after(payload: &Payload) -> Option<Self> {
        Some(match payload {
            Payload::PodScheduled { .. } => Self::Scheduled,
            Payload::ExecutionStarted { .. } | Payload::ExecutionRunning { .. } => Self::Running,
            Payload::ExecutionCompleted(_) => Self::Completed,
            Payload::ExecutionFailed(_) => Self::Failed,
            Payload::ExecutionTimeout(_) => Self::Timeout,
            Payload::ExecutionCancelled(_) => Self::Cancelled,
            Payload::PodRunning { .. }
            | Payload::ExecutionProgress { .. }
            | Payload::PodTerminated { .. }
            | Payload::PodDeleted { .. }
            | Payload::ExecutionAmended { .. }
            | Payload::ResultStored(_)
            | Payload::ResultFailed { .. } => return None,
        })
    }
}

/// An execution as `GET /executions/{id}` shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Execution {
    /// The execution's id.
    pub execution_id: String,
    /// Of the latest attempt.
    pub status: Status,
    /// Number of the latest attempt; the fields below are this attempt's.
    pub attempt: u32,
    /// How many attempts there are.
    pub attempts: u32,
    /// What the program last said of it; absent unless its log was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// How it ended; null before.
    pub exit: Option<Exit>,
    /// Why it ended as it did; null before, and on a plain success.
    pub cause: Option<Cause>,
    /// Only after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<ErrorType>,
    /// The deadline that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// Out-of-memory kills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<Oom>,
    /// What the program used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_usage: Option<ResourceUsage>,
    /// Inline output; null before the end.
    pub stdout: Option<String>,
    /// Inline error output; null before the end.
    pub stderr: Option<String>,
    /// How complete they are; null before the end.
    pub output: Option<Output>,
    /// What became of the result; absent as long as nobody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultState>,
    /// All pods of all attempts, oldest first.
    pub pods: Vec<PodSummary>,
    /// When what happened.
    pub times: Times,
    /// The labels of the first pod.
    pub labels: BTreeMap<String, String>,
    /// Label `user-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The execution that this one retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
    /// Evidence that came after the terminal event.
    pub amended: Vec<Amendment>,
    /// The state of the sources that this is a fold of: an id for the event stream.
    pub as_of: VersionVector,
}

/// How far a program said that it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Progress {
    /// From 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percentage: Option<f64>,
    /// What it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One pod of an execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PodSummary {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// The node, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The furthest phase seen.
    pub phase: Phase,
    /// Which attempt it belongs to.
    pub attempt: u32,
}

/// `times` of an execution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Times {
    /// The pod's creation, else its first sight.
    #[serde(with = "crate::time::option")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub created: Option<Timestamp>,
    /// The pod got its node.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::time::option")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub scheduled: Option<Timestamp>,
    /// The program started.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::time::option")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub started: Option<Timestamp>,
    /// The program ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::time::option")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub ended: Option<Timestamp>,
}

/// One entry of `amended`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Amendment {
    /// The `execution_amended` event.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = "uuid"))]
    pub event_id: Uuid,
    /// The terminal event that it amends.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = "uuid"))]
    pub amends: Uuid,
    /// The exit as it is known now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// What was seen.
    pub evidence: Vec<String>,
}

/// What became of an attempt's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ResultState {
    /// It is kept for good.
    Stored,
    /// It cannot be kept.
    Failed,
}

/// The latest `seq` of each source: where a reader is in an execution's stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct VersionVector(pub BTreeMap<String, u64>);

impl VersionVector {
    /// True if an event with this source and seq is behind the reader already.
    pub fn covers(&self, source: &str, seq: u64) -> bool {
        self.0.get(source).is_some_and(|known| *known >= seq)
    }

    /// True if all that the other is past is behind the reader.
    pub fn covers_all(&self, other: &Self) -> bool {
        other.0.iter().all(|(source, seq)| self.covers(source, *seq))
    }

    /// Moves the reader past this event.
    pub fn advance(&mut self, source: &str, seq: u64) {
        match self.0.get_mut(source) {
            Some(known) => *known = (*known).max(seq),
            None => {
                self.0.insert(source.to_owned(), seq);
            }
        }
    }
}

impl Execution {
    /// An execution of which nothing is known yet.
    pub fn new(execution_id: &str) -> Self {
        Self { execution_id: execution_id.to_owned(), ..Self::default() }
    }

    /// Takes in what is known of one of its pods, or of the Job that made them. A conflicting pod is not one of its pods.
    pub fn witness(&mut self, evidence: &Evidence) {
        if evidence.conflict {
            return;
        }
        self.enter_attempt(evidence.attempt);
        self.attempts = self.attempts.max(evidence.attempt);
        if self.labels.is_empty() {
            self.labels = evidence.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        if self.user_id.is_none() {
            self.user_id = evidence.labels.get("user-id").cloned();
        }
        if evidence.attempt == self.attempt {
            let created = evidence.created.or(Some(evidence.first_seen));
            self.times.created = earliest(self.times.created, created);
            self.times.scheduled = earliest(self.times.scheduled, evidence.scheduled_at);
            self.times.started = earliest(self.times.started, evidence.started_at);
        }
        if evidence.subject.job().is_some() {
            return;
        }
        let summary = PodSummary {
            namespace: evidence.namespace.clone(),
            name: evidence.name.clone(),
            uid: evidence.uid.clone(),
            node_name: evidence.node_name.clone(),
            phase: evidence.phase,
            attempt: evidence.attempt,
        };
        match self.pods.iter_mut().find(|pod| pod.uid == summary.uid) {
            Some(known) => *known = summary,
            None => self.pods.push(summary),
        }
    }

    /// Takes in whom an event is about, where there is no evidence of it.
    pub fn learn(&mut self, about: &About, event: &Event) {
        if self.labels.is_empty() {
            self.labels = about.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        let (Some(namespace), Some(uid)) = (&about.namespace, &about.pod_uid) else { return };
        let (name, node_name, phase) = match &event.payload {
            Payload::PodScheduled { pod_name, node_name } => (pod_name, node_name.clone(), Phase::Pending),
            Payload::PodRunning { pod_name, .. } => (pod_name, None, Phase::Running),
            Payload::PodTerminated { pod_name, exit_code: Some(0), .. } => (pod_name, None, Phase::Succeeded),
            Payload::PodTerminated { pod_name, .. } => (pod_name, None, Phase::Failed),
            _ => return,
        };
        let summary = PodSummary {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            node_name,
            phase,
            attempt: event.attempt,
        };
        let Some(known) = self.pods.iter_mut().find(|pod| pod.uid == summary.uid) else {
            return self.pods.push(summary);
        };
        known.node_name = known.node_name.take().or(summary.node_name);
        if progress(summary.phase) > progress(known.phase) {
            known.phase = summary.phase;
        }
    }

    /// Takes in one event. Events of earlier attempts and repeated ones change nothing but the version vector.
    pub fn apply(&mut self, event: &Event) {
        let is_repeated = self.as_of.covers(&event.source, event.seq);
        self.as_of.advance(&event.source, event.seq);
        self.attempts = self.attempts.max(event.attempt);
        self.enter_attempt(event.attempt);
        if event.attempt != self.attempt {
            return;
        }
        self.place_in_time(event);
        if let Payload::ExecutionAmended { amends, exit, evidence } = &event.payload
            && self.amended.iter().all(|known| known.event_id != event.event_id)
        {
            self.amended.push(Amendment {
                event_id: event.event_id,
                amends: *amends,
                exit: *exit,
                evidence: evidence.clone(),
            });
        }
        match &event.payload {
            Payload::ResultStored(_) => self.result = Some(ResultState::Stored),
            Payload::ResultFailed { .. } => {
                self.result.get_or_insert(ResultState::Failed);
            }
            _ => {}
        }
        if let Payload::ExecutionProgress { progress_percentage, message, .. } = &event.payload
            && !is_repeated
        {
            self.progress = Some(Progress { percentage: *progress_percentage, message: message.clone() });
        }
        let Some(status) = Status::after(&event.payload) else { return };
        if status.rank() <= self.status.rank() {
            return;
        }
        self.status = status;
        if let Some(terminal) = event.payload.terminal() {
            self.exit = Some(terminal.exit);
            self.cause.clone_from(&terminal.cause);
            self.error_type = terminal.error_type;
            self.timeout_seconds = terminal.timeout_seconds;
            self.oom = terminal.oom;
            self.resource_usage.clone_from(&terminal.resource_usage);
            self.stdout = Some(terminal.stdout.clone());
            self.stderr = Some(terminal.stderr.clone());
            self.output = Some(terminal.output.clone());
            self.times.ended = Some(event.timestamp);
        }
    }

    /// Where there is no evidence, events alone tell when what happened, and for whom.
    fn place_in_time(&mut self, event: &Event) {
        if self.user_id.is_none() {
            self.user_id.clone_from(&event.metadata.user_id);
        }
        if event.synthesized {
            return;
        }
        self.times.created = self.times.created.or(Some(event.timestamp));
        match event.payload {
            Payload::PodScheduled { .. } => {
                self.times.scheduled = earliest(self.times.scheduled, Some(event.timestamp));
            }
            Payload::ExecutionStarted { .. } => {
                self.times.started = earliest(self.times.started, Some(event.timestamp));
            }
            _ => {}
        }
    }

    /// A later attempt takes over what is the attempt's own; pods, labels and the version vector are the execution's.
    fn enter_attempt(&mut self, attempt: u32) {
        if attempt <= self.attempt {
            return;
        }
        *self = Self {
            execution_id: std::mem::take(&mut self.execution_id),
            attempt,
            attempts: self.attempts.max(attempt),
            pods: std::mem::take(&mut self.pods),
            labels: std::mem::take(&mut self.labels),
            user_id: self.user_id.take(),
            retry_of: self.retry_of.take(),
            as_of: std::mem::take(&mut self.as_of),
            ..Self::default()
        };
    }
}

/// How far a pod is in its life: of several looks the furthest counts, whatever their order.
fn progress(phase: Phase) -> u8 {
    match phase {
        Phase::Pending | Phase::Unknown => 0,
        Phase::Running => 1,
        Phase::Succeeded | Phase::Failed => 2,
    }
}

fn earliest(known: Option<Timestamp>, seen: Option<Timestamp>) -> Option<Timestamp> {
    match (known, seen) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
