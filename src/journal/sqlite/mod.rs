//! The journal in one SQLite file.
//!
//! *Constraints.* What was acknowledged survives `kill -9` and a loss of power; a lone append waits for one sync of the
//! disk and nothing else; thousands a second share syncs; readers never wait for the writer.
//!
//! *Format.* [`schema`]: evidence, events, and the executions that they fold into, in one file with a write-ahead log
//! (WAL, `synchronous=FULL`). JSON is kept as text, so that the file can be read with any SQLite tool.
//!
//! *Operation.* [`Journal::append`] hands its changes to the one [`writer`] and waits. The writer applies them through the
//! [`ledger`], commits, tells the followers, and only then acknowledges. [`reader`]s use connections of their own.
//! [`retention`], the sinks' [`cursors`] and their [`dead_letters`] go through the writer too.

mod cursors;
mod dead_letters;
mod fault;
mod ledger;
mod metrics;
mod reader;
mod retention;
mod schema;
mod writer;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use futures::{FutureExt, TryFutureExt, future::BoxFuture};
use podherald_core::{event::Draft, evidence::Evidence, execution::Execution};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Adopted, Audit, Bounds, Change, Cursor, DeadLetter, DeadLetterQuery, Error, EventQuery, ExecutionQuery, Follower,
    Health, Journal, Known, Listed, ListedLetter, Place, PodQuery, Pruned, Record, Result, Retention, Subscription,
    live::Live,
};
use reader::Readers;
use writer::{Append, Request, Work, Writer};

pub use metrics::Metrics;

/// Of `journal.max_bytes`: from here on somebody should know, ...
const ALARM_PERCENT: u64 = 80;
/// ... and below this it is over.
const CALM_PERCENT: u64 = 75;

/// Where the journal is and how large it may become.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file, `data_dir/journal.db`. The caller owns the directory.
    pub path: PathBuf,
    /// `journal.max_bytes`. The write-ahead log beside the file takes up to about 64 MiB more while much is written.
    pub max_bytes: u64,
    /// Where it counts.
    pub metrics: Metrics,
}

impl Default for Options {
    fn default() -> Self {
        Self { path: PathBuf::from("journal.db"), max_bytes: 4 << 30, metrics: Metrics::default() }
    }
}

/// The journal on SQLite. Dropped without [`Journal::close`] it ends as if it were killed.
pub struct Sqlite {
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    queue: mpsc::Sender<Request>,
    closing: CancellationToken,
    ended: CancellationToken,
    writer: tokio::sync::Mutex<JoinSet<()>>,
}

/// What the writer and everybody else look at.
struct Shared {
    path: PathBuf,
    epoch: String,
    live: Live,
    floor: AtomicU64,
    health: Mutex<Health>,
    metrics: Metrics,
    alarmed: AtomicBool,
}

impl Sqlite {
    /// Opens the journal, or makes one, and starts its writer.
    ///
    /// A file of at most 32 MiB is checked whole; of a larger one the newest rows are read. A damaged file is left as it is.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Newer`], and [`Error::Io`] where the file cannot be opened for writing.
    pub async fn open(options: Options) -> Result<Arc<Self>> {
        let Options { path, max_bytes, metrics } = options;
        let opened = spawn_blocking({
            let path = path.clone();
            move || schema::open(&path, max_bytes)
        });
        let opened =
            opened.await.unwrap_or_else(|error| Err(Error::Io { doing: "open", reason: error.to_string() }))?;
        let health = Health { writable: true, last_error: None, used_bytes: 0, max_bytes };
        let shared = Arc::new(Shared {
            epoch: opened.epoch,
            live: Live::new(opened.head),
            floor: AtomicU64::new(opened.floor),
            health: Mutex::new(health),
            metrics,
            path,
            alarmed: AtomicBool::new(false),
        });
        shared.wrote(opened.used_bytes);
        let (queue, requests) = mpsc::channel(writer::QUEUE);
        let (closing, ended) = (CancellationToken::new(), CancellationToken::new());
        let end = End { shared: shared.clone(), closing: closing.clone(), ended: ended.clone() };
        let work = Writer::new(opened.db, shared.clone()).run(requests, closing.clone());
        let mut writer = JoinSet::new();
        writer.spawn(async move {
            let _end = end;
            work.await;
        });
        let readers = Arc::new(Readers::new(&shared.path));
        Ok(Arc::new(Self { shared, readers, queue, closing, ended, writer: tokio::sync::Mutex::new(writer) }))
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Returns once nothing can be appended any more: after [`Journal::close`], or because the writer failed.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn append_work(&self, work: Work) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.ask(|done| Request::Append(Append { work, done })).boxed()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let (done, answer) = oneshot::channel();
        self.queue.send(request(done)).await.map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }
}

/// Tells everybody that the writer is no more, however it ended.
struct End {
    shared: Arc<Shared>,
    closing: CancellationToken,
    ended: CancellationToken,
}

impl Drop for End {
    fn drop(&mut self) {
        // If it was aborted, what it left on a blocking thread stops as well.
        self.closing.cancel();
        self.shared.live.close();
        self.shared.health().writable = false;
        self.ended.cancel();
    }
}

impl Shared {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrote(&self, used_bytes: u64) {
        self.health().writable = true;
        self.measure(used_bytes);
    }

    /// Alarms once when the journal becomes rather full.
    fn measure(&self, used_bytes: u64) {
        self.metrics.used_bytes.set(i64::try_from(used_bytes).unwrap_or(i64::MAX));
        let mut health = self.health();
        health.used_bytes = used_bytes;
        let max_bytes = health.max_bytes;
        drop(health);
        if used_bytes > max_bytes / 100 * ALARM_PERCENT {
            if !self.alarmed.swap(true, Ordering::Relaxed) {
                tracing::warn!(path = %self.path.display(), used_bytes, max_bytes, "the journal is nearly full: when it is, nothing more is taken in");
            }
        } else if used_bytes < max_bytes / 100 * CALM_PERCENT {
            self.alarmed.store(false, Ordering::Relaxed);
        }
    }

    fn failed(&self, error: &Error) {
        self.metrics.failures.inc();
        let mut health = self.health();
        health.writable = false;
        health.last_error = Some(error.to_string());
    }
}

impl Journal for Sqlite {
    fn append(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<()>> {
        if changes.is_empty() {
            return futures::future::ok(()).boxed();
        }
        self.append_work(Work::Changes(changes)).map_ok(drop).boxed()
    }

    fn tell(&self, events: Vec<Draft>) -> BoxFuture<'_, Result<()>> {
        if events.is_empty() {
            return futures::future::ok(()).boxed();
        }
        self.append_work(Work::Told(events)).map_ok(drop).boxed()
    }

    fn adopt(&self, events: Vec<Adopted>, places: Vec<Place>) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.append_work(Work::Adopted(events, places))
    }

    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>>> {
        self.readers.read("read how far others were read", reader::places).boxed()
    }

    fn known(&self, pods: Vec<(String, String)>) -> BoxFuture<'_, Result<Vec<Known>>> {
        self.readers.read("read what is known of pods", move |db| reader::known(db, &pods)).boxed()
    }

    fn open_evidence(&self) -> BoxFuture<'_, Result<Vec<Evidence>>> {
        self.readers.read("read the open evidence", reader::open_evidence).boxed()
    }

    fn execution(&self, id: String) -> BoxFuture<'_, Result<Option<Execution>>> {
        self.readers.read("read an execution", move |db| reader::execution(db, &id)).boxed()
    }

    fn executions(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<Vec<Listed>>> {
        self.readers.read("list executions", move |db| reader::executions(db, &query)).boxed()
    }

    fn snapshot(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<(u64, Vec<Listed>)>> {
        let read = move |db: &_| Ok((schema::head(db)?, reader::executions(db, &query)?));
        self.readers.read("take a snapshot", read).boxed()
    }

    fn execution_events(&self, id: String, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Arc<Record>>>> {
        self.readers.read("read events", move |db| reader::execution_events(db, &id, after, limit)).boxed()
    }

    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<Arc<Record>>>> {
        self.readers.read("read events", move |db| reader::events(db, query.after, query.limit)).boxed()
    }

    fn batch(&self, after: u64, bounds: Bounds) -> BoxFuture<'_, Result<Vec<Arc<Record>>>> {
        self.readers.read("read what a sink is given next", move |db| reader::batch(db, after, bounds)).boxed()
    }

    fn told_after(&self, position: u64) -> BoxFuture<'_, Result<Option<u64>>> {
        self.readers.read("read what others have told", move |db| reader::told_after(db, position)).boxed()
    }

    fn subscribe(&self, sinks: Vec<Subscription>) -> BoxFuture<'_, Result<Vec<Cursor>>> {
        self.ask(|done| Request::Subscribe { sinks, done }).boxed()
    }

    fn advance(&self, sink: &'static str, cursor: Cursor, dead_letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<()>> {
        self.ask(move |done| Request::Advance { sink, cursor, dead_letters, done }).boxed()
    }

    fn carried(&self, events: Vec<(String, Uuid)>) -> BoxFuture<'_, Result<Vec<bool>>> {
        self.readers.read("read how far events were carried", move |db| cursors::carried(db, &events)).boxed()
    }

    fn dead_letters(&self, query: DeadLetterQuery) -> BoxFuture<'_, Result<Vec<ListedLetter>>> {
        self.readers.read("list dead letters", move |db| dead_letters::list(db, &query)).boxed()
    }

    fn pods(&self, query: PodQuery) -> BoxFuture<'_, Result<Vec<Evidence>>> {
        self.readers.read("list pods", move |db| reader::pods(db, &query)).boxed()
    }

    fn audit(&self, limit: usize) -> BoxFuture<'_, Result<Audit>> {
        self.readers.read("count attempts", move |db| reader::audit(db, limit)).boxed()
    }

    fn pod(&self, namespace: String, name: String) -> BoxFuture<'_, Result<Option<Evidence>>> {
        self.readers.read("read a pod", move |db| reader::pod(db, &namespace, &name)).boxed()
    }

    fn follow_all(&self) -> Follower {
        self.shared.live.follow_all()
    }

    fn follow(&self, execution_id: &str) -> Follower {
        self.shared.live.follow(execution_id)
    }

    fn head(&self) -> watch::Receiver<u64> {
        self.shared.live.head()
    }

    fn floor(&self) -> u64 {
        self.shared.floor.load(Ordering::Acquire)
    }

    fn epoch(&self) -> &str {
        &self.shared.epoch
    }

    fn health(&self) -> Health {
        self.shared.health().clone()
    }

    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned>> {
        self.ask(move |done| Request::Prune { retention, done }).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.closing.cancel();
            while self.writer.lock().await.join_next().await.is_some() {}
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
