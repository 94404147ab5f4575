//! Event streams as response bodies.
//!
//! A stream subscribes to the journal before it reads it, and skips what both have, so nothing falls between (T117).
//! It makes a frame only when the connection asks for one: what a slow reader has not taken waits in the journal, not
//! in memory. One that falls behind the journal's buffer reads what it missed (T118).

mod many;
mod one;
mod output;
mod remote;

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, StatusCode, header};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

pub(super) use many::{Filter, Many};
pub(super) use one::{Content, One};

use self::output::Tail;
use super::{State, frame, metrics::Open, seats::Seat};
use crate::{
    crash,
    journal::{self, Follower, Next},
};

/// Records read at a time by a reader that catches up, and so the most that it holds.
const PAGE: usize = 32;
/// Frames that may go out in a row before the stream looks whether it has to end.
const BATCH: u32 = 32;

/// A source of frames.
pub(super) trait Frames: Send + 'static {
    /// The next frame; none at the end of the stream.
    fn next(&mut self) -> impl Future<Output = journal::Result<Option<Bytes>>> + Send;
}

/// The response that sends these frames.
pub(super) fn response(frames: impl Frames, seat: Seat) -> Response {
    // Boxed: the stream's state would otherwise be held twice, beside the future that borrows it.
    let body = stream::try_unfold((Box::new(frames), seat), |(mut frames, seat)| async move {
        match frames.next().await {
            Ok(frame) => {
                crash::at(crash::Point::Serve);
                Ok(frame.map(|frame| (frame, (frames, seat))))
            }
            Err(error) => {
                tracing::error!(%error, "an event stream breaks off: the journal could not be read");
                Err(error)
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(body)).into_response()
}

/// The answer to a reader that has everything: an EventSource stops on it (T120).
pub(super) fn nothing_more() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// What a stream waits with.
struct Line {
    state: Arc<State>,
    follower: Follower,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    heartbeat: Pin<Box<Sleep>>,
    /// Something is to be looked at again then.
    due: Option<Instant>,
    last_frame: Instant,
    /// Frames left until the next look at `closing`, which costs a lock that all streams share.
    left_in_batch: u32,
    _open: Open,
}

/// Why a stream woke up.
enum Wake {
    Next(Next),
    /// There may be more output.
    Output,
    Heartbeat,
    /// See [`Line::due`].
    Due,
    Closing,
}

impl Line {
    fn new(state: Arc<State>, follower: Follower) -> Self {
        Self {
            follower,
            closing: Box::pin(state.closing.clone().cancelled_owned()),
            heartbeat: Box::pin(tokio::time::sleep(state.options.heartbeat)),
            due: None,
            last_frame: Instant::now(),
            left_in_batch: 0,
            _open: state.metrics.open_stream(),
            state,
        }
    }

    /// True once the server stops; may say so only at the end of a batch.
    fn is_closing(&mut self) -> bool {
        match self.left_in_batch.checked_sub(1) {
            Some(left) => {
                self.left_in_batch = left;
                false
            }
            None => {
                self.left_in_batch = BATCH;
                self.state.closing.is_cancelled()
            }
        }
    }

    /// Puts off the heartbeat. The timer is left alone and looks here when it fires: frames are many, silences few.
    fn sent(&mut self) {
        self.last_frame = Instant::now();
    }

    async fn wait(&mut self, mut tail: Option<&mut Tail>) -> Wake {
        loop {
            tokio::select! {
                biased;
                next = self.follower.next() => return Wake::Next(next),
                () = output(tail.as_deref_mut()) => return Wake::Output,
                () = &mut self.closing => return Wake::Closing,
                () = until(self.due) => return Wake::Due,
                () = &mut self.heartbeat => {
                    let now = Instant::now();
                    let due = self.last_frame + self.state.options.heartbeat;
                    if due > now {
                        self.heartbeat.as_mut().reset(due);
                        continue;
                    }
                    self.heartbeat.as_mut().reset(now + self.state.options.heartbeat);
                    return Wake::Heartbeat;
                }
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn output(tail: Option<&mut Tail>) {
    match tail {
        Some(tail) => tail.changed().await,
        None => std::future::pending().await,
    }
}

/// Browsers that lost one server must not all come back in the same instant.
fn retry() -> Bytes {
    let spread = rand::random_range(1_000..=3_000);
    frame::retry(spread)
}
