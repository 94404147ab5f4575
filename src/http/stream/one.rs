//! One execution's stream: snapshot, its events, and the end.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
    vec,
};

use bytes::Bytes;
use podherald_core::execution::{Execution, ResultState, VersionVector};
use tokio::time::{Instant, timeout_at};

use super::{
    Frames, Line, PAGE, Wake,
    output::{Part, Tail},
    retry,
};
use crate::{
    http::{State, frame, resume::OnePlace},
    journal::{Next, Record, Result},
};

/// A result that is not there so long after the end is not waited for any longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a reader has, and this process has not yet, is waited for so long.
const LATENESS: Duration = Duration::from_secs(5);

/// Follows one execution.
pub(in crate::http) struct One {
    line: Line,
    id: String,
    content: Content,
    /// None where the reader wants no output.
    tail: Option<Tail>,
    /// Frames that go out before anything else.
    ahead: VecDeque<Bytes>,
    /// Read from the journal and not yet sent.
    page: vec::IntoIter<Arc<Record>>,
    /// What the reader has.
    seen: VersionVector,
    /// What it had when it came: of a source, what another process told late may come after what was told later.
    brought: VersionVector,
    /// Of the last record taken from the journal or the follower.
    position: u64,
    phase: Phase,
    /// The latest attempt may have ended; the journal decides.
    may_be_over: bool,
    /// The position at which the journal last had more than was sent.
    behind_at: Option<u64>,
    /// All events are out, and the followed log is not at its end, or the result is not there yet.
    awaits_more: bool,
    /// A result is not waited for any longer then.
    result_due: Option<Instant>,
}

/// What a reader wants of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Content {
    Events,
    Output,
    Both,
}

enum Phase {
    /// Nobody has seen the execution yet.
    Absent,
    /// Reading the journal.
    Past,
    /// Following it.
    Live,
    Over,
}

impl One {
    /// A stream for a reader that is at this place.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(in crate::http) async fn open(
        state: Arc<State>,
        id: String,
        place: OnePlace,
        content: Content,
    ) -> Result<Self> {
        let follower = state.journal.follow(&id);
        let OnePlace { seen, output, .. } = place;
        let tail = if content == Content::Events { None } else { Tail::new(&state, &id, output) };
        let mut one = Self {
            line: Line::new(state, follower),
            id,
            content,
            tail,
            ahead: VecDeque::from([retry()]),
            page: Vec::new().into_iter(),
            brought: seen.clone(),
            seen,
            position: 0,
            phase: Phase::Absent,
            may_be_over: false,
            behind_at: None,
            awaits_more: false,
            result_due: None,
        };
        let mut execution = one.execution().await?;
        if !one.is_covered_by(execution.as_ref()) && one.line.state.options.hears_late {
            execution = one.catch_up(execution).await?;
        }
        // A reader that has more than the journal has comes from another history: an older copy or a lost disk.
        if !one.is_covered_by(execution.as_ref()) {
            one.reset();
        }
        if let Some(execution) = execution {
            if execution.status.is_terminal() && output.is_none() && !one.line.state.monitor.is_here() {
                // Nothing of it is live any more, and the events have what was kept.
                one.tail = None;
            }
            one.begin(&execution);
        }
        Ok(one)
    }

    /// True if all that the reader has is in this.
    fn is_covered_by(&self, execution: Option<&Execution>) -> bool {
        let nothing = VersionVector::default();
        execution.map_or(&nothing, |execution| &execution.as_of).covers_all(&self.seen)
    }

    /// Where what others tell comes late, a reader may have it from one who was faster.
    async fn catch_up(&mut self, known: Option<Execution>) -> Result<Option<Execution>> {
        let due = Instant::now() + LATENESS;
        let mut execution = known;
        while !self.is_covered_by(execution.as_ref()) {
            match timeout_at(due, self.line.follower.next()).await {
                Ok(Next::Record(_) | Next::Changed | Next::Lagged) => execution = self.execution().await?,
                Ok(Next::Closed) | Err(_) => break,
            }
        }
        Ok(execution)
    }

    async fn execution(&self) -> Result<Option<Execution>> {
        self.line.state.journal.execution(self.id.clone()).await
    }

    fn begin(&mut self, execution: &Execution) {
        if self.content != Content::Output {
            let id = self.place(false);
            self.ahead.push_back(frame::control(
                "snapshot",
                Some(&id),
                &frame::OneSnapshot { execution, result: self.result(execution) },
            ));
        }
        self.may_be_over = execution.status.is_terminal();
        self.phase = Phase::Past;
    }

    /// `pending`, `stored` or `failed`, once there is a result to wait for.
    fn result(&self, execution: &Execution) -> Option<&'static str> {
        let is_asked_for = self.content != Content::Output && self.line.state.options.ends_on_result;
        let is_waited_for = is_asked_for && execution.status.is_terminal();
        is_waited_for.then_some(match execution.result {
            None => "pending",
            Some(ResultState::Stored) => "stored",
            Some(ResultState::Failed) => "failed",
        })
    }

    /// True if the stream stays open for a result that may yet come.
    fn awaits_result(&mut self, result: Option<&str>) -> bool {
        if result != Some("pending") {
            self.line.due = None;
            return false;
        }
        let due = *self.result_due.get_or_insert_with(|| Instant::now() + PATIENCE);
        self.line.due = Some(due);
        Instant::now() < due
    }

    /// The record's frame, unless the reader has it.
    fn take(&mut self, record: &Record) -> Option<Bytes> {
        if record.position <= self.position {
            return None;
        }
        self.position = record.position;
        if self.brought.covers(&record.source, record.seq) {
            return None;
        }
        self.seen.advance(&record.source, record.seq);
        self.may_be_over |= record.status.is_some_and(|status| status.is_terminal());
        match self.tail.as_ref().and_then(Tail::place) {
            _ if self.content == Content::Output => None,
            // The id that all readers share may lack what this one has from a process that was faster.
            None if record.version.covers_all(&self.seen) => Some(frame::one(record)),
            output => Some(frame::one_at(record, &OnePlace { seen: self.seen.clone(), output, ended: false })),
        }
    }

    /// The id of a frame after which the reader is here.
    fn place(&self, ended: bool) -> String {
        let output = self.tail.as_ref().and_then(Tail::place);
        OnePlace { seen: self.seen.clone(), output, ended }.to_string()
    }

    fn output_frame(&self, part: Part) -> Option<Bytes> {
        match part {
            Part::Frame(data) => Some(frame::named("output", Some(&self.place(false)), &data)),
            Part::Nothing => None,
        }
    }

    async fn next_output(&mut self) -> Option<Bytes> {
        let part = self.tail.as_mut()?.next().await;
        self.output_frame(part)
    }

    /// From here on the reader is one that has nothing.
    fn reset(&mut self) {
        self.seen = VersionVector::default();
        self.brought = VersionVector::default();
        self.position = 0;
        let id = self.place(false);
        let reason = "the journal does not have the history that this id comes from";
        self.ahead.push_back(frame::control("reset", Some(&id), &frame::Reset { reason }));
    }

    async fn read_page(&mut self) -> Result<()> {
        let page = self.line.state.journal.execution_events(self.id.clone(), self.position, PAGE).await?;
        if self.misses_some_before(&page) {
            self.reset();
            match self.execution().await? {
                Some(execution) => self.begin(&execution),
                None => self.phase = Phase::Absent,
            }
            return Ok(());
        }
        if page.len() < PAGE {
            self.phase = Phase::Live;
        }
        self.page = page.into_iter();
        Ok(())
    }

    /// True if events between what the reader has and this page were pruned: of this journal's own, numbers have no gaps otherwise. Of
    /// another's some may have been known already; but its first one here follows on what a reader has, or is among it. A reader
    /// that has nothing takes what is left.
    fn misses_some_before(&self, page: &[Arc<Record>]) -> bool {
        let mut seen = self.seen.clone();
        let mut met = BTreeSet::new();
        page.iter().any(|record| {
            let is_first = met.insert(&*record.source) && self.position == 0;
            let follows = if record.told {
                self.seen.0.get(&*record.source).filter(|_| is_first)
            } else {
                seen.0.get(&*record.source)
            };
            let is_gap = follows.is_some_and(|known| record.seq > known + 1);
            seen.advance(&record.source, record.seq);
            is_gap
        })
    }

    /// Ends the stream if the latest attempt has ended and the reader has all there is.
    async fn look_for_the_end(&mut self) -> Result<()> {
        let execution = self.execution().await?;
        let status = execution.as_ref().map(|execution| execution.status);
        if status.is_some_and(|status| !status.is_terminal()) {
            self.line.due = None;
            self.result_due = None;
            if let Some(tail) = &mut self.tail {
                tail.go_on();
            }
            self.may_be_over = false;
            return Ok(());
        }
        let has_more = execution.as_ref().is_some_and(|execution| !self.seen.covers_all(&execution.as_of));
        if has_more && self.behind_at != Some(self.position) {
            self.behind_at = Some(self.position);
            self.phase = Phase::Past;
            return Ok(());
        }
        if let (Some(tail), Some(execution)) = (&mut self.tail, &execution) {
            if tail.is_open(execution.attempt) {
                let due = tail.due();
                if due.is_some_and(|due| due <= Instant::now()) {
                    let part = tail.give_up();
                    let frame = self.output_frame(part);
                    self.ahead.extend(frame);
                    return Ok(());
                }
                self.line.due = due;
                self.awaits_more = true;
                return Ok(());
            }
            let part = tail.rest(&self.line.state, execution).await?;
            if let Some(frame) = self.output_frame(part) {
                self.ahead.push_back(frame);
                return Ok(());
            }
        }
        let result = execution.as_ref().and_then(|execution| self.result(execution));
        if self.awaits_result(result) {
            self.awaits_more = true;
            return Ok(());
        }
        let id = self.place(true);
        let end = frame::End {
            status: status.map_or("forgotten", |status| status.as_str()),
            attempt: execution.map_or(0, |execution| execution.attempt),
            result,
        };
        self.ahead.push_back(frame::control("end", Some(&id), &end));
        self.phase = Phase::Over;
        Ok(())
    }
}

impl Frames for One {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if self.line.is_closing() {
                return Ok(None);
            }
            if let Some(frame) = self.ahead.pop_front() {
                self.line.sent();
                return Ok(Some(frame));
            }
            while let Some(record) = self.page.next() {
                if let Some(frame) = self.take(&record) {
                    self.line.sent();
                    return Ok(Some(frame));
                }
            }
            let ready = match self.phase {
                Phase::Over => return Ok(None),
                Phase::Past => {
                    self.read_page().await?;
                    continue;
                }
                Phase::Live => self.line.follower.try_next(),
                Phase::Absent => None,
            };
            if ready.is_none() {
                if let Some(frame) = self.next_output().await {
                    self.line.sent();
                    return Ok(Some(frame));
                }
                if self.may_be_over {
                    self.awaits_more = false;
                    self.look_for_the_end().await?;
                    if !self.awaits_more {
                        continue;
                    }
                }
            }
            let next = match ready {
                Some(next) => next,
                None => match self.line.wait(self.tail.as_mut()).await {
                    Wake::Next(next) => next,
                    Wake::Output | Wake::Due => continue,
                    Wake::Heartbeat => return Ok(Some(frame::control("heartbeat", None, &frame::Heartbeat {}))),
                    Wake::Closing => return Ok(None),
                },
            };
            match (next, &self.phase) {
                (Next::Closed, _) => return Ok(None),
                // Whatever it was, the journal has it by now.
                (_, Phase::Absent) => {
                    if let Some(execution) = self.execution().await? {
                        self.begin(&execution);
                    }
                }
                (Next::Record(record), _) => {
                    if let Some(frame) = self.take(&record) {
                        self.line.sent();
                        return Ok(Some(frame));
                    }
                }
                (Next::Lagged, _) => {
                    self.line.state.metrics.lagged();
                    self.phase = Phase::Past;
                }
                (Next::Changed, _) => {}
            }
        }
    }
}
