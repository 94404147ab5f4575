//! The topics of a Kafka, read by no group: by processes that each need all of what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all, select_all},
};
use podherald_core::{about::About, topic::Topic};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{Consumer, ConsumerContext, StreamConsumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers as _},
    types::RDKafkaErrorCode as Code,
    util::Timeout,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    jitter,
    journal::Place,
    sink::{
        Fault,
        kafka::{LEASE_HEADER, Names, Options, Trouble, Way},
    },
};

/// What a monitor and the roles beside it publish, and the event store keeps.
pub(crate) const PUBLISHED: [Topic; 3] = [Topic::ExecutionEvents, Topic::PodEvents, Topic::ExecutionResults];

/// Between two looks whether partitions were added, if the client's properties do not say otherwise.
const REFRESH: Duration = Duration::from_mins(5);
/// The brokers may take so long to say.
const ASK: Duration = Duration::from_secs(5);

/// Where a partition is begun of which it is not known how far it was read.
#[derive(Debug, Clone)]
pub(crate) enum Beginning {
    /// With what was published at this time, in milliseconds.
    Time(i64),
    /// Where this group has come to (`kafka.topic_prefix` stands before its name), or with the oldest that is kept. Once a topic was read
    /// the group tells nothing of it: what it has come past in a partition that was added since is still to be read.
    Group(&'static str),
}

/// A message.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where the next one is.
    pub(crate) place: Place,
    /// The Lease for which it was published.
    pub(crate) lease: Option<Vec<u8>>,
    /// Which pod it is about.
    pub(crate) about: About,
    /// The event.
    pub(crate) bytes: Bytes,
}

/// See the module.
pub(crate) struct Topics {
    readers: Vec<Reader>,
    /// Who is asked first, so that none starves.
    turn: usize,
    way: Way,
    /// Over once a topic has more partitions than are read.
    growth: BoxFuture<'static, Growth>,
    refresh: Duration,
}

/// What was added to a topic.
struct Growth {
    topic: Arc<str>,
    partitions: Vec<i32>,
}

/// One topic on its way in.
struct Reader {
    topic: Arc<str>,
    /// Only its end takes it away.
    consumer: Option<Arc<StreamConsumer<Context>>>,
    partitions: BTreeMap<i32, Partition>,
    begun: Vec<Place>,
}

enum Received {
    Message(Result<Option<Found>, Fault>),
    Growth(Growth),
}

#[derive(Debug, Clone, Copy)]
struct Partition {
    is_at_end: bool,
    /// When it was last; before, when it was begun.
    was_at_end: Instant,
}

impl Partition {
    fn begun() -> Self {
        Self { is_at_end: false, was_at_end: Instant::now() }
    }
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

impl Drop for Reader {
    fn drop(&mut self) {
        // The end of a client takes a while.
        let consumer = self.consumer.take();
        spawn_blocking(move || drop(consumer));
    }
}

impl Reader {
    fn consumer(&self) -> &Arc<StreamConsumer<Context>> {
        self.consumer.as_ref().expect("it has not ended")
    }
}

impl Topics {
    /// Begins these topics where the places say, and elsewhere at this beginning.
    ///
    /// # Errors
    /// No broker answers, a topic is missing, or what may not be done.
    pub(crate) async fn open(
        options: &Options,
        topics: &[Topic],
        places: &[Place],
        beginning: Beginning,
    ) -> Result<Self, Fault> {
        let way = Way::new(options.brokers.as_str(), options.timeout);
        let client = options.client().await;
        let (client, password) = client.map_err(|error| way.wrong(&crate::wording::of(&error)))?;
        let way = way.with_secret(password.as_deref());
        let names = Names::new(&options.topic_prefix);
        // The client wants one; it is neither joined nor committed to.
        let group = match &beginning {
            Beginning::Group(group) => format!("{}{group}", options.topic_prefix),
            Beginning::Time(_) => "podherald-follower".to_owned(),
        };
        let config = consuming(&client, &group);
        let timeout = options.timeout;
        let opening = topics.iter().map(|topic| {
            let (config, topic, way) = (config.clone(), names.of(*topic), way.clone());
            let (places, beginning) = (places.to_vec(), beginning.clone());
            spawn_blocking(move || {
                open(&config, &topic, &places, &beginning, timeout).map_err(|error| wording(&way, &error))
            })
        });
        let mut readers = Vec::new();
        for opened in join_all(opening).await {
            readers.push(opened.map_err(|error| Fault(error.to_string()))??);
        }
        let refresh = refreshed_every(&client);
        let growth = growth(&readers, refresh).boxed();
        Ok(Self { readers, turn: 0, way, growth, refresh })
    }

    /// Waits for the next message; none where a partition has just come to its end. Dropping the future loses none.
    ///
    /// # Errors
    /// Nothing comes any more: they are to be opened anew.
    pub(crate) async fn next(&mut self) -> Result<Option<Found>, Fault> {
        loop {
            match self.received().await {
                Received::Message(found) => return found,
                Received::Growth(growth) => self.grow(&growth)?,
            }
        }
    }

    async fn received(&mut self) -> Received {
        // Each is dropped when another is ready, and takes nothing with it.
        let (after, before) = (&self.readers[self.turn..], &self.readers[..self.turn]);
        let receiving = after.iter().chain(before).map(|reader| {
            let receive = async { reader.consumer().recv().await.map(|message| found(&message)) };
            receive.boxed()
        });
        let (received, place, _) = tokio::select! {
            received = select_all(receiving) => received,
            growth = &mut self.growth => return Received::Growth(growth),
        };
        let topic = (self.turn + place) % self.readers.len();
        self.turn = (topic + 1) % self.readers.len();
        let now = Instant::now();
        Received::Message(match received {
            Ok(found) => {
                if let Some(partition) = self.readers[topic].partitions.get_mut(&found.place.partition)
                    && partition.is_at_end
                {
                    *partition = Partition { is_at_end: false, was_at_end: now };
                }
                Ok(Some(found))
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                let at_end = Partition { is_at_end: true, was_at_end: now };
                self.readers[topic].partitions.insert(partition, at_end);
                Ok(None)
            }
            Err(error) => {
                let trouble = self.readers.iter().find_map(|reader| reader.consumer().context().0.get());
                Err(self.way.fault(&error, trouble.as_ref()))
            }
        })
    }

    /// Reads what was added from its beginning: all of it has been published since.
    fn grow(&mut self, Growth { topic, partitions }: &Growth) -> Result<(), Fault> {
        for reader in self.readers.iter_mut().filter(|reader| reader.topic == *topic) {
            let added = partitions.iter().map(|partition| (*partition, Offset::Beginning)).collect();
            let assigned = assignment(topic, &added).and_then(|added| reader.consumer().incremental_assign(&added));
            assigned.map_err(|error| self.way.fault(&error, None))?;
            reader.partitions.extend(partitions.iter().map(|partition| (*partition, Partition::begun())));
        }
        tracing::info!(%topic, ?partitions, "partitions were added, and are read from now on");
        self.growth = growth(&self.readers, self.refresh).boxed();
        Ok(())
    }

    /// Where each partition was begun of which no place was known.
    pub(crate) fn begun(&self) -> Vec<Place> {
        self.readers.iter().flat_map(|reader| reader.begun.iter().cloned()).collect()
    }

    /// What is there already, without waiting.
    pub(crate) fn try_next(&mut self) -> Option<Result<Option<Found>, Fault>> {
        self.next().now_or_never()
    }

    /// True if nothing more was there when it was last asked for.
    pub(crate) fn is_at_end(&self) -> bool {
        self.partitions().all(|partition| partition.is_at_end)
    }

    /// All that was published some moments before this time has been given.
    pub(crate) fn read_up_to(&self) -> Instant {
        let now = Instant::now();
        self.partitions()
            .map(|partition| if partition.is_at_end { now } else { partition.was_at_end })
            .min()
            .unwrap_or(now)
    }

    fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.readers.iter().flat_map(|reader| reader.partitions.values())
    }
}

/// Of each partition the furthest.
pub(crate) fn last_of_each(mut places: Vec<Place>) -> Vec<Place> {
    places.sort_unstable();
    places.reverse();
    places.dedup_by(|one, other| (&one.topic, one.partition) == (&other.topic, other.partition));
    places
}

fn wording(way: &Way, error: &KafkaError) -> Fault {
    match error.rdkafka_error_code() {
        Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => way.wrong(&format!(
            "its user may not do what is needed; the ACLs are Describe and Read on the topics, and Describe on the group \
             event-store ({error})"
        )),
        _ => way.fault(error, None),
    }
}

fn consuming(client: &ClientConfig, group: &str) -> ClientConfig {
    let mut config = client.clone();
    for (name, value) in [
        ("group.id", group),
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

fn found(message: &BorrowedMessage<'_>) -> Found {
    let (mut lease, mut about) = (None, About::default());
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        match header.key.strip_prefix("ce_") {
            Some(name) => about.read(name, header.value.unwrap_or_default()),
            None if header.key == LEASE_HEADER => lease = header.value.map(<[u8]>::to_vec),
            None => {}
        }
    }
    let (topic, partition, next) = (message.topic().to_owned(), message.partition(), message.offset() + 1);
    let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    Found { place: Place { topic, partition, next }, lease, about, bytes }
}

/// A reader of a topic, from where it was left. Blocks.
fn open(
    config: &ClientConfig,
    topic: &Arc<str>,
    places: &[Place],
    beginning: &Beginning,
    timeout: Duration,
) -> Result<Reader, KafkaError> {
    let consumer: StreamConsumer<Context> = config.create_with_context(Context(Trouble::default()))?;
    let partitions = partitions(&consumer, topic, timeout)?;
    let known: BTreeMap<_, _> = places
        .iter()
        .filter(|place| *place.topic == **topic)
        .map(|place| (place.partition, Offset::Offset(place.next)))
        .collect();
    let unknown: Vec<i32> = partitions.iter().copied().filter(|partition| !known.contains_key(partition)).collect();
    let mut offsets = match beginning {
        // A client that is asked for no partition's time refuses.
        _ if unknown.is_empty() => BTreeMap::new(),
        Beginning::Time(from) => at_time(&consumer, topic, &unknown, *from, timeout)?,
        Beginning::Group(_) if known.is_empty() => where_the_group_is(&consumer, topic, &unknown, timeout)?,
        Beginning::Group(_) => BTreeMap::new(),
    };
    for partition in unknown {
        offsets.entry(partition).or_insert(Offset::Beginning);
    }
    let place = |(partition, offset): (&i32, &Offset)| {
        // Before the oldest that is kept is at the oldest.
        let next = if let Offset::Offset(next) = offset { *next } else { 0 };
        Place { topic: topic.to_string(), partition: *partition, next }
    };
    let begun = offsets.iter().map(place).collect();
    offsets.extend(known);
    offsets.retain(|partition, _| partitions.contains(partition));
    consumer.assign(&assignment(topic, &offsets)?)?;
    Ok(Reader {
        topic: topic.clone(),
        consumer: Some(Arc::new(consumer)),
        partitions: partitions.iter().map(|partition| (*partition, Partition::begun())).collect(),
        begun,
    })
}

fn assignment(topic: &str, offsets: &BTreeMap<i32, Offset>) -> Result<TopicPartitionList, KafkaError> {
    let mut assigned = TopicPartitionList::new();
    for (partition, offset) in offsets {
        assigned.add_partition_offset(topic, *partition, *offset)?;
    }
    Ok(assigned)
}

fn partitions(consumer: &StreamConsumer<Context>, topic: &str, timeout: Duration) -> Result<Vec<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), timeout)?;
    let found = metadata.topics().first().filter(|found| found.error().is_none());
    let Some(found) = found else { return Err(KafkaError::MetadataFetch(Code::UnknownTopicOrPartition)) };
    Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
}

/// As often as the client looks for itself, who assigns no partition by itself.
fn refreshed_every(client: &ClientConfig) -> Duration {
    let set = client.get("topic.metadata.refresh.interval.ms").and_then(|set| set.parse().ok());
    set.filter(|milliseconds| *milliseconds > 0).map_or(REFRESH, Duration::from_millis)
}

/// Waits until somebody has added partitions to one of these topics. It keeps no client alive.
fn growth(readers: &[Reader], interval: Duration) -> impl Future<Output = Growth> + use<> {
    let asked: Vec<_> = readers
        .iter()
        .map(|reader| {
            let known: BTreeSet<i32> = reader.partitions.keys().copied().collect();
            (reader.topic.clone(), known, Arc::downgrade(reader.consumer()))
        })
        .collect();
    async move {
        loop {
            sleep(jitter::part_of(interval, 0.8..=1.0)).await;
            for (topic, known, consumer) in &asked {
                let mut partitions = partitions_now(consumer.clone(), topic.clone()).await;
                partitions.retain(|partition| !known.contains(partition));
                if !partitions.is_empty() {
                    return Growth { topic: topic.clone(), partitions };
                }
            }
        }
    }
}

/// Nothing where nobody answers: what cannot be read shows elsewhere.
async fn partitions_now(consumer: Weak<StreamConsumer<Context>>, topic: Arc<str>) -> Vec<i32> {
    let ask = move || partitions(&*consumer.upgrade()?, &topic, ASK).ok();
    spawn_blocking(ask).await.ok().flatten().unwrap_or_default()
}

fn at_time(
    consumer: &StreamConsumer<Context>,
    topic: &str,
    partitions: &[i32],
    from: i64,
    timeout: Duration,
) -> Result<BTreeMap<i32, Offset>, KafkaError> {
    // Before the times are asked for: what comes in between must not be passed.
    let mut ends = BTreeMap::new();
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        ends.insert(*partition, consumer.fetch_watermarks(topic, *partition, timeout)?.1);
        asked.add_partition_offset(topic, *partition, Offset::Offset(from))?;
    }
    let by_time = consumer.offsets_for_times(asked, Timeout::After(timeout))?;
    let offset = |partition: i32, end: i64| match by_time.find_partition(topic, partition).map(|found| found.offset()) {
        Some(offset @ Offset::Offset(_)) => offset,
        _ => Offset::Offset(end),
    };
    Ok(ends.into_iter().map(|(partition, end)| (partition, offset(partition, end))).collect())
}

fn where_the_group_is(
    consumer: &StreamConsumer<Context>,
    topic: &str,
    partitions: &[i32],
    timeout: Duration,
) -> Result<BTreeMap<i32, Offset>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(asked, Timeout::After(timeout))?;
    let committed = committed.elements_for_topic(topic);
    let is_known = |offset: Offset| matches!(offset, Offset::Offset(_));
    Ok(committed.iter().filter(|of| is_known(of.offset())).map(|of| (of.partition(), of.offset())).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::config::Brokers;

    #[tokio::test]
    async fn a_topic_is_read_on_whether_none_or_some_or_all_of_its_partitions_were_read_before() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("pod_events", 2, 1).unwrap();
        let options = Options::new(Brokers::parse(&cluster.bootstrap_servers()).unwrap());
        for known in 0..=2 {
            let place = |partition| Place { topic: "pod_events".to_owned(), partition, next: 0 };
            let places: Vec<_> = (0..known).map(place).collect();
            let opened = Topics::open(&options, &[Topic::PodEvents], &places, Beginning::Time(0)).await;
            assert!(opened.is_ok(), "{known} of 2 known: {:?}", opened.err());
        }
    }
}
