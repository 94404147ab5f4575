//! Two podheralds before one cluster and one Kafka, each with a disk of its own: one leads, and whatever becomes of it, the other
//! goes on where Kafka stands. Nothing is lost, and nothing is there twice.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, api::DeleteParams};
use podherald::sink::{
    Sink,
    kafka::{Fence, Kafka, Options},
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};

use crate::{
    cluster::{Cluster, Namespace, Play},
    herald::{Herald, LIMIT, POLL, ends},
    kafka::{Broker, Consumed, prefix},
    proxy::{Fault, Proxy},
    sink::conformance::record,
};

const LEASE: &str = "podherald/podherald";
/// Events that two may tell where the Lease itself was deleted: until its next look the old leader does not know.
const UNDER_WAY: usize = 10 * 7;
/// How long a leader may be silent here.
const DURATION: Duration = Duration::from_secs(3);

/// The Lease that podherald's role allows. One test at a time has it.
async fn office(cluster: &Cluster) -> MutexGuard<'static, ()> {
    static OFFICE: Mutex<()> = Mutex::const_new(());
    let alone = OFFICE.lock().await;
    let leases: Api<Lease> = Api::namespaced(cluster.admin.clone(), "podherald");
    match leases.delete("podherald", &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        deleted => drop(deleted.unwrap()),
    }
    alone
}

/// What both go by.
struct World<'a> {
    namespace: Namespace<'a>,
    broker: &'static Broker,
    prefix: String,
    roles: &'static str,
    /// Events that may be there twice, at most.
    repeats: usize,
    ids: Vec<String>,
}

impl<'a> World<'a> {
    async fn new(cluster: &'a Cluster) -> Self {
        let (namespace, broker) = (cluster.namespace().await, Broker::shared().await);
        Self { namespace, broker, prefix: prefix(), roles: "api,monitor", repeats: 0, ids: Vec::new() }
    }

    async fn start(&self, kubeconfig: &Path) -> Member {
        let data = TempDir::new().unwrap();
        let herald = Herald::start(kubeconfig, &data, &self.settings()).await;
        Member { herald, data }
    }

    /// One that leads, by way of this kubeconfig, and one that stands by, after some pods have come and ended.
    async fn leader_and_next(&mut self, kubeconfig: &Path) -> (Member, Member) {
        let one = self.start(kubeconfig).await;
        one.until_leading().await;
        let other = self.start(&self.namespace.cluster().kubeconfig()).await;
        self.flow(&one.herald).await;
        (one, other)
    }

    /// The same again on the same disk.
    async fn start_again(&self, kubeconfig: &Path, data: TempDir) -> Member {
        let herald = Herald::start(kubeconfig, &data, &self.settings()).await;
        Member { herald, data }
    }

    fn settings(&self) -> [(&'static str, &str); 7] {
        [
            ("PODHERALD_ROLES", self.roles),
            ("PODHERALD_KUBE__NAMESPACES", &self.namespace.name),
            ("PODHERALD_KAFKA__BROKERS", self.broker.address()),
            ("PODHERALD_KAFKA__TOPIC_PREFIX", &self.prefix),
            ("PODHERALD_KAFKA__TIMEOUT", "3s"),
            ("PODHERALD_MONITOR__LEASE", LEASE),
            ("PODHERALD_MONITOR__LEASE_DURATION", "3s"),
        ]
    }

    async fn create(&mut self, count: i32, play: impl Fn(i32) -> Play) -> Vec<String> {
        let first = self.ids.len();
        for n in 0..count {
            let id = self.namespace.id(&format!("{}", self.ids.len()));
            self.namespace.create(&id, &play(n)).await;
            self.ids.push(id);
        }
        self.ids[first..].to_vec()
    }

    /// Some pods come and end, and are told.
    async fn flow(&mut self, by: &Herald) {
        for id in self.create(5, Play::exits).await {
            by.ended(&id).await;
        }
    }

    async fn consumed(&self) -> Vec<Consumed> {
        let mut all = self.broker.consume_all(&format!("{}execution_events", self.prefix)).await;
        for topic in ["pod_events", "execution_results"] {
            all.extend(self.broker.consume_all(&format!("{}{topic}", self.prefix)).await);
        }
        all
    }

    /// Waits until Kafka has one end of each execution, and fails unless each event is there once and both tell the same.
    async fn assert_complete(&self, heralds: &[&Herald]) {
        let deadline = Instant::now() + LIMIT;
        let consumed = loop {
            let consumed = self.consumed().await;
            let ended: BTreeSet<String> =
                consumed.iter().filter(|message| ends(&message.json())).map(|message| message.key.clone()).collect();
            if self.ids.iter().all(|id| ended.contains(id)) {
                break consumed;
            }
            assert!(Instant::now() < deadline, "Kafka has the ends of {ended:?} of {:?}", self.ids);
            sleep(POLL).await;
        };
        let mut told: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut repeats = 0;
        for message in &consumed {
            let id = message.json()["event_id"].as_str().unwrap().to_owned();
            // Readers keep the first.
            match told.entry(id) {
                Entry::Occupied(_) => repeats += 1,
                Entry::Vacant(first) => drop(first.insert(message.bytes.to_vec())),
            }
        }
        assert!(repeats <= self.repeats, "{repeats} events are there twice: {consumed:#?}");
        for id in &self.ids {
            let of_id = || consumed.iter().filter(|message| message.key == *id).map(Consumed::json);
            let ends: BTreeSet<String> = of_id().filter(ends).map(|event| event["event_id"].to_string()).collect();
            assert_eq!(ends.len(), 1, "{:#?}", of_id().collect::<Vec<_>>());
            let types: BTreeSet<_> = of_id().map(|event| event["event_type"].as_str().unwrap().to_owned()).collect();
            for must in ["pod_scheduled", "execution_started", "pod_running", "execution_running", "pod_terminated"] {
                assert!(types.contains(must), "{id} lacks {must}: {types:?}");
            }
        }
        for herald in heralds {
            for id in &self.ids {
                self.assert_shows(herald, id, &told).await;
            }
        }
    }

    /// Waits until it shows what Kafka has, byte by byte; but of what it had only written down when it lost the lead, what it
    /// had written itself.
    async fn assert_shows(&self, herald: &Herald, id: &str, told: &BTreeMap<String, Vec<u8>>) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let path = format!("/executions/{id}/events?limit=500");
            let (_, page) = herald.try_get(&path, "application/json").await.unwrap();
            let page: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_slice(&page).unwrap();
            let events: Vec<&serde_json::value::RawValue> = serde_json::from_str(page["items"].get()).unwrap();
            let mine: BTreeMap<String, Vec<u8>> = events
                .iter()
                .map(|event| {
                    let parsed: Value = serde_json::from_str(event.get()).unwrap();
                    (parsed["event_id"].as_str().unwrap().to_owned(), event.get().as_bytes().to_vec())
                })
                .collect();
            let theirs: BTreeMap<_, _> = told
                .iter()
                .filter(|(_, bytes)| serde_json::from_slice::<Value>(bytes).unwrap()["execution_id"] == id)
                .map(|(event, bytes)| (event.clone(), bytes.clone()))
                .collect();
            if mine.len() == theirs.len()
                && mine.iter().all(|(id, bytes)| theirs.get(id).is_some_and(|other| is_same(bytes, other)))
            {
                return;
            }
            let shown = |events: &BTreeMap<String, Vec<u8>>| {
                events.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect::<Vec<_>>()
            };
            assert!(
                Instant::now() < deadline,
                "{id}: it shows {:#?}, Kafka has {:#?}\n{}",
                shown(&mine),
                shown(&theirs),
                herald.log()
            );
            sleep(POLL).await;
        }
    }
}

/// Half of them end at once, the others a second later.
fn in_the_midst(n: i32) -> Play {
    Play { run_for: if n % 2 == 0 { "" } else { "1s" }, ..Play::exits(n) }
}

fn is_same(event: &[u8], other: &[u8]) -> bool {
    let source = |event: &[u8]| serde_json::from_slice::<Value>(event).unwrap()["source"].clone();
    event == other || source(event) != source(other)
}

/// One of them.
struct Member {
    herald: Herald,
    data: TempDir,
}

impl Member {
    async fn leads(&self) -> bool {
        self.herald.counter("podherald_leadership_leading").await == 1
    }

    /// How long it takes.
    async fn until_leading(&self) -> Duration {
        let begun = Instant::now();
        while !self.leads().await {
            assert!(begun.elapsed() < LIMIT, "it does not lead:\n{}", self.herald.log());
            sleep(POLL).await;
        }
        begun.elapsed()
    }

    async fn until_following(&self) {
        let begun = Instant::now();
        while self.leads().await {
            assert!(begun.elapsed() < LIMIT, "it does not follow:\n{}", self.herald.log());
            sleep(POLL).await;
        }
    }

    async fn logs_read(&self) -> u64 {
        self.herald.counter("podherald_logs_collect_seconds_count").await
    }
}

/// podherald's kubeconfig by way of another address.
fn kubeconfig_by_way_of(address: &str, cluster: &Cluster, data: &TempDir) -> (PathBuf, String) {
    let text = fs::read_to_string(cluster.kubeconfig()).unwrap();
    let server = text.split("https://").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let path = data.path().join("kubeconfig");
    fs::write(&path, text.replace(&server, address)).unwrap();
    (path, server)
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "what was measured")]
async fn who_stands_by_shows_what_the_leader_tells_reads_no_log_and_takes_over_at_once_when_it_leaves() {
    let cluster = Cluster::shared().await;
    let _alone = office(&cluster).await;
    let mut world = World::new(&cluster).await;
    let mut one = world.start(&cluster.kubeconfig()).await;
    one.until_leading().await;
    let other = world.start(&cluster.kubeconfig()).await;
    world.flow(&other.herald).await;
    assert!(!other.leads().await);
    assert_eq!(other.logs_read().await, 0);
    world.assert_complete(&[&one.herald, &other.herald]).await;
    world.create(2, |_| Play { run_for: "1s", ..Play::exits(0) }).await;
    one.herald.signal(Signal::TERM);
    assert!(one.herald.end().await.success(), "{}", one.herald.log());
    let gap = other.until_leading().await;
    println!("handed over in {gap:?}");
    assert!(one.herald.log().contains("the Lease is given back"), "{}", one.herald.log());
    world.flow(&other.herald).await;
    world.assert_complete(&[&other.herald]).await;
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "what was measured")]
async fn a_leader_that_is_killed_is_followed_by_one_that_tells_what_it_had_not() {
    let cluster = Cluster::shared().await;
    let _alone = office(&cluster).await;
    let mut world = World::new(&cluster).await;
    let (one, other) = world.leader_and_next(&cluster.kubeconfig()).await;
    // In the midst of lives.
    world.create(10, in_the_midst).await;
    let Member { herald, data } = one;
    herald.kill().await;
    let gap = other.until_leading().await;
    println!("took over in {gap:?} after a kill, with a Lease of {DURATION:?}");
    world.flow(&other.herald).await;
    world.assert_complete(&[&other.herald]).await;
    // What it had told itself it need not be told; what the other has told it takes over.
    let one = world.start_again(&cluster.kubeconfig(), data).await;
    world.flow(&other.herald).await;
    world.assert_complete(&[&one.herald, &other.herald]).await;
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "what was measured")]
async fn a_leader_that_was_asleep_can_publish_nothing_more() {
    let cluster = Cluster::shared().await;
    let _alone = office(&cluster).await;
    let mut world = World::new(&cluster).await;
    let (one, other) = world.leader_and_next(&cluster.kubeconfig()).await;
    world.create(10, in_the_midst).await;
    one.herald.signal(Signal::STOP);
    let gap = other.until_leading().await;
    println!("took over in {gap:?} from one that was stopped");
    world.flow(&other.herald).await;
    one.herald.signal(Signal::CONT);
    one.until_following().await;
    world.flow(&other.herald).await;
    assert!(other.leads().await);
    world.assert_complete(&[&one.herald, &other.herald]).await;
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "what was measured")]
async fn a_leader_that_does_not_reach_the_api_server_lets_go() {
    let cluster = Cluster::shared().await;
    let _alone = office(&cluster).await;
    let mut world = World::new(&cluster).await;
    let place = TempDir::new().unwrap();
    world.broker.script(&["start", "toxiproxy"]);
    let (_, server) = kubeconfig_by_way_of("nowhere", &cluster, &place);
    let (proxy, address) = Proxy::before(&server, "apiserver", world.broker.variable("TOXIPROXY")).await;
    let (kubeconfig, _) = kubeconfig_by_way_of(&address, &cluster, &place);
    let (one, other) = world.leader_and_next(&kubeconfig).await;
    world.create(10, in_the_midst).await;
    proxy.break_by(Fault::Cut).await;
    let gap = other.until_leading().await;
    println!("took over in {gap:?} from one that was cut off");
    one.until_following().await;
    world.flow(&other.herald).await;
    proxy.heal().await;
    world.flow(&other.herald).await;
    world.assert_complete(&[&one.herald, &other.herald]).await;
}

/// What comes of the results is shared as all else is.
#[tokio::test]
async fn both_may_store_results_and_one_tells_of_them() {
    let cluster = Cluster::shared().await;
    let _alone = office(&cluster).await;
    let mut world = World { roles: "api,monitor,result_processor", ..World::new(&cluster).await };
    let (one, other) = world.leader_and_next(&cluster.kubeconfig()).await;
    world.create(4, in_the_midst).await;
    for id in &world.ids {
        one.herald.result(id).await;
        other.herald.result(id).await;
    }
    one.herald.kill().await;
    other.until_leading().await;
    world.flow(&other.herald).await;
    for id in &world.ids {
        other.herald.result(id).await;
    }
    world.assert_complete(&[&other.herald]).await;
    let consumed = world.consumed().await.into_iter().map(|message| message.json());
    let stored = consumed.filter(|event| event["event_type"] == "result_stored");
    let stored: BTreeSet<String> = stored.map(|event| event["result_of"].to_string()).collect();
    assert_eq!(stored.len(), world.ids.len());
}

#[tokio::test]
async fn a_lease_that_is_made_anew_costs_nothing_and_the_next_leader_knows_all() {
    let cluster = Cluster::shared().await;
    let _alone = office(&cluster).await;
    let mut world = World { repeats: UNDER_WAY, ..World::new(&cluster).await };
    let (one, other) = world.leader_and_next(&cluster.kubeconfig()).await;
    let leases: Api<Lease> = Api::namespaced(cluster.admin.clone(), "podherald");
    leases.delete("podherald", &DeleteParams::default()).await.unwrap();
    // Whoever makes it anew: one of them leads, and both know what is told.
    world.flow(&one.herald).await;
    world.flow(&other.herald).await;
    let (leader, next) = loop {
        match (one.leads().await, other.leads().await) {
            (true, false) => break (one, other),
            (false, true) => break (other, one),
            _ => sleep(POLL).await,
        }
    };
    leader.herald.kill().await;
    next.until_leading().await;
    world.flow(&next.herald).await;
    world.assert_complete(&[&next.herald]).await;
}

#[tokio::test]
async fn a_record_at_fault_takes_no_other_of_its_transaction_with_it() {
    let (broker, prefix) = (Broker::shared().await, prefix());
    let lease = prefix.clone();
    let options = Options { fence: Some(Fence::new(move || Some(lease.clone()))), ..broker.options(&prefix) };
    let sink = Kafka::new(options);
    sink.take_over().await.unwrap();
    // Only the broker finds this one too large.
    let topic = format!("{prefix}execution_events");
    broker.configure(&topic, "max.message.bytes", "20000").await;
    let noise: String =
        (0..40_000_u32).map(|n| char::from(33 + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 90)).collect();
    let records = [record(1, "first"), record(2, &noise), record(3, "third")];
    let rejected = sink.deliver(&records).await.unwrap();
    assert_eq!(rejected.iter().map(|rejection| rejection.position).collect::<Vec<_>>(), [2]);
    let mut there: Vec<_> =
        broker.consume_all(&topic).await.iter().map(|message| message.json()["seq"].as_u64().unwrap()).collect();
    there.sort_unstable();
    assert_eq!(there, [1, 3]);
}

#[tokio::test]
async fn who_is_shut_out_of_kafka_publishes_nothing_more_and_what_it_had_under_way_is_not_there() {
    let (broker, prefix) = (Broker::shared().await, prefix());
    let lease = prefix.clone();
    let options = Options { fence: Some(Fence::new(move || Some(lease.clone()))), ..broker.options(&prefix) };
    let (one, other) = (Kafka::new(options.clone()), Kafka::new(options));
    one.take_over().await.unwrap();
    one.deliver(&[record(1, "first")]).await.unwrap();
    other.take_over().await.unwrap();
    let refused = one.deliver(&[record(2, "late")]).await.unwrap_err();
    assert!(refused.0.contains("another podherald has taken over"), "{refused}");
    other.deliver(&[record(3, "second")]).await.unwrap();
    let there = broker.consume_all(&format!("{prefix}execution_events")).await;
    let mut numbers: Vec<_> = there.iter().map(|message| message.json()["seq"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 3]);
    assert!(there.iter().all(|message| message.header("podherald-lease") == Some(&prefix)));
}

#[tokio::test]
async fn without_the_lease_nothing_is_published() {
    let (broker, prefix) = (Broker::shared().await, prefix());
    let sink = Kafka::new(Options { fence: Some(Fence::new(|| None)), ..broker.options(&prefix) });
    for refused in [sink.take_over().await.unwrap_err(), sink.deliver(&[record(1, "late")]).await.unwrap_err()] {
        assert!(refused.0.contains("monitor.lease"), "{refused}");
    }
}
