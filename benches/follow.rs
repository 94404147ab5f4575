//! What it costs to follow the logs of executions that somebody watches.
//!
//! One podherald lends its embedded cluster, where so many executions print 100 lines a second each. Another one, which is
//! measured, watches that cluster over its API; first nobody watches the executions, then a reader each. So neither the
//! node nor the programs are in the numbers, and each follow costs what it costs on a real cluster: a connection.
//!
//! `cargo bench --bench follow`, with `-- --tiny` just to see it work.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, missing_docs)]

mod common;

use std::{io::Write, net::SocketAddr, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use self::common::{
    pods::{self, Pods},
    process::{LIMIT, Process, Usage, median},
};

const LINES_PER_SECOND: u32 = 100;
/// With its line end; a MiB has 16,384 of them.
const LINE_BYTES: usize = 64;
/// The argument under which this program is what the executions run.
const PRINTER: &str = "--print-lines";
/// Until what begins or ends with a change has begun or ended, the reading of what was printed before among it.
const SETTLE: Duration = Duration::from_secs(2);

/// Prints until it is killed.
async fn print_lines() {
    let mut ticks = interval(Duration::from_secs(1) / LINES_PER_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut out = std::io::stdout();
    for number in 0_u64.. {
        ticks.tick().await;
        let width = LINE_BYTES - 1;
        if writeln!(out, "{number:width$}").is_err() {
            return;
        }
    }
}

/// Reads an execution's output as it comes, and throws it away.
async fn read_output(address: SocketAddr, id: String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET /executions/{id}/output HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut part = vec![0; 64 << 10];
    while stream.read(&mut part).await.is_ok_and(|count| count > 0) {}
    panic!("the stream of {id} has ended");
}

/// One look at the podherald that is measured.
struct Look {
    at: Instant,
    usage: Usage,
    followed_bytes: f64,
    readers: f64,
}

impl Look {
    async fn at(podherald: &Process) -> Self {
        let followed_bytes = podherald.metric("podherald_live_bytes_total").await;
        let readers = podherald.metric("podherald_http_streams").await;
        Self { at: Instant::now(), usage: podherald.usage(), followed_bytes, readers }
    }

    /// Sockets that are no reader's.
    fn other_sockets(&self) -> f64 {
        self.usage.sockets - self.readers
    }
}

/// What a stretch of time cost.
struct Stretch {
    cpu_ms_per_second: f64,
    mib_per_second: f64,
    end: Look,
}

impl Stretch {
    async fn of(podherald: &Process, length: Duration) -> Self {
        sleep(SETTLE).await;
        let begin = Look::at(podherald).await;
        sleep(length).await;
        let end = Look::at(podherald).await;
        let seconds = (end.at - begin.at).as_secs_f64();
        Self {
            cpu_ms_per_second: (end.usage.cpu - begin.usage.cpu).as_secs_f64() * 1e3 / seconds,
            mib_per_second: (end.followed_bytes - begin.followed_bytes) / f64::from(1 << 20) / seconds,
            end,
        }
    }
}

/// The same executions without and with their readers.
struct Found {
    unwatched: Stretch,
    watched: Stretch,
}

impl Found {
    /// CPU time a second that watching costs, in milliseconds.
    fn cpu_ms(&self) -> f64 {
        self.watched.cpu_ms_per_second - self.unwatched.cpu_ms_per_second
    }

    /// What this grew by when the readers came.
    fn growth(&self, of: impl Fn(&Look) -> f64) -> f64 {
        of(&self.watched.end) - of(&self.unwatched.end)
    }
}

type Column = (&'static str, usize, fn(&Found, f64) -> f64);

/// Title, digits and value, which is made of what was found with so many follows.
const COLUMNS: [Column; 9] = [
    ("CPU ms/s, nobody watches", 1, |found, _| found.unwatched.cpu_ms_per_second),
    ("watched", 1, |found, _| found.watched.cpu_ms_per_second),
    ("CPU ms/s a follow", 2, |found, follows| found.cpu_ms() / follows),
    ("CPU ms/MiB", 0, |found, _| found.cpu_ms() / found.watched.mib_per_second),
    ("RSS MiB, nobody watches", 1, |found, _| found.unwatched.end.usage.resident_kib / 1024.0),
    ("KiB a follow", 0, |found, follows| found.growth(|look| look.usage.resident_kib) / follows),
    ("connections to the API a follow", 2, |found, follows| found.growth(Look::other_sockets) / follows),
    ("to readers", 2, |found, follows| found.growth(|look| look.readers) / follows),
    ("open files", 2, |found, follows| found.growth(|look| look.usage.files) / follows),
];

async fn run(cluster: &Path, follows: usize, length: Duration) -> Found {
    let data = tempfile::tempdir().unwrap();
    let kubeconfig = cluster.join("kubeconfig");
    let variables = [("KUBECONFIG", kubeconfig.to_str().unwrap()), ("PODHERALD_KUBE__MODE", "cluster")];
    let mut podherald = Process::podherald(data.path(), &variables).await;
    podherald.until_ready().await;
    let executions = pods::executions("follow", follows);
    let pods = Pods::of(cluster).await;
    let printer = std::env::current_exe().unwrap();
    pods.create(&executions, &[printer.to_str().unwrap(), PRINTER]).await;
    podherald.until_count("/executions?status=running&limit=500", follows).await;

    let unwatched = Stretch::of(&podherald, length).await;
    let mut readers = JoinSet::new();
    for id in &executions {
        readers.spawn(read_output(podherald.address(), id.clone()));
    }
    let all_followed = async {
        while podherald.metric("podherald_live_follows").await < follows as f64 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, all_followed).await.expect("all are followed");
    let watched = Stretch::of(&podherald, length).await;
    assert!(readers.try_join_next().is_none(), "no stream ends while its execution runs");
    readers.shutdown().await;
    pods.delete(&executions).await;
    podherald.until_count("/pods", 0).await;
    podherald.stop().await;
    Found { unwatched, watched }
}

async fn measure(rounds: usize, counts: &[usize], length: Duration) {
    let data = tempfile::tempdir().unwrap();
    let mut cluster = Process::podherald(data.path(), &[("PODHERALD_LOGS__FOLLOW", "never")]).await;
    cluster.until_ready().await;
    let mut found: Vec<Vec<Found>> = counts.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (found, follows) in found.iter_mut().zip(counts) {
            found.push(run(data.path(), *follows, length).await);
        }
    }
    cluster.stop().await;
    println!("{LINES_PER_SECOND} lines of {LINE_BYTES} bytes a second each; medians of {rounds}, {length:?} each\n");
    println!(
        "| watched executions |{}\n|{}",
        COLUMNS.map(|(title, ..)| format!(" {title} |")).concat(),
        "---|".repeat(10)
    );
    for (found, follows) in found.iter().zip(counts) {
        let cells = COLUMNS.map(|(_, digits, value)| {
            let value = median(found.iter().map(|found| value(found, *follows as f64)));
            // Of no follows there is no share.
            if value.is_finite() { format!(" {value:.digits$} |") } else { " - |".to_owned() }
        });
        println!("| {follows} |{}", cells.concat());
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    if has(PRINTER) {
        runtime.block_on(print_lines());
    } else if has("--tiny") {
        runtime.block_on(measure(1, &[0, 2], Duration::from_millis(500)));
    } else {
        runtime.block_on(measure(3, &[0, 1, 10, 50], Duration::from_secs(10)));
    }
}
