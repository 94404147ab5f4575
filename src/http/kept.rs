//! Where an output is: in a file here, in a blob, or in the terminal event.

use std::ops::Range;

use axum::body::Body;
use bytes::Bytes;
use futures::stream as parts;
use podherald_core::{
    event::{IndexOutput, Output, StreamSummary, Verdict},
    execution::Execution,
};

use sha2::{Digest, Sha256};

use super::{Error, State};
use crate::{
    blob::Blob,
    output_store::{self, Reader, Stream},
};

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// An output that can be read.
pub(super) enum Kept {
    File(Reader),
    Blob(Blob),
    Inline(Bytes),
}

impl Kept {
    /// Of what the attempt goes by; none if only the monitor has it.
    pub(super) async fn of_attempt(
        state: &State,
        execution: &Execution,
        output: &Output,
        stream: Stream,
    ) -> Result<Option<(Self, StreamSummary)>, Error> {
        let summary = if stream == Stream::Stderr { &output.stderr } else { &output.stdout };
        if let Some(reader) = state.outputs.reader(&execution.execution_id, execution.attempt, stream).await? {
            return Ok(Some((Self::File(reader), summary.clone())));
        }
        let uri = if stream == Stream::Raw { &output.raw_uri } else { &summary.uri };
        let kept = match uri {
            Some(_) if state.blobs.is_none() && !state.monitor.is_here() => return Ok(None),
            Some(uri) => Self::Blob(blob(state, uri).await?),
            None => match inline(execution, stream, summary)? {
                kept if !state.monitor.is_here() && !kept.is_all_of(stream, summary) => return Ok(None),
                kept => kept,
            },
        };
        Ok(Some((kept, summary.clone())))
    }

    /// Of an index there are files and blobs, or nothing; none if only the monitor has it.
    pub(super) async fn of_index(
        state: &State,
        execution: &Execution,
        output: &Output,
        index: u64,
        stream: Stream,
    ) -> Result<Option<(Self, StreamSummary)>, Error> {
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
        if let Some(reader) = reader.await? {
            return Ok(Some((Self::File(reader), summary)));
        }
        let kept = match uri_of_index(known, &summary, stream) {
            Some(_) if state.blobs.is_none() && !state.monitor.is_here() => return Ok(None),
            Some(uri) => Self::Blob(blob(state, uri).await?),
            None if summary.bytes_kept > 0 && !state.monitor.is_here() => return Ok(None),
            None if summary.verdict == Verdict::Lost || summary.bytes_kept > 0 => return Err(nothing_read()),
            None => Self::Inline(Bytes::new()),
        };
        Ok(Some((kept, summary)))
    }

    /// True if this is certainly the stream as the program wrote it.
    fn is_all_of(&self, stream: Stream, summary: &StreamSummary) -> bool {
        let Self::Inline(text) = self else { return true };
        let digest = || Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let is_it = summary.sha256.as_ref().is_some_and(|sha256| *sha256 == digest());
        stream != Stream::Raw && (is_it || (text.is_empty() && summary.bytes_kept == 0))
    }

    pub(super) fn length(&self) -> u64 {
        match self {
            Self::File(reader) => reader.length(),
            Self::Blob(blob) => blob.length(),
            Self::Inline(text) => text.len() as u64,
        }
    }

    /// These bytes, which there are; read as the client takes them.
    pub(super) async fn into_body(self, range: Range<u64>) -> Result<Body, Error> {
        let reader = match self {
            Self::File(reader) => reader,
            Self::Blob(blob) => return Ok(Body::from_stream(blob.read(range).await?)),
            Self::Inline(text) => {
                let at = |offset| usize::try_from(offset).expect("within a text in memory");
                return Ok(Body::from(text.slice(at(range.start)..at(range.end))));
            }
        };
        Ok(Body::from_stream(parts::try_unfold((reader, range.start), move |(reader, offset)| async move {
            let limit = usize::try_from(range.end - offset).unwrap_or(CHUNK).min(CHUNK);
            let bytes = reader.read(offset, limit).await?;
            let offset = offset + bytes.len() as u64;
            Ok::<_, output_store::Error>((!bytes.is_empty()).then_some((bytes, (reader, offset))))
        })))
    }
}

fn uri_of_index<'a>(known: &'a IndexOutput, summary: &'a StreamSummary, stream: Stream) -> Option<&'a str> {
    if stream == Stream::Raw { known.raw_uri.as_deref() } else { summary.uri.as_deref() }
}

async fn blob(state: &State, uri: &str) -> Result<Blob, Error> {
    let found = match &state.blobs {
        Some(blobs) => blobs.find(uri).await?,
        None => None,
    };
    found.ok_or_else(|| {
        Error::NoOutput(format!("it is no longer on podherald's own disk, and below blob.url there is no {uri}"))
    })
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
