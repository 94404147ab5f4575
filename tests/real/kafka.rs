//! The Kafka sink on a Kafka, and podherald with it. Most tests share one broker, each with topics of its own; those that stop
//! it have their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use podherald::{
    config::{Brokers, SaslMechanism, Secret},
    sink::{
        Sink,
        kafka::{Kafka, Options, Password, Sasl},
    },
};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    message::Headers as _,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    sync::OnceCell,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use uuid::Uuid;

use crate::{
    cluster::{Cluster, Play, variable},
    herald::{Herald, LIMIT, POLL},
    sink::conformance::{self, MAX_BYTES, record},
};

/// A Kafka.
pub(crate) struct Broker {
    run: PathBuf,
    options: String,
    said: BTreeMap<String, String>,
    is_shared: bool,
}

/// A message as a consumer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consumed {
    pub(crate) partition: i32,
    pub(crate) key: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) bytes: Bytes,
}

impl Consumed {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }
}

/// A client that says nothing while its broker is away.
#[derive(Clone)]
struct Quiet;
impl ClientContext for Quiet {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}
impl ConsumerContext for Quiet {}

impl Broker {
    /// One that all tests of this run share. `tests/real.sh` ends it.
    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Broker> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                let mut broker = Self::start("");
                broker.is_shared = true;
                broker
            })
            .await
    }

    /// One of the test's own, with these further lines of server.properties.
    pub(crate) fn start(options: &str) -> Self {
        Self::start_in(Self::directory(), options)
    }

    /// A new directory for one.
    pub(crate) fn directory() -> PathBuf {
        tempfile::Builder::new().prefix("kafka.").tempdir().unwrap().keep()
    }

    /// The same in a directory that was made for it.
    pub(crate) fn start_in(run: PathBuf, options: &str) -> Self {
        let mut broker = Self { run, options: options.to_owned(), said: BTreeMap::new(), is_shared: false };
        broker.go_on();
        broker
    }

    /// Ends it in order.
    pub(crate) fn stop(&self) {
        self.script(&["stop", "kafka"]);
    }

    /// Starts it where it was.
    pub(crate) fn go_on(&mut self) {
        let said = self.script(&["start", "kafka"]);
        self.said = said.lines().filter_map(|line| line.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect();
    }

    /// Runs `servers.sh` on it.
    pub(crate) fn script(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(variable("PODHERALD_REAL_SERVERS"));
        command.args(arguments).env("RUN", &self.run).env("KAFKA_OPTIONS", &self.options).stderr(Stdio::inherit());
        let output = command.output().unwrap();
        let is_done = output.status.success() || std::thread::panicking();
        assert!(is_done, "servers.sh {} failed", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `servers.sh start` said of it, such as `KAFKA_SECURE`.
    pub(crate) fn variable(&self, name: &str) -> &str {
        &self.said[name]
    }

    pub(crate) fn address(&self) -> &str {
        self.variable("KAFKA_BOOTSTRAP")
    }

    pub(crate) fn options(&self, prefix: &str) -> Options {
        Options {
            topic_prefix: prefix.to_owned(),
            timeout: Duration::from_secs(10),
            max_message_bytes: MAX_BYTES as u64,
            ..Options::new(Brokers::parse(self.address()).unwrap())
        }
    }

    /// As who listens without TLS and name, which may do all.
    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.address()).create().unwrap()
    }

    pub(crate) async fn create(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = config.iter().fold(new, |new, (name, value)| new.set(name, value));
        let created = self.admin().create_topics([&new], &AdminOptions::new()).await.unwrap();
        created.into_iter().for_each(|created| drop(created.unwrap()));
    }

    pub(crate) async fn delete(&self, topic: &str) {
        let deleted = self.admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
        deleted.into_iter().for_each(|deleted| drop(deleted.unwrap()));
    }

    /// Sets a property of a topic.
    pub(crate) async fn configure(&self, topic: &str, name: &str, value: &str) {
        let changed = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let changed = self.admin().alter_configs([&changed], &AdminOptions::new()).await.unwrap();
        changed.into_iter().for_each(|changed| drop(changed.unwrap()));
    }

    /// Gives a topic more partitions, so many in all.
    pub(crate) async fn add_partitions(&self, topic: &str, count: usize) {
        let more = NewPartitions::new(topic, count);
        let made = self.admin().create_partitions([&more], &AdminOptions::new()).await.unwrap();
        made.into_iter().for_each(|made| drop(made.unwrap()));
    }

    /// Partitions and `retention.ms` of a topic.
    pub(crate) async fn describe(&self, topic: &str) -> (usize, String) {
        let admin = self.admin();
        let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await.unwrap();
        let described = described.into_iter().next().unwrap().unwrap();
        let retention = described.get("retention.ms").unwrap().value.clone().unwrap();
        let metadata = admin.inner().fetch_metadata(Some(topic), LIMIT).unwrap();
        (metadata.topics()[0].partitions().len(), retention)
    }

    /// All that is in a topic, each partition in its order.
    pub(crate) async fn consume_all(&self, topic: &str) -> Vec<Consumed> {
        let (address, topic) = (self.address().to_owned(), topic.to_owned());
        spawn_blocking(move || consume_all(&address, &topic)).await.unwrap()
    }

    /// What has come for the first time of one key in a topic, in its order.
    pub(crate) async fn firsts(&self, topic: &str, key: &str) -> Vec<Bytes> {
        let mut seen = BTreeSet::new();
        let all = self.consume_all(topic).await.into_iter().filter(|message| message.key == key);
        all.map(|message| message.bytes).filter(|bytes| seen.insert(bytes.clone())).collect()
    }

    /// Fails unless the topics have the events of these executions, byte by byte, each for the first time in its order.
    pub(crate) async fn assert_has(&self, prefix: &str, herald: &Herald, ids: impl IntoIterator<Item = &String>) {
        for id in ids {
            let path = format!("/executions/{id}/events?limit=500");
            let (_, page) = herald.try_get(&path, "application/json").await.unwrap();
            let page: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_slice(&page).unwrap();
            let events: Vec<&serde_json::value::RawValue> = serde_json::from_str(page["items"].get()).unwrap();
            for family in ["execution", "pod"] {
                let is_of = |event: &&str| {
                    let event: Value = serde_json::from_str(event).unwrap();
                    event["event_type"].as_str().unwrap().starts_with(family)
                };
                let expected: Vec<&str> = events.iter().map(|event| event.get()).filter(is_of).collect();
                let deadline = Instant::now() + LIMIT;
                loop {
                    let firsts = self.firsts(&format!("{prefix}{family}_events"), id).await;
                    if firsts == expected {
                        break;
                    }
                    assert!(Instant::now() < deadline, "{id} has {expected:#?}, its topic {firsts:#?}");
                    sleep(POLL).await;
                }
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if !self.is_shared && !self.run.as_os_str().is_empty() {
            self.script(&["stop"]);
        }
    }
}

fn consume_all(address: &str, topic: &str) -> Vec<Consumed> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", "test").set("enable.auto.commit", "false");
    // A transaction ends with a message that nobody is shown.
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet).unwrap();
    let mut left = ends(&consumer, topic);
    let mut places = TopicPartitionList::new();
    for partition in left.keys() {
        places.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&places).unwrap();
    let mut all = Vec::new();
    while !left.is_empty() {
        let message = match consumer.poll(LIMIT).unwrap_or_else(|| panic!("{left:?} is left of {topic}")) {
            Err(KafkaError::PartitionEOF(partition)) => {
                left.remove(&partition);
                continue;
            }
            message => message.unwrap(),
        };
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        all.push(Consumed {
            partition: message.partition(),
            key: String::from_utf8(message.key().unwrap_or_default().to_vec()).unwrap(),
            headers: headers.map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect(),
            bytes: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        });
    }
    all.sort_by_key(|message| message.partition);
    all
}

/// Where each partition ends that has something. A broker that has just started answers only when it leads them.
fn ends(consumer: &BaseConsumer<Quiet>, topic: &str) -> BTreeMap<i32, i64> {
    let deadline = Instant::now() + LIMIT;
    let ask = || -> Result<BTreeMap<i32, i64>, KafkaError> {
        let metadata = consumer.fetch_metadata(Some(topic), LIMIT)?;
        let mut ends = BTreeMap::new();
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), LIMIT)?;
            if high > low {
                ends.insert(partition.id(), high);
            }
        }
        Ok(ends)
    };
    loop {
        match ask() {
            Ok(ends) => return ends,
            Err(error) => assert!(Instant::now() < deadline, "{topic}: {error}"),
        }
    }
}

/// A prefix that nobody else has.
pub(crate) fn prefix() -> String {
    format!("{}.", Uuid::now_v7().simple())
}

mod contract {
    use super::*;

    struct Real {
        sink: Arc<dyn Sink>,
        /// The test's own, where it goes away.
        own: Option<Broker>,
        prefix: String,
    }

    impl conformance::Far for Real {
        fn sink(&self) -> Arc<dyn Sink> {
            self.sink.clone()
        }
        fn arrived(&self) -> BoxFuture<'_, Vec<Bytes>> {
            async {
                let broker = match &self.own {
                    Some(own) => own,
                    None => Broker::shared().await,
                };
                let all = broker.consume_all(&format!("{}execution_events", self.prefix)).await;
                let all: Vec<Bytes> =
                    all.into_iter().filter(|message| message.key == "e").map(|message| message.bytes).collect();
                // Before it went away there was one.
                if self.own.is_some() { all[1..].to_vec() } else { all }
            }
            .boxed()
        }
        fn gaps(&self) -> BoxFuture<'_, Vec<Bytes>> {
            async {
                let topic = format!("{}execution_events", self.prefix);
                let all = Broker::shared().await.consume_all(&topic).await;
                all.into_iter()
                    .filter(|message| message.key == "podherald:epoch")
                    .map(|message| message.bytes)
                    .collect()
            }
            .boxed()
        }
        fn leave(&mut self) -> BoxFuture<'_, ()> {
            self.own.as_ref().unwrap().stop();
            async {}.boxed()
        }
        fn come_back(&mut self) -> BoxFuture<'_, ()> {
            self.own.as_mut().unwrap().go_on();
            async {}.boxed()
        }
    }

    async fn shared() -> Real {
        let prefix = prefix();
        let sink = Arc::new(Kafka::new(Broker::shared().await.options(&prefix)));
        Real { sink, own: None, prefix }
    }

    async fn own() -> Real {
        let own = Broker::start("");
        let sink = Arc::new(Kafka::new(Options { timeout: Duration::from_secs(3), ..own.options("") }));
        Real { sink, own: Some(own), prefix: String::new() }
    }

    conformance::suite!(shared:
        what_is_acknowledged_has_arrived_in_order,
        records_that_come_again_leave_the_order_of_the_first_time,
        a_record_that_cannot_be_carried_is_rejected_alone,
        a_delivery_that_is_dropped_harms_no_later_one,
        a_gap_is_told_between_the_events_around_it,
    );
    conformance::suite!(own: a_far_side_that_is_away_is_a_fault_until_it_is_back);
}

#[tokio::test]
async fn topics_are_created_as_the_catalogue_says_and_a_deleted_one_is_made_again() {
    let broker = Broker::shared().await;
    let prefix = prefix();
    let sink = Kafka::new(broker.options(&prefix));
    sink.check().await.unwrap();
    for (topic, partitions, days) in
        [("execution_events", 10, 7), ("pod_events", 10, 1), ("saga_events", 5, 7), ("dead_letter_queue", 3, 14)]
    {
        let described = broker.describe(&format!("{prefix}{topic}")).await;
        assert_eq!(described, (partitions, (days * 24 * 3600 * 1000).to_string()), "{topic}");
    }
    sink.deliver(&[record(1, "x")]).await.unwrap();
    let topic = format!("{prefix}execution_events");
    broker.delete(&topic).await;
    let deadline = Instant::now() + LIMIT;
    // What the broker took while it forgot is lost with the topic; what is acknowledged later is there.
    loop {
        sink.check().await.ok();
        if sink.deliver(&[record(2, "x")]).await.is_ok() && broker.firsts(&topic, "e").await.len() == 1 {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    assert_eq!(broker.describe(&topic).await.0, 10);
}

#[tokio::test]
async fn what_a_topic_finds_too_large_is_in_the_dead_letter_queue_and_costs_nobody_else() {
    let broker = Broker::shared().await;
    let prefix = prefix();
    let topic = format!("{prefix}execution_events");
    broker.create(&topic, 10, &[("max.message.bytes", "4000")]).await;
    let properties = ["linger.ms=50", "batch.num.messages=3"];
    let properties = properties.map(|text| podherald::config::Property::parse(text).unwrap()).to_vec();
    let sink = Kafka::new(Options {
        max_message_bytes: 100_000,
        compression: podherald::config::Compression::None,
        properties,
        ..broker.options(&prefix)
    });
    // Of a producer that it does not know, the broker takes any batch for the first: the first is at fault, too.
    let first: Vec<_> = (101..=120).map(|position| record(position, "x")).collect();
    let mut first_at_fault = first.clone();
    first_at_fault[0] = record(101, &"x".repeat(5000));
    let eager = Kafka::new(Options {
        max_message_bytes: 100_000,
        compression: podherald::config::Compression::None,
        properties: ["linger.ms=0", "batch.size=1500"]
            .map(|text| podherald::config::Property::parse(text).unwrap())
            .to_vec(),
        ..broker.options(&prefix)
    });
    let rejections = eager.deliver(&first_at_fault).await.unwrap();
    assert_eq!(rejections.iter().map(|rejection| rejection.position).collect::<Vec<_>>(), [101], "{rejections:?}");
    let firsts: Vec<Bytes> = first[1..].iter().map(|record| record.bytes.clone()).collect();
    assert_eq!(broker.firsts(&topic, "e").await, firsts);

    let mut records: Vec<_> = (1..=20).map(|position| record(position, "x")).collect();
    records[9] = record(10, &"x".repeat(5000));
    // The batch of three is refused as a whole; what comes after it must not pass the two that are without fault.
    let rejections = sink.deliver(&records).await.unwrap();
    assert_eq!(rejections.iter().map(|rejection| rejection.position).collect::<Vec<_>>(), [10], "{rejections:?}");
    let dead = broker.consume_all(&format!("{prefix}dead_letter_queue")).await;
    let dead = &dead[1..];
    assert_eq!((dead.len(), &dead[0].bytes, &*dead[0].key), (1, &records[9].bytes, "e"));
    assert_eq!(dead[0].header("dlq-original-topic"), Some(&*topic));
    assert_eq!(dead[0].header("dlq-position"), Some("10"));
    assert!(dead[0].header("dlq-reason").unwrap().contains("the broker refuses it"), "{dead:?}");
    assert_eq!(dead[0].header("ce_type"), Some("execution_progress"));
    let expected: Vec<Bytes> = records.iter().filter(|r| r.position != 10).map(|r| r.bytes.clone()).collect();
    assert_eq!(broker.firsts(&topic, "e").await[19..], expected);
}

#[tokio::test]
async fn credentials_rights_and_certificates_are_told_apart_and_count_as_soon_as_they_are_right() {
    let broker = Broker::start("");
    let sasl = |username: &str, password: &str| {
        let password = Password::Given(Secret::new(password).unwrap());
        Some(Sasl { mechanism: SaslMechanism::ScramSha512, username: username.to_owned(), password })
    };
    let secure = Options {
        brokers: Brokers::parse(broker.variable("KAFKA_SECURE")).unwrap(),
        tls: true,
        ca_file: Some(PathBuf::from(broker.variable("KAFKA_CA"))),
        timeout: Duration::from_secs(10),
        ..broker.options("lab.")
    };
    let fault = async |options: Options| {
        let fault = Kafka::new(options).deliver(&[record(1, "x")]).await.unwrap_err().to_string();
        assert!(fault.starts_with("kafka.brokers = localhost:") && !fault.contains("wr0ng"), "{fault}");
        fault
    };
    let said = fault(Options { sasl: sasl("herald", "wr0ng"), ..secure.clone() }).await;
    assert!(said.contains("it refuses the user or the password"), "{said}");
    let said = fault(Options { ca_file: None, sasl: sasl("herald", "secret"), ..secure.clone() }).await;
    assert!(said.contains("the TLS handshake failed; kafka.ca_file"), "{said}");
    let said = fault(Options { tls: false, ca_file: None, timeout: Duration::from_secs(2), ..secure.clone() }).await;
    assert!(said.contains("do kafka.tls and kafka.sasl_mechanism say what that listener expects"), "{said}");

    let herald = Options { sasl: sasl("herald", "secret"), ..secure.clone() };
    let said = fault(herald.clone()).await;
    assert!(
        said.contains("lab.execution_events (10 partitions)") && said.contains("it refuses to create them"),
        "{said}"
    );
    let allow = ["acl", "--add", "--allow-principal", "User:herald", "--resource-pattern-type", "prefixed"];
    broker.script(&[&allow[..], &["--operation", "All", "--topic", "lab."]].concat());
    let sink = Kafka::new(herald.clone());
    assert_eq!(sink.deliver(&[record(1, "x")]).await, Ok(vec![]));
    for mechanism in [SaslMechanism::ScramSha256, SaslMechanism::Plain] {
        let sasl = herald.sasl.clone().map(|sasl| Sasl { mechanism, ..sasl });
        assert_eq!(Kafka::new(Options { sasl, ..herald.clone() }).deliver(&[record(1, "x")]).await, Ok(vec![]));
    }

    // What is taken away holds the stream; nothing goes to the dead letters.
    let deny =
        ["acl", "--add", "--deny-principal", "User:herald", "--operation", "Write", "--topic", "lab.execution_events"];
    broker.script(&deny);
    let deadline = Instant::now() + LIMIT;
    let said = loop {
        match sink.deliver(&[record(2, "y")]).await {
            Err(fault) => break fault.to_string(),
            Ok(rejections) => assert_eq!(rejections, [], "it is no record's fault"),
        }
        assert!(Instant::now() < deadline);
    };
    assert!(said.contains("its user may not do what is needed"), "{said}");
    let undo: Vec<&str> = deny.iter().map(|word| if *word == "--add" { "--remove" } else { word }).collect();
    broker.script(&undo);
    while sink.deliver(&[record(2, "y")]).await.is_err() {
        assert!(Instant::now() < deadline + LIMIT);
    }
    assert_eq!(broker.firsts("lab.execution_events", "e").await.len(), 2);
    assert_eq!(broker.consume_all("lab.dead_letter_queue").await, []);
}

/// Settings of a podherald on this broker.
fn settings<'a>(namespace: &'a str, address: &'a str, prefix: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("PODHERALD_KUBE__NAMESPACES", namespace),
        ("PODHERALD_KAFKA__BROKERS", address),
        ("PODHERALD_KAFKA__TOPIC_PREFIX", prefix),
        ("PODHERALD_KAFKA__TIMEOUT", "3s"),
    ]
}

#[tokio::test]
async fn topics_have_what_is_in_the_journal_and_what_is_too_large_is_a_dead_letter() {
    let broker = Broker::shared().await;
    let prefix = prefix();
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = TempDir::new().unwrap();
    let mut settings = settings(&namespace.name, broker.address(), &prefix);
    settings.push(("PODHERALD_KAFKA__MAX_MESSAGE_BYTES", "8KiB"));
    let mut herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let long: &'static str = "x".repeat(20_000).leak();
    for (name, play) in [
        ("good", Play { log: Some("hello"), run_for: "1s", ..Play::exits(0) }),
        ("large", Play { log: Some(long), run_for: "1s", ..Play::exits(0) }),
        ("bad", Play::exits(3)),
    ] {
        namespace.create(&namespace.id(name), &play).await;
        herald.ended(&namespace.id(name)).await;
    }
    let ids = ["good", "bad"].map(|name| namespace.id(name));
    broker.assert_has(&prefix, &herald, &ids).await;

    let all = broker.consume_all(&format!("{prefix}execution_events")).await;
    for message in &all {
        let event = message.json();
        assert_eq!(message.key, event["execution_id"]);
        for (header, field) in [("ce_id", "event_id"), ("ce_type", "event_type"), ("ce_source", "source")] {
            assert_eq!(message.header(header), event[field].as_str(), "{message:?}");
        }
        assert_eq!(
            [message.header("ce_specversion"), message.header("content-type")],
            [Some("1.0"), Some("application/json")]
        );
        assert!(message.header("traceparent").is_some_and(|trace| trace.starts_with("00-")), "{message:?}");
    }
    // The end of the large one is too large; what came before it is there.
    let large = namespace.id("large");
    let types: Vec<_> =
        all.iter().filter(|message| message.key == large).map(|message| message.json()["event_type"].clone()).collect();
    assert_eq!(types, ["execution_started", "execution_running"]);
    let letters = herald.get("/dead-letters?sink=kafka").await;
    let letter = &letters["items"][0];
    assert_eq!(letters["items"].as_array().unwrap().len(), 1, "{letters}");
    assert_eq!([&letter["execution_id"], &letter["result_unproven"]], [&json!(large), &json!(true)], "{letter}");
    assert_eq!(letter["event"]["event_type"], "execution_completed");
    assert!(letter["reason"].as_str().unwrap().contains("of 8192 bytes at most"), "{letter}");
    assert_eq!(herald.counter("podherald_sink_result_unproven_events_total{sink=\"kafka\"}").await, 1);
    herald.signal(rustix::process::Signal::TERM);
    assert!(herald.end().await.success(), "{}", herald.log());
}

#[tokio::test]
async fn topics_that_are_missing_hold_the_sink_and_nothing_else_until_they_are_there() {
    let broker = Broker::shared().await;
    let prefix = prefix();
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = TempDir::new().unwrap();
    let mut settings = settings(&namespace.name, broker.address(), &prefix);
    settings.push(("PODHERALD_KAFKA__CREATE_TOPICS", "false"));
    let herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let id = namespace.id("one");
    namespace.create(&id, &Play::exits(0)).await;
    herald.ended(&id).await;
    let deadline = Instant::now() + LIMIT;
    loop {
        let sink = herald.get("/readyz").await["sinks"][0].clone();
        let said = sink["last_error"].as_str().unwrap_or_default().to_owned();
        if said.contains(&format!("{prefix}execution_events (10 partitions)")) && sink["failing"] == true {
            assert!(said.contains("create them, or set kafka.create_topics = true"), "{said}");
            break;
        }
        assert!(Instant::now() < deadline, "{sink}");
        sleep(POLL).await;
    }
    for topic in ["execution_events", "pod_events", "dead_letter_queue"] {
        broker.create(&format!("{prefix}{topic}"), 3, &[]).await;
    }
    broker.assert_has(&prefix, &herald, [&id]).await;
}

#[tokio::test]
async fn a_kafka_that_stops_in_mid_stream_and_comes_back_misses_nothing() {
    let mut broker = Broker::start("");
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = TempDir::new().unwrap();
    let address = broker.address().to_owned();
    let herald = Herald::start(&cluster.kubeconfig(), &data, &settings(&namespace.name, &address, "")).await;
    let mut ids = Vec::new();
    for outage in 0..2 {
        for n in 0..6 {
            let id = namespace.id(&format!("{outage}-{n}"));
            namespace.create(&id, &Play::exits(n)).await;
            if n == 3 {
                broker.stop();
            }
            ids.push(id);
        }
        for id in &ids {
            herald.ended(id).await;
        }
        let sink = herald.get("/readyz").await["sinks"][0].clone();
        assert!(sink["lag_events"].as_u64().unwrap() > 0, "podherald goes on without Kafka: {sink}");
        broker.go_on();
        broker.assert_has("", &herald, &ids).await;
    }
    assert!(herald.counter("podherald_sink_retries_total{sink=\"kafka\"}").await > 0);
}
