//! The Redis sink on a Redis, and podherald with it. Each test starts a server of its own by `tests/env/data/servers.sh`.

#[path = "../../src/sink/conformance.rs"]
pub(crate) mod conformance;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use podherald::{
    config::RedisUrl,
    journal::{self, Frames, Journal, Record, Sqlite},
    sink::{
        Item, Sink,
        redis::{Options, Redis, Url},
    },
};
use podherald_core::gap::Gap;
use redis::{AsyncCommands, Client, aio::MultiplexedConnection, cmd};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use self::conformance::{MAX_BYTES, record};
use crate::{
    cluster::{Cluster, Play, variable},
    herald::{Herald, LIMIT, POLL},
    proxy::{Fault, Proxy},
};

/// Keeps what it acknowledged over a restart.
const KEEPS_ALL: &str = "--appendonly yes --appendfsync always";

/// Of an entry in a stream, in their order.
type Fields = Vec<(String, Vec<u8>)>;

/// A Redis of the test's own.
pub(crate) struct Server {
    run: PathBuf,
    options: String,
    port: u16,
    /// Behind the proxy.
    proxied: String,
    toxiproxy: String,
}

impl Server {
    pub(crate) fn start(options: &str) -> Self {
        let run = tempfile::Builder::new().prefix("redis.").tempdir().unwrap().keep();
        let (proxied, toxiproxy) = (String::new(), String::new());
        let mut server = Self { run, options: options.to_owned(), port: 0, proxied, toxiproxy };
        server.go_on();
        server
    }

    /// Ends it in order.
    pub(crate) fn stop(&self) {
        self.script(&["stop", "redis"]);
    }

    /// Starts it where it was.
    pub(crate) fn go_on(&mut self) {
        let said = self.script(&["start", "redis"]);
        let told = |name: &str| {
            let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("no {name} in {said}"))
        };
        self.port = told("REDIS_PORT").parse().unwrap();
        self.proxied = format!("redis://{}", told("REDIS_PROXIED"));
        self.toxiproxy = told("TOXIPROXY").to_owned();
    }

    /// Starts the proxy in front of it.
    fn start_proxy(&self) -> Proxy {
        self.script(&["start", "toxiproxy"]);
        Proxy::new("redis", &self.toxiproxy)
    }

    fn script(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(variable("PODHERALD_REAL_SERVERS"));
        command.args(arguments).env("RUN", &self.run).env("REDIS_OPTIONS", &self.options).stderr(Stdio::inherit());
        let output = command.output().unwrap();
        let is_done = output.status.success() || std::thread::panicking();
        assert!(is_done, "servers.sh {} failed", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn client(&self) -> Client {
        Client::open(self.url()).unwrap()
    }

    async fn connection(&self) -> MultiplexedConnection {
        self.client().get_multiplexed_async_connection().await.unwrap()
    }

    /// The events in the stream of an execution, oldest first.
    pub(crate) async fn stream(&self, id: &str) -> Vec<Bytes> {
        let mut connection = self.connection().await;
        let key = format!("evaluation:events:{id}");
        let entries: Vec<(String, Fields)> =
            cmd("XRANGE").arg(key).arg("-").arg("+").query_async(&mut connection).await.unwrap();
        let event = |(_, fields): (String, Fields)| {
            let [(ref name, _), (ref other, ref event)] = fields[..] else { panic!("not two fields: {fields:?}") };
            assert_eq!([name, other], ["event_type", "event"]);
            Bytes::from(event.clone())
        };
        entries.into_iter().map(event).collect()
    }

    /// Fails unless the streams of these executions hold their events, byte by byte, each for the first time in its order.
    pub(crate) async fn assert_has(&self, herald: &Herald, ids: impl IntoIterator<Item = &String>) {
        for id in ids {
            let (_, page) =
                herald.try_get(&format!("/executions/{id}/events?limit=500"), "application/json").await.unwrap();
            let page: BTreeMap<String, Box<serde_json::value::RawValue>> = serde_json::from_slice(&page).unwrap();
            let events: Vec<&serde_json::value::RawValue> = serde_json::from_str(page["items"].get()).unwrap();
            let events: Vec<&str> = events.into_iter().map(serde_json::value::RawValue::get).collect();
            let deadline = Instant::now() + LIMIT;
            loop {
                let mut seen = BTreeSet::new();
                let stream = self.stream(id).await;
                let stream = stream.iter().map(|event| std::str::from_utf8(event).unwrap());
                let firsts: Vec<&str> = stream.filter(|event| seen.insert(*event)).collect();
                if firsts == events {
                    break;
                }
                assert!(Instant::now() < deadline, "{id} has {events:#?}, its stream {firsts:#?}");
                sleep(POLL).await;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.script(&["stop"]);
    }
}

async fn journal() -> (Arc<dyn Journal>, TempDir) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal.db");
    (Sqlite::open(journal::Options { path, ..journal::Options::default() }).await.unwrap(), dir)
}

fn options(url: &str) -> Options {
    Options { max_event_bytes: MAX_BYTES, ..Options::new(Url::Given(RedisUrl::parse(url).unwrap())) }
}

mod contract {
    use super::*;

    struct Real {
        sink: Arc<dyn Sink>,
        server: Server,
        _dir: TempDir,
    }

    impl conformance::Far for Real {
        fn sink(&self) -> Arc<dyn Sink> {
            self.sink.clone()
        }
        fn arrived(&self) -> BoxFuture<'_, Vec<Bytes>> {
            self.server.stream("e").boxed()
        }
        fn gaps(&self) -> BoxFuture<'_, Vec<Bytes>> {
            self.server.stream(":gaps").boxed()
        }
        fn leave(&mut self) -> BoxFuture<'_, ()> {
            self.server.stop();
            async {}.boxed()
        }
        fn come_back(&mut self) -> BoxFuture<'_, ()> {
            self.server.go_on();
            async {}.boxed()
        }
    }

    async fn open() -> Real {
        let server = Server::start("");
        let (journal, dir) = journal().await;
        let sink = Arc::new(Redis::new(options(&server.url()), journal));
        Real { sink, server, _dir: dir }
    }

    conformance::suite!(open);
}

#[tokio::test]
async fn a_stream_is_bounded_and_expires() {
    let server = Server::start("");
    let (journal, _dir) = journal().await;
    let retention = Duration::from_secs(100);
    let few = Options { stream_max_events: 100, stream_retention: retention, ..options(&server.url()) };
    let sink = Redis::new(few, journal);
    let records: Vec<_> = (1..=1000).map(|position| record(position, "x")).collect();
    for batch in records.chunks(100) {
        sink.deliver(batch).await.unwrap();
    }
    let kept = server.stream("e").await;
    assert!((100..=300).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept.last(), Some(&records[999].bytes));
    let left: i64 = cmd("PTTL").arg("evaluation:events:e").query_async(&mut server.connection().await).await.unwrap();
    assert!((1..=100_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_key_that_is_somebody_elses_is_left_alone_and_costs_one_rejection_each() {
    let server = Server::start("");
    let (journal, _dir) = journal().await;
    let sink = Redis::new(options(&server.url()), journal);
    let mut connection = server.connection().await;
    let () = connection.set("evaluation:events:theirs", "mine").await.unwrap();
    let theirs = Arc::new(Record { execution_id: "theirs".into(), ..Record::clone(&record(2, "x")) });
    let rejected = sink.deliver(&[record(1, "x"), theirs, record(3, "x")]).await.unwrap();
    assert_eq!(rejected.len(), 1);
    assert!(rejected[0].position == 2 && rejected[0].reason.contains("something else than a stream"), "{rejected:?}");
    assert_eq!(server.stream("e").await.len(), 2);
    let value: String = connection.get("evaluation:events:theirs").await.unwrap();
    assert_eq!(value, "mine");
    let left: i64 = cmd("PTTL").arg("evaluation:events:theirs").query_async(&mut connection).await.unwrap();
    assert_eq!(left, -1, "it must not expire because of us");
}

#[tokio::test]
async fn credentials_and_rights_are_told_apart_and_count_as_soon_as_they_are_right() {
    let acl = "--user default on >door +@all ~* &* \
               --user app on >s3cret +ping +publish +xadd +pexpire ~evaluation:events:* &evaluation:* \
               --user poor on >s3cret +ping +publish &evaluation:*";
    let server = Server::start(acl);
    let at = format!("127.0.0.1:{}", server.port);
    let deliver = async |credentials: &str| {
        let (journal, _dir) = journal().await;
        let sink = Redis::new(options(&format!("redis://{credentials}{at}")), journal);
        sink.deliver(&[record(1, "x")]).await.map_err(|fault| fault.to_string())
    };
    for (credentials, shown, expected) in [
        ("", "", "it asks for a password"),
        ("app:wrong@", "app:***@", "it refuses the user or the password"),
        ("nobody:s3cret@", "nobody:***@", "it refuses the user or the password"),
        ("poor:s3cret@", "poor:***@", "its user may not do what is needed; the ACL rule is `+ping"),
    ] {
        let said = deliver(credentials).await.unwrap_err();
        assert!(said.starts_with(&format!("redis.url = redis://{shown}{at}")), "{said}");
        assert!(said.contains(expected) && !said.contains("s3cret") && !said.contains("wrong"), "{expected}: {said}");
    }
    assert_eq!(deliver("app:s3cret@").await, Ok(vec![]));
    let mut admin =
        Client::open(format!("redis://:door@{at}")).unwrap().get_multiplexed_async_connection().await.unwrap();
    let grant = ["SETUSER", "poor", "+xadd", "+pexpire", "~evaluation:events:*"];
    cmd("ACL").arg(&grant).exec_async(&mut admin).await.unwrap();
    assert_eq!(deliver("poor:s3cret@").await, Ok(vec![]));
}

/// An authority, and a server's certificate and key by it, as files.
fn certificates(dir: &Path) -> [PathBuf; 3] {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let contents = [authority.pem(), certificate.pem(), key.serialize_pem()];
    let paths = ["ca.pem", "server.pem", "server.key"].map(|name| dir.join(name));
    for (path, content) in paths.iter().zip(contents) {
        fs::write(path, content).unwrap();
    }
    paths
}

#[tokio::test]
async fn tls_works_with_an_authority_that_is_named_and_not_without() {
    let dir = TempDir::new().unwrap();
    let [authority, certificate, key] = certificates(dir.path());
    let server = Server::start(&format!(
        "--port 0 --tls-port @PORT@ --tls-auth-clients no --tls-ca-cert-file {} --tls-cert-file {} --tls-key-file {}",
        authority.display(),
        certificate.display(),
        key.display()
    ));
    let (journal, _dir) = journal().await;
    let url = format!("rediss://127.0.0.1:{}", server.port);
    let trusting = Options { ca_file: Some(authority), ..options(&url) };
    let sink = Redis::new(trusting, journal.clone());
    assert_eq!(sink.deliver(&[record(1, "x")]).await, Ok(vec![]));
    let said = Redis::new(options(&url), journal).check().await.unwrap_err().to_string();
    assert!(said.contains("certificate"), "{said}");
}

/// The messages that the events of the journal mean, in order: channel and what is to be said of code and output.
fn meant(events: &[Value]) -> Vec<(String, Value)> {
    let channel = |event: &Value| match event["event_type"].as_str().unwrap() {
        "execution_running" => Some("running"),
        "execution_completed" => Some("completed"),
        "execution_failed" | "execution_timeout" => Some("failed"),
        "execution_cancelled" => Some("cancelled"),
        _ => None,
    };
    let said = |event: &Value| {
        let id_and_time = json!({"eval_id": event["execution_id"], "timestamp": event["timestamp"]});
        let mut said = id_and_time;
        if event["event_type"] != "execution_running" {
            said["exit_code"] = event["exit"]["code"].clone();
            said["output"] = event["stdout"].clone();
        }
        said
    };
    let events = events.iter().filter_map(|event| Some((channel(event)?, event)));
    events.map(|(channel, event)| (format!("evaluation:{channel}"), said(event))).collect()
}

#[tokio::test]
async fn messages_and_streams_are_what_is_in_the_journal() {
    let server = Server::start("");
    let mut listener = server.client().get_async_pubsub().await.unwrap();
    listener.psubscribe("evaluation:*").await.unwrap();
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = TempDir::new().unwrap();
    let file = data.path().join("url");
    fs::write(&file, server.url()).unwrap();
    let settings =
        [("PODHERALD_KUBE__NAMESPACES", &*namespace.name), ("PODHERALD_REDIS__URL_FILE", file.to_str().unwrap())];
    let mut herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let timeout_play = Play { reason: Some("OOMKilled"), ..Play::exits(137) };
    for (name, play) in [
        ("good", Play { log: Some("hello"), run_for: "1s", ..Play::exits(0) }),
        ("bad", Play::exits(3)),
        ("memory", timeout_play),
    ] {
        namespace.create(&namespace.id(name), &play).await;
        herald.ended(&namespace.id(name)).await;
    }
    let ids = ["good", "bad", "memory"].map(|name| namespace.id(name));
    server.assert_has(&herald, &ids).await;

    let events = herald.pages("/events?limit=100").await;
    let meant = meant(&events);
    assert_eq!(meant.len(), 6, "{meant:#?}");
    let mut messages = listener.on_message();
    for (channel, meant) in meant {
        let message = timeout(LIMIT, messages.next()).await.unwrap().unwrap();
        let said: Value = serde_json::from_slice(message.get_payload_bytes()).unwrap();
        assert_eq!(message.get_channel_name(), channel, "{said}");
        for (name, value) in meant.as_object().unwrap() {
            assert_eq!(said[name], *value, "{said}");
        }
        if channel != "evaluation:running" {
            assert!(said["duration_seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{said}");
        }
    }

    let ready = herald.get("/readyz").await;
    let sink = &ready["sinks"][0];
    assert_eq!(
        [&sink["name"], &sink["failing"], &sink["lag_events"]],
        [&json!("redis"), &json!(false), &json!(0)],
        "{ready}"
    );
    assert_eq!(herald.counter("podherald_sink_delivered_events_total{sink=\"redis\"}").await, events.len() as u64);
    herald.signal(rustix::process::Signal::TERM);
    assert!(herald.end().await.success(), "{}", herald.log());
}

#[tokio::test]
async fn a_redis_that_stops_in_mid_stream_and_comes_back_misses_nothing() {
    let mut server = Server::start(KEEPS_ALL);
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = TempDir::new().unwrap();
    let url = server.url();
    let settings = [("PODHERALD_KUBE__NAMESPACES", &*namespace.name), ("PODHERALD_REDIS__URL", &*url)];
    let herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let mut ids = Vec::new();
    for outage in 0..3 {
        for n in 0..6 {
            let id = namespace.id(&format!("{outage}-{n}"));
            namespace.create(&id, &Play::exits(n)).await;
            if n == 3 {
                server.stop();
            }
            ids.push(id);
        }
        for id in &ids {
            herald.ended(id).await;
        }
        let sink = herald.get("/readyz").await["sinks"][0].clone();
        assert!(sink["lag_events"].as_u64().unwrap() > 0, "podherald goes on without Redis: {sink}");
        server.go_on();
        server.assert_has(&herald, &ids).await;
    }
    assert!(herald.counter("podherald_sink_retries_total{sink=\"redis\"}").await > 0);
}

#[tokio::test]
async fn a_bad_network_repeats_events_at_most() {
    let server = Server::start("");
    let proxy = server.start_proxy();
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = TempDir::new().unwrap();
    let settings = [
        ("PODHERALD_KUBE__NAMESPACES", &*namespace.name),
        ("PODHERALD_REDIS__URL", &*server.proxied),
        ("PODHERALD_REDIS__TIMEOUT", "500ms"),
    ];
    let herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let mut ids = Vec::new();
    for fault in
        [Fault::Cut, Fault::EndsAfter(3000), Fault::LosesAnswers, Fault::ResetsAfter(50), Fault::Slow(1), Fault::Cut]
    {
        let retries = retries(&herald).await;
        proxy.break_by(fault).await;
        for n in 0..5 {
            let id = namespace.id(&format!("{}-{n}", ids.len()));
            namespace.create(&id, &Play::exits(n)).await;
            ids.push(id);
        }
        for id in &ids {
            herald.ended(id).await;
        }
        let deadline = Instant::now() + LIMIT;
        while self::retries(&herald).await == retries {
            assert!(Instant::now() < deadline, "{fault:?} troubles nobody: {}", herald.get("/readyz").await);
            sleep(POLL).await;
        }
        proxy.heal().await;
        server.assert_has(&herald, &ids).await;
    }
}

async fn retries(herald: &Herald) -> u64 {
    herald.counter("podherald_sink_retries_total{sink=\"redis\"}").await
}
