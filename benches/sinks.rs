//! From the journal to the acknowledgement of a real server: events of 1 KiB, by the relay.
//!
//! `benches/real.sh sinks` starts the servers and runs this; `-- --tiny` just to see it work. Throughput is that of a backlog, beside
//! what the server's own client does alone with the same events in the same run; latency is from the start of an append,
//! at a steady rate, to the acknowledgement. The rounds alternate; medians.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, missing_docs)]

#[path = "sinks/kafka.rs"]
mod kafka;
#[path = "sinks/redis.rs"]
mod redis;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use podherald::{
    clock::SystemClock,
    journal::{self, Change, Journal, Sqlite, Subscription},
    relay::Relay,
    sink::{Fault, Item, Rejection, Sink},
};
use podherald_core::{
    event::{Draft, Metadata, Payload, Slot, event_id},
    evidence::Evidence,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// What is measured: a server that this process was told of.
trait Server: Sync {
    fn name(&self) -> &'static str;
    fn client(&self) -> &'static str;
    fn sink(&self, journal: &Arc<dyn Journal>) -> Arc<dyn Sink>;
    /// Sends these events, as (execution, event), and returns once all are acknowledged.
    fn alone<'a>(&'a self, events: &'a [(String, Bytes)]) -> BoxFuture<'a, ()>;
}

struct Sizes {
    rounds: usize,
    events: usize,
    executions: usize,
    /// Events a second, and for how many seconds.
    steady: (u32, u32),
}

const EVENT_BYTES: usize = 1024;
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let servers: Vec<Box<dyn Server>> = [
        value("--kafka").map(|brokers| Box::new(kafka::Kafka { brokers, is_fenced: false }) as Box<dyn Server>),
        value("--kafka").map(|brokers| Box::new(kafka::Kafka { brokers, is_fenced: true }) as Box<dyn Server>),
        value("--redis").map(|url| Box::new(redis::Redis { url }) as Box<dyn Server>),
    ]
    .into_iter()
    .flatten()
    .collect();
    let sizes = if arguments.iter().any(|argument| argument == "--tiny") {
        Sizes { rounds: 1, events: 1_000, executions: 10, steady: (100, 1) }
    } else {
        Sizes { rounds: 5, events: 100_000, executions: 1_000, steady: (1_000, 10) }
    };
    if servers.is_empty() {
        println!("no server: benches/real.sh sinks starts them");
        return;
    }
    println!(
        "server         events/s  its client alone                ratio   p50 ms   p99 ms at {}/s",
        sizes.steady.0
    );
    for server in &servers {
        measure(&**server, &sizes).await;
    }
}

async fn measure(server: &dyn Server, sizes: &Sizes) {
    let (mut relayed, mut alone, mut ratios, mut p50, mut p99) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..sizes.rounds {
        // What it needs, topics for instance, is there before anything is measured.
        let way = Way::to(server).await;
        way.acknowledged.check().await.unwrap();
        let events: Vec<_> = (0..sizes.events).map(|n| (id(round, n % sizes.executions), event(round, n))).collect();
        let began = Instant::now();
        server.alone(&events).await;
        let raw = sizes.events as f64 / began.elapsed().as_secs_f64();
        let rate = backlog(server, sizes, round).await;
        let (middle, high) = latency(server, sizes, round).await;
        relayed.push(rate);
        alone.push(raw);
        ratios.push(rate / raw);
        p50.push(middle);
        p99.push(high);
    }
    println!(
        "{:13}  {:8.0}  {:8.0} ({:20})  {:5.2}  {:7.2}  {:7.2}",
        server.name(),
        median(relayed),
        median(alone),
        server.client(),
        median(ratios),
        median(p50),
        median(p99),
    );
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn id(round: usize, n: usize) -> String {
    format!("bench-{round}-{n:06}")
}

/// The same bytes as the journal makes of [`change`], but for the numbers in them.
fn event(round: usize, n: usize) -> Bytes {
    draft(&id(round, n), n as u64)
        .number("pod-monitor:0193e7a0-6b6e-7cc0-98c4-dc0c0c07398f", n as u64)
        .to_bytes()
        .into()
}

fn draft(execution_id: &str, n: u64) -> Draft {
    let slot = Slot::Progress { run: 0, offset: n };
    let draft = |message: String| Draft {
        event_id: event_id(execution_id, "key", slot),
        execution_id: execution_id.to_owned(),
        attempt: 1,
        timestamp: Timestamp::UNIX_EPOCH,
        synthesized: false,
        metadata: Metadata { service_name: "pod-monitor".into(), ..Metadata::default() },
        payload: Payload::ExecutionProgress { progress_percentage: None, message: Some(message), offset: n },
    };
    let length = draft(String::new()).number("pod-monitor:0193e7a0-6b6e-7cc0-98c4-dc0c0c07398f", n).to_bytes().len();
    draft("x".repeat(EVENT_BYTES - length))
}

fn change(execution_id: &str, n: u64) -> Change {
    let at = Timestamp::UNIX_EPOCH;
    let evidence: Evidence = serde_json::from_value(json!({
        "uid": format!("uid-{execution_id}"), "namespace": "executions", "name": format!("executor-{execution_id}"),
        "execution_id": execution_id, "attempt_key": "key", "attempt": 1, "labels": {"execution-id": execution_id},
        "created": at, "first_seen": at, "last_seen": at, "main": {"name": "executor"}, "restart_policy": "Never",
        "phase": "Running", "state": "running", "restart_count": 0, "emitted": {}
    }))
    .unwrap();
    Change { evidence: Arc::new(evidence), events: [draft(execution_id, n)].into() }
}

/// A journal, and a relay from its beginning to the server.
struct Way {
    journal: Arc<dyn Journal>,
    relay: Option<Relay>,
    acknowledged: Arc<Timed>,
    _dir: TempDir,
}

impl Way {
    async fn to(server: &dyn Server) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = journal::Options {
            path: dir.path().join("journal.db"),
            max_bytes: 64 << 30,
            ..journal::Options::default()
        };
        let journal: Arc<dyn Journal> = Sqlite::open(options).await.unwrap();
        let of = Subscription { sink: server.name(), required: true };
        let cursor = journal.subscribe(vec![of.clone()]).await.unwrap()[0];
        let acknowledged = Arc::new(Timed { sink: server.sink(&journal), at: Mutex::default() });
        let relay = Relay::new(of, cursor, acknowledged.clone(), journal.clone(), Arc::new(SystemClock));
        Self { journal, relay: Some(relay), acknowledged, _dir: dir }
    }

    /// Runs the relay beside this, and then until all is acknowledged; gives how long that took after the start.
    async fn run(&mut self, beside: impl Future<Output = u64>) -> Duration {
        let stop = CancellationToken::new();
        let relay = self.relay.take().unwrap().run(stop.clone());
        let began = Instant::now();
        let ended = async {
            let last = beside.await;
            while !self.acknowledged.at.lock().unwrap().contains_key(&last) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let took = began.elapsed();
            stop.cancel();
            took
        };
        let both = futures::future::join(relay, ended);
        timeout(LIMIT, both).await.expect("the relay is through in time").1
    }
}

/// Notes when each event was acknowledged.
struct Timed {
    sink: Arc<dyn Sink>,
    at: Mutex<BTreeMap<u64, Instant>>,
}

impl Sink for Timed {
    fn carry<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Result<Vec<Rejection>, Fault>> {
        Box::pin(async {
            let rejections = self.sink.carry(items).await?;
            assert_eq!(rejections, []);
            let now = Instant::now();
            self.at.lock().unwrap().extend(items.iter().map(|item| (item.position(), now)));
            Ok(rejections)
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.sink.check()
    }
}

/// Events a second of what has piled up.
async fn backlog(server: &dyn Server, sizes: &Sizes, round: usize) -> f64 {
    let mut way = Way::to(server).await;
    let changes: Vec<_> = (0..sizes.events).map(|n| change(&id(round, n % sizes.executions), n as u64)).collect();
    for batch in changes.chunks(1_000) {
        way.journal.append(batch.to_vec()).await.unwrap();
    }
    let head = *way.journal.head().borrow();
    let took = way.run(async { head }).await;
    way.journal.close().await;
    sizes.events as f64 / took.as_secs_f64()
}

/// Milliseconds from the start of an append to the acknowledgement, at a steady rate: the middle, and the 99th of 100.
async fn latency(server: &dyn Server, sizes: &Sizes, round: usize) -> (f64, f64) {
    let mut way = Way::to(server).await;
    let (rate, seconds) = sizes.steady;
    let journal = way.journal.clone();
    let mut begun = BTreeMap::new();
    way.run(async {
        // A burst of ten at a time, as pods' steps come.
        let mut ticks = interval(Duration::from_secs(10) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for burst in 0..u64::from(rate * seconds / 10) {
            ticks.tick().await;
            let now = Instant::now();
            let changes = (0..10).map(|n| change(&id(round, (burst % 100) as usize * 10 + n), burst * 10 + n as u64));
            journal.append(changes.collect()).await.unwrap();
            let head = *journal.head().borrow();
            begun.extend((head - 9..=head).map(|position| (position, now)));
        }
        *journal.head().borrow()
    })
    .await;
    let acknowledged = way.acknowledged.at.lock().unwrap();
    let mut waits: Vec<f64> =
        begun.iter().map(|(position, began)| (acknowledged[position] - *began).as_secs_f64() * 1e3).collect();
    waits.sort_by(f64::total_cmp);
    let share = |share: usize| waits[(waits.len() - 1) * share / 100];
    (share(50), share(99))
}
