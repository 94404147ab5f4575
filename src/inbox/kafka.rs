//! A member of a consumer group.
//!
//! The client commits by itself, but only offsets that it was told to (`enable.auto.offset.store = false`): twice a second,
//! before a partition goes to somebody else, and when it is closed. So a commit never passes a message that is not done with,
//! and a member that is killed leaves half a second of messages that come again.
//!
//! Partitions move one by one (cooperative-sticky): those that stay are not interrupted.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use podherald_core::topic::Topic;
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance, StreamConsumer},
    error::KafkaError,
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
    types::RDKafkaErrorCode as Code,
    util::Timeout,
};
use tokio::{sync::Notify, task::spawn_blocking, time::timeout};

use super::{Arrival, Inbox, Incoming, Letter, Place};
use crate::{
    crash,
    sink::{
        Fault,
        kafka::{Names, Options, Trouble, Way},
    },
};

/// Of the end of a client; later it goes on by itself.
const CLOSE: Duration = Duration::from_secs(5);
/// Of a reason in a header.
const MAX_REASON_CHARS: usize = 1000;

/// See the module.
pub struct Kafka {
    group: String,
    consumer: StreamConsumer<Context>,
    /// It came after partitions had gone, of which must be told first.
    held_back: Option<Incoming>,
    way: Way,
    graves: Arc<Graves>,
}

/// What the client tells by itself.
#[derive(Default)]
struct Context {
    trouble: Trouble,
    revoked: Mutex<Vec<Place>>,
    told: Notify,
}

impl Context {
    fn take_revoked(&self) -> Vec<Place> {
        std::mem::take(&mut *self.revoked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.trouble.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let places = partitions.elements();
            let places = places.iter().map(|of| Place { topic: of.topic().into(), partition: of.partition() });
            self.revoked.lock().unwrap_or_else(PoisonError::into_inner).extend(places);
            self.told.notify_one();
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // Of an earlier time here they may still be paused, and nobody would know.
        if let Rebalance::Assign(partitions) = rebalance
            && let Err(error) = consumer.resume(partitions)
        {
            tracing::warn!(%error, "partitions that were assigned could not be resumed");
        }
    }

    fn commit_callback(&self, result: Result<(), KafkaError>, _: &TopicPartitionList) {
        match result {
            Ok(()) => crash::at(crash::Point::Place),
            Err(error) if error.rdkafka_error_code() == Some(Code::NoOffset) => {}
            Err(error) => tracing::warn!(%error, "a commit failed; what it was for may come again"),
        }
    }
}

impl Kafka {
    /// Joins a group that is given the messages of these topics. A new group begins with the oldest that are kept. `kafka.topic_prefix`
    /// stands before the group's name too.
    ///
    /// # Errors
    /// No client can be made of the options. Whether there are brokers shows only later.
    pub async fn join(options: &Options, group: &str, topics: &[Topic]) -> Result<Self, Fault> {
        let names = Names::new(&options.topic_prefix);
        let way = Way::new(options.brokers.as_str(), options.timeout);
        let client = options.client().await;
        let (client, password) = client.map_err(|error| way.wrong(&crate::wording::of(&error)))?;
        let way = way.with_secret(password.as_deref());
        let group = format!("{}{group}", options.topic_prefix);
        let config = consuming(&client, &group);
        let subscribed: Vec<_> = topics.iter().map(|topic| names.of(*topic)).collect();
        let made = spawn_blocking(move || {
            let consumer: StreamConsumer<Context> = config.create_with_context(Context::default())?;
            consumer.subscribe(&subscribed.iter().map(|name| &**name).collect::<Vec<_>>())?;
            Ok::<_, KafkaError>(consumer)
        });
        let made = made.await.map_err(|error| way.wrong(&format!("making a client failed: {error}")))?;
        let consumer = made.map_err(|error| way.fault(&error, None))?;
        let graves = Graves {
            group: group.clone(),
            topic: names.of(Topic::DeadLetterQueue),
            config: burying(client),
            timeout: options.timeout,
            way: way.clone(),
            producer: tokio::sync::Mutex::default(),
        };
        Ok(Self { group, consumer, held_back: None, way, graves: Arc::new(graves) })
    }

    async fn next(&mut self) -> Result<Arrival, Fault> {
        loop {
            let revoked = self.consumer.context().take_revoked();
            if !revoked.is_empty() {
                return Ok(Arrival::Revoked(revoked));
            }
            if let Some(incoming) = self.held_back.take() {
                return Ok(Arrival::Message(incoming));
            }
            tokio::select! {
                biased;
                // The client calls back while it is waited for.
                received = self.consumer.recv() => match received {
                    Ok(message) => self.held_back = Some(incoming(&message)),
                    Err(error) => return Err(self.fault(&error)),
                },
                () = self.consumer.context().told.notified() => {}
            }
        }
    }

    fn fault(&self, error: &KafkaError) -> Fault {
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => self.way.wrong(&format!(
                "its user may not do what is needed; the ACLs are Describe and Read on the topics, and Read on the group {} \
                 ({error})",
                self.group
            )),
            _ => self.way.fault(error, self.consumer.context().trouble.get().as_ref()),
        }
    }
}

fn consuming(client: &ClientConfig, group: &str) -> ClientConfig {
    let mut config = client.clone();
    for (name, value) in [
        ("auto.commit.interval.ms", "500"),
        // What is fetched and not taken yet.
        ("queued.max.messages.kbytes", "16384"),
        // A partition that is resumed waits for the end of the fetch that is under way for the others.
        ("fetch.wait.max.ms", "100"),
        ("fetch.queue.backoff.ms", "100"),
        // A topic that is not there yet is asked for so often.
        ("topic.metadata.refresh.interval.ms", "10000"),
    ] {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    config.set("group.id", group);
    config.set("enable.auto.commit", "true");
    config.set("enable.auto.offset.store", "false");
    config.set("auto.offset.reset", "earliest");
    config.set("partition.assignment.strategy", "cooperative-sticky");
    config
}

/// What others have published may be larger than what podherald does: the brokers know what they take.
fn burying(mut client: ClientConfig) -> ClientConfig {
    client.set("message.max.bytes", "1000000000");
    client
}

fn incoming(message: &BorrowedMessage<'_>) -> Incoming {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Incoming {
        place: Place { topic: message.topic().into(), partition: message.partition() },
        offset: u64::try_from(message.offset()).expect("a message has an offset"),
        key: message.key().map(Bytes::copy_from_slice),
        headers: headers.map(|header| (header.key.to_owned(), header.value.map(Bytes::copy_from_slice))).collect(),
        payload: message.payload().map(Bytes::copy_from_slice),
    }
}

fn list(places: &[Place]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for Place { topic, partition } in places {
        list.add_partition(topic, *partition);
    }
    list
}

impl Inbox for Kafka {
    fn receive(&mut self) -> BoxFuture<'_, Result<Arrival, Fault>> {
        self.next().boxed()
    }

    fn pause(&mut self, places: &[Place]) -> Result<(), Fault> {
        self.consumer.pause(&list(places)).map_err(|error| self.fault(&error))
    }

    fn resume(&mut self, places: &[Place]) -> Result<(), Fault> {
        self.consumer.resume(&list(places)).map_err(|error| self.fault(&error))
    }

    fn finish<'a>(&'a mut self, place: &'a Place, next: u64) -> BoxFuture<'a, Result<(), Fault>> {
        let mut offsets = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(i64::try_from(next).expect("it was one of Kafka's"));
        let stored = offsets.add_partition_offset(&place.topic, place.partition, offset);
        let stored = match stored.and_then(|()| self.consumer.store_offsets(&offsets)) {
            // It has just been revoked, which is told next.
            Err(error) if matches!(error.rdkafka_error_code(), Some(Code::State | Code::UnknownPartition)) => Ok(()),
            stored => stored.map_err(|error| self.fault(&error)),
        };
        async { stored }.boxed()
    }

    fn bury(&self, letter: Letter) -> BoxFuture<'static, Result<(), Fault>> {
        let graves = self.graves.clone();
        async move { graves.take(&letter).await }.boxed()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        let (group, graves) = (self.group.clone(), self.graves.clone());
        async move {
            // Its end commits, leaves the group, and waits for both.
            let closed = spawn_blocking(move || drop(self));
            if timeout(CLOSE, closed).await.is_err() {
                tracing::warn!(group, "the group could not be left in order; what was done last may come again");
            }
            retire(graves.producer.lock().await.take()).await;
        }
        .boxed()
    }
}

/// Where dead letters go.
struct Graves {
    group: String,
    topic: Arc<str>,
    config: ClientConfig,
    timeout: Duration,
    way: Way,
    /// Only while all that it was given is acknowledged.
    producer: tokio::sync::Mutex<Option<Gravedigger>>,
}

/// A producer, and what it complains of.
struct Gravedigger(FutureProducer<Trouble>, Trouble);

impl Graves {
    async fn take(&self, letter: &Letter) -> Result<(), Fault> {
        let mut place = self.producer.lock().await;
        let producer = match place.take() {
            Some(producer) => producer,
            None => self.open().await?,
        };
        let (headers, incoming) = (headers(letter, &self.group), &letter.incoming);
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        record.key = incoming.key.as_deref();
        record.payload = incoming.payload.as_deref();
        let sent = timeout(self.timeout, producer.0.send(record, Timeout::Never)).await;
        if matches!(sent, Ok(Ok(_))) {
            *place = Some(producer);
            return Ok(());
        }
        let trouble = producer.1.get();
        retire(Some(producer)).await;
        Err(match sent {
            Ok(Err((error, _))) => self.way.fault(&error, trouble.as_ref()),
            _ => self.way.silent(trouble.as_ref()),
        })
    }

    async fn open(&self) -> Result<Gravedigger, Fault> {
        let (config, trouble) = (self.config.clone(), Trouble::default());
        let made = spawn_blocking({
            let trouble = trouble.clone();
            move || config.create_with_context(trouble)
        });
        let made = made.await.map_err(|error| self.way.wrong(&format!("making a client failed: {error}")))?;
        made.map(|producer| Gravedigger(producer, trouble)).map_err(|error| self.way.fault(&error, None))
    }
}

/// Those that it had, and what became of it.
fn headers(letter: &Letter, group: &str) -> OwnedHeaders {
    let Letter { incoming, reason, tries } = letter;
    let mut headers = OwnedHeaders::new_with_capacity(incoming.headers.len() + 6);
    for (key, value) in &incoming.headers {
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    for (key, value) in [
        ("dlq-reason", &reason),
        ("dlq-group", &group.to_owned()),
        ("dlq-tries", &tries.to_string()),
        ("dlq-original-topic", &incoming.place.topic.to_string()),
        ("dlq-original-partition", &incoming.place.partition.to_string()),
        ("dlq-original-offset", &incoming.offset.to_string()),
    ] {
        headers = headers.insert(Header { key, value: Some(value.as_bytes()) });
    }
    headers
}

/// Ends a producer off the runtime's threads.
async fn retire(producer: Option<Gravedigger>) {
    if let Err(error) = spawn_blocking(move || drop(producer)).await {
        tracing::error!(%error, "a Kafka producer did not end in order");
    }
}
