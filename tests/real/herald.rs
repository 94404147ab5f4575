//! podherald as a process, and a client of its HTTP. The suite `it` uses it too.

#![allow(dead_code, reason = "written for two suites, of which each uses its part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, timeout},
};

/// Every wait in these tests ends by then. Far more than any of them needs, for a machine that is busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at something that has no way to call.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// A running podherald. It is killed when dropped.
pub(crate) struct Herald {
    process: Child,
    address: String,
    log: PathBuf,
}

impl Herald {
    /// Starts podherald on `data` and waits until it is ready.
    pub(crate) async fn start(kubeconfig: &Path, data: &TempDir, settings: &[(&str, &str)]) -> Self {
        let mut herald = Self::launch(Path::new(env!("CARGO_BIN_EXE_podherald")), kubeconfig, data, settings);
        herald.until_listening().await;
        herald.until_ready().await;
        herald
    }

    /// Starts this binary on `data` and waits for nothing.
    #[expect(clippy::disallowed_methods, reason = "these are not read as settings")]
    pub(crate) fn launch(binary: &Path, kubeconfig: &Path, data: &TempDir, settings: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = data.path().join(format!("podherald.{}.log", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut command = Command::new(binary);
        // podherald refuses variables that are no settings, and nobody's own settings decide what is tested.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PODHERALD_")) {
            command.env_remove(name);
        }
        let process = command
            .arg("serve")
            .env("KUBECONFIG", kubeconfig)
            .env("PODHERALD_KUBE__MODE", "cluster")
            .env("PODHERALD_HTTP__LISTEN", "127.0.0.1:0")
            .env("PODHERALD_TELEMETRY__FORMAT", "json")
            .env("PODHERALD_DATA_DIR", data.path().join("data"))
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process, address: String::new(), log }
    }

    /// Waits until podherald listens, as owner or as standby.
    pub(crate) async fn until_listening(&mut self) {
        let deadline = Instant::now() + LIMIT;
        while !self.listens() {
            self.assert_alive(deadline);
            tokio::time::sleep(POLL).await;
        }
    }

    /// True once podherald has said which address it took.
    pub(crate) fn listens(&mut self) -> bool {
        let log = self.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(address) = lines.find_map(|line| line["address"].as_str().map(str::to_owned)) {
            self.address = address;
        }
        !self.address.is_empty()
    }

    fn assert_alive(&mut self, deadline: Instant) {
        let ended = self.has_ended();
        if ended.is_some() || Instant::now() > deadline {
            panic!("podherald is not ready ({ended:?}):\n{}", self.log());
        }
    }

    /// What podherald wrote on standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How the process ended, if it did.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let ended = timeout(LIMIT, self.process.wait()).await;
        ended.unwrap_or_else(|_| panic!("podherald does not end:\n{}", self.log())).unwrap()
    }

    /// Memory that the process holds now.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let id = self.process.id().expect("it was not waited for yet");
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.process.id().expect("it was not waited for yet");
        kill_process(Pid::from_raw(id.try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// Waits until `/readyz` says so, or fails with podherald's log.
    pub(crate) async fn until_ready(&mut self) {
        let deadline = Instant::now() + LIMIT;
        while !matches!(self.try_get("/readyz", "application/json").await, Ok((StatusCode::OK, _))) {
            self.assert_alive(deadline);
            tokio::time::sleep(POLL).await;
        }
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }

    /// The JSON that `path` answers.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.try_get(path, "application/json").await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, StatusCode::OK, "GET {path}: {text}");
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("GET {path}: {error}: {text}"))
    }

    /// The text that `path` answers.
    pub(crate) async fn text(&self, path: &str) -> String {
        let (status, body) = self.try_get(path, "*/*").await.unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, StatusCode::OK, "GET {path}: {text}");
        text
    }

    /// A counter of `/metrics`.
    pub(crate) async fn counter(&self, name: &str) -> u64 {
        let metrics = self.text("/metrics").await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    }

    /// The execution once its latest attempt has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let execution = self.get(&format!("/executions/{id}?wait=30s")).await;
            if !execution["times"]["ended"].is_null() {
                return execution;
            }
            assert!(Instant::now() < deadline, "{id} did not end: {execution}");
        }
    }

    /// The result of the execution, once it is stored.
    pub(crate) async fn result(&self, id: &str) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let (status, body) = self.try_get(&format!("/executions/{id}/result"), "application/json").await.unwrap();
            if status == StatusCode::OK {
                return serde_json::from_slice(&body).unwrap();
            }
            assert!(Instant::now() < deadline, "{id} has no result: {}", String::from_utf8_lossy(&body));
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until podherald knows that the execution runs.
    pub(crate) async fn until_running(&self, id: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let (status, body) = self.try_get(&format!("/executions/{id}"), "application/json").await.unwrap();
            if status == StatusCode::OK && serde_json::from_slice::<Value>(&body).unwrap()["status"] == "running" {
                return;
            }
            assert!(Instant::now() < deadline, "{id} does not run: {}", String::from_utf8_lossy(&body));
            tokio::time::sleep(POLL).await;
        }
    }

    /// All events of one execution, oldest first.
    pub(crate) async fn events(&self, id: &str) -> Vec<Value> {
        self.pages(&format!("/executions/{id}/events?limit=100")).await
    }

    /// All items of a paged answer.
    pub(crate) async fn pages(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut page = self.get(path).await;
        loop {
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else { return items };
            page = self.get(&format!("{path}&after={next}")).await;
        }
    }

    /// The frames of an event stream until the server ends it, as `curl -N` would take them.
    pub(crate) async fn follow(&self, path: &str) -> Vec<Frame> {
        let (status, body) = self.try_get(path, "text/event-stream").await.unwrap();
        let text = String::from_utf8(body.into()).unwrap();
        assert_eq!(status, StatusCode::OK, "GET {path}: {text}");
        text.split("\n\n").filter_map(Frame::parse).collect()
    }

    /// Status and body of the answer, whatever they are.
    pub(crate) async fn try_get(&self, path: &str, accept: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        self.try_get_with(path, &[("accept", accept)]).await
    }

    /// The same with these headers.
    pub(crate) async fn try_get_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        self.ask(Method::GET, path, headers).await
    }

    /// Status and JSON of the answer to a POST without a body.
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        let (status, body) = self.ask(Method::POST, path, headers).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<(StatusCode, Bytes)> {
        let whole = async {
            let response = send(method, &self.address, path, headers).await?;
            let status = response.status();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        timeout(LIMIT, whole).await?
    }
}

#[expect(clippy::disallowed_methods, reason = "the connection's task ends with its request")]
async fn send(
    method: Method,
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<http::Response<Incoming>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(header::HOST, address);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Ok(sender.send_request(request.body(Empty::<Bytes>::new())?).await?)
}

/// An event stream as it comes.
pub(crate) struct Stream {
    body: Incoming,
    /// What has come of frames that are not taken yet.
    bytes: Vec<u8>,
}

impl Stream {
    /// Opens the stream at an address, after the frame with this id if there is one.
    ///
    /// # Errors
    /// No connection, or an answer other than a stream.
    pub(crate) async fn open(address: &str, path: &str, last_id: Option<&str>) -> anyhow::Result<Self> {
        let last_id = last_id.map(|id| ("last-event-id", id));
        let headers: Vec<_> = [("accept", "text/event-stream")].into_iter().chain(last_id).collect();
        let response = timeout(LIMIT, send(Method::GET, address, path, &headers)).await??;
        anyhow::ensure!(response.status() == StatusCode::OK, "GET {path}: {}", response.status());
        Ok(Self { body: response.into_body(), bytes: Vec::new() })
    }

    /// The next frame; none where the server ended the stream in order.
    ///
    /// # Errors
    /// The stream was cut.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            while let Some(end) = self.bytes.windows(2).position(|bytes| bytes == b"\n\n") {
                let frame: Vec<u8> = self.bytes.drain(..end + 2).collect();
                if let Some(frame) = Frame::parse(std::str::from_utf8(&frame)?) {
                    return Ok(Some(frame));
                }
            }
            let Some(chunk) = timeout(LIMIT, self.body.frame()).await? else { return Ok(None) };
            if let Ok(data) = chunk?.into_data() {
                self.bytes.extend_from_slice(&data);
            }
        }
    }
}

/// One server-sent event.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// `event`, empty for a domain event.
    pub(crate) name: String,
    /// `id`.
    pub(crate) id: String,
    /// `data` as it came.
    pub(crate) text: String,
    /// `data`, which is always JSON here.
    pub(crate) data: Value,
}

impl Frame {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>().join("\n")
        };
        let text = field("data");
        let data = (!text.is_empty()).then(|| serde_json::from_str(&text).unwrap())?;
        Some(Self { name: field("event"), id: field("id"), text, data })
    }
}

/// The types of these events, in order.
pub(crate) fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event_type"].as_str().unwrap()).collect()
}

/// True for the event that ends an attempt.
pub(crate) fn ends(event: &Value) -> bool {
    matches!(
        event["event_type"].as_str(),
        Some("execution_completed" | "execution_failed" | "execution_timeout" | "execution_cancelled")
    )
}

/// Fails unless `events`, all of a journal's, have unique ids, seq without a gap for each execution and source, and at
/// most one end for each attempt; these executions have one for every attempt.
pub(crate) fn assert_in_order(events: &[Value], ended: &[String]) {
    let ids: BTreeSet<_> = events.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len(), "an event id is there twice");
    let mut numbers: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    let mut ends_of: BTreeMap<_, BTreeMap<_, usize>> = BTreeMap::new();
    for event in events {
        let execution = event["execution_id"].as_str().unwrap();
        let of_source = numbers.entry((execution, event["source"].as_str().unwrap())).or_default();
        of_source.push(event["seq"].as_u64().unwrap());
        let attempts = ends_of.entry(execution).or_default();
        *attempts.entry(event["attempt"].as_u64().unwrap()).or_default() += usize::from(ends(event));
    }
    for (of, numbers) in &numbers {
        assert_eq!(*numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{of:?}");
    }
    for (execution, attempts) in &ends_of {
        assert!(attempts.values().all(|ends| *ends <= 1), "{execution} has attempts that ended twice: {attempts:?}");
    }
    for execution in ended {
        let attempts = ends_of.get(execution.as_str()).unwrap_or_else(|| panic!("nothing is known of {execution}"));
        assert!(attempts.values().all(|ends| *ends == 1), "{execution} has attempts without an end: {attempts:?}");
    }
}
