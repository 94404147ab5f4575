//! Writing: one task takes what waits and makes it durable in one transaction, off the runtime's threads.
//!
//! A lone append is committed at once; while a commit is under way, the next group gathers. Whoever is acknowledged is on
//! disk. If a group fails, each of its appends is tried by itself, so that one bad append harms nobody else.

use std::sync::{Arc, atomic::Ordering};

use jiff::Timestamp;
use podherald_core::event::Draft;
use rusqlite::{Connection, TransactionBehavior};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Shared, cursors,
    fault::Fault,
    ledger::{Ledger, Turn},
    retention::{self, Pressure},
    schema,
};
use crate::{
    crash,
    journal::{Adopted, Change, Cursor, DeadLetter, Place, Pruned, Result, Retention, Subscription},
};

/// Appends in one transaction, at most.
const GROUP: usize = 512;
/// Appends that may wait.
pub(super) const QUEUE: usize = 1024;
/// Pages of the write-ahead log that are not in the file yet, from which on they are moved there beside the writing.
const CHECKPOINT_PAGES: u64 = 4000;
/// Pages of the log at which writing waits for that, so that the log starts anew instead of growing further.
const MAX_LOG_PAGES: u64 = 16_384;

/// Something for the writer to do.
pub(super) enum Request {
    /// See [`crate::journal::Journal::append`].
    Append(Append),
    /// See [`crate::journal::Journal::prune`].
    Prune { retention: Retention, done: oneshot::Sender<Result<Pruned>> },
    /// See [`crate::journal::Journal::subscribe`].
    Subscribe { sinks: Vec<Subscription>, done: oneshot::Sender<Result<Vec<Cursor>>> },
    /// See [`crate::journal::Journal::advance`].
    Advance { sink: &'static str, cursor: Cursor, dead_letters: Vec<DeadLetter>, done: oneshot::Sender<Result<()>> },
}

/// What becomes durable together.
pub(super) struct Append {
    pub(super) work: Work,
    /// Told which were not, since they came too early.
    pub(super) done: oneshot::Sender<Result<Vec<Uuid>>>,
}

/// What is to be appended.
pub(super) enum Work {
    /// See [`crate::journal::Journal::append`].
    Changes(Vec<Change>),
    /// See [`crate::journal::Journal::tell`].
    Told(Vec<Draft>),
    /// See [`crate::journal::Journal::adopt`].
    Adopted(Vec<Adopted>, Vec<Place>),
}

/// The only one who changes the file.
pub(super) struct Writer {
    db: Connection,
    ledger: Ledger,
    shared: Arc<Shared>,
    log: Log,
    pressure: Pressure,
}

/// The write-ahead log, in pages.
#[derive(Clone, Copy, Default)]
struct Log {
    pages: u64,
    checkpointed: u64,
}

impl Log {
    /// Enough for a checkpoint beside the writing.
    fn is_due(self) -> bool {
        self.pages.saturating_sub(self.checkpointed) >= CHECKPOINT_PAGES
    }
}

impl Writer {
    pub(super) fn new(db: Connection, shared: Arc<Shared>) -> Self {
        Self { db, ledger: Ledger::new(&shared.epoch), shared, log: Log::default(), pressure: Pressure::default() }
    }

    /// Works until `closing`, then does what still waits, and ends.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Request>, closing: CancellationToken) {
        let shared = self.shared.clone();
        let mut batch = Vec::with_capacity(GROUP);
        let mut checkpoints = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => {
                    // Without waiting for callers that have a place in the queue and make no use of it.
                    requests.close();
                    gather(&mut requests, &mut batch);
                }
                _ = requests.recv_many(&mut batch, GROUP) => {}
            }
            if batch.is_empty() {
                break;
            }
            let stop = closing.clone();
            let work = spawn_blocking(move || {
                self.work(&mut requests, &mut batch, &stop);
                (self, requests, batch)
            });
            // Without its writer the journal is closed; whoever waits is told so.
            (self, requests, batch) = match work.await {
                Ok(back) => back,
                Err(error) => return tracing::error!(%error, "the journal's writer failed"),
            };
            while checkpoints.try_join_next().is_some() {}
            if self.log.is_due() && checkpoints.is_empty() {
                let shared = shared.clone();
                checkpoints.spawn_blocking(move || checkpoint_beside(&shared));
            }
        }
        while checkpoints.join_next().await.is_some() {}
        let last = spawn_blocking(move || self.checkpoint("TRUNCATE"));
        if last.await.is_err() {
            tracing::warn!("the last checkpoint failed; the next start makes up for it");
        }
    }

    /// Works as long as there is something, without going back to the runtime in between.
    fn work(&mut self, requests: &mut mpsc::Receiver<Request>, batch: &mut Vec<Request>, closing: &CancellationToken) {
        loop {
            self.shared.metrics.queued.set(i64::try_from(requests.len()).unwrap_or(i64::MAX));
            self.serve(batch);
            self.look_at_log();
            if self.log.pages >= MAX_LOG_PAGES {
                self.checkpoint("PASSIVE");
            }
            if closing.is_cancelled() || self.log.is_due() {
                return;
            }
            gather(requests, batch);
            if batch.is_empty() {
                return;
            }
        }
    }

    fn serve(&mut self, batch: &mut Vec<Request>) {
        let mut group = Vec::with_capacity(batch.len());
        for request in batch.drain(..) {
            match request {
                Request::Append(append) => group.push(append),
                Request::Prune { retention, done } => {
                    self.append(std::mem::take(&mut group));
                    // The caller may have gone; then nobody wants to know.
                    let _ = done.send(self.prune(retention));
                }
                Request::Subscribe { sinks, done } => {
                    self.append(std::mem::take(&mut group));
                    let _ = done.send(self.subscribe(&sinks));
                }
                // Which of the two comes first is all the same, so it does not break the group up.
                Request::Advance { sink, cursor, dead_letters, done } => {
                    let _ = done.send(self.advance(sink, cursor, &dead_letters));
                }
            }
        }
        self.append(group);
    }

    fn append(&mut self, mut group: Vec<Append>) {
        if group.is_empty() {
            return;
        }
        match self.commit(&group) {
            Ok((turn, early)) => {
                crash::at(crash::Point::Commit);
                self.shared.live.publish(&turn.records, turn.changed);
                for (append, early) in group.into_iter().zip(early) {
                    let _ = append.done.send(Ok(early));
                }
            }
            Err(fault) if group.len() == 1 => {
                let error = fault.explain(&self.shared.path, "append");
                self.shared.failed(&error);
                let _ = group.swap_remove(0).done.send(Err(error));
            }
            Err(_) => {
                self.shared.metrics.regrouped.inc();
                for append in group {
                    self.append(vec![append]);
                }
            }
        }
    }

    fn commit(&mut self, group: &[Append]) -> std::result::Result<(Turn, Vec<Vec<Uuid>>), Fault> {
        let started = Instant::now();
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut turn = Turn::default();
        let mut early = vec![Vec::new(); group.len()];
        for (append, early) in group.iter().zip(&mut early) {
            match &append.work {
                Work::Changes(changes) => {
                    changes.iter().try_for_each(|change| self.ledger.apply(&tx, &mut turn, change))?;
                }
                Work::Told(drafts) => drafts.iter().try_for_each(|draft| self.ledger.tell(&tx, &mut turn, draft))?,
                Work::Adopted(events, places) => {
                    for adopted in events {
                        if !self.ledger.adopt(&tx, &mut turn, adopted)? {
                            early.push(adopted.event.event_id);
                        }
                    }
                    schema::keep_places(&tx, places)?;
                }
            }
        }
        self.ledger.finish(&tx, &mut turn)?;
        let used_bytes = schema::used_bytes(&tx)?;
        // The file may be larger, for dead letters had to go somewhere: that room is theirs.
        if used_bytes > self.shared.health().max_bytes {
            return Err(Fault::Full);
        }
        tx.commit()?;
        self.ledger.keep(&mut turn);
        let metrics = &self.shared.metrics;
        metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a group is small")]
        metrics.group_size.observe(group.len() as f64);
        metrics.events.inc_by(turn.records.len() as u64);
        self.shared.wrote(used_bytes);
        Ok((turn, early))
    }

    fn subscribe(&mut self, sinks: &[Subscription]) -> Result<Vec<Cursor>> {
        cursors::subscribe(&mut self.db, sinks).map_err(|fault| fault.explain(&self.shared.path, "take sinks up"))
    }

    fn advance(&mut self, sink: &str, cursor: Cursor, dead_letters: &[DeadLetter]) -> Result<()> {
        let max_bytes = self.shared.health().max_bytes;
        cursors::advance(&mut self.db, max_bytes, sink, cursor, dead_letters)
            .map_err(|fault| fault.explain(&self.shared.path, "move a cursor"))
    }

    fn prune(&mut self, retention: Retention) -> Result<Pruned> {
        let health = self.shared.health().clone();
        let before = if self.pressure.is_on(health.used_bytes, health.max_bytes) {
            i64::MAX
        } else {
            retention.now.saturating_sub(retention.age).map_or(i64::MIN, Timestamp::as_microsecond)
        };
        let floor = self.shared.floor.load(Ordering::Acquire);
        self.take(before, retention.batch).map_err(|fault| {
            self.shared.floor.store(floor, Ordering::Release);
            let error = fault.explain(&self.shared.path, "take away what is old");
            self.shared.failed(&error);
            error
        })
    }

    fn take(&mut self, before: i64, batch: usize) -> std::result::Result<Pruned, Fault> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let taken = retention::take(&tx, before, batch)?;
        let used_bytes = schema::used_bytes(&tx)?;
        // First the floor: whoever reads past a hole and then looks here must see that there is one.
        self.shared.floor.fetch_max(taken.last_position, Ordering::AcqRel);
        tx.commit()?;
        self.ledger.clear();
        self.shared.measure(used_bytes);
        self.shared.metrics.pruned.inc_by(taken.executions.len() as u64);
        self.shared.metrics.pruned_dead_letters.inc_by(taken.dead_letters as u64);
        if !taken.executions.is_empty() || taken.pods > 0 || taken.dead_letters > 0 {
            let (executions, events, pods) = (taken.executions.len(), taken.events, taken.pods);
            let dead_letters = taken.dead_letters;
            tracing::info!(
                executions,
                events,
                pods,
                dead_letters,
                used_bytes,
                "took away what retention no longer keeps"
            );
        }
        Ok(Pruned { executions: taken.executions })
    }

    fn look_at_log(&mut self) {
        match checkpoint(&self.db, "NOOP") {
            Ok(log) => self.log = log,
            Err(error) => tracing::warn!(%error, "cannot look at the journal's write-ahead log"),
        }
        self.shared.metrics.wal_pages.set(i64::try_from(self.log.pages).unwrap_or(i64::MAX));
    }

    fn checkpoint(&mut self, mode: &str) {
        match checkpoint(&self.db, mode) {
            Ok(log) => self.log = log,
            Err(error) => tracing::warn!(%error, "cannot move the journal's write-ahead log into its file"),
        }
    }
}

/// Takes what is there already.
fn gather(requests: &mut mpsc::Receiver<Request>, batch: &mut Vec<Request>) {
    while batch.len() < GROUP
        && let Ok(request) = requests.try_recv()
    {
        batch.push(request);
    }
}

/// Passive: it neither waits for readers and the writer nor makes them wait.
fn checkpoint_beside(shared: &Shared) {
    let done = schema::open_checkpointer(&shared.path).and_then(|db| Ok(checkpoint(&db, "PASSIVE")?));
    if let Err(error) = done {
        tracing::warn!(%error, "cannot move the journal's write-ahead log into its file");
    }
}

fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<Log> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    db.prepare_cached(&sql)?.query_row([], |row| {
        // Both are -1 where there is no log.
        let count = |column| row.get(column).map(|count: i64| u64::try_from(count).unwrap_or(0));
        Ok(Log { pages: count(1)?, checkpointed: count(2)? })
    })
}
