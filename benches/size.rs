//! Size: a cold start in front of so many pods, on a simulated API server, and what each of them costs while it is there.
//!
//! The pods are those of `tests/fixtures/frames_6k.jsonl`, recorded from a real API server: about 6 KB each, all finished (each
//! has a log to be read) or all running. The API server is another process, this one; only podherald is measured. What is
//! linear shows by its share a pod staying the same from row to row.
//!
//! `cargo bench --bench size`, with `-- --tiny` just to see it work.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, missing_docs)]

mod common;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use kube_sim::{
    api::{self, Api},
    cluster::{Cluster, Kind, Limits, Options},
    logs::{LogRequest, LogStream, Logs, NoLog},
    tls::Credentials,
};
use podherald::clock::{Clock, SystemClock};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::common::process::{LIMIT, Process, Usage};

const FRAMES: &str = include_str!("../tests/fixtures/frames_6k.jsonl");
/// What each finished pod has printed.
const LOG: &[u8] = b"rows read: 1000\nrows written: 1000\n";
/// So long nothing happens any more before the resting memory is read; the allocator gives back within it.
const REST: Duration = Duration::from_secs(12);

/// What all pods are doing.
#[derive(Clone, Copy)]
enum Stage {
    Running,
    Finished,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
        }
    }

    /// Durable events that a cold start makes of one pod.
    fn events(self) -> usize {
        match self {
            Self::Running => 4,
            Self::Finished => 6,
        }
    }

    /// The recorded pod at this stage.
    fn pod(self) -> Value {
        let phase = match self {
            Self::Running => "Running",
            Self::Finished => "Succeeded",
        };
        let frames = FRAMES.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["object"].take());
        frames.into_iter().find(|pod| pod["status"]["phase"] == phase).expect("the recorded life has this phase")
    }
}

struct SameLog;

impl Logs for SameLog {
    fn open(&self, _: LogRequest) -> BoxFuture<'_, Result<LogStream, NoLog>> {
        async { Ok(stream::iter([Ok(Bytes::from_static(LOG))]).boxed()) }.boxed()
    }
}

/// A cluster with so many copies of one pod.
fn cluster_of(count: usize, stage: Stage) -> Cluster {
    let limits = Limits { objects: count + 100, bytes: usize::MAX, ..Limits::default() };
    let cluster = Cluster::bounded(Options { clock: Arc::new(|| SystemClock.now()), seed: Some(1) }, limits);
    cluster.set_logs(Arc::new(SameLog));
    let recorded = stage.pod();
    for n in 0..count {
        let name = format!("executor-{n:06}");
        let labels = json!({"execution-id": format!("size-{n:06}"), "app": "runner"});
        let born = json!({"metadata": {"name": name, "labels": labels}, "spec": recorded["spec"]});
        let mut born: Value = born;
        born["spec"].as_object_mut().unwrap().remove("nodeName");
        cluster.create(Kind::Pod, "default", born).unwrap();
        let fill = |pod: &mut Value| {
            pod["metadata"]["managedFields"] = recorded["metadata"]["managedFields"].clone();
            pod["spec"]["nodeName"] = json!(format!("node-{}", n % 100));
            pod["status"] = recorded["status"].clone();
        };
        cluster.update(Kind::Pod, "default", &name, None, fill).unwrap();
    }
    cluster
}

struct Found {
    ready: Duration,
    told: Duration,
    at_rest: Usage,
}

/// Starts podherald cold in front of the cluster.
async fn start(kubeconfig: &Path, events: usize, rest: Duration) -> Found {
    let data = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let mut podherald =
        Process::podherald(data.path(), &[("PODHERALD_KUBE__MODE", "cluster"), ("KUBECONFIG", kubeconfig)]).await;
    podherald.until_ready().await;
    let ready = began.elapsed();
    let all = async {
        while podherald.metric("podherald_journal_events_total").await < events as f64 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, all).await.expect("all events in time");
    let told = began.elapsed();
    sleep(rest).await;
    let at_rest = podherald.usage();
    podherald.stop().await;
    Found { ready, told, at_rest }
}

async fn measure(count: usize, stage: Stage, rest: Duration) -> Found {
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let credentials = Credentials::generate().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    credentials.write_kubeconfig(listener.local_addr().unwrap(), &kubeconfig).unwrap();
    let api = Api::new(cluster_of(count, stage));
    let mut server = JoinSet::new();
    server.spawn(api::serve(api, listener, credentials, stop.clone()));
    let found = start(&kubeconfig, count * stage.events(), rest).await;
    stop.cancel();
    server.join_next().await.expect("the server was started").unwrap().unwrap();
    found
}

async fn table(counts: &[usize], rest: Duration) {
    println!(
        "| pods | ready s | all told s | CPU us/pod | peak MiB | at rest MiB | at rest KiB/pod |\n|---|---|---|---|---|---|---|"
    );
    for stage in [Stage::Finished, Stage::Running] {
        let nothing = measure(0, stage, rest).await.at_rest;
        for count in counts {
            let Found { ready, told, at_rest } = measure(*count, stage, rest).await;
            println!(
                "| {count} {} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.2} |",
                stage.name(),
                ready.as_secs_f64(),
                told.as_secs_f64(),
                at_rest.cpu.saturating_sub(nothing.cpu).as_secs_f64() * 1e6 / *count as f64,
                at_rest.peak_kib / 1024.0,
                at_rest.resident_kib / 1024.0,
                (at_rest.resident_kib - nothing.resident_kib) / *count as f64,
            );
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let is_tiny = std::env::args().any(|argument| argument == "--tiny");
    if is_tiny {
        runtime.block_on(table(&[100], Duration::ZERO));
    } else {
        runtime.block_on(table(&[1_000, 10_000, 100_000], REST));
    }
}
