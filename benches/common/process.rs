//! A server as a process: started, asked over HTTP, measured from `/proc`, stopped.

use std::{fs, net::SocketAddr, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// Every wait ends by then; a bench that waits for so long has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at something that has no way to call; as long as tokio's clock ticks.
const POLL: Duration = Duration::from_millis(1);

/// A running server. It is killed when dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
}

/// What a process has used and holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// User and system time of all its threads, in steps of a clock tick.
    pub(crate) cpu: Duration,
    pub(crate) resident_kib: f64,
    /// The most that was ever resident.
    pub(crate) peak_kib: f64,
    pub(crate) sockets: f64,
    /// Open files that are no sockets.
    pub(crate) files: f64,
}

impl Process {
    /// Runs the command, which listens on this address.
    pub(crate) fn start(command: &mut Command, address: SocketAddr) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        Self { child, address }
    }

    /// podherald on this data directory, with these variables and no others.
    pub(crate) async fn podherald(data: &Path, variables: &[(&str, &str)]) -> Self {
        let address = free_address().await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_podherald"));
        command
            .arg("serve")
            .env_clear()
            .env("PODHERALD_HTTP__LISTEN", address.to_string())
            .env("PODHERALD_DATA_DIR", data)
            .env("PODHERALD_TELEMETRY__LOG", "error")
            .env("_RJEM_MALLOC_CONF", std::env::var("MC").unwrap_or_default())
            .envs(variables.iter().copied());
        Self::start(&mut command, address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn until_ready(&mut self) {
        let deadline = Instant::now() + LIMIT;
        while self.ask("/readyz").await.is_none() {
            assert!(self.child.try_wait().unwrap().is_none(), "the server ended before it was ready");
            assert!(Instant::now() < deadline, "the server is not ready after {LIMIT:?}");
            sleep(POLL).await;
        }
    }

    /// The body of an answer 200; none of any other answer, nor where nobody answers.
    pub(crate) async fn ask(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("an answer in time").ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
    }

    /// Items of the page at this path.
    pub(crate) async fn count(&self, path: &str) -> usize {
        let page: Value = serde_json::from_str(&self.ask(path).await.expect("a page")).unwrap();
        page["items"].as_array().unwrap().len()
    }

    /// Waits until the page at this path has so many items.
    pub(crate) async fn until_count(&self, path: &str, count: usize) {
        let all = async {
            while self.count(path).await != count {
                sleep(10 * POLL).await;
            }
        };
        timeout(LIMIT, all).await.unwrap_or_else(|_| panic!("{path} has no {count} items"));
    }

    /// A number of `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let metrics = self.ask("/metrics").await.expect("metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    }

    pub(crate) fn usage(&self) -> Usage {
        let directory = format!("/proc/{}", self.child.id().expect("it runs"));
        let read = |name: &str| fs::read_to_string(format!("{directory}/{name}")).unwrap();
        let stat = read("stat");
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks: f64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum();
        let status = read("status");
        let kib = |name: &str| {
            let amount = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix(" kB")).unwrap();
            amount.trim().parse().unwrap()
        };
        let mut usage = Usage {
            cpu: Duration::from_secs_f64(ticks / rustix::param::clock_ticks_per_second() as f64),
            resident_kib: kib("VmRSS:"),
            peak_kib: kib("VmHWM:"),
            sockets: 0.0,
            files: 0.0,
        };
        // One that was closed meanwhile counts for nothing.
        for target in
            fs::read_dir(format!("{directory}/fd")).unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        {
            let is_socket = target.to_string_lossy().starts_with("socket:");
            *(if is_socket { &mut usage.sockets } else { &mut usage.files }) += 1.0;
        }
        usage
    }

    /// Ends it in order.
    pub(crate) async fn stop(mut self) {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("it runs");
        kill_process(id, Signal::TERM).unwrap();
        timeout(LIMIT, self.child.wait()).await.expect("the server stops").unwrap();
    }
}

/// A loopback address that nobody listens on.
pub(crate) async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// The value in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
