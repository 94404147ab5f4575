//! Pods and their steps for tests: a record that is driven through a life, with the events of each step.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    event::{Draft, Exit, ExitSource, Metadata, Output, Payload, Slot, Terminal, event_id},
    evidence::{Emitted, Evidence, Gone, MainState},
    pod::{Phase, RestartPolicy},
};

use super::Change;

/// Noon of the day on which all fixtures live.
pub(crate) const NOON: &str = "2026-03-01T12:00:00Z";

/// So many seconds after noon.
pub(crate) fn at(seconds: i64) -> Timestamp {
    NOON.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

/// One pod, to be driven.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pod {
    pub(crate) evidence: Evidence,
}

impl Pod {
    /// A pod of namespace `lab`, seen for the first time at noon.
    pub(crate) fn new(execution_id: &str, uid: &str, attempt: u32) -> Self {
        Self {
            evidence: Evidence {
                uid: uid.to_owned(),
                namespace: "lab".to_owned(),
                name: format!("executor-{uid}"),
                execution_id: execution_id.to_owned(),
                attempt_key: format!("key-{uid}"),
                attempt,
                subject: podherald_core::evidence::Subject::Pod,
                conflict: false,
                labels: [("execution-id".to_owned(), execution_id.to_owned())].into_iter().collect(),
                correlation_id: None,
                created: Some(at(0)),
                first_seen: at(0),
                last_seen: at(0),
                version: None,
                main: None,
                restart_policy: RestartPolicy::Never,
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
                hold: podherald_core::hold::Hold::default(),
                result_unproven: None,
                untold: Vec::new(),
            },
        }
    }

    /// In another namespace.
    pub(crate) fn in_namespace(mut self, namespace: &str) -> Self {
        self.evidence.namespace = namespace.to_owned();
        self
    }

    /// With one more label.
    pub(crate) fn labelled(mut self, name: &str, value: &str) -> Self {
        self.evidence.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Claims another namespace's execution.
    pub(crate) fn conflicting(mut self) -> Self {
        self.evidence.conflict = true;
        self
    }

    /// Only evidence.
    pub(crate) fn seen(&mut self, at: Timestamp) -> Change {
        self.evidence.last_seen = at;
        self.change(Vec::new())
    }

    /// It got a node.
    pub(crate) fn schedule(&mut self, at: Timestamp) -> Change {
        self.evidence.scheduled_at = Some(at);
        self.evidence.node_name = Some("node-1".to_owned());
        self.evidence.emitted.pod_scheduled = true;
        let payload =
            Payload::PodScheduled { pod_name: self.evidence.name.clone(), node_name: self.evidence.node_name.clone() };
        let draft = self.draft(Slot::PodScheduled, at, payload);
        self.change(vec![draft])
    }

    /// The program runs: two events.
    pub(crate) fn start(&mut self, at: Timestamp) -> Change {
        self.evidence.started_at = Some(at);
        self.evidence.phase = Phase::Running;
        self.evidence.state = MainState::Running;
        self.evidence.emitted.started = true;
        self.evidence.emitted.running = true;
        let pod_name = self.evidence.name.clone();
        let started = Payload::ExecutionStarted { pod_name: pod_name.clone(), node_name: None, container_id: None };
        let drafts = vec![
            self.draft(Slot::Started, at, started),
            self.draft(Slot::Running, at, Payload::ExecutionRunning { pod_name }),
        ];
        self.change(drafts)
    }

    /// The program ended with this code and printed this.
    pub(crate) fn end(&mut self, at: Timestamp, code: i32, stdout: &str) -> Change {
        self.evidence.phase = if code == 0 { Phase::Succeeded } else { Phase::Failed };
        self.evidence.state = MainState::Terminated;
        let terminal = Terminal {
            exit_code: Some(code),
            exit: Exit { code: Some(code), signal: None, source: ExitSource::Kubelet },
            stdout: stdout.to_owned(),
            stderr: "err".to_owned(),
            output: Output::default(),
            ..Terminal::default()
        };
        let payload =
            if code == 0 { Payload::ExecutionCompleted(terminal) } else { Payload::ExecutionFailed(terminal) };
        let draft = self.draft(Slot::Terminal, at, payload);
        self.evidence.terminal = Some(draft.event_id);
        self.change(vec![draft])
    }

    /// The pod is gone.
    pub(crate) fn go(&mut self, at: Timestamp) -> Change {
        self.evidence.gone = Some(Gone { at, deleted: true });
        if self.evidence.conflict {
            return self.change(Vec::new());
        }
        self.evidence.emitted.pod_deleted = true;
        let payload = Payload::PodDeleted { pod_name: self.evidence.name.clone(), reason: Some("deleted".to_owned()) };
        let draft = self.draft(Slot::PodDeleted, at, payload);
        self.change(vec![draft])
    }

    /// A whole life of six events, one change each step, beginning at this second.
    pub(crate) fn life(&mut self, second: i64) -> Vec<Change> {
        vec![
            self.seen(at(second)),
            self.schedule(at(second + 1)),
            self.start(at(second + 2)),
            self.end(at(second + 3), 0, "out"),
            self.go(at(second + 4)),
        ]
    }

    fn draft(&self, slot: Slot, timestamp: Timestamp, payload: Payload) -> Draft {
        let evidence = &self.evidence;
        Draft {
            event_id: event_id(&evidence.execution_id, &evidence.attempt_key, slot),
            execution_id: evidence.execution_id.clone(),
            attempt: evidence.attempt,
            timestamp,
            synthesized: false,
            metadata: Metadata { service_name: "pod-monitor".to_owned(), ..Metadata::default() },
            payload,
        }
    }

    fn change(&self, events: Vec<Draft>) -> Change {
        Change { evidence: Arc::new(self.evidence.clone()), events: events.into() }
    }
}
