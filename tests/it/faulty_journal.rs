//! A journal whose appends fail on command, in front of a real one.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures::future::BoxFuture;
use podherald::journal::{
    Adopted, Audit, Bounds, Change, Cursor, DeadLetter, DeadLetterQuery, Error, EventQuery, ExecutionQuery, Follower,
    Health, Journal, Known, Listed, ListedLetter, Place, PodQuery, Pruned, Record, Result, Retention, Subscription,
};
use podherald_core::{event::Draft, evidence::Evidence, execution::Execution};
use tokio::sync::watch;
use uuid::Uuid;

/// Which appends fail. Shared by all that hold a clone, over restarts too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: AtomicUsize,
    ends: AtomicBool,
    sinks: AtomicBool,
}

impl Faults {
    /// So many more of the next.
    pub(crate) fn add(&self, count: usize) {
        self.0.next.fetch_add(count, Ordering::SeqCst);
    }

    /// From now on all with a terminal event, or none of those.
    pub(crate) fn refuse_ends(&self, refuses: bool) {
        self.0.ends.store(refuses, Ordering::SeqCst);
    }

    /// From now on no sink is done with anything, or all go by themselves again.
    pub(crate) fn hold_sinks(&self, holds: bool) {
        self.0.sinks.store(holds, Ordering::SeqCst);
    }

    fn meet(&self, changes: &[Change]) -> bool {
        let ends = || changes.iter().flat_map(|change| &*change.events).any(|draft| draft.payload.terminal().is_some());
        let is_next = self.0.next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        is_next || (self.0.ends.load(Ordering::SeqCst) && ends())
    }
}

/// See the module.
pub(crate) struct FaultyJournal {
    pub(crate) inner: Arc<dyn Journal>,
    pub(crate) faults: Faults,
}

impl Journal for FaultyJournal {
    fn append(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<()>> {
        if self.faults.meet(&changes) {
            let error = Error::Io { doing: "append", reason: "the test makes it fail".to_owned() };
            return Box::pin(async { Err(error) });
        }
        self.inner.append(changes)
    }
    fn tell(&self, events: Vec<Draft>) -> BoxFuture<'_, Result<()>> {
        self.inner.tell(events)
    }
    fn adopt(&self, events: Vec<Adopted>, places: Vec<Place>) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.inner.adopt(events, places)
    }
    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>>> {
        self.inner.places()
    }
    fn known(&self, pods: Vec<(String, String)>) -> BoxFuture<'_, Result<Vec<Known>>> {
        self.inner.known(pods)
    }
    fn open_evidence(&self) -> BoxFuture<'_, Result<Vec<Evidence>>> {
        self.inner.open_evidence()
    }
    fn execution(&self, id: String) -> BoxFuture<'_, Result<Option<Execution>>> {
        self.inner.execution(id)
    }
    fn executions(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<Vec<Listed>>> {
        self.inner.executions(query)
    }
    fn snapshot(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<(u64, Vec<Listed>)>> {
        self.inner.snapshot(query)
    }
    fn execution_events(&self, id: String, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Arc<Record>>>> {
        self.inner.execution_events(id, after, limit)
    }
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<Arc<Record>>>> {
        self.inner.events(query)
    }
    fn batch(&self, after: u64, bounds: Bounds) -> BoxFuture<'_, Result<Vec<Arc<Record>>>> {
        self.inner.batch(after, bounds)
    }
    fn told_after(&self, position: u64) -> BoxFuture<'_, Result<Option<u64>>> {
        self.inner.told_after(position)
    }
    fn subscribe(&self, sinks: Vec<Subscription>) -> BoxFuture<'_, Result<Vec<Cursor>>> {
        self.inner.subscribe(sinks)
    }
    fn advance(&self, sink: &'static str, cursor: Cursor, dead: Vec<DeadLetter>) -> BoxFuture<'_, Result<()>> {
        self.inner.advance(sink, cursor, dead)
    }
    fn carried(&self, events: Vec<(String, Uuid)>) -> BoxFuture<'_, Result<Vec<bool>>> {
        if self.faults.0.sinks.load(Ordering::SeqCst) {
            return Box::pin(async move { Ok(vec![false; events.len()]) });
        }
        self.inner.carried(events)
    }
    fn dead_letters(&self, query: DeadLetterQuery) -> BoxFuture<'_, Result<Vec<ListedLetter>>> {
        self.inner.dead_letters(query)
    }
    fn pods(&self, query: PodQuery) -> BoxFuture<'_, Result<Vec<Evidence>>> {
        self.inner.pods(query)
    }
    fn audit(&self, limit: usize) -> BoxFuture<'_, Result<Audit>> {
        self.inner.audit(limit)
    }
    fn pod(&self, namespace: String, name: String) -> BoxFuture<'_, Result<Option<Evidence>>> {
        self.inner.pod(namespace, name)
    }
    fn follow_all(&self) -> Follower {
        self.inner.follow_all()
    }
    fn follow(&self, execution_id: &str) -> Follower {
        self.inner.follow(execution_id)
    }
    fn head(&self) -> watch::Receiver<u64> {
        self.inner.head()
    }
    fn floor(&self) -> u64 {
        self.inner.floor()
    }
    fn epoch(&self) -> &str {
        self.inner.epoch()
    }
    fn health(&self) -> Health {
        self.inner.health()
    }
    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned>> {
        self.inner.prune(retention)
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
