//! Long lists as JSON lines: page after page, as the client takes them.

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderValue, header};
use serde::Serialize;

use super::{Error, State, seats::Seat};

/// Pages are asked for with the place where the one before ended; none after the last.
enum Position<P> {
    At(Option<P>),
    End,
}

/// A value as a line.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).expect("what is listed holds only strings, numbers and lists");
    line.push(b'\n');
    line.into()
}

/// The response that reads its pages, whose items are lines already, from this place on.
pub(super) fn response<P: Send + 'static, F>(
    state: Arc<State>,
    after: Option<P>,
    seat: Seat,
    read: impl Fn(Arc<State>, Option<P>) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = Result<(Vec<Bytes>, Option<P>), Error>> + Send,
{
    let begin = (Position::At(after), read, state, seat);
    let pages = stream::try_unfold(begin, |(position, read, state, seat)| async move {
        let Position::At(after) = position else { return Ok(None) };
        if state.closing.is_cancelled() {
            // Whoever reads must not take this for the end.
            return Err(Broken);
        }
        let (lines, next) = read(state.clone(), after).await.map_err(|error| {
            tracing::error!(reason = error.problem().detail, "a list breaks off");
            Broken
        })?;
        let mut page = BytesMut::with_capacity(lines.iter().map(Bytes::len).sum());
        lines.iter().for_each(|line| page.put(&**line));
        let position = next.map_or(Position::End, |next| Position::At(Some(next)));
        Ok(Some((page.freeze(), (position, read, state, seat))))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Body::from_stream(pages)).into_response()
}

#[derive(Debug, thiserror::Error)]
#[error("the list cannot be read on")]
struct Broken;
