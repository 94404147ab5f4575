//! Someone who reads an event stream, loses it now and then, and comes back with the id of the last frame.

use axum::body::Body;
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::{herald::Frame, inside::Inside};

pub(super) struct Reader {
    /// Whose events; none: everybody's.
    pub(super) execution_id: Option<String>,
    /// In the order in which they came.
    pub(super) events: Vec<Value>,
    /// The server said that there will be no more.
    pub(super) has_ended: bool,
    path: String,
    last_id: Option<String>,
    stream: Option<Stream>,
}

struct Stream {
    body: Body,
    bytes: Vec<u8>,
}

impl Reader {
    pub(super) fn of_all() -> Self {
        Self::new(None, "/events".to_owned())
    }

    pub(super) fn of_one(execution_id: String) -> Self {
        let path = format!("/executions/{execution_id}/events");
        Self::new(Some(execution_id), path)
    }

    fn new(execution_id: Option<String>, path: String) -> Self {
        Self { execution_id, events: Vec::new(), has_ended: false, path, last_id: None, stream: None }
    }

    /// The connection is gone, and with it what was on its way.
    pub(super) fn hang_up(&mut self) {
        self.stream = None;
    }

    /// Reads until this time; a broken stream is opened again.
    pub(super) async fn read(&mut self, herald: &Inside, until: Instant) {
        let reading = async {
            while !self.has_ended {
                if self.stream.is_none() {
                    self.connect(herald).await;
                }
                match self.frame().await {
                    Some(frame) => self.take(frame),
                    None => self.hang_up(),
                }
            }
        };
        // It is always there to be read on.
        let _ = timeout_at(until, reading).await;
    }

    async fn connect(&mut self, herald: &Inside) {
        let mut headers = vec![("accept", "text/event-stream")];
        headers.extend(self.last_id.as_deref().map(|id| ("last-event-id", id)));
        let response = herald.ask(&self.path, &headers).await;
        assert_eq!(response.status(), StatusCode::OK, "{}", self.path);
        self.stream = Some(Stream { body: response.into_body(), bytes: Vec::new() });
    }

    async fn frame(&mut self) -> Option<Frame> {
        let Stream { body, bytes } = self.stream.as_mut()?;
        loop {
            while let Some(end) = bytes.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = bytes.drain(..end + 2).collect();
                if let Some(frame) = Frame::parse(std::str::from_utf8(&frame).unwrap()) {
                    return Some(frame);
                }
            }
            bytes.extend_from_slice(&body.frame().await?.ok()?.into_data().ok()?);
        }
    }

    fn take(&mut self, frame: Frame) {
        if !frame.id.is_empty() {
            self.last_id = Some(frame.id);
        }
        match frame.name.as_str() {
            "" => self.events.push(frame.data),
            "end" => self.has_ended = true,
            "reset" => panic!("{}: the history was gone: {}", self.path, frame.data),
            _ => {}
        }
    }
}
