//! What roles are given from a Kafka: members of a group that come, go and are cut off.

#[path = "../../src/inbox/conformance.rs"]
pub(crate) mod conformance;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
pub(crate) use podherald::inbox::{Delivery, Inbox, Member, Metrics, Policy};
use podherald::{
    config::{Brokers, Property},
    inbox,
    publisher::{Publisher, kafka::Direct},
    sink::kafka::{Kafka, Options},
};
use podherald_core::{event::Draft, topic::Topic};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::task::spawn_blocking;

use self::conformance::{LIMIT, POLICY, Role, draft, name};
use crate::{
    kafka::{Broker, prefix},
    proxy::{Fault, Proxy},
};

const GROUP: &str = "test";

/// A broker's topics of one test.
struct Topics<'a> {
    broker: &'a Broker,
    prefix: String,
    options: Options,
    publisher: Direct,
}

impl<'a> Topics<'a> {
    /// With so many partitions of what is consumed.
    async fn on(broker: &'a Broker, partitions: i32) -> Self {
        let prefix = prefix();
        // A member that is cut off is missed as soon as a broker may.
        let properties = vec![Property::parse("session.timeout.ms=3000").unwrap()];
        let options = Options { properties, ..broker.options(&prefix) };
        broker.create(&format!("{prefix}execution_events"), partitions, &[]).await;
        let publisher = Direct::new(Arc::new(Kafka::new(options.clone())));
        Self { broker, prefix, options, publisher }
    }

    async fn publish(&self, events: Vec<Draft>) {
        for batch in events.chunks(200) {
            assert_eq!(self.publisher.publish(batch.to_vec()).await, Ok(vec![]));
        }
    }

    async fn inbox(&self) -> Box<dyn Inbox> {
        self.inbox_by(&self.options).await
    }

    async fn inbox_by(&self, options: &Options) -> Box<dyn Inbox> {
        Box::new(inbox::kafka::Kafka::join(options, GROUP, &[Topic::ExecutionEvents]).await.unwrap())
    }

    /// Of each partition, what the group has committed and what there is.
    async fn committed(&self) -> Vec<(i64, i64)> {
        let (address, prefix) = (self.broker.address().to_owned(), self.prefix.clone());
        spawn_blocking(move || {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", address).set("group.id", format!("{prefix}{GROUP}"));
            let topic = format!("{prefix}execution_events");
            let consumer: BaseConsumer = config.create().unwrap();
            let metadata = consumer.fetch_metadata(Some(&topic), LIMIT).unwrap();
            let mut places = TopicPartitionList::new();
            for partition in metadata.topics()[0].partitions() {
                places.add_partition(&topic, partition.id());
            }
            // It must not outlive the consumer.
            let committed = consumer.committed_offsets(places, LIMIT).unwrap();
            let of_each = committed.elements().into_iter().map(|of| {
                let (_, high) = consumer.fetch_watermarks(&topic, of.partition(), LIMIT).unwrap();
                (of.offset().to_raw().unwrap_or(0).max(0), high)
            });
            of_each.collect()
        })
        .await
        .unwrap()
    }
}

struct Real(Topics<'static>);

impl conformance::Far for Real {
    fn send(&self, events: Vec<Draft>) -> BoxFuture<'_, ()> {
        self.0.publish(events).boxed()
    }
    fn inbox(&self) -> BoxFuture<'_, Box<dyn Inbox>> {
        self.0.inbox().boxed()
    }
    fn letters(&self) -> BoxFuture<'_, Vec<(Bytes, String)>> {
        async {
            let letters = self.0.broker.consume_all(&format!("{}dead_letter_queue", self.0.prefix)).await;
            letters
                .into_iter()
                .map(|dead| (dead.bytes.clone(), dead.header("dlq-reason").unwrap().to_owned()))
                .collect()
        }
        .boxed()
    }
}

async fn open() -> Real {
    let topics = Topics::on(Broker::shared().await, 1).await;
    topics.publish(vec![draft("before", 0)]).await;
    // All topics are there now, and the group is past the first event.
    let mut role = Role::begin(topics.inbox().await, POLICY);
    role.next().await.ack();
    role.end().await;
    Real(topics)
}

conformance::suite!(open);

/// Names of what was acknowledged, by key, in their order.
#[derive(Default)]
struct Acknowledged(BTreeMap<String, Vec<String>>);

impl Acknowledged {
    fn ack(&mut self, delivery: Delivery) {
        self.0.entry(delivery.message.execution_id.to_string()).or_default().push(name(&delivery));
        delivery.ack();
    }

    fn distinct(&self) -> usize {
        self.0.values().map(|names| names.iter().collect::<BTreeSet<_>>().len()).sum()
    }

    /// The first times, each key in its order.
    fn assert_is(&self, sent: &[Draft]) {
        let mut expected: BTreeMap<&str, Vec<Bytes>> = BTreeMap::new();
        for draft in sent {
            let bytes = draft.clone().number("", 1).to_bytes().into();
            expected.entry(&draft.execution_id).or_default().push(bytes);
        }
        assert_eq!(self.0.len(), expected.len());
        for (key, names) in &self.0 {
            let mut seen = BTreeSet::new();
            let firsts: Vec<_> = names.iter().filter(|name| seen.insert(*name)).cloned().collect();
            let expected: Vec<_> = expected[&**key].iter().map(|event| conformance::name_of(event)).collect();
            assert_eq!(firsts, expected);
        }
    }
}

fn many(keys: u32, rounds: std::ops::Range<u32>) -> Vec<Draft> {
    rounds.flat_map(|round| (0..keys).map(move |key| draft(&format!("k{key}-"), round))).collect()
}

/// The next of either, or of the first alone.
async fn next(one: &mut Role, other: Option<&mut Role>) -> Delivery {
    let Some(other) = other else { return one.next().await };
    tokio::select! {
        delivery = one.next() => delivery,
        delivery = other.next() => delivery,
    }
}

#[tokio::test]
async fn members_that_come_and_go_in_mid_stream_lose_nothing_and_pass_nothing_that_is_not_acknowledged() {
    let topics = Topics::on(Broker::shared().await, 6).await;
    let sent = many(40, 0..30);
    topics.publish(sent.clone()).await;
    let policy = Policy { in_hand: 24, ..POLICY };
    let mut done = Acknowledged::default();
    let mut first = Role::begin(topics.inbox().await, policy);
    // This one is never answered by the first member, wherever its partition goes.
    let held = first.next().await;
    while done.distinct() < 200 {
        done.ack(first.next().await);
    }
    let mut second = Role::begin(topics.inbox().await, policy);
    // What the first was given of partitions that go over is given once more, for its answers are void.
    done.ack(second.next().await);
    for _ in 0..200 {
        done.ack(next(&mut first, Some(&mut second)).await);
    }
    let behind: i64 = topics.committed().await.iter().map(|(committed, high)| high - committed).sum();
    assert!(behind > 0);
    assert!(first.metrics.late_answers.get() > 0);
    first.end().await;
    let name_held = name(&held);
    drop(held);
    while done.distinct() < sent.len() {
        done.ack(second.next().await);
    }
    assert!(done.0.values().flatten().any(|name| *name == name_held));
    second.end().await;
    done.assert_is(&sent);
    let committed = topics.committed().await;
    assert!(committed.iter().all(|(committed, high)| committed == high), "{committed:?}");
}

#[tokio::test]
async fn what_a_member_held_that_was_cut_off_is_given_to_another_and_its_late_answers_are_void() {
    let broker = Broker::start("");
    broker.script(&["start", "toxiproxy"]);
    let proxy = Proxy::new("kafka", broker.variable("TOXIPROXY"));
    let topics = Topics::on(&broker, 1).await;
    topics.publish(vec![draft("a", 1), draft("b", 1), draft("a", 2)]).await;
    let behind = Brokers::parse(broker.variable("KAFKA_PROXIED")).unwrap();
    let cut_off = Options { brokers: behind, ..topics.options.clone() };
    let mut first = Role::begin(topics.inbox_by(&cut_off).await, POLICY);
    let held = [first.next().await, first.next().await];
    assert_eq!(held.each_ref().map(name), ["a1", "b1"]);
    proxy.break_by(Fault::Cut).await;
    let mut second = Role::begin(topics.inbox().await, POLICY);
    let mut done = Acknowledged::default();
    let again = second.next().await;
    assert_eq!(name(&again), "a1");
    // It hears that it is no member any more, and joins again.
    proxy.heal().await;
    let [a, b] = held;
    a.ack();
    b.ack();
    done.ack(again);
    while done.distinct() < 3 {
        done.ack(next(&mut second, Some(&mut first)).await);
    }
    done.assert_is(&[draft("a", 1), draft("a", 2), draft("b", 1)]);
    first.end().await;
    second.end().await;
    assert_eq!(topics.committed().await, [(3, 3)]);
}

#[tokio::test]
async fn what_is_no_event_is_a_dead_letter_as_it_was_and_what_comes_twice_is_given_once() {
    let topics = Topics::on(Broker::shared().await, 1).await;
    topics.publish(vec![draft("a", 1)]).await;
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", topics.broker.address()).create().unwrap();
    let topic = format!("{}execution_events", topics.prefix);
    let headers = OwnedHeaders::new().insert(Header { key: "x", value: Some("y") });
    let noise = FutureRecord::to(&topic).key("k").payload("noise").headers(headers);
    producer.send(noise, LIMIT).await.unwrap();
    topics.publish(vec![draft("a", 1), draft("a", 2)]).await;
    let mut role = Role::begin(topics.inbox().await, POLICY);
    for expected in ["a1", "a2"] {
        let delivery = role.next().await;
        assert_eq!(name(&delivery), expected);
        delivery.ack();
    }
    role.end().await;
    let letters = topics.broker.consume_all(&format!("{}dead_letter_queue", topics.prefix)).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((&*letter.key, &letter.bytes[..], letter.header("x")), ("k", &b"noise"[..], Some("y")));
    for (header, value) in [
        ("dlq-group", &*format!("{}{GROUP}", topics.prefix)),
        ("dlq-tries", "0"),
        ("dlq-original-topic", &topic),
        ("dlq-original-partition", "0"),
        ("dlq-original-offset", "1"),
    ] {
        assert_eq!(letter.header(header), Some(value));
    }
    assert_eq!(topics.committed().await, [(4, 4)]);
}
