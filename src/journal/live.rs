//! Who follows the journal, and how far it has come.
//!
//! Followers are fed after the commit, from bounded buffers. One that falls behind is told so and reads the journal
//! instead; the writer never waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{
    broadcast::{self, error::RecvError, error::TryRecvError},
    watch,
};

use super::Record;

/// Records that a follower of everything may lag behind before it has to read the journal.
const ALL_BUFFER: usize = 4096;
/// The same for a follower of one execution.
const ONE_BUFFER: usize = 64;

/// What a follower hears.
#[derive(Debug, Clone)]
pub enum Next {
    /// A new event.
    Record(Arc<Record>),
    /// The evidence of the followed execution changed without an event.
    Changed,
    /// Too far behind: read the journal from the last position you have.
    Lagged,
    /// The journal is closed.
    Closed,
}

#[derive(Debug, Clone)]
enum Signal {
    Record(Arc<Record>),
    Changed,
}

/// A bounded subscription to the journal.
pub struct Follower(broadcast::Receiver<Signal>);

impl Follower {
    /// Waits for the next thing.
    pub async fn next(&mut self) -> Next {
        match self.0.recv().await {
            Ok(signal) => signal.into(),
            Err(RecvError::Lagged(_)) => Next::Lagged,
            Err(RecvError::Closed) => Next::Closed,
        }
    }

    /// What is there already, without waiting.
    pub fn try_next(&mut self) -> Option<Next> {
        match self.0.try_recv() {
            Ok(signal) => Some(signal.into()),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Lagged(_)) => Some(Next::Lagged),
            Err(TryRecvError::Closed) => Some(Next::Closed),
        }
    }
}

impl From<Signal> for Next {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Record(record) => Self::Record(record),
            Signal::Changed => Self::Changed,
        }
    }
}

/// The writer's end.
pub(super) struct Live {
    all: broadcast::Sender<Signal>,
    one: Mutex<HashMap<Arc<str>, broadcast::Sender<Signal>>>,
    head: watch::Sender<u64>,
}

impl Live {
    pub(super) fn new(head: u64) -> Self {
        Self { all: broadcast::Sender::new(ALL_BUFFER), one: Mutex::default(), head: watch::Sender::new(head) }
    }

    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(super) fn follow_all(&self) -> Follower {
        Follower(self.all.subscribe())
    }

    pub(super) fn follow(&self, execution_id: &str) -> Follower {
        let mut one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = one.entry(execution_id.into()).or_insert_with(|| broadcast::Sender::new(ONE_BUFFER));
        Follower(sender.subscribe())
    }

    /// Tells everybody of what was just committed: the records in order, and the executions whose evidence changed.
    pub(super) fn publish(&self, records: &[Arc<Record>], changed: impl IntoIterator<Item = Arc<str>>) {
        let mut one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            // An error only says that nobody listens.
            let _ = self.all.send(Signal::Record(record.clone()));
            send_or_forget(&mut one, &record.execution_id, &Signal::Record(record.clone()));
        }
        for execution_id in changed {
            send_or_forget(&mut one, &execution_id, &Signal::Changed);
        }
        drop(one);
        if let Some(last) = records.last() {
            self.head.send_replace(last.position);
        }
    }
}

fn send_or_forget(one: &mut HashMap<Arc<str>, broadcast::Sender<Signal>>, id: &Arc<str>, signal: &Signal) {
    if one.get(id).is_some_and(|sender| sender.send(signal.clone()).is_err()) {
        one.remove(id);
    }
}
