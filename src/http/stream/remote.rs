//! The output frames of an execution whose log another process follows, as that one sends them.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::output::{Part, missing};
use crate::{
    backoff::Backoff,
    http::resume::{OnePlace, OutputPlace},
    upstream::Upstream,
};

/// Until the next try.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A monitor that is back must be heard before [`PATIENCE`] is over.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An execution's end waits so long for the rest of its output.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of one frame, and so of what is held.
const MAX_FRAME: usize = 1 << 20;

/// The monitor's stream of one execution's output, from where the reader is.
pub(super) struct Remote {
    upstream: Upstream,
    path: String,
    place: Option<OutputPlace>,
    link: Link,
    backoff: Backoff,
    text: Vec<u8>,
    ready: VecDeque<(OutputPlace, Vec<u8>)>,
    /// Since when the execution has ended and this has not.
    late_since: Option<Instant>,
}

enum Link {
    /// Locked by nobody: a stream must be `Sync`, and a future is not.
    Asking(Mutex<BoxFuture<'static, Result<Incoming, String>>>),
    Open(Incoming),
    Resting(Pin<Box<Sleep>>),
    Over,
}

impl Remote {
    pub(super) fn new(upstream: &Upstream, execution_id: &str, place: Option<OutputPlace>) -> Self {
        let path = format!("/executions/{}/output", encoded(execution_id));
        let mut remote = Self {
            upstream: upstream.clone(),
            path,
            place,
            link: Link::Over,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
            text: Vec::new(),
            ready: VecDeque::new(),
            late_since: None,
        };
        remote.ask();
        remote
    }

    pub(super) fn place(&self) -> Option<OutputPlace> {
        self.place
    }

    fn ask(&mut self) {
        let (upstream, path) = (self.upstream.clone(), self.path.clone());
        let output = self.ready.back().map(|(place, _)| *place).or(self.place);
        let id = OnePlace { output, ..OnePlace::default() }.to_string();
        let ask = async move {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
            let id = HeaderValue::from_str(&id).map_err(|error| error.to_string())?;
            headers.insert("last-event-id", id);
            let answer = upstream.get(&path, &headers).await?;
            match answer.status() {
                StatusCode::OK => Ok(answer.into_body()),
                status => Err(format!("it answers {status}")),
            }
        };
        self.text.clear();
        self.link = Link::Asking(Mutex::new(ask.boxed()));
    }

    /// Waits for more. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) {
        loop {
            if !self.ready.is_empty() {
                return;
            }
            match &mut self.link {
                Link::Asking(answer) => match answer.get_mut().unwrap_or_else(PoisonError::into_inner).await {
                    Ok(body) => self.link = Link::Open(body),
                    Err(reason) => self.rest(&reason),
                },
                Link::Open(body) => match body.frame().await {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            self.take(&data);
                        }
                        if matches!(self.link, Link::Over) {
                            return;
                        }
                    }
                    Some(Err(error)) => self.rest(&crate::wording::of(&error)),
                    None => self.rest("it broke off"),
                },
                Link::Resting(rest) => {
                    rest.as_mut().await;
                    self.ask();
                }
                Link::Over => return std::future::pending().await,
            }
        }
    }

    fn rest(&mut self, reason: &str) {
        tracing::debug!(path = self.path, reason, "the monitor's output stream has ended early, asking again");
        self.link = Link::Resting(Box::pin(sleep(self.backoff.pause())));
    }

    fn take(&mut self, data: &Bytes) {
        self.text.extend_from_slice(data);
        while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
            let frame: Vec<u8> = self.text.drain(..end + 2).collect();
            match Frame::parse(&frame) {
                Some(Frame::Output(place, data)) => {
                    self.backoff.reset();
                    self.ready.push_back((place, data));
                }
                Some(Frame::End) => {
                    self.link = Link::Over;
                    return;
                }
                None => {}
            }
        }
        if self.text.len() > MAX_FRAME {
            self.rest("a frame is larger than any of podherald's");
        }
    }

    /// The next part that has come.
    pub(super) fn next(&mut self) -> Part {
        let Some((place, data)) = self.ready.pop_front() else { return Part::Nothing };
        self.place = Some(place);
        Part::Frame(data)
    }

    /// True while more may come.
    pub(super) fn is_open(&self) -> bool {
        !self.ready.is_empty() || !matches!(self.link, Link::Over)
    }

    /// When the rest is no longer waited for, after the execution's end.
    pub(super) fn due(&mut self) -> Instant {
        *self.late_since.get_or_insert_with(Instant::now) + PATIENCE
    }

    /// Another attempt has begun, which the stream that has ended knows nothing of.
    pub(super) fn go_on(&mut self) {
        self.late_since = None;
        if matches!(self.link, Link::Over) {
            self.ask();
        }
    }

    /// Says so, once that time has come.
    pub(super) fn give_up(&mut self) -> Part {
        self.link = Link::Over;
        let place = self.place.unwrap_or_default();
        missing(place, None, "the monitor does not give the rest; GET .../output has what was kept")
    }
}

enum Frame {
    Output(OutputPlace, Vec<u8>),
    End,
}

impl Frame {
    /// One of the two, if it is.
    fn parse(frame: &[u8]) -> Option<Self> {
        let (mut name, mut id, mut data) = (&b""[..], None, Vec::new());
        for line in frame.split(|byte| *byte == b'\n') {
            if let Some(value) = line.strip_prefix(b"event: ") {
                name = value;
            } else if let Some(value) = line.strip_prefix(b"id: ") {
                id = std::str::from_utf8(value).ok().and_then(OnePlace::parse);
            } else if let Some(value) = line.strip_prefix(b"data: ") {
                data.extend_from_slice(value);
            }
        }
        match name {
            b"output" => Some(Self::Output(id?.output?, data)),
            b"end" => Some(Self::End),
            _ => None,
        }
    }
}

/// As a segment of a path.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_monitors_frames_those_of_output_and_the_end_count() {
        let frames = "retry: 1000\n\nevent: output\nid: 0@1.7.3\ndata: {\"a\":1}\n\nevent: heartbeat\ndata: {}\n\nevent: end\nid: 0~end\ndata: {}\n\n";
        let parsed: Vec<_> = frames.split_inclusive("\n\n").map(|frame| Frame::parse(frame.as_bytes())).collect();
        assert!(parsed[0].is_none() && parsed[2].is_none());
        let place = OutputPlace { attempt: 1, run: 7, offset: 3 };
        assert!(matches!(&parsed[1], Some(Frame::Output(at, data)) if *at == place && data == b"{\"a\":1}"));
        assert!(matches!(parsed[3], Some(Frame::End)));
        assert_eq!(encoded("a b/é"), "a%20b%2F%C3%A9");
    }
}
