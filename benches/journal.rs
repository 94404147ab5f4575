//! Append to the journal: an event with its evidence and its execution's projection, on disk before the next.
//!
//! So many writers at a time drive pods through their lives, seven events each and about 1 KiB an event; each waits for its
//! append before it makes the next. One writer shows what one append costs, many show what sharing commits is worth.
//!
//! `cargo bench --bench journal`, with `-- --tiny` just to see it work. It writes where `TMPDIR` points: a disk, or the
//! numbers mean nothing.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use podherald::journal::{Change, Journal, Options, Sqlite};
use podherald_core::{
    event::{ContainerSummary, Draft, Exit, ExitSource, Metadata, Payload, Slot, Terminal, event_id},
    evidence::{Evidence, Gone},
    pod::Phase,
};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};

/// What one run found.
struct Found {
    events: usize,
    took: Duration,
    waits: Vec<Duration>,
    bytes_per_event: f64,
    used_per_event: f64,
}

fn id(n: u64) -> String {
    format!("{n:08}-2c5e-4f0e-b7cb-3c7d8a0c9f11")
}

fn evidence(id: &str, at: Timestamp) -> Evidence {
    let labels = json!({"app": "executor", "component": "executor", "execution-id": id, "language": "python",
        "user-id": "user-4711", "saga-id": "8b0f2f6e-5d0c-4e0e-b7cb-3c7d8a0c9f11"});
    serde_json::from_value(json!({
        "uid": format!("uid-{id}"), "namespace": "executions", "name": format!("executor-{id}"), "execution_id": id,
        "attempt_key": format!("uid-{id}"), "attempt": 1, "labels": labels, "correlation_id": "corr-0001",
        "created": at, "first_seen": at, "last_seen": at, "main": {"name": "executor"}, "restart_policy": "Never",
        "active_deadline_seconds": 300, "phase": "Pending", "state": "waiting", "restart_count": 0, "emitted": {}
    }))
    .unwrap()
}

fn payload(slot: Slot, pod_name: &str) -> Payload {
    let (pod_name, node_name) = (pod_name.to_owned(), Some("worker-17".to_owned()));
    let container =
        ContainerSummary { name: "executor".into(), ready: true, restart_count: 0, state: "running".into() };
    match slot {
        Slot::PodScheduled => Payload::PodScheduled { pod_name, node_name },
        Slot::Started => Payload::ExecutionStarted {
            pod_name,
            node_name,
            container_id: Some(format!("containerd://{}", "c0ffee42".repeat(8))),
        },
        Slot::PodRunning => Payload::PodRunning { pod_name, container_statuses: vec![container] },
        Slot::Running => Payload::ExecutionRunning { pod_name },
        Slot::PodTerminated => Payload::PodTerminated { pod_name, exit_code: Some(0), reason: None, message: None },
        Slot::Terminal => Payload::ExecutionCompleted(Terminal {
            exit_code: Some(0),
            exit: Exit { code: Some(0), signal: None, source: ExitSource::Kubelet },
            stdout: "a line of output as programs print it\n".repeat(80),
            ..Terminal::default()
        }),
        _ => Payload::PodDeleted { pod_name, reason: Some("deleted".into()) },
    }
}

/// The changes of one pod's life, an event each.
fn life(id: &str) -> impl Iterator<Item = Change> {
    let at: Timestamp = "2026-02-10T12:00:00Z".parse().unwrap();
    let mut evidence = evidence(id, at);
    let slots = [
        Slot::PodScheduled,
        Slot::Started,
        Slot::PodRunning,
        Slot::Running,
        Slot::PodTerminated,
        Slot::Terminal,
        Slot::PodDeleted,
    ];
    slots.into_iter().zip(1..).map(move |(slot, second)| {
        evidence.last_seen = at + SignedDuration::from_secs(second);
        evidence.phase = if second < 5 { Phase::Running } else { Phase::Succeeded };
        evidence.node_name = Some("worker-17".to_owned());
        let event_id = event_id(&evidence.execution_id, &evidence.attempt_key, slot);
        match slot {
            Slot::Terminal => evidence.terminal = Some(event_id),
            Slot::PodDeleted => evidence.gone = Some(Gone { at: evidence.last_seen, deleted: true }),
            _ => {}
        }
        let draft = Draft {
            event_id,
            execution_id: evidence.execution_id.clone(),
            attempt: 1,
            timestamp: evidence.last_seen,
            synthesized: false,
            metadata: Metadata {
                service_name: "pod-monitor".into(),
                service_version: "0.1.0".into(),
                environment: "production".into(),
                correlation_id: evidence.correlation_id.clone(),
                user_id: Some("user-4711".into()),
            },
            payload: payload(slot, &evidence.name),
        };
        Change { evidence: Arc::new(evidence.clone()), events: [draft].into() }
    })
}

async fn run(writers: usize, lives: u64) -> Found {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { path: dir.path().join("journal.db"), max_bytes: 64 << 30, ..Options::default() };
    let journal = Sqlite::open(options).await.unwrap();
    let empty = journal.health().used_bytes;
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let (journal, next) = (journal.clone(), next.clone());
        tasks.spawn(async move {
            let mut waits = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= lives {
                    return waits;
                }
                for change in life(&id(n)) {
                    let began = Instant::now();
                    journal.append(vec![change]).await.unwrap();
                    waits.push(began.elapsed());
                }
            }
        });
    }
    let mut waits = tasks.join_all().await.concat();
    let took = began.elapsed();
    waits.sort_unstable();
    let events = waits.len();
    assert_eq!(*journal.head().borrow(), events as u64);
    let one = journal.execution_events(id(0), 0, 7).await.unwrap();
    let used = journal.health().used_bytes - empty;
    journal.close().await;
    Found {
        events,
        took,
        waits,
        bytes_per_event: one.iter().map(|record| record.bytes.len()).sum::<usize>() as f64 / 7.0,
        used_per_event: used as f64 / events as f64,
    }
}

fn main() {
    let is_tiny = std::env::args().any(|argument| argument == "--tiny");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("writers    events     events/s   p50 ms   p99 ms  p999 ms   bytes/event  on disk/event");
    for (writers, lives) in [(1, 3_000), (64, 30_000), (512, 60_000)] {
        let lives = if is_tiny { writers as u64 * 2 } else { lives };
        let found = runtime.block_on(run(writers, lives));
        let rate = found.events as f64 / found.took.as_secs_f64();
        let wait = |share: usize| found.waits[(found.events - 1) * share / 1000].as_secs_f64() * 1e3;
        println!(
            "{writers:7}  {:8}  {rate:11.0}  {:7.3}  {:7.3}  {:7.3}  {:12.0}  {:13.0}",
            found.events,
            wait(500),
            wait(990),
            wait(999),
            found.bytes_per_event,
            found.used_per_event,
        );
    }
}
