//! The way in of every role but the monitor. [`Inbox`] is the seam: [`kafka`] where there is a Kafka, else [`journal`].
//!
//! An inbox brings messages, in their order, from where a group has come to, and keeps how far it has come. All the rest is the
//! same for each and is done by a [`Member`]: what is given to the role and when again, what its answers mean, and up to where
//! everything is done with. `hand` decides that, without a wait or a word to anybody.
//!
//! Delivery is at least once. Of events that a member was given and has acknowledged it remembers the last [`Policy::seen`]
//! by their ids, since its start, and gives none of them again. Who must know further back asks its store.

#[cfg(test)]
pub(crate) mod conformance;
mod hand;
pub mod journal;
pub mod kafka;
mod member;
mod metrics;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use podherald_core::{about::About, cloud_event::Envelope};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::sink::Fault;

pub use member::Member;
pub use metrics::Metrics;

/// A sequence of messages whose order is kept: a partition, or the journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic with its prefix.
    pub topic: Arc<str>,
    /// Of the topic.
    pub partition: i32,
}

/// A message as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Where.
    pub place: Place,
    /// Rising within its place.
    pub offset: u64,
    /// What has the same key stays in order; what has none does not.
    pub key: Option<Bytes>,
    /// In their order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The event.
    pub payload: Option<Bytes>,
}

/// What an inbox brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// The next one of its place.
    Message(Incoming),
    /// Before this offset is nothing else that is the group's.
    Passed {
        /// Where.
        place: Place,
        /// The first that is not passed.
        next: u64,
    },
    /// These are somebody else's from now on. What comes of them later begins where the group has come to.
    Revoked(Vec<Place>),
}

/// A message that cannot be processed.
#[derive(Debug, Clone)]
pub struct Letter {
    /// As it was.
    pub incoming: Arc<Incoming>,
    /// What the last try said.
    pub reason: String,
    /// How often it was tried; 0 for what cannot be read.
    pub tries: u32,
}

/// One membership of a group: where its messages come from, and where it is kept how far it has come.
pub trait Inbox: Send + 'static {
    /// Waits for the next arrival. Dropping the future loses none. Somebody must always wait here: that is how the group knows
    /// that this member is alive.
    ///
    /// # Errors
    /// Nothing comes for now.
    fn receive(&mut self) -> BoxFuture<'_, Result<Arrival, Fault>>;

    /// Nothing more of these places until they are resumed.
    ///
    /// # Errors
    /// They are not paused.
    fn pause(&mut self, places: &[Place]) -> Result<(), Fault>;

    /// See [`Inbox::pause`].
    ///
    /// # Errors
    /// They stay paused.
    fn resume(&mut self, places: &[Place]) -> Result<(), Fault>;

    /// All before `next` is done with: whoever goes on here begins with it. It is durable soon, at the latest when the inbox
    /// is closed or the place is revoked.
    ///
    /// # Errors
    /// It is not kept, and asked for again.
    fn finish<'a>(&'a mut self, place: &'a Place, next: u64) -> BoxFuture<'a, Result<(), Fault>>;

    /// Puts a message to the dead letters. Returns once it is durable there.
    fn bury(&self, letter: Letter) -> BoxFuture<'static, Result<(), Fault>>;

    /// Keeps what is finished, and leaves the group.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// How a group is served.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Times that a message is given before it goes to the dead letters.
    pub tries: u32,
    /// Until it is given for the second time; doubled each time.
    pub first_pause: Duration,
    /// At most.
    pub longest_pause: Duration,
    /// Messages of one place that are not done with; no more are taken until there are fewer.
    pub in_hand: usize,
    /// Ids of acknowledged events that are remembered.
    pub seen: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            tries: 5,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            in_hand: 256,
            seen: 10_000,
        }
    }
}

/// An event as a role is given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `event_id`.
    pub event_id: Uuid,
    /// `event_type`.
    pub event_type: Arc<str>,
    /// `execution_id`.
    pub execution_id: Arc<str>,
    /// Which pod it is about.
    pub about: About,
    /// The event's JSON.
    pub bytes: Bytes,
    /// How often it has been given, with this time.
    pub tries: u32,
    /// Where it was found.
    pub place: Place,
    /// Rising within its place.
    pub offset: u64,
}

/// A message that waits for its answer. Dropped without one it is as if it were refused.
#[derive(Debug)]
pub struct Delivery {
    /// What.
    pub message: Message,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug)]
enum Answer {
    Done,
    Again(String),
}

impl Delivery {
    /// All that follows from it is durable.
    pub fn ack(self) {
        // A member that has gone takes no answers: the message comes again.
        let _ = self.answer.send(Answer::Done);
    }

    /// It could not be processed: it comes again, or goes to the dead letters with this reason.
    pub fn nack(self, reason: impl Into<String>) {
        let _ = self.answer.send(Answer::Again(reason.into()));
    }
}

/// A delivery of this message, and whether it will have been acknowledged.
#[cfg(test)]
pub(crate) fn delivery(message: Message) -> (Delivery, impl Future<Output = bool>) {
    let (answer, answered) = oneshot::channel();
    (Delivery { message, answer }, async { matches!(answered.await, Ok(Answer::Done)) })
}

/// The event of a message, or why it has none.
fn read(incoming: &Incoming) -> Result<Message, String> {
    let bytes = incoming.payload.clone().ok_or("it has no payload")?;
    let envelope = Envelope::parse(&bytes).map_err(|error| format!("it cannot be read as an event: {error}"))?;
    let (event_id, event_type) = (envelope.event_id, Arc::from(&*envelope.event_type));
    let execution_id = Arc::from(&*envelope.execution_id);
    let (place, offset) = (incoming.place.clone(), incoming.offset);
    let mut about = About::default();
    for (name, value) in &incoming.headers {
        if let (Some(name), Some(value)) = (name.strip_prefix("ce_"), value) {
            about.read(name, value);
        }
    }
    Ok(Message { event_id, event_type, execution_id, about, bytes, tries: 0, place, offset })
}
