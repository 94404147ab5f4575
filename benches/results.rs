//! Results that stay: how soon after its pod's end one is told, how many are stored and how many events kept a second, and what a page of a long list costs.
//!
//! `benches/real.sh results` starts a MongoDB's server and runs this; `-- --tiny` just to see it work, `-- kept` for that part alone. Without
//! `--mongo URI` only the embedded store is measured. Medians of pairs, what is compared with first.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, missing_docs)]

mod common;
#[path = "results/kept.rs"]
mod kept;
#[path = "results/listed.rs"]
mod listed;
#[path = "results/stored.rs"]
mod stored;
#[path = "results/told.rs"]
mod told;

use jiff::Timestamp;
use podherald_core::{
    event::{Event, Exit, ExitSource, Metadata, Payload, Slot, Terminal, event_id},
    execution::Status,
};

const PARTS: [&str; 4] = ["told", "stored", "kept", "listed"];

struct Sizes {
    /// Pods whose end is waited for at an event stream.
    pods: usize,
    rounds: usize,
    /// Results of each size in bytes that are stored in a round.
    results: [(usize, usize); 2],
    /// Executions whose events are kept in a round.
    lives: usize,
    /// Executions among which lists are read.
    lists: &'static [usize],
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mongo = arguments.iter().position(|argument| argument == "--mongo").and_then(|at| arguments.get(at + 1));
    let sizes = if arguments.iter().any(|argument| argument == "--tiny") {
        Sizes { pods: 3, rounds: 1, results: [(1 << 10, 50), (64 << 10, 10)], lives: 50, lists: &[100, 1_000] }
    } else {
        Sizes {
            pods: 200,
            rounds: 5,
            results: [(1 << 10, 2_000), (64 << 10, 500)],
            lives: 1_000,
            lists: &[10_000, 100_000, 1_000_000],
        }
    };
    let named: Vec<_> = PARTS.into_iter().filter(|part| arguments.iter().any(|argument| argument == part)).collect();
    for part in if named.is_empty() { PARTS.to_vec() } else { named } {
        match part {
            "told" => {
                println!("\n| from a pod's end to an event stream, ms | p50 | p99 |\n|---|---|---|");
                told::measure(&sizes, None).await;
                if mongo.is_some() {
                    told::measure(&sizes, mongo).await;
                }
            }
            "stored" => {
                println!("\n| results | stored/s | inserts/s of the driver alone | ratio |\n|---|---|---|---|");
                stored::measure(&sizes, mongo).await;
            }
            "kept" => {
                println!("\n| events | kept/s | inserts/s of the driver alone | ratio |\n|---|---|---|---|");
                kept::measure(&sizes, mongo).await;
            }
            _ => {
                println!("\n| among | list | ms | steps |\n|---|---|---|---|");
                listed::measure(&sizes).await;
            }
        }
    }
}

/// The end of an execution's first attempt, with an output of so many bytes.
fn end(execution_id: &str, at: Timestamp, status: Status, output: usize) -> Event {
    let exit = Exit { code: Some(0), signal: None, source: ExitSource::Kubelet };
    let terminal = Terminal { exit_code: Some(0), exit, stdout: "x".repeat(output), ..Terminal::default() };
    Event {
        event_id: event_id(execution_id, "key", Slot::Terminal),
        event_version: "1.0".to_owned(),
        synthesized: false,
        timestamp: at,
        execution_id: execution_id.to_owned(),
        attempt: 1,
        source: "pod-monitor:epoch".to_owned(),
        seq: 1,
        metadata: Metadata { service_name: "pod-monitor".to_owned(), ..Metadata::default() },
        payload: match status {
            Status::Failed => Payload::ExecutionFailed(terminal),
            Status::Timeout => Payload::ExecutionTimeout(terminal),
            _ => Payload::ExecutionCompleted(terminal),
        },
    }
}
