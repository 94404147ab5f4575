//! `/executions/{id}/output`: what the program printed.

use std::{ops::Range, sync::Arc};

use axum::{
    extract::{self, Path, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use podherald_core::event::Verdict;

use super::{
    Error, Problem, State, elsewhere,
    kept::Kept,
    negotiate::{self, Media},
    query::Parameters,
    range::{self, Asked},
    resume::{self, OnePlace},
    stream::{self, Content, One},
};
use crate::output_store::Stream;

const NEXT_OFFSET: HeaderName = HeaderName::from_static("podherald-next-offset");
const KEPT_BYTES: HeaderName = HeaderName::from_static("podherald-kept-bytes");
const TOTAL_BYTES: HeaderName = HeaderName::from_static("podherald-total-bytes");
const VERDICT: HeaderName = HeaderName::from_static("podherald-verdict");

/// What the latest attempt printed, as bytes.
///
/// Offsets count the bytes that podherald has kept: `podherald-kept-bytes`. The header `podherald-total-bytes` says how
/// many there were, where that is known, and `podherald-verdict` how far to trust what there is. A request for
/// `podherald-next-offset` goes on where this answer ends. `raw` is the log as it came, report and all. Without `offset` and
/// `limit` a `Range` of bytes counts. What is no longer on podherald's own disk is read from the blob store, if there is one.
///
/// With `Accept: text/event-stream` the answer is the stream of `/executions/{id}/events` without the events.
#[utoipa::path(
    get, path = "/executions/{id}/output", tag = "executions",
    params(
        ("id" = String, Path, description = "The execution's id"),
        ("stream" = Option<String>, Query, description = "`stdout` (the default), `stderr` or `raw`"),
        ("index" = Option<u32>, Query, description = "Of an Indexed Job: the output of this index, in place of that which the attempt goes by"),
        ("offset" = Option<u64>, Query, description = "The first byte, counted from 0"),
        ("limit" = Option<u64>, Query, description = "Bytes at most; without it all"),
        ("Range" = Option<String>, Header, description = "`bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT`"),
        ("If-Range" = Option<String>, Header, description = "The range counts if this is the ETag still"),
        ("last_event_id" = Option<String>, Query, description = "Stream: resume after this id"),
        ("Last-Event-ID" = Option<String>, Header, description = "Stream: the same, and outranks the parameter"),
    ),
    responses(
        (status = 200, content((String = "text/plain"), (String = "application/octet-stream"), (String = "text/event-stream")), headers(
            ("etag" = String, description = "Of all that there is of this stream"),
            ("podherald-next-offset" = u64, description = "Where this answer ends"),
            ("podherald-kept-bytes" = u64, description = "Bytes that there are to read"),
            ("podherald-total-bytes" = u64, description = "Bytes that the program wrote; absent if unknown, and for raw"),
            ("podherald-verdict" = String, description = "complete, truncated, partial or lost"),
        )),
        (status = 206, description = "The `Range` that was asked for", headers(
            ("content-range" = String, description = "`bytes FIRST-LAST/ALL`"),
        )),
        (status = 204, description = "The stream has ended and the caller has all of it"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such execution, or no such output of it", body = Problem,
         content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 416, description = "The `Range` begins where there is nothing; `content-range` says how much there is",
         body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The blob store cannot be read now. Stream: `http.max_streams` are open already, or the server stops", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
    mut parameters: Parameters,
) -> Result<Response, Error> {
    let Path(id) = path.map_err(|_| Error::NoRoute)?;
    let media = negotiate::choose(&headers, &[Media::Text, Media::Bytes, Media::EventStream])?;
    if media == Media::EventStream {
        let place = resume::read(&headers, &mut parameters, OnePlace::parse)?.unwrap_or_default();
        parameters.finish()?;
        if place.ended {
            return Ok(stream::nothing_more());
        }
        if state.monitor.elsewhere()?.is_some() {
            elsewhere::is_first(&headers)?;
        }
        let seat = state.seats.take()?;
        state.recall(&id).await?;
        return Ok(stream::response(One::open(state, id, place, Content::Output).await?, seat));
    }
    let stream = parameters.read("stream", |text| {
        [Stream::Stdout, Stream::Stderr, Stream::Raw]
            .into_iter()
            .find(|stream| stream.as_str() == text)
            .ok_or_else(|| format!("must be stdout, stderr or raw, not {text:?}"))
    })?;
    let stream = stream.unwrap_or(Stream::Stdout);
    let index = parameters.number("index")?;
    let (offset, limit) = (parameters.number("offset")?, parameters.number("limit")?);
    parameters.finish()?;

    state.recall(&id).await?;
    let Some(execution) = state.journal.execution(id.clone()).await? else { return Err(Error::NoExecution(id)) };
    let Some(output) = &execution.output else {
        return Err(Error::NoOutput(
            "the execution has not ended: its output is read when it has; follow it with Accept: text/event-stream"
                .to_owned(),
        ));
    };
    let kept = match index {
        Some(index) => Kept::of_index(&state, &execution, output, index, stream).await?,
        None => Kept::of_attempt(&state, &execution, output, stream).await?,
    };
    let Some((kept, summary)) = kept else {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        return match state.monitor.elsewhere()? {
            Some(upstream) => elsewhere::ask(upstream, path, &headers).await,
            None => Err(Error::Unreadable),
        };
    };
    let length = kept.length();
    let tag = tag(execution.attempt, index, stream, length);
    let by_query = offset.is_some() || limit.is_some();
    let asked = if by_query { Asked::All } else { range::asked(&headers, length, &tag) };
    let (status, bytes) = match asked {
        Asked::All => (StatusCode::OK, within(length, offset, limit)?),
        Asked::Part(bytes) => (StatusCode::PARTIAL_CONTENT, bytes),
        Asked::NotThere => return Err(Error::NotSatisfiable { length }),
    };

    let (content_type, disposition) = match media {
        Media::Bytes => ("application/octet-stream", "attachment"),
        _ => ("text/plain; charset=utf-8", "inline"),
    };
    let disposition = format!("{disposition}; filename=\"{}.txt\"", stream.as_str());
    let mut response = (status, kept.into_body(bytes.clone()).await?).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{length}", bytes.start, bytes.end - 1);
        headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&range).expect("made of numbers"));
    }
    if !by_query {
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("made of fixed words and numbers"));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, (bytes.end - bytes.start).into());
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_str(&disposition).expect("made of fixed words of ASCII"),
    );
    // Whatever a program prints must not run as this origin's script, not even where a browser would guess.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(NEXT_OFFSET, bytes.end.into());
    headers.insert(KEPT_BYTES, length.into());
    if let Some(total) = summary.bytes_total.filter(|_| stream != Stream::Raw) {
        headers.insert(TOTAL_BYTES, total.into());
    }
    headers.insert(VERDICT, HeaderValue::from_static(verdict(summary.verdict)));
    Ok(response)
}

/// The bytes that the parameters ask for.
fn within(length: u64, offset: Option<u64>, limit: Option<u64>) -> Result<Range<u64>, Error> {
    let offset = offset.unwrap_or(0);
    if offset > length {
        return Err(Error::invalid("offset", format!("must be at most {length}, the bytes that there are")));
    }
    Ok(offset..length.min(offset.saturating_add(limit.unwrap_or(u64::MAX))))
}

/// What an attempt printed never changes once it has ended.
fn tag(attempt: u32, index: Option<u64>, stream: Stream, length: u64) -> String {
    let index = index.map(|index| format!("{index}-")).unwrap_or_default();
    format!("\"{attempt}-{index}{}-{length}\"", stream.as_str())
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Complete => "complete",
        Verdict::Truncated => "truncated",
        Verdict::Partial => "partial",
        Verdict::Lost => "lost",
    }
}
