//! `/executions/{id}/output`: what the program printed.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{self, Path, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream as parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use podherald_core::{
    event::{Output, StreamSummary, Verdict},
    execution::Execution,
};

use super::{
    Error, Problem, State,
    negotiate::{self, Media},
    query::Parameters,
    resume::{self, OnePlace},
    stream::{self, Content, One},
};
use crate::output_store::{self, Reader, Stream};

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

const NEXT_OFFSET: HeaderName = HeaderName::from_static("podherald-next-offset");
const KEPT_BYTES: HeaderName = HeaderName::from_static("podherald-kept-bytes");
const TOTAL_BYTES: HeaderName = HeaderName::from_static("podherald-total-bytes");
const VERDICT: HeaderName = HeaderName::from_static("podherald-verdict");

/// What the latest attempt printed, as bytes.
///
/// Offsets count the bytes that podherald has kept: `podherald-kept-bytes`. The header `podherald-total-bytes` says how
/// many there were, where that is known, and `podherald-verdict` how far to trust what there is. A request for
/// `podherald-next-offset` goes on where this answer ends. `raw` is the log as it came, report and all.
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
        ("last_event_id" = Option<String>, Query, description = "Stream: resume after this id"),
        ("Last-Event-ID" = Option<String>, Header, description = "Stream: the same, and outranks the parameter"),
    ),
    responses(
        (status = 200, content((String = "text/plain"), (String = "application/octet-stream"), (String = "text/event-stream")), headers(
            ("podherald-next-offset" = u64, description = "Where this answer ends"),
            ("podherald-kept-bytes" = u64, description = "Bytes that there are to read"),
            ("podherald-total-bytes" = u64, description = "Bytes that the program wrote; absent if unknown, and for raw"),
            ("podherald-verdict" = String, description = "complete, truncated, partial or lost"),
        )),
        (status = 204, description = "The stream has ended and the caller has all of it"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such execution, or no such output of it", body = Problem,
         content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Stream: `http.max_streams` are open already, or the server stops", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    path: Result<Path<String>, PathRejection>,
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
        let seat = state.seats.take()?;
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
    let offset = parameters.number("offset")?.unwrap_or(0);
    let limit = parameters.number("limit")?.unwrap_or(u64::MAX);
    parameters.finish()?;

    let Some(execution) = state.journal.execution(id.clone()).await? else { return Err(Error::NoExecution(id)) };
    let Some(output) = &execution.output else {
        return Err(Error::NoOutput(
            "the execution has not ended: its output is read when it has; follow it with Accept: text/event-stream"
                .to_owned(),
        ));
    };
    let (kept, summary) = match index {
        Some(index) => of_index(&state, &execution, output, index, stream).await?,
        None => {
            let summary = if stream == Stream::Stderr { &output.stderr } else { &output.stdout };
            let kept = match state.outputs.reader(&id, execution.attempt, stream).await? {
                Some(reader) => Kept::File(reader),
                None => inline(&execution, stream, summary)?,
            };
            (kept, summary.clone())
        }
    };
    let length = kept.length();
    if offset > length {
        return Err(Error::invalid("offset", format!("must be at most {length}, the bytes that there are")));
    }
    let end = length.min(offset.saturating_add(limit));

    let (content_type, disposition) = match media {
        Media::Bytes => ("application/octet-stream", "attachment"),
        _ => ("text/plain; charset=utf-8", "inline"),
    };
    let disposition = format!("{disposition}; filename=\"{}.txt\"", stream.as_str());
    let mut response = kept.into_body(offset, end).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, (end - offset).into());
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_str(&disposition).expect("made of fixed words of ASCII"),
    );
    // Whatever a program prints must not run as this origin's script, not even where a browser would guess.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(NEXT_OFFSET, end.into());
    headers.insert(KEPT_BYTES, length.into());
    if let Some(total) = summary.bytes_total.filter(|_| stream != Stream::Raw) {
        headers.insert(TOTAL_BYTES, total.into());
    }
    headers.insert(VERDICT, HeaderValue::from_static(verdict(summary.verdict)));
    Ok(response)
}

/// Of an index there are files, or nothing.
async fn of_index(
    state: &State,
    execution: &Execution,
    output: &Output,
    index: u64,
    stream: Stream,
) -> Result<(Kept, StreamSummary), Error> {
    let known = output.indexes.as_ref().and_then(|it| it.outputs.iter().find(|it| u64::from(it.index) == index));
    let Some(known) = known else {
        return Err(Error::NoOutput(format!(
            "no output of index {index} is kept; output.indexes of the execution lists those that completed below \
             logs.max_indexes"
        )));
    };
    let summary = match stream {
        Stream::Stderr => known.stderr.clone().unwrap_or_else(|| no_stderr(&known.stdout)),
        Stream::Stdout | Stream::Raw => known.stdout.clone(),
    };
    let reader = state.outputs.reader_of_pod(&execution.execution_id, execution.attempt, &known.pod_uid, stream);
    match reader.await? {
        Some(reader) => Ok((Kept::File(reader), summary)),
        None if summary.verdict == Verdict::Lost || summary.bytes_kept > 0 => Err(nothing_read()),
        None => Ok((Kept::Inline(Bytes::new()), summary)),
    }
}

/// The verdict describes the log, also where it told no stderr apart.
fn no_stderr(stdout: &StreamSummary) -> StreamSummary {
    StreamSummary { verdict: stdout.verdict, ..StreamSummary::default() }
}

fn nothing_read() -> Error {
    Error::NoOutput("nothing of this stream could be read; the execution's cause may say why".to_owned())
}

/// Where there is no file, the text of the terminal event is all there is.
fn inline(execution: &Execution, stream: Stream, summary: &StreamSummary) -> Result<Kept, Error> {
    let text = match stream {
        Stream::Stderr => execution.stderr.as_deref(),
        Stream::Stdout | Stream::Raw => execution.stdout.as_deref(),
    };
    let text = text.unwrap_or_default();
    if text.is_empty() && summary.verdict == Verdict::Lost {
        return Err(nothing_read());
    }
    Ok(Kept::Inline(Bytes::copy_from_slice(text.as_bytes())))
}

enum Kept {
    File(Reader),
    Inline(Bytes),
}

impl Kept {
    fn length(&self) -> u64 {
        match self {
            Self::File(reader) => reader.length(),
            Self::Inline(text) => text.len() as u64,
        }
    }

    /// The bytes from `offset` to `end`, both within the length; read as the client takes them.
    fn into_body(self, offset: u64, end: u64) -> Body {
        let reader = match self {
            Self::File(reader) => reader,
            Self::Inline(text) => {
                let at = |offset| usize::try_from(offset).expect("within a text in memory");
                return Body::from(text.slice(at(offset)..at(end)));
            }
        };
        Body::from_stream(parts::try_unfold((reader, offset), move |(reader, offset)| async move {
            let limit = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
            let bytes = reader.read(offset, limit).await?;
            let offset = offset + bytes.len() as u64;
            Ok::<_, output_store::Error>((!bytes.is_empty()).then_some((bytes, (reader, offset))))
        }))
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Complete => "complete",
        Verdict::Truncated => "truncated",
        Verdict::Partial => "partial",
        Verdict::Lost => "lost",
    }
}
