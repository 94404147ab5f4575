//! What podherald has seen of one pod, or one Job: the private record from which events are made.
//!
//! Evidence only grows. A later status can be poorer than an earlier one (T65a), frames repeat and arrive late, so
//! [`crate::mapper`] merges and never overwrites. The journal keeps the record; after a restart it is all that is known.

mod facts;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    event::Draft,
    hold::Hold,
    identity::Marks,
    output::Collected,
    pod::{Container, Labels, Phase, RestartPolicy, Termination},
    silence::Look,
};

pub use facts::{
    Deletion, Disruption, Emitted, Ending, Gone, InitFailure, Intent, MainState, MonitorState, Outcome, Pending,
    PendingClass, Purpose, RunEnd,
};

/// One pod of one attempt, or the Job that is the attempt. A Job's record leaves the fields of containers as they were born.
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
    /// Annotation `podherald.dev/attempt`, else the uid of the tracked Job, else the pod's uid; never a name.
    pub attempt_key: String,
    /// Counted from 1, given at first sight and kept.
    pub attempt: u32,
    /// Whose record this is.
    #[serde(default, skip_serializing_if = "Subject::is_pod")]
    pub subject: Subject,
    /// True if the execution is another namespace's: shown, but without events.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conflict: bool,
    /// All labels at first sight.
    pub labels: Labels,
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
    /// `metadata.resourceVersion` of the newest look; it alone is not worth a write. What is older tells neither that the object
    /// is not there nor what may change back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,

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
    pub exit: Option<Box<RunEnd>>,
    /// End of the init container that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_failure: Option<Box<InitFailure>>,
    /// `DisruptionTarget`, once true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<Box<Disruption>>,
    /// Why the program is not running yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Box<Pending>>,
    /// Somebody asked for the pod's deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
    /// Annotation `podherald.dev/intent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Box<Intent>>,
    /// First seen: the pod ended, or its node was lost, while the main container still ran (T24).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off_at: Option<Timestamp>,
    /// What became of the last look for it, when nothing was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look: Option<Box<Look>>,
    /// The pod is no longer there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,

    /// The decision, made once; the terminal event follows when the output is collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Box<Ending>>,
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
    /// How the pod stands with our finalizer.
    #[serde(default, skip_serializing_if = "Hold::is_free")]
    pub hold: Hold,
    /// It was held for as long as may be, and is let go though nobody has proven to have its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_unproven: Option<Timestamp>,
    /// Events that were made while another monitor leads, and that nobody has told yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<Draft>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What an object is born with.
pub(crate) struct Born<'a> {
    pub(crate) marks: Marks<'a>,
    pub(crate) namespace: &'a str,
    pub(crate) created: Option<Timestamp>,
    pub(crate) attempt_key: &'a str,
}

impl Evidence {
    /// The record of something of which nothing but its birth is known.
    pub(crate) fn of(born: &Born<'_>, execution_id: &str, attempt: u32, now: Timestamp) -> Self {
        let Marks { name, uid, labels, annotations } = born.marks;
        let correlation_id =
            annotations.get("integr8s.io/correlation-id").or_else(|| labels.get("correlation-id")).cloned();
        Self {
            uid: uid.to_owned(),
            namespace: born.namespace.to_owned(),
            name: name.to_owned(),
            execution_id: execution_id.to_owned(),
            attempt_key: born.attempt_key.to_owned(),
            attempt,
            subject: Subject::Pod,
            conflict: false,
            labels: labels.clone(),
            correlation_id,
            created: born.created,
            first_seen: now,
            last_seen: now,
            version: None,
            main: None,
            restart_policy: RestartPolicy::default(),
            active_deadline_seconds: None,
            start_time: None,
            node_name: None,
            phase: Phase::Pending,
            reason: None,
            message: None,
            scheduled_at: None,
            started_at: None,
            container_id: None,
            state: MainState::Unknown,
            restart_count: 0,
            exit: None,
            init_failure: None,
            disruption: None,
            pending: None,
            deletion: None,
            intent: None,
            cut_off_at: None,
            look: None,
            gone: None,
            ending: None,
            terminal: None,
            progress: None,
            amendments: 0,
            emitted: Emitted::default(),
            hold: Hold::default(),
            result_unproven: None,
            untold: Vec::new(),
        }
    }

    /// True if what has this version is certainly older than the newest look.
    pub fn is_newer_than(&self, version: Option<u64>) -> bool {
        self.version.zip(version).is_some_and(|(newest, version)| version < newest)
    }

    /// True once nothing more will come of this pod or Job: its attempt ended (or never counted) and it is gone.
    pub fn is_closed(&self) -> bool {
        let all_told = match &self.subject {
            Subject::Job(job) => job.released,
            Subject::Pod | Subject::PodOfJob(_) => self.emitted.pod_deleted,
        } && self.untold.is_empty();
        self.gone.is_some() && (self.conflict || (self.terminal.is_some() && all_told))
    }

    /// True once all is told of a pod that is an attempt by itself, but that it is gone.
    pub fn is_at_rest(&self) -> bool {
        self.subject.is_pod() && self.terminal.is_some() && self.gone.is_none() && self.untold.is_empty()
    }

    /// True while the decision waits for the output.
    pub fn is_collecting(&self) -> bool {
        self.ending.is_some() && !self.has_output()
    }

    /// True once the output of this record is known, or does not matter any more.
    pub fn has_output(&self) -> bool {
        self.terminal.is_some() || self.subject.of_job().is_some_and(|part| part.output.is_some())
    }

    /// True if its end was decided though nobody has told it, and it is still there.
    pub fn is_given_up(&self) -> bool {
        self.ending.is_some() && self.exit.is_none() && !self.phase.is_terminal() && self.gone.is_none()
    }

    /// Name of the main container while it runs.
    pub fn running_container(&self) -> Option<&str> {
        let runs = self.state == MainState::Running && self.ending.is_none() && self.gone.is_none() && !self.conflict;
        self.main.as_ref().filter(|_| runs).map(|main| main.name.as_str())
    }

    /// The end of the main container's latest run, unless it runs again: then an end that is known is that of an earlier run.
    pub fn ended_run(&self) -> Option<&Termination> {
        let exit = self.exit.as_ref()?;
        (self.state != MainState::Running).then_some(&exit.end)
    }

    /// Where the monitor stands with this pod, in the words of `/pods`.
    pub fn monitor_state(&self) -> MonitorState {
        match () {
            () if self.conflict => MonitorState::Conflict,
            () if self.has_output() => MonitorState::Ended,
            () if self.ending.is_some() => MonitorState::Collecting,
            () if self.hold == Hold::Unheld => MonitorState::Unheld,
            () => MonitorState::Tracked,
        }
    }
}

/// Whose record it is, and so who ends the attempt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A pod that is an attempt by itself.
    #[default]
    Pod,
    /// A pod of a tracked Job: evidence of the Job's attempt, which the pod does not end.
    PodOfJob(Box<PodOfJob>),
    /// A Job: an attempt of many pods, or of none.
    Job(Box<JobFacts>),
}

impl Subject {
    /// True for a pod that is an attempt by itself.
    pub fn is_pod(&self) -> bool {
        matches!(self, Self::Pod)
    }

    /// The Job's facts, if it is one.
    pub fn job(&self) -> Option<&JobFacts> {
        if let Self::Job(facts) = self { Some(facts) } else { None }
    }

    /// What a pod has for its Job, if it has one.
    pub fn of_job(&self) -> Option<&PodOfJob> {
        if let Self::PodOfJob(part) = self { Some(part) } else { None }
    }
}

/// What a pod keeps for its Job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PodOfJob {
    /// `uid` of the Job.
    pub job: String,
    /// How many pods of the Job were seen before this one.
    pub number: u32,
    /// `batch.kubernetes.io/job-completion-index`: which of an Indexed Job's runs it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// What it printed, read at its own end: the Job may delete the pod with its logs (T53).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Box<Collected>>,
    /// Another pod's output matters more, so this one's was let go, or all of its text if it is that of an index.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
}

/// What is known of a Job beyond what it shares with a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// Nobody saw it: a pod names it, and it is gone. What it asked for is unknown then, and so is how it ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unseen: bool,
    /// `spec.suspend`: its pods are deleted, and that is no failure (T61).
    #[serde(default)]
    pub suspended: bool,
    /// `spec.completions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions: Option<u32>,
    /// The highest `status.succeeded` seen.
    #[serde(default)]
    pub succeeded: u32,
    /// The highest `status.failed` seen; ignored failures are not among them (T55).
    #[serde(default)]
    pub failed: u32,
    /// `FailureTarget` or `SuccessCriteriaMet`: announced, so once none of its pods runs (T58).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Finish>,
    /// `Complete` or `Failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// When a list of its pods, asked for after its end, was taken in: what is not known by then, nobody will tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Timestamp>,
    /// A pod of it was given up ([`Evidence::is_given_up`]), and the Job may wait for that in vain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_wait_in_vain: bool,
    /// Pods of it that were seen.
    #[serde(default)]
    pub pods: u32,
    /// The pod whose output a success would tell: of those with code 0 the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Candidate>,
    /// The pod whose output a failure would tell: of those that failed by themselves the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<Candidate>,
    /// `uid` of the pod whose output is the attempt's, once that is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen: Option<String>,
    /// Its pods know that the attempt has ended.
    #[serde(default)]
    pub released: bool,
}

/// A pod that ended, by how much it tells of its Job's end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// It was not deleted or lost: that would tell less.
    pub by_itself: bool,
    /// When it ended, in whole seconds (T50).
    pub at: Timestamp,
    /// How many pods of the Job were seen before it.
    pub number: u32,
    /// `uid` of the pod.
    pub uid: String,
}

/// The condition that ended a Job, or the one that announces its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// `Complete` or `SuccessCriteriaMet`; else `Failed` or `FailureTarget`.
    pub complete: bool,
    /// `reason`, `BackoffLimitExceeded` for instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `lastTransitionTime`.
    pub at: Timestamp,
    /// When podherald first saw it.
    pub seen_at: Timestamp,
}
