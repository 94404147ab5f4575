//! podherald as a process, and a client of its HTTP.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
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
const POLL: Duration = Duration::from_millis(20);

/// A running podherald. It is killed when dropped.
pub(crate) struct Herald {
    process: Child,
    address: String,
    log: PathBuf,
}

impl Herald {
    /// Starts podherald on `data` and waits until it is ready.
    #[expect(clippy::disallowed_methods, reason = "these are not read as settings")]
    pub(crate) async fn start(kubeconfig: &Path, data: &TempDir, settings: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let log = data.path().join(format!("podherald.{}.log", COUNT.fetch_add(1, Ordering::Relaxed)));
        let mut command = Command::new(env!("CARGO_BIN_EXE_podherald"));
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
        let mut herald = Self { process, address: String::new(), log };
        herald.address = herald.until_listening().await;
        herald.until_ready().await;
        herald
    }

    /// The address that podherald says it took.
    async fn until_listening(&mut self) -> String {
        let deadline = Instant::now() + LIMIT;
        loop {
            let log = fs::read_to_string(&self.log).unwrap();
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(line) = lines.find(|line| line["message"] == "listening") {
                return line["address"].as_str().unwrap().to_owned();
            }
            self.assert_alive(deadline);
            tokio::time::sleep(POLL).await;
        }
    }

    fn assert_alive(&mut self, deadline: Instant) {
        let ended = self.process.try_wait().unwrap();
        if ended.is_some() || Instant::now() > deadline {
            panic!("podherald is not ready ({ended:?}):\n{}", fs::read_to_string(&self.log).unwrap());
        }
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

    async fn try_get(&self, path: &str, accept: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        let whole = async {
            let response = self.send(path, accept).await?;
            let status = response.status();
            Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        timeout(LIMIT, whole).await?
    }

    #[expect(clippy::disallowed_methods, reason = "the connection's task ends with its request")]
    async fn send(&self, path: &str, accept: &str) -> anyhow::Result<http::Response<Incoming>> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, &self.address)
            .header(header::ACCEPT, accept)
            .body(Empty::<Bytes>::new())?;
        Ok(sender.send_request(request).await?)
    }
}

/// One server-sent event.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// `event`, empty for a domain event.
    pub(crate) name: String,
    /// `id`.
    pub(crate) id: String,
    /// `data`, which is always JSON here.
    pub(crate) data: Value,
}

impl Frame {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>().join("\n")
        };
        let data = field("data");
        (!data.is_empty()).then(|| Self {
            name: field("event"),
            id: field("id"),
            data: serde_json::from_str(&data).unwrap(),
        })
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

/// Fails unless `events`, all of a journal's, have unique ids, seq without a gap for each execution, and one end each.
pub(crate) fn assert_in_order(events: &[Value], ended: &[String]) {
    let ids: BTreeSet<_> = events.iter().map(|event| event["event_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len(), "an event id is there twice");
    let mut of: BTreeMap<_, Vec<&Value>> = BTreeMap::new();
    for event in events {
        of.entry(event["execution_id"].as_str().unwrap()).or_default().push(event);
    }
    for (execution, events) in &of {
        let numbers: Vec<_> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "{execution}");
        assert!(events.iter().filter(|event| ends(event)).count() <= 1, "{execution} ended twice: {events:?}");
    }
    for execution in ended {
        let events = of.get(execution.as_str()).unwrap_or_else(|| panic!("nothing is known of {execution}"));
        assert_eq!(events.iter().filter(|event| ends(event)).count(), 1, "{execution} did not end once: {events:?}");
    }
}
