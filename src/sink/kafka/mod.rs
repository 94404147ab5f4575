//! Events in a Kafka: CloudEvents in binary mode, of one execution in one partition of each topic, in order.
//!
//! A batch is handed over as a whole; it is carried once each message of it is acknowledged by all replicas in sync. Whatever
//! goes wrong ends the producer: the next one begins where nothing is missing (see `producer`).
//!
//! Where several podheralds take turns, each batch is a transaction, so that one whose turn is over can publish nothing more.
//!
//! A broker refuses whole batches. When it finds fault with a record, all that is left of ours is carried one by one, so that
//! only the record at fault is left out. That one goes to the topic `dead_letter_queue`, if it can go there.

mod message;
mod options;
mod producer;
#[cfg(test)]
mod tests;
mod topics;
mod wording;

use std::{slice, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use rdkafka::{ClientConfig, error::KafkaError, producer::Producer as _};
use tokio::{runtime::Handle, sync::Mutex, task::spawn_blocking, time::timeout};

use self::{
    message::Message,
    producer::Producer,
    wording::{Blame, blame},
};
use super::{Fault, Item, Rejection, Sink};

pub(crate) use self::{
    message::{LEASE_HEADER, Names},
    producer::Trouble,
    wording::Way,
};
pub use options::{Error, Fence, Options, Password, Sasl};

/// The name of this sink's cursor, and in metrics.
pub const NAME: &str = "kafka";

/// Times that a commit is waited for.
const COMMITS: u32 = 3;

/// The sink. Its producer is made when it is needed.
pub struct Kafka {
    options: Options,
    names: Names,
    way: Way,
    place: Mutex<Option<Session>>,
}

/// A producer and how it stands.
struct Session {
    producer: Producer,
    config: ClientConfig,
    way: Way,
    /// All that it was given is acknowledged.
    is_clean: bool,
    /// All topics were there.
    has_topics: bool,
    /// Each batch is a transaction.
    is_transactional: bool,
    /// The uid of the Lease for which it was made.
    lease: Option<String>,
}

impl Kafka {
    /// A sink that is not connected yet.
    pub fn new(options: Options) -> Self {
        let way = Way::new(options.brokers.as_str(), options.timeout);
        Self { names: Names::new(&options.topic_prefix), way, options, place: Mutex::default() }
    }

    /// Shuts out whoever published for the same Lease before, and is ready to publish itself.
    ///
    /// # Errors
    /// The Lease is not held, or the far side is not to be had.
    pub async fn take_over(&self) -> Result<(), Fault> {
        let mut place = self.place.lock().await;
        retire(&mut place).await;
        self.session(&mut place).await.map(drop)
    }

    /// The uid of the Lease, where there is one.
    fn lease(&self) -> Result<Option<String>, Fault> {
        let Some(fence) = &self.options.fence else { return Ok(None) };
        fence.lease().map(Some).ok_or_else(|| Fault("another podherald holds the Lease of monitor.lease".to_owned()))
    }

    async fn carry_all(&self, items: &[Item]) -> Result<Vec<Rejection>, Fault> {
        let mut place = self.place.lock().await;
        let lease = self.lease()?;
        if place.as_ref().is_some_and(|session| session.lease != lease) {
            retire(&mut place).await;
        }
        let (messages, mut dead) = self.sort(items, lease.as_deref());
        for (index, reason) in self.publish(&mut place, &messages).await? {
            dead.push((messages[index].clone(), reason));
        }
        self.bury(&mut place, dead, items).await
    }

    /// What can be handed over, and what not, with the reason.
    fn sort(&self, items: &[Item], lease: Option<&str>) -> (Vec<Message>, Vec<(Message, String)>) {
        let mut messages = Vec::with_capacity(items.len());
        let mut dead = Vec::new();
        for item in items {
            match Message::of(item, &self.names, lease) {
                Ok(message) => match self.excess(&message) {
                    None => messages.push(message),
                    Some(reason) => dead.push((message, reason)),
                },
                Err(reason) => dead.push((Message::bare(item, &self.names), reason)),
            }
        }
        (messages, dead)
    }

    /// What is said of a message above the ceiling.
    fn excess(&self, message: &Message) -> Option<String> {
        let (size, max) = (message.size(), self.options.max_message_bytes);
        (size as u64 > max).then(|| {
            format!("with key and headers it takes {size} bytes, of {max} bytes at most (kafka.max_message_bytes)")
        })
    }

    /// Puts the dead into their queue, those that it can take, and gives all of them in the order of the items.
    async fn bury(
        &self,
        place: &mut Option<Session>,
        mut dead: Vec<(Message, String)>,
        items: &[Item],
    ) -> Result<Vec<Rejection>, Fault> {
        dead.sort_by_key(|(message, _)| message.position);
        let mut rejections = Vec::with_capacity(dead.len());
        let mut letters = Vec::new();
        for (message, reason) in dead {
            let letter = message.dead(&reason, &self.names);
            rejections.push(Rejection { position: message.position, reason });
            if self.excess(&letter).is_none() {
                letters.push(letter);
            }
        }
        let refused = self.publish(place, &letters).await?;
        for rejection in &mut rejections {
            let letter = letters.iter().position(|letter| letter.position == rejection.position);
            let refusal = refused.iter().find(|(index, _)| Some(*index) == letter).map(|(_, reason)| &**reason);
            let queue = self.names.of(podherald_core::topic::Topic::DeadLetterQueue);
            rejection.reason.push_str(&match (letter, refusal) {
                (Some(_), None) => format!("; it is in the topic {queue}"),
                (Some(_), Some(refusal)) => format!("; the topic {queue} did not take it either: {refusal}"),
                (None, _) => format!("; the topic {queue} cannot take it either, only the journal keeps it"),
            });
        }
        let place_of = |position| items.iter().position(|item| item.position() == position);
        rejections.sort_by_key(|rejection| place_of(rejection.position));
        Ok(rejections)
    }

    /// Publishes all that can be; gives the others by their index, with the reason.
    async fn publish(&self, place: &mut Option<Session>, messages: &[Message]) -> Result<Vec<(usize, String)>, Fault> {
        let mut refused = Vec::new();
        if messages.is_empty() {
            return Ok(refused);
        }
        let reports = self.attempt(place, messages).await?;
        for (index, report) in reports.into_iter().enumerate() {
            // Somebody who shares a batch with the one at fault is refused with it.
            let alone = match report {
                Err(_) if messages.len() > 1 => {
                    self.attempt(place, slice::from_ref(&messages[index])).await?.swap_remove(0)
                }
                report => report,
            };
            if let Err(error) = alone {
                refused.push((index, format!("the broker refuses it: {error}")));
            }
        }
        Ok(refused)
    }

    /// Hands these over together. Either all is well, or some of them is at fault, or it is a fault of the sink.
    async fn attempt(
        &self,
        place: &mut Option<Session>,
        messages: &[Message],
    ) -> Result<Vec<Result<(), KafkaError>>, Fault> {
        let session = self.session(place).await?;
        // A future that is dropped leaves it so.
        session.is_clean = false;
        if session.is_transactional
            && let Err(error) = session.producer.begin()
        {
            let fault = session.way.fault(&error, session.producer.trouble().as_ref());
            retire(place).await;
            return Err(fault);
        }
        let published = timeout(self.options.timeout, session.producer.publish(messages)).await;
        let fault = match published {
            Ok(reports) => match verdict(&reports) {
                Verdict::Delivered => match session.commit(self.options.timeout).await {
                    Ok(()) => {
                        session.is_clean = true;
                        return Ok(reports);
                    }
                    Err(error) => session.way.fault(&error, session.producer.trouble().as_ref()),
                },
                Verdict::Record => {
                    // What was taken beside it is taken back with its transaction.
                    let is_taken_back = session.is_transactional;
                    retire(place).await;
                    let report = |report: Result<(), KafkaError>| {
                        if is_taken_back { report.and(Err(KafkaError::Canceled)) } else { report }
                    };
                    return Ok(reports.into_iter().map(report).collect());
                }
                Verdict::Sink(error) => session.way.fault(error, session.producer.trouble().as_ref()),
            },
            Err(_) => session.way.silent(session.producer.trouble().as_ref()),
        };
        retire(place).await;
        Err(fault)
    }

    /// The producer, a new one if the last is not to be used any more, with all topics there.
    async fn session<'a>(&self, place: &'a mut Option<Session>) -> Result<&'a mut Session, Fault> {
        if place.as_ref().is_some_and(|session| !session.is_clean || session.producer.is_fatal()) {
            retire(place).await;
        }
        let session = match place {
            Some(session) => session,
            None => place.insert(self.open().await?),
        };
        if !session.has_topics {
            session.is_clean = false;
            self.ensure(session).await?;
            session.is_clean = true;
            session.has_topics = true;
        }
        Ok(session)
    }

    async fn open(&self) -> Result<Session, Fault> {
        let client = self.options.client().await;
        let (config, password) = client.map_err(|error| self.way.wrong(&crate::wording::of(&error)))?;
        let way = self.way.with_secret(password.as_deref());
        let lease = self.lease()?;
        let is_transactional = lease.is_some();
        let transactional_id = lease.as_ref().map(|lease| format!("{}podherald-{lease}", self.options.topic_prefix));
        let timeout = self.options.timeout;
        let made = spawn_blocking({
            let config = config.clone();
            move || match transactional_id {
                Some(id) => Producer::make_transactional(&config, &id, timeout),
                None => Producer::make(&config),
            }
        });
        let made = made.await.map_err(|error| way.wrong(&format!("making a client failed: {error}")))?;
        let producer = made.map_err(|error| way.fault(&error, None))?;
        let session = Session { producer, config, way, is_clean: true, has_topics: false, is_transactional, lease };
        // That may have taken longer than the Lease lasts, and then shut out whoever has it now.
        if self.lease().ok().as_ref() != Some(&session.lease) {
            retire(&mut Some(session)).await;
            return Err(self.way.wrong("the Lease of monitor.lease was lost meanwhile"));
        }
        Ok(session)
    }

    async fn ensure(&self, session: &Session) -> Result<(), Fault> {
        let Session { producer, config, way, .. } = session;
        topics::ensure(producer, config, &self.options, &self.names, way).await
    }

    async fn look(&self) -> Result<(), Fault> {
        let mut place = self.place.lock().await;
        let session = self.session(&mut place).await?;
        session.has_topics = false;
        self.session(&mut place).await.map(drop)
    }
}

impl Session {
    async fn commit(&self, timeout: Duration) -> Result<(), KafkaError> {
        if !self.is_transactional {
            return Ok(());
        }
        let mut tries = 1..COMMITS;
        loop {
            let client = self.producer.client();
            let committed = spawn_blocking(move || client.commit_transaction(timeout)).await;
            match committed.unwrap_or(Err(KafkaError::Canceled)) {
                // The client goes on with it, and says then what became of it.
                Err(KafkaError::Transaction(error)) if error.is_retriable() && tries.next().is_some() => {}
                committed => return committed,
            }
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        // The end of a producer blocks, and nobody can wait for it here.
        if let (Some(session), Ok(runtime)) = (self.place.get_mut().take(), Handle::try_current()) {
            runtime.spawn_blocking(move || session.producer.end());
        }
    }
}

/// What the reports of a batch come to.
enum Verdict<'a> {
    Delivered,
    /// A record is at fault.
    Record,
    Sink(&'a KafkaError),
}

fn verdict(reports: &[Result<(), KafkaError>]) -> Verdict<'_> {
    let errors = || reports.iter().filter_map(|report| report.as_ref().err());
    let of = |whose: Blame| errors().find(|error| blame(error) == whose);
    match (of(Blame::Sink), of(Blame::Record), of(Blame::Other)) {
        (Some(error), ..) => Verdict::Sink(error),
        (None, Some(_), _) => Verdict::Record,
        (None, None, Some(error)) => Verdict::Sink(error),
        (None, None, None) => Verdict::Delivered,
    }
}

/// Ends a producer, off the runtime's threads; what it had not sent yet never is.
async fn retire(place: &mut Option<Session>) {
    if let Some(session) = place.take()
        && let Err(error) = spawn_blocking(move || session.producer.end()).await
    {
        tracing::error!(%error, "a Kafka producer did not end in order");
    }
}

impl Sink for Kafka {
    fn carry<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Result<Vec<Rejection>, Fault>> {
        self.carry_all(items).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.look().boxed()
    }
}
