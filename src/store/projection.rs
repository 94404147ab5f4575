//! What an event does to its execution and its attempt, wherever they are kept.
//!
//! The fold of core gives the same whatever comes again or out of order, so nobody asks whether an event is in it already:
//! neither its id, which a crash may have kept without the fold, nor its offset, which begins anew with the topic, could tell.

use jiff::Timestamp;
use podherald_core::{
    event::Event,
    execution::{Execution, Status},
};
use uuid::Uuid;

use super::{Arrival, Attempt, Cursor, Found, Watermarks};

/// An execution as it is kept: without its inline output, which is that of the event that ended it.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// `stdout` and `stderr` are null.
    pub execution: Execution,
    /// Its namespace, once known.
    pub namespace: Option<String>,
    /// `timestamp` of the event that came first; it never changes.
    pub first_seen: Timestamp,
    /// The event that ended the latest attempt.
    pub ended_by: Option<Uuid>,
    /// How far it is folded.
    pub watermarks: Watermarks,
}

impl Projection {
    /// What is known of an execution before its first event, which came at this time.
    pub fn new(execution_id: &str, first_seen: Timestamp) -> Self {
        Self {
            execution: Execution::new(execution_id),
            namespace: None,
            first_seen,
            ended_by: None,
            watermarks: Watermarks::new(),
        }
    }

    /// Takes in an arrival. False if nothing changed.
    pub fn take(&mut self, arrival: &Arrival) -> bool {
        let before = self.clone();
        let watermark = self.watermarks.entry(arrival.place.clone()).or_default();
        *watermark = arrival.offset.saturating_add(1).max(*watermark);
        if self.namespace.is_none() {
            self.namespace.clone_from(&arrival.about.namespace);
        }
        if let Some(event) = &arrival.event {
            self.fold(event);
            self.execution.learn(&arrival.about, event);
        }
        *self != before
    }

    fn fold(&mut self, event: &Event) {
        self.execution.apply(event);
        if self.execution.stdout.take().is_some() {
            self.ended_by = Some(event.event_id);
        }
        self.execution.stderr = None;
        if !self.execution.status.is_terminal() {
            self.ended_by = None;
        }
    }

    /// The execution as it is shown: with the output of the event that ended it.
    pub fn show(self, ended_by: Option<&Event>) -> Found {
        let mut execution = self.execution;
        if let Some(terminal) = ended_by.and_then(|event| event.payload.terminal()) {
            execution.stdout = Some(terminal.stdout.clone());
            execution.stderr = Some(terminal.stderr.clone());
        }
        Found { execution, namespace: self.namespace, watermarks: self.watermarks }
    }

    /// Where it stands in a list.
    pub fn cursor(&self) -> Cursor {
        Cursor { at: self.first_seen, execution_id: self.execution.execution_id.clone() }
    }
}

/// What an arrival says of its attempt, if anything. It counts if nothing of this rank or a higher one is known.
pub fn attempt(arrival: &Arrival) -> Option<Attempt> {
    let event = arrival.event.as_deref()?;
    let status = Status::after(&event.payload)?;
    Some(Attempt {
        execution_id: event.execution_id.clone(),
        attempt: event.attempt,
        status,
        ended_at: status.is_terminal().then_some(event.timestamp),
        ended_by: status.is_terminal().then_some(event.event_id),
    })
}
