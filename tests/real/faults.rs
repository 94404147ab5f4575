//! What the world does to a Kafka and to the way there, in the middle of a stream of events: what is delivered and what is in the
//! dead letters is what is in the journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Namespace, Play},
    herald::{Herald, LIMIT, POLL},
    kafka::Broker,
    proxy::{Fault, Proxy},
};

const PODS: i32 = 5;

/// podherald between a cluster and a Kafka of its own.
struct Stream<'a> {
    broker: Broker,
    namespace: Namespace<'a>,
    herald: Herald,
    _data: TempDir,
    ids: Vec<String>,
}

impl<'a> Stream<'a> {
    /// To the address that `servers.sh` calls so.
    async fn start(cluster: &'a Cluster, broker: Broker, address: &str) -> Self {
        Self::start_on(TempDir::new().unwrap(), cluster, broker, address).await
    }

    async fn start_on(data: TempDir, cluster: &'a Cluster, broker: Broker, address: &str) -> Self {
        let namespace = cluster.namespace().await;
        let settings = [
            ("PODHERALD_KUBE__NAMESPACES", &*namespace.name),
            ("PODHERALD_KAFKA__BROKERS", broker.variable(address)),
            ("PODHERALD_KAFKA__TIMEOUT", "2s"),
        ];
        let herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
        Self { broker, namespace, herald, _data: data, ids: Vec::new() }
    }

    /// Pods come and end while something is wrong, which somebody must notice.
    async fn flow_in_trouble(&mut self) {
        let retries = self.retries().await;
        self.flow().await;
        let deadline = Instant::now() + LIMIT;
        while self.retries().await == retries {
            let ready = async || self.herald.get("/readyz").await;
            assert!(Instant::now() < deadline, "that troubles nobody: {}", ready().await);
            sleep(POLL).await;
        }
    }

    /// Some pods come and end.
    async fn flow(&mut self) {
        let begun = self.ids.len();
        self.begin().await;
        for id in &self.ids[begun..] {
            self.herald.ended(id).await;
        }
    }

    /// Some pods come.
    async fn begin(&mut self) {
        for n in 0..PODS {
            let id = self.namespace.id(&format!("{}-{n}", self.ids.len()));
            self.namespace.create(&id, &Play::exits(n)).await;
            self.ids.push(id);
        }
    }

    async fn until_ready_says(&self, is_it: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            // Whether it is or not.
            let (_, ready) = self.herald.try_get("/readyz", "application/json").await.unwrap();
            let ready = serde_json::from_slice(&ready).unwrap();
            if is_it(&ready) {
                return;
            }
            assert!(Instant::now() < deadline, "{ready}");
            sleep(POLL).await;
        }
    }

    async fn retries(&self) -> u64 {
        self.herald.counter("podherald_sink_retries_total{sink=\"kafka\"}").await
    }

    /// Waits until the sink has all, and compares.
    async fn assert_complete(&self) {
        assert_complete(&self.herald, &self.broker, "").await;
    }
}

/// What of an event the comparison goes by.
#[derive(Deserialize)]
struct Named {
    event_id: String,
    execution_id: String,
    source: String,
    seq: u64,
}

/// Fails unless what the topics have and the dead letters are what is in the journal: repeats are the same to the last byte, and within a
/// topic what comes first of each execution and source comes in order.
pub(crate) async fn assert_complete(herald: &Herald, broker: &Broker, prefix: &str) {
    until_caught_up(herald).await;
    let journal = async || -> BTreeMap<String, Bytes> {
        let events = raw_pages(herald, "/events?limit=500").await;
        events.into_iter().map(|event| (named(&event).event_id, event)).collect()
    };
    let expected = journal().await;
    let dead = herald.pages("/dead-letters?limit=100").await;
    let mut told: BTreeSet<String> =
        dead.iter().map(|letter| letter["event_id"].as_str().unwrap().to_owned()).collect();
    let topics = ["execution_events", "pod_events", "execution_results"];
    let mut consumed = Vec::new();
    for topic in topics {
        consumed.push(broker.consume_all(&format!("{prefix}{topic}")).await);
    }
    // Events may have come since.
    let journal = journal().await;
    for (topic, consumed) in topics.into_iter().zip(consumed) {
        let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for message in consumed {
            let Named { event_id, execution_id, source, seq } = named(&message.bytes);
            assert_eq!(message.key, execution_id);
            assert_eq!(journal.get(&event_id), Some(&message.bytes), "{topic} has what is not in the journal");
            if seen.insert(event_id.clone()) {
                let before = last.insert((execution_id, source), seq);
                assert!(before < Some(seq), "{topic}: {seq} comes after {before:?} in {message:?}");
            }
            told.insert(event_id);
        }
    }
    let missing: Vec<_> = expected.iter().filter(|(id, _)| !told.contains(*id)).map(|(_, event)| event).collect();
    assert!(missing.is_empty(), "Kafka lacks {missing:#?}");
}

async fn until_caught_up(herald: &Herald) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let ready = herald.get("/readyz").await;
        let sinks = ready["sinks"].as_array().unwrap();
        let kafka = sinks.iter().find(|sink| sink["name"] == "kafka").unwrap();
        if kafka["lag_events"] == 0 && kafka["failing"] == false {
            return;
        }
        assert!(Instant::now() < deadline, "it does not catch up: {ready}");
        sleep(POLL).await;
    }
}

fn named(event: &Bytes) -> Named {
    serde_json::from_slice(event).unwrap_or_else(|error| panic!("{error}: {event:?}"))
}

/// All items of a paged answer, byte by byte.
async fn raw_pages(herald: &Herald, path: &str) -> Vec<Bytes> {
    #[derive(Deserialize)]
    struct Page {
        items: Vec<Box<RawValue>>,
        next: Option<String>,
    }
    let mut items = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path_of_page) = next {
        let (_, page) = herald.try_get(&path_of_page, "application/json").await.unwrap();
        let page: Page = serde_json::from_slice(&page).unwrap();
        items.extend(page.items.iter().map(|item| Bytes::copy_from_slice(item.get().as_bytes())));
        next = page.next.map(|next| format!("{path}&after={next}"));
    }
    items
}

/// A disk of its own under a directory. Needs root, as the real node does.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).status();
        assert!(mounted.unwrap().success(), "mount needs root");
        Self(at.to_owned())
    }

    /// Writes until nothing more goes in.
    fn fill(&self) {
        let mut file = File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn clear(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, for a broker may still have files open.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_bad_network_on_the_way_to_kafka_repeats_events_at_most() {
    let broker = Broker::start("");
    broker.script(&["start", "toxiproxy"]);
    let proxy = Proxy::new("kafka", broker.variable("TOXIPROXY"));
    let cluster = Cluster::shared().await;
    let mut stream = Stream::start(&cluster, broker, "KAFKA_PROXIED").await;
    // What is over within `kafka.timeout` the client mends by itself, and nobody hears of it.
    for (fault, is_heard_of) in [
        (Fault::Cut, true),
        (Fault::EndsAfter(3000), false),
        (Fault::LosesAnswers, true),
        (Fault::ResetsAfter(50), false),
        (Fault::Slow(1), true),
        (Fault::LosesAnswers, true),
    ] {
        stream.flow().await;
        proxy.break_by(fault).await;
        if is_heard_of {
            stream.flow_in_trouble().await;
        } else {
            stream.flow().await;
        }
        proxy.heal().await;
        stream.assert_complete().await;
    }
}

#[tokio::test]
async fn a_kafka_that_is_killed_or_hangs_in_mid_stream_misses_nothing() {
    let cluster = Cluster::shared().await;
    let mut stream = Stream::start(&cluster, Broker::start(""), "KAFKA_BOOTSTRAP").await;
    for [begin, end] in [["kill", "start"], ["pause", "resume"], ["stop", "start"]] {
        stream.flow().await;
        stream.broker.script(&[begin, "kafka"]);
        stream.flow_in_trouble().await;
        stream.broker.script(&[end, "kafka"]);
        stream.assert_complete().await;
    }
}

#[tokio::test]
async fn a_kafka_with_a_full_disk_misses_nothing_once_there_is_room() {
    let run = Broker::directory();
    let disk = SmallDisk::mount(&run.join("kafka/data"), "64m");
    let cluster = Cluster::shared().await;
    let mut stream = Stream::start(&cluster, Broker::start_in(run, ""), "KAFKA_BOOTSTRAP").await;
    stream.flow().await;
    disk.fill();
    stream.flow_in_trouble().await;
    disk.clear();
    // A broker whose only disk has failed ends.
    stream.broker.script(&["kill", "kafka"]);
    stream.broker.go_on();
    stream.assert_complete().await;
}

#[tokio::test]
async fn a_full_disk_under_the_journal_while_kafka_is_cut_off_loses_nothing() {
    let broker = Broker::start("");
    broker.script(&["start", "toxiproxy"]);
    let proxy = Proxy::new("kafka", broker.variable("TOXIPROXY"));
    let data = TempDir::new().unwrap();
    let disk = SmallDisk::mount(&data.path().join("data"), "32m");
    let cluster = Cluster::shared().await;
    let mut stream = Stream::start_on(data, &cluster, broker, "KAFKA_PROXIED").await;
    let sink = |ready: &Value| {
        ready["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == "kafka").cloned().unwrap()
    };

    stream.flow().await;
    proxy.break_by(Fault::Cut).await;
    stream.flow_in_trouble().await;
    disk.fill();
    let full = stream.ids.len();
    stream.begin().await;
    stream
        .until_ready_says(|ready| ready["detail"].as_str().is_some_and(|detail| detail.starts_with("journal:")))
        .await;
    // Kafka takes what it missed, and nobody can note how far it is.
    proxy.heal().await;
    stream
        .until_ready_says(|ready| {
            sink(ready)["last_error"].as_str().is_some_and(|error| error.starts_with("the cursor"))
        })
        .await;
    proxy.break_by(Fault::LosesAnswers).await;
    disk.clear();
    for id in &stream.ids[full..] {
        stream.herald.ended(id).await;
    }
    proxy.heal().await;
    stream.assert_complete().await;
    // Before the directory that it is in.
    drop(disk);
}
