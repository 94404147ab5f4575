//! The process: how it starts, stands by, stops, and what it survives.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::Instant};

use crate::{
    herald::{Herald, LIMIT, Stream, assert_in_order, types},
    pods,
    scripted_api::{Failure, Kind, Loopback, ScriptedApi, log_text},
};

/// From a signal to the end, open streams or not.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// A scripted cluster on a port, and a data directory beside its kubeconfig.
pub(crate) struct Place {
    pub(crate) api: ScriptedApi,
    _port: Loopback,
    pub(crate) data: TempDir,
}

impl Place {
    pub(crate) async fn new() -> Self {
        let (api, data) = (ScriptedApi::new(), TempDir::new().unwrap());
        let port = api.listen().await;
        port.write_kubeconfig(&data.path().join("kubeconfig"));
        Self { api, _port: port, data }
    }

    pub(crate) async fn start(&self) -> Herald {
        Herald::start(&self.data.path().join("kubeconfig"), &self.data, &[]).await
    }

    /// Starts a process and waits for nothing.
    pub(crate) fn launch(&self, settings: &[(&str, &str)]) -> Herald {
        let binary = env!("CARGO_BIN_EXE_podherald").as_ref();
        Herald::launch(binary, &self.data.path().join("kubeconfig"), &self.data, settings)
    }
}

#[tokio::test]
async fn a_signal_ends_open_streams_in_order_and_then_the_process() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new().await;
        place.api.apply(pods::running("a"));
        let mut herald = place.start().await;
        herald.until_running("a").await;
        let mut streams = Vec::new();
        for path in ["/events", "/executions/a/events"].into_iter().cycle().take(40) {
            let mut stream = Stream::open(herald.address(), path, None).await.unwrap();
            assert_eq!(stream.next().await.unwrap().unwrap().name, "snapshot");
            streams.push(stream);
        }
        let asked = Instant::now();
        herald.signal(signal);
        for mut stream in streams {
            // A stream that is cut lacks its last chunk, which is an error here.
            while stream.next().await.unwrap().is_some() {}
        }
        let status = herald.end().await;
        assert!(status.success(), "{status}: {}", herald.log());
        assert!(asked.elapsed() < SHUTDOWN, "{:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn a_second_signal_aborts() {
    let place = Place::new().await;
    let mut herald = place.start().await;
    // A request that is still coming holds the end up: the server owes it an answer.
    let mut slow = TcpStream::connect(herald.address()).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
    // Connections are taken in their order: when this one has its answer, that one has its place.
    herald.text("/livez").await;
    herald.signal(Signal::TERM);
    until(&mut herald, "shutting down").await;
    let asked = Instant::now();
    herald.signal(Signal::TERM);
    let status = herald.end().await;
    assert_eq!(status.code(), Some(1), "{status}");
    let log = herald.log();
    let said = log.lines().last().unwrap();
    assert!(said.starts_with("podherald: aborted by a second signal while waiting for: listener"), "{log}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

/// Waits until the process has logged this.
async fn until(herald: &mut Herald, text: &str) {
    let deadline = Instant::now() + LIMIT;
    while !herald.log().contains(text) {
        assert!(herald.has_ended().is_none() && Instant::now() < deadline, "no {text:?} in {}", herald.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_low_soft_limit_of_open_files_keeps_nobody_out() {
    let place = Place::new().await;
    let wrapper = place.data.path().join("limited");
    let script = format!("#!/bin/sh\nulimit -Sn 64 && exec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_podherald"));
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, Permissions::from_mode(0o700)).unwrap();
    let mut herald = Herald::launch(&wrapper, &place.data.path().join("kubeconfig"), &place.data, &[]);
    herald.until_listening().await;
    herald.until_ready().await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        let mut stream = Stream::open(herald.address(), "/events", None).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().name, "snapshot", "{}", herald.log());
        streams.push(stream);
    }
    herald.text("/livez").await;
}

#[tokio::test]
async fn a_standby_is_alive_and_no_more_until_the_owner_dies_and_then_goes_on() {
    let place = Place::new().await;
    place.api.apply(pods::ended("a", 3));
    place.api.apply(pods::running("b"));
    let owner = place.start().await;
    owner.ended("a").await;
    owner.until_running("b").await;
    let before = owner.pages("/events?limit=100").await;

    let mut standby = place.launch(&[]);
    standby.until_listening().await;
    let (status, body) = standby.try_get("/livez", "*/*").await.unwrap();
    assert_eq!((status, &body[..]), (StatusCode::OK, &b"ok"[..]));
    for path in ["/readyz", "/readyz?role=api", "/metrics", "/executions", "/executions/a", "/events", "/openapi.json"]
    {
        let (status, body) = standby.try_get(path, "*/*").await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {problem}");
        assert_eq!(problem["type"], "urn:podherald:problem:standby", "{path}: {problem}");
    }
    assert_eq!(place.api.open_watches(), 2, "a standby watches nothing");

    owner.kill().await;
    place.api.apply(pods::ended("b", 0));
    standby.until_ready().await;
    assert_eq!(standby.ended("b").await["status"], "completed");
    let after = standby.pages("/events?limit=100").await;
    assert_eq!(after[..before.len()], before, "{:?}", types(&after));
    assert_in_order(&after, &["a".to_owned(), "b".to_owned()]);
}

#[tokio::test]
async fn a_signal_ends_a_standby() {
    let place = Place::new().await;
    let _owner = place.start().await;
    let mut standby = place.launch(&[]);
    standby.until_listening().await;
    standby.signal(Signal::TERM);
    let status = standby.end().await;
    assert!(status.success(), "{status}: {}", standby.log());
}

#[tokio::test]
async fn what_was_recorded_survives_a_kill_to_the_byte() {
    let place = Place::new().await;
    place.api.apply(pods::ended("a", 7));
    let herald = place.start().await;
    herald.ended("a").await;
    let (_, before) = herald.try_get("/executions/a/events", "application/json").await.unwrap();
    herald.kill().await;
    let herald = place.start().await;
    let (_, after) = herald.try_get("/executions/a/events", "application/json").await.unwrap();
    assert_eq!(before, after);
}

#[tokio::test]
async fn killed_while_it_reads_a_log_the_next_process_reads_it_and_ends_the_execution() {
    let place = Place::new().await;
    place.api.fail_next(Kind::Log, 1, Failure::Hang);
    place.api.set_logs(pods::NAMESPACE, "executor-a", "executor", log_text("said\n"));
    let herald = place.start().await;
    place.api.apply(pods::ended("a", 7));
    place.api.wait_for_requests(Kind::Log, 1).await;
    herald.kill().await;

    let execution = place.start().await.ended("a").await;
    assert_eq!(execution["status"], "failed", "{execution}");
    assert_eq!((execution["exit"]["code"].as_i64(), execution["stdout"].as_str()), (Some(7), Some("said\n")));
}

/// The cluster is a part of the process: with it go its pods, and the next one has none of them.
#[tokio::test]
async fn what_ran_on_an_embedded_cluster_ends_soon_after_a_restart() {
    let data = TempDir::new().unwrap();
    let kubeconfig = data.path().join("data/kubeconfig");
    let settings = [("PODHERALD_KUBE__MODE", "embedded")];
    let herald = Herald::start(&kubeconfig, &data, &settings).await;
    let config = Kubeconfig::read_from(&kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let pod = json!({
        "metadata": {"name": "executor-e", "labels": {"execution-id": "e"}},
        "spec": {"containers": [{"name": "executor", "image": "none", "command": ["/bin/sleep", "600"]}]},
    });
    let pods = Api::<Pod>::default_namespaced(Client::try_from(config).unwrap());
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    herald.until_running("e").await;
    herald.kill().await;

    let herald = Herald::start(&kubeconfig, &data, &settings).await;
    let execution = herald.ended("e").await;
    assert_eq!(
        (&execution["status"], &execution["cause"]["class"]),
        (&json!("failed"), &json!("unknown")),
        "{execution}"
    );
}
