//! Who follows the journal, and how far it has come.
//!
//! Followers are fed after the commit, from bounded buffers. One that falls behind is told so and reads the journal
//! instead; the writer never waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{
    broadcast::{self, error::RecvError, error::TryRecvError},
    watch,
};

use super::Record;

/// Records that a follower of everything may lag behind before it has to read the journal.
const ALL_BUFFER: usize = 1024;
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
pub struct Follower {
    // Dropped before the place, which then counts who is left.
    signals: broadcast::Receiver<Signal>,
    _place: Option<Place>,
}

type Followed = Arc<Mutex<HashMap<Arc<str>, broadcast::Sender<Signal>>>>;

/// One follower's share in an execution's entry. The last one out removes it: anybody may follow any id, known or not,
/// and most executions that are looked at never change again.
struct Place {
    followed: Followed,
    execution_id: Arc<str>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.get(&self.execution_id).is_some_and(|sender| sender.receiver_count() == 0) {
            followed.remove(&self.execution_id);
        }
    }
}

impl Follower {
    fn closed() -> Self {
        Self { signals: broadcast::Sender::new(1).subscribe(), _place: None }
    }

    /// Waits for the next thing.
    pub async fn next(&mut self) -> Next {
        match self.signals.recv().await {
            Ok(signal) => signal.into(),
            Err(RecvError::Lagged(_)) => Next::Lagged,
            Err(RecvError::Closed) => Next::Closed,
        }
    }

    /// What is there already, without waiting.
    pub fn try_next(&mut self) -> Option<Next> {
        match self.signals.try_recv() {
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
    /// None once closed.
    all: Mutex<Option<broadcast::Sender<Signal>>>,
    one: Followed,
    head: watch::Sender<u64>,
}

impl Live {
    pub(super) fn new(head: u64) -> Self {
        Self {
            all: Mutex::new(Some(broadcast::Sender::new(ALL_BUFFER))),
            one: Followed::default(),
            head: watch::Sender::new(head),
        }
    }

    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    pub(super) fn follow_all(&self) -> Follower {
        match &*self.all() {
            Some(all) => Follower { signals: all.subscribe(), _place: None },
            None => Follower::closed(),
        }
    }

    pub(super) fn follow(&self, execution_id: &str) -> Follower {
        let all = self.all();
        if all.is_none() {
            return Follower::closed();
        }
        let mut one = self.one();
        let execution_id: Arc<str> = execution_id.into();
        let sender = one.entry(execution_id.clone()).or_insert_with(|| broadcast::Sender::new(ONE_BUFFER));
        let place = Place { followed: self.one.clone(), execution_id };
        Follower { signals: sender.subscribe(), _place: Some(place) }
    }

    /// Tells everybody of what was just committed: the records in order, and the executions whose evidence changed.
    pub(super) fn publish(&self, records: &[Arc<Record>], changed: impl IntoIterator<Item = Arc<str>>) {
        let all = self.all();
        let Some(all) = &*all else { return };
        let one = self.one();
        for record in records {
            // An error only says that nobody listens.
            let _ = all.send(Signal::Record(record.clone()));
            send(&one, &record.execution_id, &Signal::Record(record.clone()));
        }
        for execution_id in changed {
            send(&one, &execution_id, &Signal::Changed);
        }
        drop(one);
        if let Some(last) = records.last() {
            self.head.send_replace(last.position);
        }
    }

    /// From now on every follower, early or late, hears [`Next::Closed`] once it has taken what is there.
    pub(super) fn close(&self) {
        let mut all = self.all();
        *all = None;
        self.one().clear();
    }

    /// Locked before `one`, where both are.
    fn all(&self) -> MutexGuard<'_, Option<broadcast::Sender<Signal>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn one(&self) -> MutexGuard<'_, HashMap<Arc<str>, broadcast::Sender<Signal>>> {
        self.one.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send(one: &HashMap<Arc<str>, broadcast::Sender<Signal>>, id: &Arc<str>, signal: &Signal) {
    if let Some(sender) = one.get(id) {
        // An error only says that the last follower is leaving.
        let _ = sender.send(signal.clone());
    }
}
