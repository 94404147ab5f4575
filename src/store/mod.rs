//! What stays for good: every event, the executions that they fold into, what attempts came to. [`Store`] is the seam:
//! [`mongo`] where there is a MongoDB, else [`sqlite`].
//!
//! Every write may come again, for its answer may be lost (T114): an event is known by its id, a result by its attempt, a
//! dead letter by its offset, and what is known stays as it is. What an execution is, is folded by
//! [`podherald_core::execution`] alone, from whatever comes in whatever order ([`projection`]).
//!
//! Events, and which pods they are [`About`], are all that a store is told: its [`Execution`]s know nothing else.

#[cfg(test)]
pub(crate) mod conformance;
mod deferred;
pub mod mongo;
mod opening;
pub mod projection;
pub mod sqlite;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use podherald_core::{
    about::About,
    cloud_event::Envelope,
    event::{Event, Terminal},
    execution::{Execution, Status},
};
use uuid::Uuid;

use crate::inbox::{Incoming, Place};

pub use deferred::Deferred;
pub use opening::{migrate, open};

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is away, or too slow. A write may have been done all the same: it is to be tried again.
    #[error("the store could not {doing}: {reason}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        reason: String,
    },
    /// Trying again is of no use until somebody has changed what the reason names.
    #[error("the store will not {doing}: {reason}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// What is kept there was not written like this by podherald.
    #[error("the store {place} holds what podherald did not write: {reason}; restore it from a copy")]
    Corrupt {
        /// The file, or the collection.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A later version of podherald wrote it.
    #[error(
        "the store {place} has schema {found}, this podherald knows schemas up to {known}: start the newer podherald"
    )]
    Newer {
        /// The file, or the database.
        place: String,
        /// The schema found.
        found: i64,
        /// The newest schema known.
        known: i64,
    },
}

/// A result of the store.
pub type Result<T> = std::result::Result<T, Error>;

/// An event that is to be kept, and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// Topic and partition.
    pub place: Place,
    /// Rising within its place.
    pub offset: u64,
    /// Which pod it is about.
    pub about: About,
    /// `event_id`.
    pub event_id: Uuid,
    /// `event_type`; it need not be of this catalogue.
    pub event_type: String,
    /// `execution_id`.
    pub execution_id: String,
    /// `timestamp`.
    pub at: Timestamp,
    /// `seq`.
    pub seq: u64,
    /// The event's JSON, kept as it is.
    pub bytes: Bytes,
    /// None of a type that this program does not know: kept all the same, and folded into nothing.
    pub(crate) event: Option<Arc<Event>>,
}

impl Arrival {
    /// Reads the event that was found there.
    ///
    /// # Errors
    /// The bytes are no event.
    pub fn read(place: Place, offset: u64, about: About, bytes: Bytes) -> std::result::Result<Self, String> {
        let unreadable = |error: &dyn std::fmt::Display| format!("it cannot be read as an event: {error}");
        let envelope = Envelope::parse(&bytes).map_err(|error| unreadable(&error))?;
        let at = envelope.timestamp.parse().map_err(|error: jiff::Error| unreadable(&error))?;
        let (event_id, seq) = (envelope.event_id, envelope.seq);
        let (event_type, execution_id) = (envelope.event_type.into_owned(), envelope.execution_id.into_owned());
        let event = serde_json::from_slice(&bytes).ok().map(Arc::new);
        Ok(Self { place, offset, about, event_id, event_type, execution_id, at, seq, bytes, event })
    }
}

/// What became of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is kept now.
    New,
    /// An event of this id was there already, and stays.
    Known,
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Whose.
    pub execution_id: String,
    /// Counted from 1.
    pub attempt: u32,
    /// The terminal event.
    pub event_id: Uuid,
    /// `completed`, `failed`, `timeout` or `cancelled`.
    pub status: Status,
    /// `timestamp` of the terminal event.
    pub ended_at: Timestamp,
    /// Exit, usage, verdicts, digests and uri; `stdout` and `stderr` are empty here.
    pub terminal: Terminal,
    /// Bytes, whatever the program meant by them.
    pub stdout: Bytes,
    /// As `stdout`.
    pub stderr: Bytes,
}

impl Outcome {
    /// What this event says that its attempt came to; none if it ends no attempt.
    pub fn of(event: &Event) -> Option<Self> {
        let status = Status::after(&event.payload)?;
        let mut terminal = event.payload.terminal()?.clone();
        let (stdout, stderr) = (std::mem::take(&mut terminal.stdout), std::mem::take(&mut terminal.stderr));
        Some(Self {
            execution_id: event.execution_id.clone(),
            attempt: event.attempt,
            event_id: event.event_id,
            status,
            ended_at: event.timestamp,
            terminal,
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is the attempt's now.
    First,
    /// It is since an earlier time.
    Again,
    /// Another event ended the attempt before, and its result stays.
    Other {
        /// That event.
        event_id: Uuid,
    },
}

/// One attempt, by rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Whose.
    pub execution_id: String,
    /// Counted from 1.
    pub attempt: u32,
    /// The one of the highest rank; the first of rank 9 stays.
    pub status: Status,
    /// When the attempt ended.
    pub ended_at: Option<Timestamp>,
    /// The event that ended it.
    pub ended_by: Option<Uuid>,
}

/// For each place the offset from which on nothing is in yet.
pub type Watermarks = BTreeMap<Place, u64>;

/// An execution, and how far it is folded.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The execution.
    pub execution: Execution,
    /// Of its pods, once known.
    pub namespace: Option<String>,
    /// Its events up to these offsets are in it, as far as they came in order.
    pub watermarks: Watermarks,
}

/// Where an execution stands in a list. It never changes, so that pages stay right while executions come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// `timestamp` of its event that came first.
    pub at: Timestamp,
    /// Which of those of that time.
    pub execution_id: String,
}

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
    /// Only those behind this one.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

impl ExecutionQuery {
    /// Those that had a pod and have not ended: what a monitor that starts expects to find.
    pub fn open(after: Option<Cursor>, limit: usize) -> Self {
        let statuses = vec![Status::Scheduled, Status::Running];
        Self { statuses, after, limit, ..Self::default() }
    }
}

/// An execution in a list. `stdout` and `stderr` are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The cursor of a page is the last one's.
    pub cursor: Cursor,
    /// The execution without its inline output.
    pub execution: Execution,
}

/// Where an event stands among those of its execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventCursor {
    /// `timestamp`.
    pub at: Timestamp,
    /// `seq`: its writer's order within that time.
    pub seq: u64,
    /// Which of different writers.
    pub event_id: Uuid,
}

/// A page of an execution's events, oldest first.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Whose.
    pub execution_id: String,
    /// Only those behind this one.
    pub after: Option<EventCursor>,
    /// At most so many.
    pub limit: usize,
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The cursor of a page is the last one's.
    pub cursor: EventCursor,
    /// `event_type`.
    pub event_type: String,
    /// The event's JSON, as it came.
    pub bytes: Bytes,
}

/// A message that a role could not process, kept as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Who gave it up.
    pub role: String,
    /// The message.
    pub incoming: Incoming,
    /// What the last try said.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
    /// When it was given up.
    pub at: Timestamp,
}

/// A page of dead letters, newest first.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterQuery {
    /// Only of this role.
    pub role: Option<String>,
    /// Only those behind this one.
    pub after: Option<LetterCursor>,
    /// At most so many.
    pub limit: usize,
}

/// Where a dead letter stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterCursor {
    /// When it was given up.
    pub at: Timestamp,
    /// Which of those of that time.
    pub id: String,
}

/// A dead letter in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedLetter {
    /// The cursor of a page is the last one's.
    pub cursor: LetterCursor,
    /// What.
    pub letter: DeadLetter,
}

impl DeadLetter {
    /// The same message given up by the same role is the same letter.
    pub(crate) fn id(&self) -> String {
        let Incoming { place: Place { topic, partition }, offset, .. } = &self.incoming;
        format!("{}/{topic}/{partition}/{offset}", self.role)
    }
}

/// Where results stay, and the past is read from by every process.
///
/// A write returns only once what was written survives the loss of the process and of its machine. Reads see every write
/// acknowledged before them.
pub trait Store: Send + Sync + 'static {
    /// Keeps these events and folds them into their executions, those of one execution in their order. Says of each, in
    /// order, what became of it. All of them may come again.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: some of them may be kept.
    fn append(&self, arrivals: Vec<Arrival>) -> BoxFuture<'_, Result<Vec<Appended>>>;

    /// Keeps what an attempt came to, unless there is a result of it.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it may be kept.
    fn put_result(&self, outcome: Outcome) -> BoxFuture<'_, Result<Stored>>;

    /// What an attempt came to; without a number, the latest that has come to something.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn result(&self, execution_id: String, attempt: Option<u32>) -> BoxFuture<'_, Result<Option<Outcome>>>;

    /// One execution as it is now.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn execution(&self, id: String) -> BoxFuture<'_, Result<Option<Found>>>;

    /// A page of executions, newest first. Page after page is all that there were when the first was read.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn executions(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<Vec<Listed>>>;

    /// A page of an execution's events, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<StoredEvent>>>;

    /// The attempts of an execution, by number.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn attempts(&self, execution_id: String) -> BoxFuture<'_, Result<Vec<Attempt>>>;

    /// A role is done with an event, for ever (T105): to be said when all that follows from it is durable. True the first time.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it may be kept.
    fn finish(&self, role: &'static str, event_id: Uuid, at: Timestamp) -> BoxFuture<'_, Result<bool>>;

    /// Whether a role is done with an event.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn is_finished(&self, role: &'static str, event_id: Uuid) -> BoxFuture<'_, Result<bool>>;

    /// Keeps a dead letter; one that is kept already stays as it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: it may be kept.
    fn bury(&self, letter: DeadLetter) -> BoxFuture<'_, Result<()>>;

    /// A page of dead letters, newest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn dead_letters(&self, query: DeadLetterQuery) -> BoxFuture<'_, Result<Vec<ListedLetter>>>;

    /// Whether it would answer now.
    ///
    /// # Errors
    /// Why it would not.
    fn check(&self) -> BoxFuture<'_, Result<()>>;
}
