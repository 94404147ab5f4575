//! kill -9 wherever it hurts, again and again, while pods come, end and go: nothing is lost, nothing is said twice, and a
//! Redis and a Kafka have all of it; what events name as blobs is there.
//!
//! The binary has crash points (the cargo feature `crash-points`; `PODHERALD_CRASH_BINARY` names it). Points and pods are
//! drawn from a seed, which is printed; `PODHERALD_CRASH_SEED` draws the same ones again and `PODHERALD_CRASH_POINTS`
//! sets how many.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use kube::{ResourceExt, api::ListParams};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::Value;
use tempfile::tempdir;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep},
};

use crate::{
    cluster::{Cluster, Namespace, Play},
    faults::assert_complete,
    herald::{Frame, Herald, LIMIT, Stream, assert_in_order, ends},
    kafka::{self, Broker},
    sink::Server,
};

/// The points of `src/crash.rs`, and how often one is passed at most before it kills: each is reached within seconds.
const KINDS: [(&str, u32); 11] = [
    ("evidence", 8),
    ("collect", 8),
    ("blob", 4),
    ("append", 20),
    ("commit", 20),
    ("serve", 40),
    ("relay", 20),
    ("store", 3),
    ("tell", 3),
    ("acknowledge", 3),
    ("place", 9),
];

/// More than an event holds.
static LONG: LazyLock<String> = LazyLock::new(|| "a line of a long output\n".repeat(10_000));

/// Between two new pods.
const PACE: Duration = Duration::from_millis(50);

#[tokio::test]
#[expect(clippy::print_stdout, reason = "shown when the test fails, to draw the same again")]
async fn nothing_is_lost_or_said_twice_however_podherald_is_killed() {
    let seed = optional_variable("PODHERALD_CRASH_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
    let count = optional_variable("PODHERALD_CRASH_POINTS").map_or(20, |count| count.parse().unwrap());
    println!("PODHERALD_CRASH_SEED={seed} PODHERALD_CRASH_POINTS={count}");
    let mut rng = StdRng::seed_from_u64(seed);
    let points = draw(&mut rng, count);

    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let binary = PathBuf::from(optional_variable("PODHERALD_CRASH_BINARY").expect("run this by tests/real.sh"));
    let data = tempdir().unwrap();
    let redis = Server::start("");
    let url = redis.url();
    let (kafka, prefix) = (Broker::shared().await, kafka::prefix());
    let blobs = tempdir().unwrap();
    let blob_url = format!("file://{}", blobs.path().display());
    let launch = |point: Option<&str>| {
        let point = point.map(|point| ("PODHERALD_CRASH_AT", point));
        let settings = [
            ("PODHERALD_KUBE__NAMESPACES", &*namespace.name),
            ("PODHERALD_REDIS__URL", &*url),
            ("PODHERALD_KAFKA__BROKERS", kafka.address()),
            ("PODHERALD_KAFKA__TOPIC_PREFIX", &*prefix),
            ("PODHERALD_BLOB__URL", &*blob_url),
            ("PODHERALD_ROLES", "api,monitor,result_processor"),
        ];
        let settings: Vec<_> = settings.into_iter().chain(point).collect();
        Herald::launch(&binary, &cluster.kubeconfig(), &data, &settings)
    };
    let mut pods = Pods::new(&namespace, rng);
    let readers = Readers::start();

    let mut hits: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, (kind, n)) in points.iter().enumerate() {
        let point = format!("{kind}:{n}");
        let mut herald = launch(Some(&point));
        readers.follow(&pods.create().await);
        let status = live(&mut herald, &mut pods, &readers).await;
        assert_eq!(status.signal(), Some(9), "point {number}, {point}: {status}\n{}", herald.log());
        assert!(herald.log().contains("dying at a crash point"), "point {number}, {point}:\n{}", herald.log());
        *hits.entry(kind).or_default() += 1;
        readers.lose();
        pods.suffer_an_outage(&readers.seen()).await;
    }
    println!("{hits:?}, {} pods", pods.all.len());
    assert!(KINDS.iter().all(|(kind, _)| hits.contains_key(kind)), "not every kind of point was hit: {hits:?}");

    let mut herald = launch(None);
    herald.until_listening().await;
    readers.find(herald.address());
    herald.until_ready().await;
    pods.end_all().await;
    for (id, fate) in &pods.all {
        let execution = herald.ended(id).await;
        let result = herald.result(id).await;
        assert_eq!((&result["exit"], &result["status"]), (&execution["exit"], &execution["status"]), "{result}");
        if let Fate::Exits(code) = fate {
            assert_eq!(execution["exit"]["code"], *code, "{execution}");
        }
    }
    let events = readers.until_they_have_all(&herald).await;
    assert_in_order(&events, &pods.all.keys().cloned().collect::<Vec<_>>());
    pods.assert_known(&events).await;
    assert_results_are_told(&events);
    let audit = herald.get("/audit").await;
    assert_eq!((&audit["unaccounted"], &audit["live"]), (&0.into(), &0.into()), "{audit}");
    assert_blobs_are_there(&events);
    redis.assert_has(&herald, pods.all.keys()).await;
    assert_complete(&herald, kafka, &prefix).await;
    readers.assert_agree(&events).await;
}

/// Each attempt's result is told once.
fn assert_results_are_told(events: &[Value]) {
    let ended: BTreeSet<_> = events.iter().filter(|event| ends(event)).map(event_id).collect();
    let told = events.iter().filter(|event| event["event_type"] == "result_stored");
    let told: Vec<_> = told.map(|event| event["result_of"].as_str().unwrap()).collect();
    assert_eq!(told.len(), ended.len());
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), ended);
}

/// What an event names as a blob is all of the output.
fn assert_blobs_are_there(events: &[Value]) {
    let named = events.iter().filter_map(|event| event["output"]["stdout"]["uri"].as_str()?.strip_prefix("file://"));
    let named: BTreeSet<&str> = named.collect();
    assert!(!named.is_empty(), "no event names a blob");
    for path in named {
        assert!(std::fs::read_to_string(path).unwrap() == *LONG, "{path}");
    }
}

/// Every kind of point as often as every other, in any order.
fn draw(rng: &mut StdRng, count: usize) -> Vec<(&'static str, u32)> {
    let mut points: Vec<_> =
        KINDS.iter().cycle().take(count).map(|(kind, most)| (*kind, rng.random_range(1..=*most))).collect();
    points.shuffle(rng);
    points
}

/// Lets pods come until podherald dies.
async fn live(herald: &mut Herald, pods: &mut Pods<'_>, readers: &Readers) -> std::process::ExitStatus {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = herald.has_ended() {
            return status;
        }
        if herald.listens() {
            readers.find(herald.address());
        }
        assert!(Instant::now() < deadline, "the crash point was not reached:\n{}", herald.log());
        pods.create().await;
        sleep(PACE).await;
    }
}

/// What a pod is meant to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Ends by itself with this code.
    Exits(i32),
    /// Runs until somebody ends it.
    Runs,
    /// Was deleted; what podherald saw of it before decides how it ended.
    Deleted,
}

/// All pods of the test, by execution.
struct Pods<'a> {
    namespace: &'a Namespace<'a>,
    rng: StdRng,
    all: BTreeMap<String, Fate>,
    /// Executions with a second pod: two attempts.
    again: BTreeSet<String>,
}

impl<'a> Pods<'a> {
    fn new(namespace: &'a Namespace<'a>, rng: StdRng) -> Self {
        Self { namespace, rng, all: BTreeMap::new(), again: BTreeSet::new() }
    }

    /// Makes one more pod; gives its execution's id.
    async fn create(&mut self) -> String {
        let id = format!("{}-{}", self.namespace.name, self.all.len());
        let code = [0, 0, 1, 3, 77][self.rng.random_range(0..5)];
        let (play, fate) = match self.rng.random_range(0..5) {
            0 => (Play::runs(), Fate::Runs),
            1 => (Play { run_for: "1s", ..Play::exits(code) }, Fate::Exits(code)),
            2 => (Play { log: Some(&LONG), ..Play::exits(code) }, Fate::Exits(code)),
            _ => (Play::exits(code), Fate::Exits(code)),
        };
        self.namespace.create(&id, &play).await;
        self.all.insert(id.clone(), fate);
        id
    }

    /// What happens while podherald is dead: pods are made, ended and deleted, and an execution gets a second pod.
    ///
    /// Only what is in the journal may be deleted: a pod that came and went unseen leaves no trace to be found.
    async fn suffer_an_outage(&mut self, seen: &BTreeSet<String>) {
        self.create().await;
        let is_candidate = |id: &String| seen.contains(id) && !self.again.contains(id);
        let mut candidates: Vec<String> = self.all.keys().filter(|id| is_candidate(id)).cloned().collect();
        candidates.shuffle(&mut self.rng);
        for (number, id) in candidates.into_iter().take(4).enumerate() {
            match (number, self.all[&id]) {
                (_, Fate::Deleted) => {}
                (0, _) => self.delete(&id, false).await,
                (1, _) => self.delete(&id, true).await,
                (_, Fate::Runs) => self.end(&id, 9).await,
                (_, Fate::Exits(_)) => {
                    self.namespace.create_again(&id, &Play::exits(5)).await;
                    self.all.insert(id.clone(), Fate::Exits(5));
                    self.again.insert(id);
                }
            }
        }
    }

    async fn delete(&mut self, id: &str, by_force: bool) {
        if by_force {
            self.namespace.force_delete(id).await;
        } else {
            self.namespace.delete(id).await;
        }
        self.all.insert(id.to_owned(), Fate::Deleted);
    }

    async fn end(&mut self, id: &str, code: i32) {
        self.namespace.end(id, code).await;
        self.all.insert(id.to_owned(), Fate::Exits(code));
    }

    async fn end_all(&mut self) {
        let running: Vec<_> =
            self.all.iter().filter(|(_, fate)| **fate == Fate::Runs).map(|(id, _)| id.clone()).collect();
        for id in running {
            self.end(&id, 0).await;
        }
    }

    /// Every pod that the API server has is in the journal, and no attempt is missing or made up.
    async fn assert_known(&self, events: &[Value]) {
        let mut attempts: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for (execution, attempt) in events.iter().map(attempt) {
            attempts.entry(execution).or_default().insert(attempt);
        }
        assert!(attempts.keys().copied().eq(self.all.keys().map(String::as_str)), "executions that nobody made");
        for (id, attempts) in attempts {
            let expected = if self.again.contains(id) { 2 } else { 1 };
            assert!(attempts.iter().copied().eq(1..=expected), "{id} has attempts {attempts:?}");
        }
        let there = self.namespace.pods.list(&ListParams::default()).await.unwrap();
        for pod in there {
            let name = pod.name_any();
            assert!(events.iter().any(|event| event["pod_name"] == name), "{name} is unknown");
        }
    }
}

/// What one reader was sent, over all its connections.
#[derive(Default)]
struct Read {
    last_id: Option<String>,
    /// `data` by event id.
    events: BTreeMap<String, String>,
    executions: BTreeSet<String>,
    /// The stream has ended as it should.
    ended: bool,
}

impl Read {
    fn take(&mut self, frame: Frame) {
        assert_ne!(frame.name, "reset", "the history that a reader had is gone: {}", frame.text);
        if frame.name.is_empty() {
            let id = event_id(&frame.data).to_owned();
            self.executions.insert(frame.data["execution_id"].as_str().unwrap().to_owned());
            if let Some(first) = self.events.get(&id) {
                assert_eq!(*first, frame.text, "an event came again with other bytes");
            }
            self.events.insert(id, frame.text);
        }
        self.ended |= frame.name == "end";
        if !frame.id.is_empty() {
            self.last_id = Some(frame.id);
        }
    }
}

type Shared = Arc<Mutex<Read>>;

/// A reader of everything and readers of single executions. Like browsers, they come back with the last id they saw.
struct Readers {
    /// Where podherald is; empty while it is dead.
    address: watch::Sender<String>,
    tasks: Mutex<JoinSet<()>>,
    all: Shared,
    one: Mutex<BTreeMap<String, Shared>>,
}

impl Readers {
    fn start() -> Self {
        // Without an id the stream of everything begins with the present, and it may be that the first connection never came
        // as far as a frame with an id.
        let beginning = Read { last_id: Some("0".to_owned()), ..Read::default() };
        let readers = Self {
            address: watch::Sender::default(),
            tasks: Mutex::default(),
            all: Arc::new(Mutex::new(beginning)),
            one: Mutex::default(),
        };
        readers.read("/events".to_owned(), readers.all.clone());
        readers
    }

    fn read(&self, path: String, read: Shared) {
        self.tasks.lock().unwrap().spawn(keep_reading(self.address.subscribe(), path, read));
    }

    /// Follows one execution to its end.
    fn follow(&self, id: &str) {
        let read = Shared::default();
        self.one.lock().unwrap().insert(id.to_owned(), read.clone());
        self.read(format!("/executions/{id}/events"), read);
    }

    fn find(&self, address: &str) {
        self.address.send_if_modified(|known| {
            let is_new = known != address;
            address.clone_into(known);
            is_new
        });
    }

    fn lose(&self) {
        self.find("");
    }

    /// The executions of which events have come: these are in the journal.
    fn seen(&self) -> BTreeSet<String> {
        self.all.lock().unwrap().executions.clone()
    }

    /// Waits until every attempt has its end and every reader what it is to have; gives all events of the journal.
    async fn until_they_have_all(&self, herald: &Herald) -> Vec<Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let events = herald.pages("/events?limit=500").await;
            let attempts: BTreeSet<_> = events.iter().map(attempt).collect();
            let ended: BTreeSet<_> = events.iter().filter(|event| ends(event)).map(attempt).collect();
            let open: Vec<_> = attempts.difference(&ended).collect();
            let all = self.all.lock().unwrap().events.clone();
            let unsent: Vec<_> = events.iter().filter(|event| !all.contains_key(event_id(event))).collect();
            let waiting = self.one.lock().unwrap().values().filter(|read| !read.lock().unwrap().ended).count();
            if open.is_empty() && unsent.is_empty() && waiting == 0 {
                return events;
            }
            self.look_at_tasks();
            assert!(
                Instant::now() < deadline,
                "attempts without an end: {open:?}; readers without an end: {waiting}; never sent: {unsent:?}"
            );
            sleep(PACE).await;
        }
    }

    fn look_at_tasks(&self) {
        while let Some(ended) = self.tasks.lock().unwrap().try_join_next() {
            pass_on(ended);
        }
    }

    /// What was sent is what is in the journal, event for event, and no reader missed one.
    async fn assert_agree(self, events: &[Value]) {
        let mut tasks = self.tasks.into_inner().unwrap();
        tasks.abort_all();
        while let Some(ended) = tasks.join_next().await {
            pass_on(ended);
        }
        let journal: BTreeMap<_, _> = events.iter().map(|event| (event_id(event), event)).collect();
        let one = self.one.into_inner().unwrap();
        for read in one.values().chain([&self.all]) {
            for (id, text) in &read.lock().unwrap().events {
                let sent: Value = serde_json::from_str(text).unwrap();
                assert_eq!(journal.get(id.as_str()), Some(&&sent), "sent, and not what is in the journal");
            }
        }
        for (id, read) in one {
            // A stream ends with the latest attempt: what comes later is nobody's loss, a gap before it would be.
            let read = read.lock().unwrap();
            let seqs: BTreeSet<u64> =
                read.events.keys().map(|event| journal[event.as_str()]["seq"].as_u64().unwrap()).collect();
            assert!(seqs.iter().copied().eq(1..=seqs.len() as u64), "the reader of {id} was sent only {seqs:?}");
        }
    }
}

fn event_id(event: &Value) -> &str {
    event["event_id"].as_str().unwrap()
}

fn attempt(event: &Value) -> (&str, u64) {
    (event["execution_id"].as_str().unwrap(), event["attempt"].as_u64().unwrap())
}

fn pass_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Reads until the stream is over, over as many connections as that takes.
async fn keep_reading(mut address: watch::Receiver<String>, path: String, read: Shared) {
    while !read.lock().unwrap().ended {
        let Ok(address) = address.wait_for(|address| !address.is_empty()).await.map(|address| address.clone()) else {
            return;
        };
        // However the connection ends, the next one goes on from the last id.
        let _ = read_once(&address, &path, &read).await;
        sleep(PACE).await;
    }
}

async fn read_once(address: &str, path: &str, read: &Shared) -> anyhow::Result<()> {
    let last_id = read.lock().unwrap().last_id.clone();
    let mut stream = Stream::open(address, path, last_id.as_deref()).await?;
    while let Some(frame) = stream.next().await? {
        read.lock().unwrap().take(frame);
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "these are no settings of podherald")]
pub(crate) fn optional_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
