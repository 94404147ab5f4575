//! Minutes of a steady stream, with Kafka away in the midst of it: nothing is lost, memory stays flat, and what was missed is caught up
//! with while the stream goes on. `just soak` runs ten minutes of it, the suite as long as it takes to see that it works.

use std::{collections::VecDeque, env, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use kube_sim::{
    api::{self, Api},
    cluster::{Cluster, Kind, Options},
    logs::{LogRequest, LogStream, Logs, NoLog},
    tls::Credentials,
};
use podherald::clock::{Clock, SystemClock};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    faults::assert_complete,
    herald::{Herald, LIMIT, POLL},
    kafka::Broker,
    sink,
};

/// Of a life, from `pod_scheduled` to `pod_deleted`.
const EVENTS: u32 = 7;
/// What the stream has in a second.
const RATE: u32 = 500;
const TICK: Duration = Duration::from_millis(50);
/// Kafka is away for so long at least.
const OUTAGE: Duration = Duration::from_secs(45);
/// Growth of memory that a stream of any length may bring.
const GROWTH_BYTES: u64 = 24 << 20;

/// How long the stream is.
#[expect(clippy::disallowed_methods, reason = "how long a test takes is no setting")]
fn length() -> Duration {
    let seconds = env::var("PODHERALD_SOAK_SECONDS").map_or(24, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

struct Printed;

impl Logs for Printed {
    fn open(&self, _: LogRequest) -> BoxFuture<'_, Result<LogStream, NoLog>> {
        let text = Bytes::from("a line that a program prints\n".repeat(30));
        async { Ok(stream::iter([Ok(text)]).boxed()) }.boxed()
    }
}

/// A cluster of the test's own making, as fast as it must be.
struct Source {
    cluster: Cluster,
    count: u32,
    /// What happens to which pod when.
    plans: VecDeque<(Instant, Plan, String)>,
    _serving: JoinSet<()>,
}

#[derive(Clone, Copy)]
enum Plan {
    Run,
    End,
    Delete,
}

impl Source {
    async fn listen(kubeconfig: &std::path::Path) -> Self {
        let cluster = Cluster::new(Options { clock: Arc::new(|| SystemClock.now()), seed: None });
        cluster.set_logs(Arc::new(Printed));
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let credentials = Credentials::generate().unwrap();
        credentials.write_kubeconfig(listener.local_addr().unwrap(), kubeconfig).unwrap();
        let api = Api::new(cluster.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { api::serve(api, listener, credentials, CancellationToken::new()).await.unwrap() });
        Self { cluster, count: 0, plans: VecDeque::new(), _serving: serving }
    }

    fn begin(&mut self, now: Instant) {
        let id = format!("soak-{}", self.count);
        self.count += 1;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": id, "labels": {"execution-id": id}},
            "spec": {
                "nodeName": "node-1", "restartPolicy": "Never",
                "containers": [{"name": "executor", "image": "none"}],
            },
        });
        self.cluster.create(Kind::Pod, "default", pod).unwrap();
        for (after, plan) in [(100, Plan::Run), (400, Plan::End), (2500, Plan::Delete)] {
            let at = now + Duration::from_millis(after);
            let place = self.plans.partition_point(|(other, ..)| *other <= at);
            self.plans.insert(place, (at, plan, id.clone()));
        }
    }

    fn go_on(&mut self, now: Instant) {
        while self.plans.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, plan, id) = self.plans.pop_front().unwrap();
            let time = SystemClock.now().to_string();
            let (phase, state) = match plan {
                Plan::Run => ("Running", json!({"running": {"startedAt": time}})),
                Plan::End => {
                    let end = json!({"exitCode": 0, "reason": "Completed", "startedAt": time, "finishedAt": time});
                    ("Succeeded", json!({"terminated": end}))
                }
                Plan::Delete => {
                    let pod = self.cluster.get(Kind::Pod, "default", &id).unwrap();
                    self.cluster.remove(Kind::Pod, "default", &id, pod["metadata"]["uid"].as_str().unwrap()).unwrap();
                    continue;
                }
            };
            let status = json!({
                "phase": phase, "startTime": time,
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": time}],
                "containerStatuses": [{
                    "name": "executor", "image": "none", "imageID": "none", "ready": false, "restartCount": 0, "state": state,
                }],
            });
            self.cluster.update(Kind::Pod, "default", &id, None, |pod| pod["status"] = status).unwrap();
        }
    }

    /// Keeps the stream at its rate for so long.
    async fn flow(&mut self, time: Duration) {
        let begun = Instant::now();
        let first = self.count;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while begun.elapsed() < time {
            ticks.tick().await;
            let now = Instant::now();
            let elapsed = u32::try_from(begun.elapsed().as_millis()).unwrap();
            let due = first + elapsed * RATE / (EVENTS * 1000);
            while self.count < due {
                self.begin(now);
            }
            self.go_on(now);
        }
    }

    async fn finish(&mut self) {
        while !self.plans.is_empty() {
            self.go_on(Instant::now());
            sleep(TICK).await;
        }
    }
}

/// Resident memory, sampled while something goes on.
async fn sampled(herald: &Herald, work: impl Future<Output = ()>) -> Vec<u64> {
    let mut samples = Vec::new();
    let sampling = async {
        loop {
            samples.push(herald.resident_bytes());
            sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = sampling => {}
    }
    samples
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

async fn lag(herald: &Herald) -> u64 {
    let ready = herald.get("/readyz").await;
    let kafka = ready["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == "kafka").unwrap().clone();
    kafka["lag_events"].as_u64().unwrap()
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "what was measured")]
async fn a_long_stream_through_an_outage_loses_nothing_and_takes_no_memory() {
    let length = length();
    let data = TempDir::new().unwrap();
    let kubeconfig = data.path().join("kubeconfig");
    let mut source = Source::listen(&kubeconfig).await;
    let mut broker = Broker::start("");
    let redis = sink::Server::start("");
    let settings = [
        ("PODHERALD_KAFKA__BROKERS", &*broker.address().to_owned()),
        ("PODHERALD_KAFKA__TIMEOUT", "3s"),
        ("PODHERALD_REDIS__URL", &redis.url()),
    ];
    let herald = Herald::start(&kubeconfig, &data, &settings).await;

    let begun = Instant::now();
    let before = sampled(&herald, source.flow(length * 4 / 10)).await;
    broker.stop();
    let outage = OUTAGE.max(length / 10);
    let during = sampled(&herald, source.flow(outage)).await;
    let missed = lag(&herald).await;
    broker.go_on();
    let back = Instant::now();
    let catch_up = async {
        while lag(&herald).await > u64::from(RATE) {
            assert!(back.elapsed() < LIMIT, "it does not catch up");
            sleep(POLL).await;
        }
        back.elapsed()
    };
    let mut caught_up = Duration::ZERO;
    let after = sampled(&herald, async {
        let flow = source.flow(length / 2);
        let (_, took) = tokio::join!(flow, catch_up);
        caught_up = took;
    })
    .await;
    source.finish().await;

    // Of a stream that has just begun much is made for the first time.
    let is_long = length >= OUTAGE * 4;
    let early: Vec<u64> = before.iter().chain(during.iter().filter(|_| !is_long)).copied().collect();
    let (early, late) = (median(&early[early.len() / 2..]), median(&after[after.len() / 2..]));
    println!(
        "{} events in {:?}: resident {:.1} MiB in the middle, {:.1} MiB at the end of the outage, {:.1} MiB in the last quarter; \
         {missed} events were missed in {:?} and caught up with in {caught_up:?} while the stream went on",
        source.count * EVENTS,
        begun.elapsed(),
        mib(early),
        mib(*during.last().unwrap()),
        mib(late),
        outage,
    );
    assert!(missed > u64::from(RATE), "the outage was none");
    assert!(late < early + GROWTH_BYTES, "memory grows from {early} to {late} bytes");
    let last = format!("soak-{}", source.count - 1);
    herald.ended(&last).await;
    let events = herald.pages(&format!("/executions/{last}/events?limit=100")).await;
    assert_eq!(events.len(), EVENTS as usize);
    assert_complete(&herald, &broker, "").await;
}
