//! What another monitor has told of an attempt, and what that means for the record that is kept here.
//!
//! Of several monitors one leads. The others see all that it sees and make the same events under the same ids, but keep them
//! back ([`Evidence::untold`]) until the leader has told them, or until they lead themselves.

use uuid::Uuid;

use crate::{
    event::{Draft, Event, Exit, Payload, Slot},
    evidence::Evidence,
    mapper,
};

/// An event of another monitor.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Its id: both derive the same.
    pub event_id: Uuid,
    /// Whose event.
    pub execution_id: String,
    /// Which attempt, as the other counts.
    pub attempt: u32,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    In(Slot),
    /// How many there were before is not said.
    Amended(Option<Exit>),
    /// Of which run is not said, and a line that is read again has its id; or it is none of a monitor's events.
    Other,
}

impl Told {
    /// What there is to know of this event.
    pub fn of(event: &Event) -> Self {
        let what = match &event.payload {
            Payload::PodScheduled { .. } => What::In(Slot::PodScheduled),
            Payload::ExecutionStarted { .. } => What::In(Slot::Started),
            Payload::PodRunning { .. } => What::In(Slot::PodRunning),
            Payload::ExecutionRunning { .. } => What::In(Slot::Running),
            Payload::ExecutionProgress { .. } | Payload::ResultStored(_) | Payload::ResultFailed { .. } => What::Other,
            Payload::PodTerminated { .. } => What::In(Slot::PodTerminated),
            Payload::PodDeleted { .. } => What::In(Slot::PodDeleted),
            Payload::ExecutionCompleted(_)
            | Payload::ExecutionFailed(_)
            | Payload::ExecutionTimeout(_)
            | Payload::ExecutionCancelled(_) => What::In(Slot::Terminal),
            Payload::ExecutionAmended { exit, .. } => What::Amended(*exit),
        };
        let execution_id = event.execution_id.clone();
        Self { event_id: event.event_id, execution_id, attempt: event.attempt, what }
    }

    fn slot_in(&self, evidence: &Evidence) -> Option<Slot> {
        let is_it = |slot: &Slot| mapper::id_of(evidence, *slot) == self.event_id;
        match self.what {
            What::In(slot) => Some(slot).filter(is_it),
            What::Amended(_) => (1..=evidence.amendments + 1).map(Slot::Amended).find(is_it),
            What::Other => None,
        }
    }
}

/// Keeps these events back.
pub fn keep_back(evidence: &mut Evidence, events: Vec<Draft>) {
    evidence.untold.extend(events);
}

/// Takes note that this need not be told any more. True if the record has changed; an event of another pod changes nothing.
pub fn note(evidence: &mut Evidence, told: &Told) -> bool {
    let Some(slot) = told.slot_in(evidence) else { return false };
    let before = (evidence.attempt, evidence.emitted, evidence.terminal, evidence.amendments, evidence.untold.len());
    evidence.attempt = told.attempt;
    evidence.untold.retain(|draft| draft.event_id != told.event_id);
    for draft in &mut evidence.untold {
        draft.attempt = told.attempt;
    }
    let emitted = &mut evidence.emitted;
    match slot {
        Slot::PodScheduled => emitted.pod_scheduled = true,
        Slot::Started => emitted.started = true,
        Slot::PodRunning => emitted.pod_running = true,
        Slot::Running => emitted.running = true,
        Slot::PodTerminated => emitted.pod_terminated = true,
        Slot::PodDeleted => {
            // It is the last: what the other has not told by now, it has not seen.
            emitted.pod_deleted = true;
            evidence.untold.clear();
        }
        Slot::Terminal => evidence.terminal = Some(told.event_id),
        Slot::Amended(number) => {
            evidence.amendments = evidence.amendments.max(number);
            if let (What::Amended(Some(exit)), Some(ending)) = (told.what, &mut evidence.ending) {
                ending.exit = exit;
            }
        }
        Slot::Progress { .. } | Slot::ResultStored | Slot::ResultFailed => {}
    }
    before != (evidence.attempt, evidence.emitted, evidence.terminal, evidence.amendments, evidence.untold.len())
}
