//! Pods' lives as the monitor would write them.

use std::sync::Arc;

use jiff::Timestamp;
use podherald_core::{
    event::{
        Cause, CauseClass, ContainerSummary, Draft, Exit, ExitSource, Metadata, Payload, Slot, StorageType,
        StoredResult, Terminal, event_id,
    },
    evidence::{Emitted, Evidence, Gone, MainState, Pending, PendingClass},
    execution::Status,
    pod::{Phase, RestartPolicy},
};
use uuid::Uuid;

use crate::journal::Change;
use podherald_core::event::{Output, StreamSummary, Verdict};

/// One pod of one attempt.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) evidence: Evidence,
    amendments: u32,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// The first pod of an execution, in namespace `runs`.
pub(super) fn life(execution_id: &str) -> Life {
    Life::new(execution_id, 1)
}

impl Life {
    pub(super) fn new(execution_id: &str, attempt: u32) -> Self {
        let name = format!("executor-{execution_id}-{attempt}");
        let evidence = Evidence {
            uid: format!("uid-{name}"),
            namespace: "runs".to_owned(),
            attempt_key: format!("uid-{name}"),
            name,
            execution_id: execution_id.to_owned(),
            attempt,
            subject: podherald_core::evidence::Subject::Pod,
            conflict: false,
            labels: [("execution-id".to_owned(), execution_id.to_owned())].into_iter().collect(),
            correlation_id: None,
            created: Some(at(0)),
            first_seen: at(1),
            last_seen: at(1),
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
        };
        Self { evidence, amendments: 0 }
    }

    pub(super) fn namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.evidence.namespace);
        self
    }

    pub(super) fn label(mut self, key: &str, value: &str) -> Self {
        self.evidence.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    fn draft(&self, slot: Slot, second: i64, payload: Payload) -> Draft {
        Draft {
            event_id: event_id(&self.evidence.execution_id, &self.evidence.attempt_key, slot),
            execution_id: self.evidence.execution_id.clone(),
            attempt: self.evidence.attempt,
            timestamp: at(second),
            synthesized: false,
            metadata: Metadata { service_name: "pod-monitor".to_owned(), ..Metadata::default() },
            payload,
        }
    }

    fn change(&self, events: Vec<Draft>) -> Change {
        Change { evidence: Arc::new(self.evidence.clone()), events: events.into() }
    }

    /// First evidence, without an event.
    pub(super) fn seen(&mut self) -> Change {
        self.change(Vec::new())
    }

    /// No node takes it.
    pub(super) fn stuck(&mut self) -> Change {
        self.evidence.pending = Some(Box::new(Pending {
            class: PendingClass::Unschedulable,
            reason: "Unschedulable".to_owned(),
            message: Some("0/3 nodes are available".to_owned()),
            since: at(2),
        }));
        self.change(Vec::new())
    }

    /// `pod_scheduled`.
    pub(super) fn scheduled(&mut self) -> Change {
        self.evidence.pending = None;
        self.evidence.node_name = Some("node-1".to_owned());
        let payload =
            Payload::PodScheduled { pod_name: self.evidence.name.clone(), node_name: self.evidence.node_name.clone() };
        self.change(vec![self.draft(Slot::PodScheduled, 2, payload)])
    }

    /// `execution_started`, `pod_running`, `execution_running`.
    pub(super) fn running(&mut self) -> Change {
        self.evidence.phase = Phase::Running;
        self.evidence.started_at = Some(at(3));
        let pod_name = self.evidence.name.clone();
        let started = Payload::ExecutionStarted { pod_name: pod_name.clone(), node_name: None, container_id: None };
        let container_statuses = vec![ContainerSummary {
            name: "executor".to_owned(),
            ready: true,
            restart_count: 0,
            state: "running".to_owned(),
        }];
        let events = vec![
            self.draft(Slot::Started, 3, started),
            self.draft(Slot::PodRunning, 3, Payload::PodRunning { pod_name: pod_name.clone(), container_statuses }),
            self.draft(Slot::Running, 3, Payload::ExecutionRunning { pod_name }),
        ];
        self.change(events)
    }

    /// `execution_completed` with this text on stdout.
    pub(super) fn completed(&mut self, stdout: &str) -> Change {
        self.evidence.phase = Phase::Succeeded;
        let terminal = Terminal {
            exit_code: Some(0),
            exit: Exit { code: Some(0), signal: None, source: ExitSource::Kubelet },
            stdout: stdout.to_owned(),
            output: Output {
                stdout: StreamSummary {
                    bytes_total: Some(stdout.len() as u64),
                    bytes_kept: stdout.len() as u64,
                    verdict: Verdict::Complete,
                    ..StreamSummary::default()
                },
                ..Output::default()
            },
            ..Terminal::default()
        };
        self.ended(Payload::ExecutionCompleted(terminal))
    }

    /// `execution_failed` with code 3.
    pub(super) fn failed(&mut self) -> Change {
        self.evidence.phase = Phase::Failed;
        let terminal = Terminal {
            exit_code: Some(3),
            exit: Exit { code: Some(3), signal: None, source: ExitSource::Kubelet },
            cause: Some(Cause {
                class: CauseClass::UserCode,
                reason: "Error".to_owned(),
                message: "the program ended with exit code 3".to_owned(),
                evidence: vec!["exit_code: 3".to_owned()],
            }),
            ..Terminal::default()
        };
        self.ended(Payload::ExecutionFailed(terminal))
    }

    fn ended(&mut self, payload: Payload) -> Change {
        let draft = self.draft(Slot::Terminal, 9, payload);
        self.evidence.terminal = Some(draft.event_id);
        self.change(vec![draft])
    }

    /// What a result processor says once `completed` is stored.
    pub(super) fn result_stored(&self) -> Draft {
        let result_of = self.terminal_id();
        let payload = Payload::ResultStored(StoredResult {
            result_of,
            storage_type: StorageType::Database,
            storage_path: "results/e1/1".to_owned(),
            size_bytes: 5,
            status: Status::Completed,
            exit: Exit::default(),
            cause: None,
            resource_usage: None,
            stdout: "hello".to_owned(),
            stderr: String::new(),
            output: Output::default(),
        });
        self.of_result(Slot::ResultStored, payload)
    }

    /// What it says once `completed` can never be stored.
    pub(super) fn result_failed(&self) -> Draft {
        let payload = Payload::ResultFailed { result_of: self.terminal_id(), error: "unfit".to_owned() };
        self.of_result(Slot::ResultFailed, payload)
    }

    fn of_result(&self, slot: Slot, payload: Payload) -> Draft {
        let draft = self.draft(Slot::Terminal, 9, payload);
        let event_id = event_id(&draft.execution_id, &self.terminal_id().to_string(), slot);
        Draft { event_id, ..draft }
    }

    fn terminal_id(&self) -> Uuid {
        event_id(&self.evidence.execution_id, &self.evidence.attempt_key, Slot::Terminal)
    }

    /// `execution_amended`, as often as wanted.
    pub(super) fn amended(&mut self) -> Change {
        self.amendments += 1;
        let amends = self.terminal_id();
        let evidence = vec![format!("late fact {}", self.amendments)];
        let payload = Payload::ExecutionAmended { amends, exit: None, evidence };
        self.change(vec![self.draft(Slot::Amended(self.amendments), 10, payload)])
    }

    /// `pod_deleted`.
    pub(super) fn deleted(&mut self) -> Change {
        self.evidence.gone = Some(Gone { at: at(11), deleted: true });
        self.evidence.emitted.pod_deleted = true;
        let payload = Payload::PodDeleted { pod_name: self.evidence.name.clone(), reason: None };
        self.change(vec![self.draft(Slot::PodDeleted, 11, payload)])
    }
}
