//! What another podherald has published to Kafka, read back into this one's journal.
//!
//! Only what bears the same Lease counts: other clusters may share the topics. What an attempt of a transaction left behind is not
//! read (`read_committed`). Of one execution, events come in by two topics; those that come in together are put in their writer's order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use podherald_core::{about::About, event::Event, told::Told, topic::Topic};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{Consumer, ConsumerContext, StreamConsumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers as _},
    util::Timeout,
};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use super::Metrics;
use crate::{
    clock::Clock,
    journal::{Adopted, Journal, Place},
    sink::{
        Fault,
        kafka::{LEASE_HEADER, Names, Options, Trouble, Way},
    },
};

/// What a monitor and the roles beside it publish.
const TOPICS: [Topic; 3] = [Topic::ExecutionEvents, Topic::PodEvents, Topic::ExecutionResults];
/// Clocks differ, and an event is older than what it was published for.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);
/// Taken over at once, at most.
const BATCH: usize = 512;
/// A first message waits so long for those that belong before it.
const LINGER: Duration = Duration::from_millis(200);

/// How far to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// To what is there now.
    End,
    /// And on, as it comes.
    Forever,
}

/// See the module.
pub struct Predecessor {
    /// Of the Kafka.
    pub options: Options,
    /// Where it goes.
    pub journal: Arc<dyn Journal>,
    /// To the monitor, which must not tell the same.
    pub told: mpsc::Sender<Told>,
    /// What is counted.
    pub metrics: Metrics,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The uids of the Lease, which may have been made anew: what was published for one before is still of it.
    pub leases: Mutex<BTreeSet<String>>,
}

struct Context(Trouble);

impl rdkafka::ClientContext for Context {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ConsumerContext for Context {}

/// One topic on its way in.
struct Reader {
    /// Only its end takes it away.
    consumer: Option<StreamConsumer<Context>>,
    partitions: usize,
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The end of a client takes a while.
        let consumer = self.consumer.take();
        spawn_blocking(move || drop(consumer));
    }
}

impl Reader {
    fn consumer(&self) -> &StreamConsumer<Context> {
        self.consumer.as_ref().expect("it has not ended")
    }
}

/// What was read and is not in the journal yet.
#[derive(Default)]
struct Batch {
    events: Vec<Adopted>,
    places: Vec<Place>,
    since: Option<Instant>,
}

impl Predecessor {
    /// Reads on from where it was left; the first time from before `oldest`, when the oldest thing that is there was made.
    pub(super) async fn read(&self, lease: &str, oldest: Timestamp, until: Until) -> Result<(), Fault> {
        let way = Way::new(self.options.brokers.as_str(), self.options.timeout);
        let client = self.options.client().await;
        let (client, password) = client.map_err(|error| way.wrong(&crate::wording::of(&error)))?;
        let way = way.with_secret(password.as_deref());
        let mut places = self.journal.places().await.map_err(|error| Fault(error.to_string()))?;
        let mut oldest = oldest;
        let leases = {
            let mut known = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
            if known.insert(lease.to_owned()) && known.len() > 1 {
                // Made anew. What was published for it before that was noticed was left out.
                places.clear();
                oldest = self.clock.now();
            }
            known.clone()
        };
        let from = oldest.saturating_sub(MARGIN).unwrap_or(Timestamp::MIN).as_millisecond();
        let names = Names::new(&self.options.topic_prefix);
        let timeout = self.options.timeout;
        let open = TOPICS.map(|topic| {
            let (config, topic, places, way) = (consuming(&client), names.of(topic), places.clone(), way.clone());
            spawn_blocking(move || {
                open(&config, &topic, &places, from, timeout).map_err(|error| way.fault(&error, None))
            })
        });
        let [first, second, third] = open;
        let opened = |joined: Result<_, tokio::task::JoinError>| joined.map_err(|error| Fault(error.to_string()));
        let readers = [opened(first.await)??, opened(second.await)??, opened(third.await)??];
        self.work(&leases, until, &readers, &way).await
    }

    async fn work(
        &self,
        leases: &BTreeSet<String>,
        until: Until,
        readers: &[Reader; TOPICS.len()],
        way: &Way,
    ) -> Result<(), Fault> {
        let mut batch = Batch::default();
        // Of each topic the partitions of which nothing more is there.
        let mut ended = [const { BTreeSet::new() }; TOPICS.len()];
        let [one, other, third] = readers.each_ref().map(Reader::consumer);
        loop {
            let is_at_end = readers.iter().zip(&ended).all(|(reader, ended)| ended.len() == reader.partitions);
            let is_due = batch.since.is_some_and(|since| since.elapsed() >= LINGER);
            if batch.places.len() >= BATCH || is_due || (is_at_end && !batch.places.is_empty()) {
                self.adopt(std::mem::take(&mut batch)).await?;
            }
            if is_at_end && batch.places.is_empty() && until == Until::End {
                return Ok(());
            }
            let due = batch.since.map(|since| since + LINGER);
            let (topic, received) = tokio::select! {
                received = one.recv() => (0, received),
                received = other.recv() => (1, received),
                received = third.recv() => (2, received),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
            };
            match received {
                Ok(message) => {
                    ended[topic].remove(&message.partition());
                    self.take(&message, leases, &mut batch);
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    ended[topic].insert(partition);
                }
                Err(error) => {
                    let trouble = readers.iter().find_map(|reader| reader.consumer().context().0.get());
                    return Err(way.fault(&error, trouble.as_ref()));
                }
            }
        }
    }

    fn take(&self, message: &BorrowedMessage<'_>, leases: &BTreeSet<String>, batch: &mut Batch) {
        batch.since.get_or_insert_with(Instant::now);
        let (topic, partition, offset) = (message.topic().to_owned(), message.partition(), message.offset());
        batch.places.push(Place { topic, partition, next: offset + 1 });
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let (mut lease, mut about) = (None, About::default());
        for header in headers {
            match header.key.strip_prefix("ce_") {
                Some(name) => about.read(name, header.value.unwrap_or_default()),
                None if header.key == LEASE_HEADER => lease = header.value,
                None => {}
            }
        }
        if !leases.iter().any(|known| lease == Some(known.as_bytes())) {
            return;
        }
        let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        match serde_json::from_slice::<Event>(&bytes) {
            // Its own too: it may have died before it noted that they are there.
            Ok(event) => batch.events.push(Adopted { event, bytes, about, in_order: false }),
            Err(error) => {
                self.metrics.unreadable.inc();
                let topic = message.topic();
                tracing::error!(topic, partition, offset, %error, "an event of another podherald cannot be read; it is left out");
            }
        }
    }

    async fn adopt(&self, Batch { mut events, mut places, .. }: Batch) -> Result<(), Fault> {
        let order = |adopted: &Adopted| {
            let Event { execution_id, source, seq, .. } = &adopted.event;
            (execution_id.clone(), source.clone(), *seq)
        };
        events.sort_by_cached_key(order);
        places.sort_unstable();
        // Of each partition the last.
        places.reverse();
        places.dedup_by(|one, other| (&one.topic, one.partition) == (&other.topic, other.partition));
        let told: Vec<Told> = events.iter().map(|adopted| Told::of(&adopted.event)).collect();
        self.journal.adopt(events, places).await.map_err(|error| Fault(error.to_string()))?;
        self.metrics.adopted.inc_by(told.len() as u64);
        for told in told {
            // Without a monitor nobody would tell it again.
            let _ = self.told.send(told).await;
        }
        Ok(())
    }
}

fn consuming(client: &ClientConfig) -> ClientConfig {
    let mut config = client.clone();
    for (name, value) in [
        // The client wants one; it is neither joined nor committed to.
        ("group.id", "podherald-follower"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
        ("fetch.wait.max.ms", "100"),
        ("queued.max.messages.kbytes", "16384"),
    ] {
        config.set(name, value);
    }
    config
}

/// A reader of a topic, from where it was left. Blocks.
fn open(
    config: &ClientConfig,
    topic: &str,
    places: &[Place],
    from: i64,
    timeout: Duration,
) -> Result<Reader, KafkaError> {
    let consumer: StreamConsumer<Context> = config.create_with_context(Context(Trouble::default()))?;
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let found = metadata.topics().first().filter(|found| found.error().is_none());
    let Some(found) = found else {
        return Err(KafkaError::MetadataFetch(rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition));
    };
    let partitions: Vec<i32> = found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect();
    // Before the times are asked for: what comes in between must not be passed.
    let mut ends = BTreeMap::new();
    for partition in &partitions {
        ends.insert(*partition, consumer.fetch_watermarks(topic, *partition, timeout)?.1);
    }
    let mut asked = TopicPartitionList::new();
    for partition in &partitions {
        asked.add_partition_offset(topic, *partition, Offset::Offset(from))?;
    }
    let by_time = consumer.offsets_for_times(asked, Timeout::After(timeout))?;
    let mut assigned = TopicPartitionList::new();
    for partition in &partitions {
        let left = places.iter().find(|place| place.topic == topic && place.partition == *partition);
        let offset = match left {
            Some(place) => Offset::Offset(place.next),
            None => match by_time.find_partition(topic, *partition).map(|found| found.offset()) {
                Some(offset @ Offset::Offset(_)) => offset,
                _ => Offset::Offset(ends[partition]),
            },
        };
        assigned.add_partition_offset(topic, *partition, offset)?;
    }
    consumer.assign(&assigned)?;
    Ok(Reader { consumer: Some(consumer), partitions: partitions.len() })
}
