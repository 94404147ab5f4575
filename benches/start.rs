//! Start: from exec to the first 200 of `/readyz`, with the embedded cluster, on an empty and on a used data directory.
//!
//! The same code starts and probes the yardstick in the same rounds: an axum server with this one route and nothing behind
//! it, which says how much of the time is the machine's. Binaries and data are in the page cache.
//!
//! `cargo bench --bench start`, with `-- --tiny` just to see it work.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

mod common;

use std::{path::Path, time::Duration};

use axum::{Router, routing::get};
use tokio::{net::TcpListener, process::Command, time::Instant};

use self::common::{
    pods::{self, Pods},
    process::{Process, free_address, median},
};

/// What the used data directory has seen: executions, in so many pods at a time.
const EXECUTIONS: usize = 1_000;
const AT_A_TIME: usize = 50;
/// The argument under which this program is the yardstick.
const YARDSTICK: &str = "--yardstick";

async fn yardstick(address: &str) {
    let listener = TcpListener::bind(address).await.unwrap();
    axum::serve(listener, Router::new().route("/readyz", get(|| async { "ok" }))).await.unwrap();
}

async fn start_yardstick() -> Process {
    let address = free_address().await;
    let mut command = Command::new(std::env::current_exe().unwrap());
    Process::start(command.arg(YARDSTICK).arg(address.to_string()), address)
}

/// How long it takes until the server is ready.
async fn time(server: impl Future<Output = Process>) -> Duration {
    let began = Instant::now();
    let mut server = server.await;
    server.until_ready().await;
    let took = began.elapsed();
    server.stop().await;
    took
}

/// Lets so many executions run, end and go.
async fn use_up(data: &Path, executions: usize) {
    let mut podherald = Process::podherald(data, &[]).await;
    podherald.until_ready().await;
    let pods = Pods::of(data).await;
    for batch in pods::executions("start", executions).chunks(AT_A_TIME) {
        pods.create(batch, &["/bin/echo", "done"]).await;
        for id in batch {
            podherald.ask(&format!("/executions/{id}?wait=60s")).await.expect("an execution that has ended");
        }
        pods.delete(batch).await;
    }
    podherald.until_count("/pods", 0).await;
    podherald.stop().await;
}

async fn measure(rounds: usize, executions: usize) {
    let used = tempfile::tempdir().unwrap();
    use_up(used.path(), executions).await;
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        // All in each round, so that a noisy moment meets all of them.
        let empty = tempfile::tempdir().unwrap();
        times[0].push(time(start_yardstick()).await);
        times[1].push(time(Process::podherald(empty.path(), &[])).await);
        times[2].push(time(Process::podherald(used.path(), &[])).await);
    }
    println!("| exec to ready, {rounds} starts each | median ms | max ms |\n|---|---|---|");
    let names = [
        "axum with one route".to_owned(),
        "podherald, empty data directory".to_owned(),
        format!("podherald, {executions} executions"),
    ];
    for (name, times) in names.iter().zip(times) {
        let milliseconds = || times.iter().map(|time| time.as_secs_f64() * 1e3);
        println!("| {name} | {:.1} | {:.1} |", median(milliseconds()), milliseconds().fold(0.0, f64::max));
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == YARDSTICK) {
        runtime.block_on(yardstick(&arguments[at + 1]));
        return;
    }
    let is_tiny = arguments.iter().any(|argument| argument == "--tiny");
    let (rounds, executions) = if is_tiny { (2, 10) } else { (20, EXECUTIONS) };
    runtime.block_on(measure(rounds, executions));
}
