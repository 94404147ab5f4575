//! The routes in process, on a paused clock, over a real journal; and the listener on real sockets.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod life;
mod live;
mod many;
mod one;
mod page;
mod readers;
mod rest;
mod sockets;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use podherald_core::{about::About, event::Draft};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Access, Metrics, Monitor, Options, Seats, State, router};
use crate::{
    health::{Readiness, Role},
    journal::{self, Adopted, Change, Journal, Retention, Sqlite},
    live_output::{self, LiveOutputs},
    output_store::OutputStore,
};

/// Longer than anything that is due takes, shorter than a heartbeat; virtual where the clock is paused.
const SOON: Duration = Duration::from_secs(10);

/// A journal and the routes over it.
struct Api {
    journal: Arc<dyn Journal>,
    state: Arc<State>,
    router: Router,
    _directory: TempDir,
}

/// An event of another writer under its number there, as it comes when it happens.
fn adopted(draft: Draft, source: &str, seq: u64) -> Adopted {
    let event = draft.number(source, seq);
    Adopted { bytes: event.to_bytes().into(), event, about: About::default(), in_order: false, recalled: false }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn request(path: &str) -> http::request::Builder {
    Request::get(path).header(header::HOST, "localhost:8080")
}

fn state(journal: Arc<dyn Journal>, directory: &TempDir, options: Options) -> Arc<State> {
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let outputs = OutputStore::open(directory.path()).unwrap();
    Arc::new(State {
        journal,
        live: LiveOutputs::new(live_output::Options::default(), outputs.clone(), live_output::Metrics::default()),
        outputs,
        webhooks: Vec::new(),
        blobs: None,
        store: None,
        past: None,
        monitor: Monitor::Here,
        cleaner: None,
        readiness: Arc::new(Readiness::of(&[Role::Api, Role::Monitor])),
        registry,
        seats: Seats::new(options.max_streams, metrics.clone()),
        metrics,
        options,
        closing: CancellationToken::new(),
    })
}

impl Api {
    async fn new() -> Self {
        Self::with(Options::new(Access::Loopback)).await
    }

    async fn with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let journal = open(&directory).await;
        let state = state(journal.clone(), &directory, options);
        Self { journal, router: router(state.clone()), state, _directory: directory }
    }

    async fn append(&self, change: Change) {
        self.journal.append(vec![change]).await.unwrap();
    }

    /// Retention takes every execution that has ended.
    async fn prune_all(&self) {
        let now = Timestamp::from_second(1_900_000_000).unwrap();
        let pruned = self.journal.prune(Retention { age: Duration::ZERO, now, batch: 100 }).await.unwrap();
        assert!(!pruned.executions.is_empty());
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(request(path).body(Body::empty()).unwrap()).await
    }

    /// The answer as JSON, which must be a good one.
    async fn good(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        answer.json()
    }

    async fn stream(&self, path: &str) -> Stream {
        self.resume(path, None).await.unwrap()
    }

    /// The stream after this id, or what came instead.
    async fn resume(&self, path: &str, id: Option<&str>) -> Result<Stream, Answer> {
        let mut request = request(path).header(header::ACCEPT, "text/event-stream");
        if let Some(id) = id {
            request = request.header("Last-Event-ID", id);
        }
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK {
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            return Err(Answer { status: parts.status, headers: parts.headers, body });
        }
        assert_eq!(parts.headers[header::CONTENT_TYPE], "text/event-stream");
        Ok(Stream { body, headers: parts.headers, text: String::new(), last_id: String::new() })
    }
}

/// The real journal.
async fn open(directory: &TempDir) -> Arc<dyn Journal> {
    let path = directory.path().join("journal.db");
    Sqlite::open(journal::Options { path, ..journal::Options::default() }).await.unwrap()
}

/// A reader of frames, as a browser is one.
#[derive(Debug)]
struct Stream {
    body: Body,
    headers: HeaderMap,
    text: String,
    last_id: String,
}

#[derive(Debug, Clone, PartialEq)]
struct Frame {
    /// Empty for domain events.
    name: String,
    id: Option<String>,
    data: Value,
    bytes: String,
}

impl Frame {
    fn event_type(&self) -> &str {
        self.data["event_type"].as_str().unwrap_or_default()
    }
}

impl Stream {
    /// The next frame; none at the end of the stream.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let raw: String = self.text.drain(..end + 2).collect();
                if let Some(frame) = parse(&raw) {
                    if let Some(id) = &frame.id {
                        id.clone_into(&mut self.last_id);
                    }
                    return Some(frame);
                }
                continue;
            }
            let chunk = timeout(2 * SOON, self.body.frame()).await.expect("a frame is due")?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap().into_data().unwrap()).unwrap());
        }
    }

    async fn expect(&mut self, name: &str) -> Frame {
        let frame = self.next().await.unwrap_or_else(|| panic!("the stream ended, {name} is due"));
        assert_eq!(frame.name, name, "{frame:?}");
        frame
    }

    /// So many domain events, by their type.
    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut types = Vec::new();
        for _ in 0..count {
            types.push(self.expect("").await.event_type().to_owned());
        }
        types
    }

    /// True if nothing comes for a while.
    async fn is_silent(&mut self) -> bool {
        assert_eq!(self.text, "");
        timeout(SOON, self.body.frame()).await.is_err()
    }
}

/// None for what only sets the retry time.
fn parse(raw: &str) -> Option<Frame> {
    let mut frame = Frame { name: String::new(), id: None, data: Value::Null, bytes: String::new() };
    for line in raw.lines().filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(": ").unwrap();
        match field {
            "event" => value.clone_into(&mut frame.name),
            "id" => frame.id = Some(value.to_owned()),
            "data" => frame.bytes.push_str(value),
            "retry" => {
                let milliseconds: u32 = value.parse().unwrap();
                assert!((1_000..=3_000).contains(&milliseconds));
                return None;
            }
            _ => panic!("unknown field {line}"),
        }
    }
    frame.data = serde_json::from_str(&frame.bytes).unwrap();
    Some(frame)
}
