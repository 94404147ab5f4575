//! Results in processes of their own: a monitor tells Kafka, and any number of result processors keep what comes of it in one MongoDB.

mod by_hand;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Namespace, Play},
    herald::{Herald, LIMIT, POLL, ends},
    kafka::{Broker, Consumed, prefix},
    proxy::Fault,
    store::Server,
};

pub(crate) struct World<'a> {
    pub(crate) namespace: Namespace<'a>,
    cluster: &'a Cluster,
    broker: &'static Broker,
    prefix: String,
    mongo: String,
    database: String,
    blobs: TempDir,
    pub(crate) ids: Vec<String>,
}

/// One process.
pub(crate) struct Process {
    pub(crate) herald: Herald,
    _data: TempDir,
}

impl<'a> World<'a> {
    pub(crate) async fn new(cluster: &'a Cluster, mongo: &str) -> Self {
        let (namespace, broker, prefix) = (cluster.namespace().await, Broker::shared().await, prefix());
        let database = format!("results_{}", prefix.trim_end_matches('.'));
        Self {
            namespace,
            cluster,
            broker,
            prefix,
            mongo: mongo.to_owned(),
            database,
            blobs: TempDir::new().unwrap(),
            ids: Vec::new(),
        }
    }

    pub(crate) fn blobs(&self) -> String {
        format!("file://{}", self.blobs.path().display())
    }

    pub(crate) async fn start(&self, roles: &str) -> Process {
        self.start_with(roles, &[("PODHERALD_BLOB__URL", &self.blobs())]).await
    }

    /// A process without a blob store, and with these settings.
    pub(crate) async fn start_with(&self, roles: &str, more: &[(&str, &str)]) -> Process {
        let settings = [&[("PODHERALD_ROLES", roles)], more].concat();
        let mut process = self.launch(Path::new(env!("CARGO_BIN_EXE_podherald")), &settings);
        process.herald.until_listening().await;
        process.herald.until_ready().await;
        process
    }

    /// Starts this binary with these settings, and waits for nothing.
    fn launch(&self, binary: &Path, settings: &[(&str, &str)]) -> Process {
        let data = TempDir::new().unwrap();
        let shared = [
            ("PODHERALD_KUBE__NAMESPACES", &*self.namespace.name),
            ("PODHERALD_KAFKA__BROKERS", self.broker.address()),
            ("PODHERALD_KAFKA__TOPIC_PREFIX", &self.prefix),
            ("PODHERALD_KAFKA__TIMEOUT", "3s"),
            // One that is killed is missed soon.
            ("PODHERALD_KAFKA__PROPERTIES", "session.timeout.ms=2000;heartbeat.interval.ms=500"),
            ("PODHERALD_MONGO__URI", &self.mongo),
            ("PODHERALD_MONGO__DATABASE", &self.database),
            ("PODHERALD_MONGO__TIMEOUT", "3s"),
        ];
        let settings = [&shared, settings].concat();
        let herald = Herald::launch(binary, &self.cluster.kubeconfig(), &data, &settings);
        Process { herald, _data: data }
    }

    pub(crate) async fn create(&mut self, count: i32) -> Vec<String> {
        let first = self.ids.len();
        for n in 0..count {
            let id = self.namespace.id(&format!("{}", self.ids.len()));
            self.namespace.create(&id, &Play { log: Some("what it printed"), ..Play::exits(n) }).await;
            self.ids.push(id);
        }
        self.ids[first..].to_vec()
    }

    /// All that is in a topic, by the name that it has in the catalogue.
    pub(crate) async fn consume_all(&self, topic: &str) -> Vec<Consumed> {
        self.broker.consume_all(&format!("{}{topic}", self.prefix)).await
    }

    pub(crate) async fn add_partitions(&self, topic: &str, count: usize) {
        self.broker.add_partitions(&format!("{}{topic}", self.prefix), count).await;
    }

    /// All that is said of results.
    async fn told(&self) -> Vec<Consumed> {
        self.consume_all("execution_results").await
    }

    /// Waits until each attempt's result is told, and fails unless it is told of each one, always under the same id, and what is
    /// told is what ended it.
    async fn assert_told(&self) {
        let deadline = Instant::now() + LIMIT;
        let told = loop {
            let told = self.told().await;
            let ids: BTreeSet<&str> = told.iter().map(|message| &*message.key).collect();
            if self.ids.iter().all(|id| ids.contains(&**id)) {
                break told;
            }
            assert!(Instant::now() < deadline, "{} results are told of {:?}", ids.len(), self.ids);
            sleep(POLL).await;
        };
        let ended = self.broker.consume_all(&format!("{}execution_events", self.prefix)).await;
        let ended: BTreeMap<String, Value> = ended
            .iter()
            .map(|message| message.json())
            .filter(ends)
            .map(|event| (event["event_id"].as_str().unwrap().to_owned(), event))
            .collect();
        let mut ids: BTreeMap<String, String> = BTreeMap::new();
        for message in &told {
            let event = message.json();
            assert_eq!(event["event_type"], "result_stored");
            let of = event["result_of"].as_str().unwrap().to_owned();
            for field in ["execution_id", "attempt", "exit", "stdout", "output"] {
                assert_eq!(event[field], ended[&of][field], "{event}");
            }
            let id = event["event_id"].as_str().unwrap().to_owned();
            assert_eq!(*ids.entry(of).or_insert_with(|| id.clone()), id);
        }
        assert_eq!(ids.len(), self.ids.len());
    }
}

#[tokio::test]
async fn two_result_processors_share_the_work_and_one_that_is_killed_leaves_none_undone() {
    let cluster = Cluster::shared().await;
    let mut world = World::new(&cluster, &Server::shared().await.uri("")).await;
    let monitor = world.start("api,monitor").await;
    let one = world.start("api,result_processor").await;
    let other = world.start("api,result_processor").await;
    for id in world.create(6).await {
        for process in [&monitor, &one, &other] {
            let result = process.herald.result(&id).await;
            assert_eq!((&result["execution_id"], &result["stdout"]), (&id.clone().into(), &"what it printed\n".into()));
        }
    }
    world.create(6).await;
    one.herald.kill().await;
    for id in world.create(6).await {
        other.herald.result(&id).await;
    }
    world.assert_told().await;
}

#[tokio::test]
async fn while_the_database_is_away_results_wait_and_none_is_lost() {
    let cluster = Cluster::shared().await;
    let server = Server::start("");
    let proxy = server.start_proxy();
    let mut world = World::new(&cluster, &server.proxied_uri()).await;
    let monitor = world.start("api,monitor").await;
    let processor = world.start("api,result_processor").await;
    for id in world.create(3).await {
        processor.herald.result(&id).await;
    }
    proxy.break_by(Fault::Cut).await;
    let waiting = world.create(3).await;
    for id in &waiting {
        monitor.herald.ended(id).await;
    }
    let deadline = Instant::now() + LIMIT;
    let ready = async || processor.herald.try_get("/readyz?role=result_processor", "application/json").await.unwrap();
    let (status, said) = loop {
        let answer = ready().await;
        if answer.0 != StatusCode::OK {
            break answer;
        }
        assert!(Instant::now() < deadline, "the role does not wait: {}", processor.herald.log());
        sleep(POLL).await;
    };
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && said.contains("the store could not"), "{said}");
    proxy.heal().await;
    for id in &waiting {
        processor.herald.result(id).await;
    }
    world.assert_told().await;
}
