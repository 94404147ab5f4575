//! The durable order of everything: evidence, events and the executions that they fold into.
//!
//! Nothing is shown or published that is not in here, and nothing moves on before it is. [`Journal`] is the seam.

#[cfg(test)]
pub(crate) mod conformance;
#[cfg(test)]
pub(crate) mod fixture;
mod live;
mod sqlite;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use podherald_core::{
    about::About,
    event::{Draft, Event},
    evidence::Evidence,
    execution::{Execution, Status, VersionVector},
    told::Told,
};
use tokio::sync::watch;
use uuid::Uuid;

pub use live::{Follower, Next};
pub use sqlite::{Metrics, Options, Sqlite};

/// Why the journal could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal has reached `journal.max_bytes`, or its disk is full. Nothing was written.
    #[error("the journal is full: {0}")]
    Full(String),
    /// The file is not a journal, or a damaged one.
    #[error("the journal {path} is damaged: {reason}; restore it from a copy, or move it away to begin a new one")]
    Corrupt {
        /// The file.
        path: String,
        /// What SQLite said.
        reason: String,
    },
    /// A later version of podherald wrote it.
    #[error(
        "the journal {path} has format {found}, this podherald knows formats up to {known}: start the newer podherald"
    )]
    Newer {
        /// The file.
        path: String,
        /// The format found.
        found: i64,
        /// The newest format known.
        known: i64,
    },
    /// Reading or writing failed.
    #[error("the journal could not {doing}: {reason}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        reason: String,
    },
    /// The process is shutting down.
    #[error("the journal is closed")]
    Closed,
}

/// A result of the journal.
pub type Result<T> = std::result::Result<T, Error>;

/// What one step of one pod adds. The evidence replaces the pod's earlier record; events that are known already (by
/// their id) are skipped without a trace, so a repeated append is harmless.
#[derive(Debug, Clone)]
pub struct Change {
    /// The pod's whole record after the step.
    pub evidence: Arc<Evidence>,
    /// In order. Shared, so that an append that is tried again copies nothing.
    pub events: Arc<[Draft]>,
}

/// What the journal knows of a pod that the monitor meets for the first time since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// The pod's record.
    pub evidence: Option<Evidence>,
    /// Who owns the execution that the pod claims, if anybody.
    pub claim: Option<Claim>,
    /// What another monitor has told of that execution.
    pub told: Vec<Told>,
}

/// An event of another monitor, as it was read from where that one published it.
#[derive(Debug, Clone, PartialEq)]
pub struct Adopted {
    /// What it says.
    pub event: Event,
    /// How it says it, which is kept.
    pub bytes: Bytes,
    /// Which pod it is about; counts as long as that pod was never seen here.
    pub about: About,
    /// Only if it follows on what is here of its source: what came before it may still come.
    pub in_order: bool,
    /// It is fetched from where all that ever happened is kept.
    pub recalled: bool,
}

/// How far a partition of a topic was read for [`Journal::adopt`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's name.
    pub topic: String,
    /// Which partition.
    pub partition: i32,
    /// Offset of the message to be read next.
    pub next: i64,
}

/// An execution's owner and attempts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// The namespace whose pod was first.
    pub namespace: String,
    /// Attempt key to number.
    pub attempts: BTreeMap<String, u32>,
}

/// One event as it stands in the journal. Shared, never copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Counted from 1 over the whole journal, rising, with holes after retention.
    pub position: u64,
    /// Whose event.
    pub execution_id: Arc<str>,
    /// Which pod it is about.
    pub about: Arc<About>,
    /// `event_type`.
    pub event_type: &'static str,
    /// Which attempt.
    pub attempt: u32,
    /// Who wrote it.
    pub source: Arc<str>,
    /// Its number among that writer's events of this execution.
    pub seq: u64,
    /// The status that the event brings about, if any.
    pub status: Option<Status>,
    /// Another monitor has published it.
    pub told: bool,
    /// It was fetched long after it was told, and is none of what happens now.
    pub recalled: bool,
    /// The execution's version vector once this event is applied.
    pub version: Arc<VersionVector>,
    /// The event's JSON: the only rendering there is.
    pub bytes: Bytes,
    /// What the event streams make of it.
    pub frames: Frames,
}

/// A record as the event streams send it: rendered by the first reader, shared by all others.
#[derive(Debug, Clone, Default)]
pub struct Frames {
    /// On the stream of its execution.
    pub one: OnceLock<Bytes>,
    /// On the stream of all.
    pub all: OnceLock<Bytes>,
}

/// Records are compared by what they say, whoever has read them.
impl PartialEq for Frames {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Frames {}

/// A page of executions, newest first.
#[derive(Debug, Clone, Default)]
pub struct ExecutionQuery {
    /// Only with one of these statuses; empty: all.
    pub statuses: Vec<Status>,
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Only of this user.
    pub user_id: Option<String>,
    /// Only these ids; empty: all.
    pub ids: Vec<String>,
    /// Only those that were first seen before this one (a [`Listed::key`]).
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// An execution in a list. `stdout` and `stderr` are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Rising in the order of first sight; the cursor of a page is the last one's.
    pub key: u64,
    /// The execution without its inline output.
    pub execution: Execution,
}

/// Past events of many executions, oldest first.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only after this position.
    pub after: u64,
    /// At most so many records.
    pub limit: usize,
}

/// A sink that is to be given every event, at its own pace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Its name, for ever the same.
    pub sink: &'static str,
    /// Retention waits for it.
    pub required: bool,
}

/// How far a sink has come. It survives restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Everything up to here is done with: acknowledged, rejected or missed.
    pub position: u64,
    /// Events that retention took before the sink had them, in all its life.
    pub missed: u64,
}

/// An event that a sink could never carry, kept as it is for whoever looks after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Of the event in the journal.
    pub position: u64,
    /// When the sink gave it up.
    pub at: Timestamp,
    /// Why, and what would be right.
    pub reason: String,
    /// `event_id`, if it can be read.
    pub event_id: Option<String>,
    /// Whose event.
    pub execution_id: Arc<str>,
    /// `event_type`.
    pub event_type: Arc<str>,
    /// The event ends its attempt, so that whoever reads the sink does not know how it ended.
    pub result_unproven: bool,
    /// The event's JSON.
    pub bytes: Bytes,
}

/// A page of dead letters, newest first.
#[derive(Debug, Clone)]
pub struct DeadLetterQuery {
    /// Only of this sink.
    pub sink: Option<String>,
    /// Only those that came before this one (a [`ListedLetter::key`]).
    pub before: Option<u64>,
    /// At most so many.
    pub limit: usize,
    /// No further one once their events have so many bytes.
    pub max_bytes: usize,
}

impl Default for DeadLetterQuery {
    fn default() -> Self {
        Self { sink: None, before: None, limit: 0, max_bytes: usize::MAX }
    }
}

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedLetter {
    /// Rising; the cursor of a page is the last one's.
    pub key: u64,
    /// Which sink gave it up.
    pub sink: String,
    /// What.
    pub letter: DeadLetter,
}

/// How much may be read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// At most so many records, ...
    pub records: usize,
    /// ... and no further one once their bytes are so many.
    pub bytes: usize,
}

/// A page of tracked pods, by namespace and name.
#[derive(Debug, Clone, Default)]
pub struct PodQuery {
    /// Only of this namespace.
    pub namespace: Option<String>,
    /// Only of this execution.
    pub execution_id: Option<String>,
    /// Only those after this namespace, name and uid.
    pub after: Option<(String, String, String)>,
    /// At most so many.
    pub limit: usize,
}

/// Attempts by what is known of their end; each is one of the first three.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audit {
    /// Their end is told.
    pub ended: u64,
    /// A pod of them, or their Job, is still there.
    pub live: u64,
    /// Neither.
    pub unaccounted: u64,
    /// Pods and Jobs that claim another namespace's execution.
    pub conflicts: u64,
    /// Records of those that are unaccounted for, oldest first.
    pub items: Vec<Evidence>,
}

/// What `/readyz` and `/metrics` say of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// False from a failed write until the next that succeeds.
    pub writable: bool,
    /// The last failure, in words.
    pub last_error: Option<String>,
    /// Bytes in use.
    pub used_bytes: u64,
    /// `journal.max_bytes`.
    pub max_bytes: u64,
}

/// What retention may take.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Ended executions older than this go.
    pub age: Duration,
    /// The present, by the caller's clock.
    pub now: Timestamp,
    /// Executions taken at a time, so that no commit waits long.
    pub batch: usize,
}

/// What retention took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids of the executions that are gone; their output files may go too.
    pub executions: Vec<String>,
}

/// Where the monitor writes and everybody reads.
///
/// Writers are acknowledged only when what they wrote is on disk. Reads see every write acknowledged before them.
pub trait Journal: Send + Sync + 'static {
    /// Makes all changes durable in one transaction, in order, or none of them.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Io`] leave the journal as it was: the same append may be tried again.
    fn append(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<()>>;

    /// Makes these events of other roles than the monitor durable in one transaction, in order, or none of them. Those that are
    /// known already are skipped, and those of an attempt that retention took. Each is shown with the latest pod of its attempt, if there is one yet.
    ///
    /// # Errors
    /// As [`Journal::append`].
    fn tell(&self, events: Vec<Draft>) -> BoxFuture<'_, Result<()>>;

    /// Takes over what another monitor has published, in order, and how far it was read, in one transaction. Each keeps its bytes, its source and its
    /// number. Of what is known already it is noted that it was told. Gives the ids of those that are to come in order and do not yet.
    ///
    /// # Errors
    /// As [`Journal::append`].
    fn adopt(&self, events: Vec<Adopted>, places: Vec<Place>) -> BoxFuture<'_, Result<Vec<Uuid>>>;

    /// How far was read what others publish; empty before the first [`Journal::adopt`].
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>>>;

    /// What is known of these pods, by (uid, execution id), in the order asked.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn known(&self, pods: Vec<(String, String)>) -> BoxFuture<'_, Result<Vec<Known>>>;

    /// The records of all pods that are not closed ([`Evidence::is_closed`]): where the monitor goes on after a restart.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn open_evidence(&self) -> BoxFuture<'_, Result<Vec<Evidence>>>;

    /// One execution as it is now.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn execution(&self, id: String) -> BoxFuture<'_, Result<Option<Execution>>>;

    /// A page of executions, newest first.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn executions(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<Vec<Listed>>>;

    /// A page of executions and the head position, read in one transaction: the start of a stream of many.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn snapshot(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<(u64, Vec<Listed>)>>;

    /// Events of one execution after this position, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn execution_events(&self, id: String, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Arc<Record>>>>;

    /// Events of all executions after a position, oldest first.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<Arc<Record>>>>;

    /// Events of all executions after a position, oldest first, within bounds: what a sink is given next.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn batch(&self, after: u64, bounds: Bounds) -> BoxFuture<'_, Result<Vec<Arc<Record>>>>;

    /// The last event after a position up to which another monitor has told all that is there; none if not even the first.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn told_after(&self, position: u64) -> BoxFuture<'_, Result<Option<u64>>>;

    /// Gives the cursors of these sinks, which are all that there are from now on: retention no longer waits for another.
    /// A sink that was never here begins with the present; one that comes back, where it was.
    ///
    /// # Errors
    /// As [`Journal::append`].
    fn subscribe(&self, sinks: Vec<Subscription>) -> BoxFuture<'_, Result<Vec<Cursor>>>;

    /// Moves a sink's cursor, never back, and keeps these dead letters of it: both or neither. A kill takes no move back; a
    /// loss of power may. A letter that is kept already stays as it is.
    ///
    /// # Errors
    /// As [`Journal::append`], and for a sink that has not subscribed.
    fn advance(&self, sink: &'static str, cursor: Cursor, dead_letters: Vec<DeadLetter>) -> BoxFuture<'_, Result<()>>;

    /// Of each of these events, by execution and id: whether every required sink is done with it, so that nobody who must have it
    /// needs this journal for it. One that is not here is taken to be carried: retention takes no other.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn carried(&self, events: Vec<(String, Uuid)>) -> BoxFuture<'_, Result<Vec<bool>>>;

    /// A page of dead letters, newest first. They are kept as long as ended executions are.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn dead_letters(&self, query: DeadLetterQuery) -> BoxFuture<'_, Result<Vec<ListedLetter>>>;

    /// A page of the pods that are still there (not gone), by namespace, name and uid.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn pods(&self, query: PodQuery) -> BoxFuture<'_, Result<Vec<Evidence>>>;

    /// Counts all attempts, and gives at most `limit` records of those that are unaccounted for.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn audit(&self, limit: usize) -> BoxFuture<'_, Result<Audit>>;

    /// The latest pod of this namespace and name, gone or not.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be read.
    fn pod(&self, namespace: String, name: String) -> BoxFuture<'_, Result<Option<Evidence>>>;

    /// Follows all events from now on. Subscribe before reading the past, then skip what both have.
    fn follow_all(&self) -> Follower;

    /// Follows one execution's events, and the changes of its evidence, from now on.
    fn follow(&self, execution_id: &str) -> Follower;

    /// Position of the newest durable event.
    fn head(&self) -> watch::Receiver<u64>;

    /// The lowest position from which [`Journal::events`] still has everything: what was pruned lies at or below it.
    fn floor(&self) -> u64;

    /// Made with the journal; part of every event's `source` and of every stream id.
    fn epoch(&self) -> &str;

    /// How it is doing.
    fn health(&self) -> Health;

    /// Drops what is too old or too much, at most one batch; call again while it returns something. What a required sink has
    /// not had stays.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk cannot be written.
    fn prune(&self, retention: Retention) -> BoxFuture<'_, Result<Pruned>>;

    /// Finishes what was accepted and stops.
    fn close(&self) -> BoxFuture<'_, ()>;
}
