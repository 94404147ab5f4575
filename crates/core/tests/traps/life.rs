//! Pods as frames show them, and a life made of frames.

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    event::{CauseClass, Draft, ErrorType, Terminal},
    evidence::Evidence,
    mapper::{Observation, Policy, begin, observe},
    pod::{Condition, Container, ContainerState, ContainerStatus, Phase, Pod, RestartPolicy, Termination},
};

pub(crate) fn t0() -> Timestamp {
    "2026-02-10T12:00:00Z".parse().unwrap()
}

pub(crate) fn after(seconds: i64) -> Timestamp {
    t0() + SignedDuration::from_secs(seconds)
}

pub(crate) fn container(name: &str) -> Container {
    Container { name: name.into(), ..Container::default() }
}

pub(crate) fn status(name: &str, state: ContainerState) -> ContainerStatus {
    ContainerStatus { name: name.into(), state, ..ContainerStatus::default() }
}

pub(crate) fn running() -> ContainerState {
    ContainerState::Running { started_at: Some(after(1)) }
}

pub(crate) fn waiting(reason: &str) -> ContainerState {
    ContainerState::Waiting { reason: Some(reason.into()), message: Some(format!("msg {reason}")) }
}

pub(crate) fn end(code: i32, reason: &str) -> Termination {
    Termination {
        code: Some(code),
        reason: Some(reason.into()),
        started_at: Some(after(1)),
        finished_at: Some(after(5)),
        ..Termination::default()
    }
}

pub(crate) fn ended(code: i32, reason: &str) -> ContainerState {
    ContainerState::Terminated(end(code, reason))
}

/// A pod of the field: one container, restartPolicy Never, bound to a node.
pub(crate) fn pod(phase: Phase) -> Pod {
    Pod {
        namespace: "ns".into(),
        name: "executor-e1".into(),
        uid: "uid-1".into(),
        created: Some(t0()),
        labels: [("execution-id".into(), "e1".into())].into_iter().collect(),
        node_name: Some("node-1".into()),
        restart_policy: RestartPolicy::Never,
        active_deadline_seconds: Some(60),
        start_time: Some(t0()),
        containers: vec![container("executor")],
        phase,
        ..Pod::default()
    }
}

pub(crate) fn with(phase: Phase, state: ContainerState) -> Pod {
    Pod { container_statuses: vec![status("executor", state)], ..pod(phase) }
}

pub(crate) fn deleting(pod: Pod) -> Pod {
    Pod { deletion: Some(after(3)), deletion_grace_seconds: Some(30), ..pod }
}

pub(crate) fn disrupted(reason: &str, pod: Pod) -> Pod {
    let condition = Condition {
        kind: "DisruptionTarget".into(),
        is_true: true,
        reason: Some(reason.into()),
        ..Condition::default()
    };
    Pod { conditions: vec![condition], ..pod }
}

pub(crate) struct Life {
    pub(crate) policy: Policy,
    pub(crate) now: Timestamp,
    pub(crate) evidence: Option<Evidence>,
    pub(crate) events: Vec<Draft>,
    pub(crate) collecting: bool,
    pub(crate) wake: Option<Timestamp>,
}

impl Life {
    pub(crate) fn new() -> Self {
        Self {
            policy: Policy::default(),
            now: after(10),
            evidence: None,
            events: Vec::new(),
            collecting: false,
            wake: None,
        }
    }

    pub(crate) fn of(frames: impl IntoIterator<Item = Pod>) -> Self {
        let mut life = Self::new();
        for frame in frames {
            life.see(&frame);
        }
        life
    }

    pub(crate) fn see(&mut self, pod: &Pod) {
        self.evidence.get_or_insert_with(|| begin(pod, "e1", 1, &self.policy, self.now));
        self.observe(Observation::Seen(pod));
    }

    pub(crate) fn observe(&mut self, observation: Observation<'_>) {
        let step = observe(self.evidence.as_mut().unwrap(), observation, &self.policy, self.now);
        self.events.extend(step.events);
        self.collecting |= step.collect;
        self.wake = step.wake;
    }

    pub(crate) fn gone(mut self, deleted: bool) -> Self {
        self.observe(Observation::Gone { deleted });
        self
    }

    pub(crate) fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.observe(Observation::Tick);
    }

    pub(crate) fn collect(&mut self) {
        assert!(std::mem::take(&mut self.collecting), "the attempt has not ended");
        self.observe(Observation::Collected(Box::default()));
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.collecting && self.evidence.as_ref().unwrap().terminal.is_none()
    }

    pub(crate) fn types(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.payload.event_type()).collect()
    }

    /// Collects, and gives the one terminal event.
    pub(crate) fn outcome(mut self) -> (&'static str, Terminal) {
        self.collect();
        let terminal: Vec<_> = self.events.iter().filter(|event| event.payload.terminal().is_some()).collect();
        assert_eq!(terminal.len(), 1);
        (terminal[0].payload.event_type(), terminal[0].payload.terminal().unwrap().clone())
    }

    pub(crate) fn failure(self) -> (CauseClass, String, ErrorType, Option<i32>) {
        let (event_type, terminal) = self.outcome();
        assert_eq!(event_type, "execution_failed");
        let cause = terminal.cause.unwrap();
        assert!(!cause.evidence.is_empty() && !cause.message.is_empty());
        (cause.class, cause.reason, terminal.error_type.unwrap(), terminal.exit.code)
    }
}

pub(crate) fn class(pod: Pod) -> (CauseClass, ErrorType) {
    let (class, _, error_type, _) = Life::of([pod]).failure();
    (class, error_type)
}
