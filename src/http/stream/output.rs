//! The output frames of one execution's stream.

use bytes::Bytes;
use podherald_core::{
    event::{ExitSource, Verdict},
    evidence::Evidence,
    execution::Execution,
};
use tokio::time::Instant;

use super::remote::Remote;
use crate::{
    http::{
        Monitor, State,
        frame::{self, Output},
        resume::OutputPlace,
    },
    journal,
    live_output::{Log, Shown, Watching},
    output_store::{Piece, Stream},
};

/// Bytes of the log in one frame.
const CHUNK: usize = 16 << 10;
/// The run of what was stored, for readers that did not follow that log: greater than any that was followed.
const STORED: u32 = u32::MAX;

/// What one execution prints, from where the reader is.
pub(super) enum Tail {
    /// Followed here, where the monitor is.
    Here(Box<Local>),
    /// As the monitor tells it.
    There(Box<Remote>),
}

impl Tail {
    /// None if nobody says where the monitor is.
    pub(super) fn new(state: &State, execution_id: &str, place: Option<OutputPlace>) -> Option<Self> {
        Some(match &state.monitor {
            Monitor::Here => Self::Here(Box::new(Local::new(state, execution_id, place))),
            Monitor::At(upstream) => Self::There(Box::new(Remote::new(upstream, execution_id, place))),
            Monitor::Unknown => return None,
        })
    }

    /// Where the reader is.
    pub(super) fn place(&self) -> Option<OutputPlace> {
        match self {
            Self::Here(local) => local.place(),
            Self::There(remote) => remote.place(),
        }
    }

    /// Waits for more.
    pub(super) async fn changed(&mut self) {
        match self {
            Self::Here(local) => local.changed().await,
            Self::There(remote) => remote.changed().await,
        }
    }

    /// True while more may come of this attempt's log before its stream ends.
    pub(super) fn is_open(&self, attempt: u32) -> bool {
        match self {
            Self::Here(local) => local.is_open(attempt),
            Self::There(remote) => remote.is_open(),
        }
    }

    /// When what is open after the execution's end is no longer waited for; none if it comes to its end by itself.
    pub(super) fn due(&mut self) -> Option<Instant> {
        match self {
            Self::Here(_) => None,
            Self::There(remote) => Some(remote.due()),
        }
    }

    /// The execution goes on: another attempt has begun.
    pub(super) fn go_on(&mut self) {
        if let Self::There(remote) = self {
            remote.go_on();
        }
    }

    /// That time has come.
    pub(super) fn give_up(&mut self) -> Part {
        match self {
            Self::Here(_) => Part::Nothing,
            Self::There(remote) => remote.give_up(),
        }
    }

    /// The next part of what is followed.
    pub(super) async fn next(&mut self) -> Part {
        match self {
            Self::Here(local) => local.next().await,
            Self::There(remote) => remote.next(),
        }
    }

    /// The next part of what was stored at the end, where it is not all there was.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(super) async fn rest(&mut self, state: &State, execution: &Execution) -> journal::Result<Part> {
        match self {
            Self::Here(local) => local.rest(state, execution).await,
            // The monitor has sent that, too.
            Self::There(_) => Ok(Part::Nothing),
        }
    }
}

/// Follows what one execution prints.
pub(super) struct Local {
    watching: Watching,
    shown: Shown,
    /// None until there is output.
    place: Option<OutputPlace>,
    was_refused: bool,
    /// The reader's place is known to be one in the stored log.
    is_in_stored: bool,
}

/// One step.
pub(super) enum Part {
    /// `data` of the next output frame, after which the reader is here.
    Frame(Vec<u8>),
    /// Nothing now.
    Nothing,
}

impl Local {
    fn new(state: &State, execution_id: &str, place: Option<OutputPlace>) -> Self {
        let mut watching = state.live.watch(execution_id);
        let shown = watching.look();
        Self { watching, shown, place, was_refused: false, is_in_stored: false }
    }

    /// Where the reader is.
    fn place(&self) -> Option<OutputPlace> {
        self.place
    }

    /// Waits for more.
    async fn changed(&mut self) {
        self.watching.changed().await;
        self.shown = self.watching.look();
    }

    /// True while more may come of this attempt's log before its stream ends.
    fn is_open(&self, attempt: u32) -> bool {
        self.shown.feed.as_ref().is_some_and(|feed| feed.attempt == attempt) && !self.shown.is_over
    }

    /// The next part of what is followed.
    async fn next(&mut self) -> Part {
        let was_refused = std::mem::replace(&mut self.was_refused, self.shown.is_refused);
        if self.shown.is_refused && !was_refused {
            let place = self.place.unwrap_or_default();
            return missing(
                place,
                None,
                "too many logs are followed already (logs.max_follows); the output comes with the end",
            );
        }
        let Some(feed) = &self.shown.feed else { return Part::Nothing };
        if self.place.is_some_and(|place| (place.attempt, place.run) == (feed.attempt, STORED)) {
            return Part::Nothing;
        }
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

    /// The next part of what was stored at the end, for a reader that has seen some of it live, or of another log of the
    /// attempt: another pod's, or of an earlier start of the container.
    ///
    /// # Errors
    /// If the journal cannot be read.
    async fn rest(&mut self, state: &State, execution: &Execution) -> journal::Result<Part> {
        let Some(place) = self.place.filter(|place| place.attempt == execution.attempt && place.offset != u64::MAX)
        else {
            return Ok(Part::Nothing);
        };
        if !self.is_in_stored {
            self.is_in_stored = place.run == STORED || is_stored(state, execution, place.run).await?;
        }
        Ok(self.rest_from(place, state, execution).await)
    }

    async fn rest_from(&mut self, mut place: OutputPlace, state: &State, execution: &Execution) -> Part {
        let stored = match stored(state, execution).await {
            Stored::Whole(read) => read,
            Stored::NotAll => {
                self.place = Some(OutputPlace { offset: u64::MAX, ..place });
                let has_all = self.is_in_stored && self.shown.feed.is_some() && self.shown.is_over;
                // Who followed it to its end has more than was stored.
                return if has_all {
                    Part::Nothing
                } else {
                    missing(place, None, "not stored in whole; GET .../output has what was kept")
                };
            }
        };
        if !self.is_in_stored {
            self.is_in_stored = true;
            self.place = Some(OutputPlace { run: STORED, offset: 0, ..place });
            return missing(place, None, "what was stored may be another log; it follows from its first byte");
        }
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
    Whole(Whole),
    NotAll,
}

enum Whole {
    File(crate::output_store::Reader),
    Inline(Bytes),
}

impl Whole {
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
        Ok(Some(reader)) => Stored::Whole(Whole::File(reader)),
        Ok(None) => {
            // A small report is told by its fields alone; how it was spelled is not kept.
            let is_report = execution.exit.is_some_and(|exit| exit.source == ExitSource::Report)
                || execution.resource_usage.is_some();
            match &execution.stdout {
                Some(text) if !is_report => Stored::Whole(Whole::Inline(Bytes::copy_from_slice(text.as_bytes()))),
                _ => Stored::NotAll,
            }
        }
        Err(error) => {
            tracing::error!(%error, "stored output cannot be read");
            Stored::NotAll
        }
    }
}

/// True if this run is known to be the log that was stored.
async fn is_stored(state: &State, execution: &Execution, run: u32) -> journal::Result<bool> {
    let Some(pod) = told_pod(state, execution).await? else { return Ok(false) };
    let log = Log { uid: pod.uid.into(), restarts: Some(pod.restart_count) };
    Ok(state.live.is_of(run, &log))
}

/// The pod whose output is the attempt's; none if nobody knows.
async fn told_pod(state: &State, execution: &Execution) -> journal::Result<Option<Evidence>> {
    let evidence = async |uid: String| {
        let known = state.journal.known(vec![(uid, execution.execution_id.clone())]).await?;
        journal::Result::Ok(known.into_iter().next().and_then(|known| known.evidence))
    };
    let mut pods = execution.pods.iter().filter(|pod| pod.attempt == execution.attempt);
    let Some(first) = pods.next() else { return Ok(None) };
    let Some(pod) = evidence(first.uid.clone()).await? else { return Ok(None) };
    let Some(part) = pod.subject.of_job() else { return Ok(pods.next().is_none().then_some(pod)) };
    let job = evidence(part.job.clone()).await?;
    match job.as_ref().and_then(|job| job.subject.job()?.chosen.clone()) {
        Some(chosen) => evidence(chosen).await,
        None => Ok(None),
    }
}

pub(super) fn missing(place: OutputPlace, next: Option<u64>, why: &str) -> Part {
    data(&Output::missing(place, next, why))
}

fn data(output: &Output<'_>) -> Part {
    Part::Frame(frame::data(output))
}
