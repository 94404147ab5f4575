//! The output frames of one execution's stream.

use bytes::Bytes;
use podherald_core::{
    event::{ExitSource, Verdict},
    execution::Execution,
};

use crate::{
    http::{
        State,
        frame::{self, Output},
        resume::OutputPlace,
    },
    live_output::{Shown, Watching},
    output_store::{Piece, Stream},
};

/// Bytes of the log in one frame.
const CHUNK: usize = 16 << 10;

/// Follows what one execution prints, from where the reader is.
pub(super) struct Tail {
    watching: Watching,
    shown: Shown,
    /// None until there is output.
    place: Option<OutputPlace>,
    was_refused: bool,
}

/// One step.
pub(super) enum Part {
    /// `data` of the next output frame, after which the reader is here.
    Frame(Vec<u8>),
    /// Nothing now.
    Nothing,
}

impl Tail {
    pub(super) fn new(state: &State, execution_id: &str, place: Option<OutputPlace>) -> Self {
        let mut watching = state.live.watch(execution_id);
        let shown = watching.look();
        Self { watching, shown, place, was_refused: false }
    }

    /// Where the reader is.
    pub(super) fn place(&self) -> Option<OutputPlace> {
        self.place
    }

    /// Waits for more.
    pub(super) async fn changed(&mut self) {
        self.watching.changed().await;
        self.shown = self.watching.look();
    }

    /// True while more may come of this attempt's log before its stream ends.
    pub(super) fn is_open(&self, attempt: u32) -> bool {
        self.shown.feed.as_ref().is_some_and(|feed| feed.attempt == attempt) && !self.shown.is_over
    }

    /// The next part of what is followed.
    pub(super) async fn next(&mut self) -> Part {
        if self.shown.is_refused && !std::mem::replace(&mut self.was_refused, true) {
            let place = self.place.unwrap_or_default();
            return missing(
                place,
                None,
                "too many logs are followed already (logs.max_follows); the output comes with the end",
            );
        }
        let Some(feed) = &self.shown.feed else { return Part::Nothing };
        let is_same = |place: &OutputPlace| (place.attempt, place.run) == (feed.attempt, feed.run);
        let mut place =
            self.place.filter(is_same).unwrap_or(OutputPlace { attempt: feed.attempt, run: feed.run, offset: 0 });
        let part = match feed.read(place.offset, CHUNK).await {
            Ok(Piece::Bytes(bytes)) => match Output::of(place, &bytes, self.shown.is_over) {
                Some((output, length)) => {
                    place.offset += length as u64;
                    data(&output)
                }
                None => return Part::Nothing,
            },
            Ok(Piece::Missing(until)) => {
                self.watching.missed(until - place.offset);
                let gap = Output::missing(
                    place,
                    Some(until),
                    "the reader was too slow; GET .../output has more once the execution has ended",
                );
                place.offset = until;
                data(&gap)
            }
            Ok(Piece::Nothing) => return Part::Nothing,
            Err(error) => {
                tracing::error!(%error, "live output cannot be read");
                return Part::Nothing;
            }
        };
        self.place = Some(place);
        part
    }

    /// The next part of what was stored at the end, for a reader that has seen some of it live.
    pub(super) async fn rest(&mut self, state: &State, execution: &Execution) -> Part {
        let Some(mut place) = self.place.filter(|place| place.attempt == execution.attempt && place.offset != u64::MAX)
        else {
            return Part::Nothing;
        };
        let stored = match stored(state, execution).await {
            Stored::Whole(read) => read,
            Stored::NotAll => {
                self.place = Some(OutputPlace { offset: u64::MAX, ..place });
                let has_all = self.shown.feed.is_some() && self.shown.is_over;
                // Who followed it to its end has more than was stored.
                return if has_all {
                    Part::Nothing
                } else {
                    missing(place, None, "not stored in whole; GET .../output has what was kept")
                };
            }
        };
        let bytes = match stored.read(place.offset).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%error, "stored output cannot be read");
                return Part::Nothing;
            }
        };
        let Some((output, length)) = Output::of(place, &bytes, true) else { return Part::Nothing };
        let part = data(&output);
        place.offset += length as u64;
        self.place = Some(place);
        part
    }
}

enum Stored {
    /// All of the log is there.
    Whole(Log),
    NotAll,
}

enum Log {
    File(crate::output_store::Reader),
    Inline(Bytes),
}

impl Log {
    async fn read(&self, offset: u64) -> crate::output_store::Result<Bytes> {
        match self {
            Self::File(reader) => reader.read(offset, CHUNK).await,
            Self::Inline(text) => {
                let from = usize::try_from(offset).map_or(text.len(), |offset| offset.min(text.len()));
                Ok(text.slice(from..text.len().min(from.saturating_add(CHUNK))))
            }
        }
    }
}

/// The log of an execution that has ended, byte for byte as it came.
async fn stored(state: &State, execution: &Execution) -> Stored {
    let is_cut = execution.output.as_ref().is_none_or(|output| output.stdout.verdict != Verdict::Complete);
    if is_cut {
        return Stored::NotAll;
    }
    match state.outputs.reader(&execution.execution_id, execution.attempt, Stream::Raw).await {
        Ok(Some(reader)) => Stored::Whole(Log::File(reader)),
        Ok(None) => {
            // A small report is told by its fields alone; how it was spelled is not kept.
            let is_report = execution.exit.is_some_and(|exit| exit.source == ExitSource::Report)
                || execution.resource_usage.is_some();
            match &execution.stdout {
                Some(text) if !is_report => Stored::Whole(Log::Inline(Bytes::copy_from_slice(text.as_bytes()))),
                _ => Stored::NotAll,
            }
        }
        Err(error) => {
            tracing::error!(%error, "stored output cannot be read");
            Stored::NotAll
        }
    }
}

fn missing(place: OutputPlace, next: Option<u64>, why: &str) -> Part {
    data(&Output::missing(place, next, why))
}

fn data(output: &Output<'_>) -> Part {
    Part::Frame(frame::data(output))
}
