//! The sink against librdkafka's mock brokers, which fail as they are told to. Real ones are in tests/real.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers as _,
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use super::{Kafka, Options};
use crate::{
    config::{Brokers, Property},
    journal::Record,
    sink::{
        Item, Sink,
        conformance::{MAX_BYTES, record},
    },
};

type Cluster = MockCluster<'static, DefaultProducerContext>;

const TOPICS: [&str; 3] = ["execution_events", "pod_events", "dead_letter_queue"];

fn cluster(topics: &[&str]) -> Cluster {
    let cluster = MockCluster::new(1).unwrap();
    for topic in topics {
        cluster.create_topic(topic, 2, 1).unwrap();
    }
    cluster
}

fn options(cluster: &Cluster) -> Options {
    Options {
        create_topics: false,
        timeout: Duration::from_secs(5),
        max_message_bytes: MAX_BYTES as u64,
        ..Options::new(Brokers::parse(&cluster.bootstrap_servers()).unwrap())
    }
}

fn sink(cluster: &Cluster) -> Kafka {
    Kafka::new(options(cluster))
}

/// Values in a topic and the names of their headers, in the order of their partition.
fn consume(cluster: &Cluster, topic: &str, count: usize) -> Vec<(Vec<u8>, Vec<String>)> {
    let consumer: BaseConsumer<Plain> = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .create_with_context(Plain)
        .unwrap();
    let mut places = TopicPartitionList::new();
    for partition in 0..2 {
        places.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&places).unwrap();
    let mut values = Vec::new();
    while values.len() < count {
        let message = consumer.poll(Duration::from_secs(10)).unwrap_or_else(|| panic!("only {values:?}")).unwrap();
        let headers = message.headers().map(|headers| headers.iter().map(|header| header.key.to_owned()).collect());
        values.push((message.payload().unwrap().to_vec(), headers.unwrap_or_default()));
    }
    values
}

#[derive(Clone, Copy)]
struct Plain;
impl rdkafka::ClientContext for Plain {}
impl rdkafka::consumer::ConsumerContext for Plain {}

fn firsts(values: Vec<(Vec<u8>, Vec<String>)>) -> Vec<Vec<u8>> {
    let mut seen = BTreeSet::new();
    values.into_iter().map(|(value, _)| value).filter(|value| seen.insert(value.clone())).collect()
}

fn records(positions: std::ops::RangeInclusive<u64>) -> Vec<Arc<Record>> {
    positions.map(|position| record(position, "x")).collect()
}

fn bytes(records: &[Arc<Record>]) -> Vec<Vec<u8>> {
    records.iter().map(|record| record.bytes.to_vec()).collect()
}

use RDKafkaRespErr as Answer;

#[tokio::test]
async fn a_producer_that_has_become_useless_is_replaced_without_a_hole() {
    for answer in [
        Answer::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        Answer::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
        Answer::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
        Answer::RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID,
    ] {
        let cluster = cluster(&TOPICS);
        let sink = sink(&cluster);
        let all = records(1..=40);
        sink.deliver(&all[..10]).await.unwrap();
        cluster.request_errors(RDKafkaApiKey::Produce, &[answer]);
        let mut tries = 0;
        while let Err(fault) = sink.deliver(&all[10..]).await {
            tries += 1;
            assert!(tries < 5, "{answer:?}: {fault}");
        }
        assert_eq!(firsts(consume(&cluster, "execution_events", 40)), bytes(&all), "{answer:?}");
    }
}

#[tokio::test]
async fn a_record_that_the_broker_finds_fault_with_is_left_out_alone_and_is_in_the_dead_letter_queue() {
    for answer in [Answer::RD_KAFKA_RESP_ERR_INVALID_RECORD, Answer::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE] {
        let cluster = cluster(&TOPICS);
        // All in one request: the second error is for the first of them by itself.
        let properties = vec![Property::parse("linger.ms=50").unwrap()];
        let sink = Kafka::new(Options { properties, ..options(&cluster) });
        sink.check().await.unwrap();
        let all = records(1..=5);
        // The batch, and then the first one by itself.
        cluster.request_errors(RDKafkaApiKey::Produce, &[answer, answer]);
        let rejections = sink.deliver(&all).await.unwrap();
        assert_eq!(rejections.iter().map(|rejection| rejection.position).collect::<Vec<_>>(), [1], "{answer:?}");
        let reason = &rejections[0].reason;
        assert!(
            reason.contains("the broker refuses it") && reason.ends_with("it is in the topic dead_letter_queue"),
            "{reason}"
        );
        assert_eq!(firsts(consume(&cluster, "execution_events", 4)), bytes(&all[1..]));
        let dead = consume(&cluster, "dead_letter_queue", 1);
        assert_eq!(dead[0].0, all[0].bytes);
        for header in ["ce_id", "traceparent", "dlq-reason", "dlq-original-topic", "dlq-position", "dlq-sink"] {
            assert!(dead[0].1.iter().any(|name| name == header), "{header}: {dead:?}");
        }
    }
}

#[tokio::test]
async fn what_the_brokers_refuse_to_all_is_never_held_against_a_record() {
    for (answer, said) in [
        (Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "its user may not do what is needed"),
        (Answer::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, "its user may not do what is needed"),
        (Answer::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, "it refuses"),
    ] {
        let cluster = cluster(&TOPICS);
        let sink = sink(&cluster);
        sink.check().await.unwrap();
        cluster.request_errors(RDKafkaApiKey::Produce, &[answer]);
        let all = records(1..=3);
        let fault = sink.deliver(&all).await.unwrap_err().to_string();
        assert!(fault.starts_with("kafka.brokers = 127.0.0.1:") && fault.contains(said), "{fault}");
        assert_eq!(sink.deliver(&all).await, Ok(vec![]));
        assert_eq!(firsts(consume(&cluster, "execution_events", 3)), bytes(&all));
    }
}

#[tokio::test]
async fn topics_that_are_missing_are_named_until_they_are_there() {
    let cluster = cluster(&TOPICS[..1]);
    let sink = sink(&cluster);
    let fault = sink.check().await.unwrap_err().to_string();
    let named = "pod_events (10 partitions), dead_letter_queue (3 partitions); create them, or set kafka.create_topics";
    assert!(fault.contains(named), "{fault}");
    assert_eq!(sink.deliver(&records(1..=1)).await.unwrap_err().to_string(), fault);
    for topic in &TOPICS[1..] {
        cluster.create_topic(topic, 2, 1).unwrap();
    }
    assert_eq!(sink.deliver(&records(1..=1)).await, Ok(vec![]));
}

#[tokio::test]
async fn a_message_above_the_ceiling_is_never_handed_over() {
    let cluster = cluster(&TOPICS);
    let sink = sink(&cluster);
    let large = record(2, &"x".repeat(MAX_BYTES));
    let rejections = sink.deliver(&[record(1, "x"), large, record(3, "x")]).await.unwrap();
    let reason = &rejections[0].reason;
    assert!(reason.contains("of 4096 bytes at most (kafka.max_message_bytes)"), "{reason}");
    assert!(
        reason.ends_with("the topic dead_letter_queue cannot take it either, only the journal keeps it"),
        "{reason}"
    );
    // The largest that is below it goes.
    let room = MAX_BYTES - super::Message::of(&Item::Event(record(4, "")), &sink.names, None).unwrap().size();
    assert_eq!(sink.deliver(&[record(4, &"x".repeat(room))]).await, Ok(vec![]));
    assert_eq!(sink.deliver(&[record(4, &"x".repeat(room + 1))]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_queue_that_is_full_slows_down_and_loses_nothing() {
    let cluster = cluster(&TOPICS);
    let properties = vec![Property::parse("queue.buffering.max.messages=7").unwrap()];
    let sink = Kafka::new(Options { properties, ..options(&cluster) });
    let all = records(1..=100);
    assert_eq!(sink.deliver(&all).await, Ok(vec![]));
    assert_eq!(firsts(consume(&cluster, "execution_events", 100)), bytes(&all));
}

#[tokio::test]
async fn brokers_that_are_away_are_a_fault_until_they_are_back() {
    let cluster = cluster(&TOPICS);
    let sink = Kafka::new(Options { timeout: Duration::from_secs(2), ..options(&cluster) });
    let all = records(1..=9);
    sink.deliver(&all[..3]).await.unwrap();
    cluster.broker_down(1).unwrap();
    let fault = sink.deliver(&all[3..]).await.unwrap_err().to_string();
    assert!(fault.contains("it cannot be reached"), "{fault}");
    sink.check().await.unwrap_err();
    cluster.broker_up(1).unwrap();
    sink.deliver(&all[3..]).await.unwrap();
    assert_eq!(firsts(consume(&cluster, "execution_events", 9)), bytes(&all));
}
