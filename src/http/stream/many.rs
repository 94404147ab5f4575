//! The stream of many executions: snapshot, then every event that passes the filter. It never ends by itself.

use std::{collections::VecDeque, sync::Arc, vec};

use bytes::Bytes;
use podherald_core::execution::Status;

use super::{Frames, Line, PAGE, Wake, retry};
use crate::{
    http::{State, frame, resume::ManyPlace},
    journal::{EventQuery, ExecutionQuery, Listed, Next, Record, Result},
};

/// Executions of a snapshot at most.
const SNAPSHOT: usize = 500;

/// Which executions and events are wanted.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Filter {
    /// Only of these; empty: all.
    pub(in crate::http) executions: Vec<String>,
    /// Only executions that are in one of these, and events that bring one of these about; empty: all.
    pub(in crate::http) statuses: Vec<Status>,
    /// Only of this namespace.
    pub(in crate::http) namespace: Option<String>,
    /// Only with all of these labels.
    pub(in crate::http) labels: Vec<(String, String)>,
}

impl Filter {
    /// True if the event is wanted.
    pub(in crate::http) fn admits(&self, record: &Record) -> bool {
        !record.recalled
            && (self.executions.is_empty() || self.executions.iter().any(|id| **id == *record.execution_id))
            && (self.statuses.is_empty() || record.status.is_some_and(|status| self.statuses.contains(&status)))
            && (self.namespace.is_none() || self.namespace == record.about.namespace)
            && self.labels.iter().all(|(key, value)| record.about.labels.get(key) == Some(value))
    }

    fn query(&self) -> ExecutionQuery {
        ExecutionQuery {
            statuses: self.statuses.clone(),
            namespace: self.namespace.clone(),
            labels: self.labels.clone(),
            ids: self.executions.clone(),
            limit: SNAPSHOT + 1,
            ..ExecutionQuery::default()
        }
    }
}

/// Follows many executions.
pub(in crate::http) struct Many {
    line: Line,
    filter: Filter,
    /// Frames that go out before anything else.
    ahead: VecDeque<Bytes>,
    /// Read from the journal and not yet sent.
    page: vec::IntoIter<Arc<Record>>,
    /// Of the last record looked at: everything up to it was sent or is not wanted.
    position: u64,
    /// What was pruned up to here is known to be missing.
    floor: u64,
    /// True while the journal is read, false while it is followed.
    is_behind: bool,
}

impl Many {
    /// A stream for a reader at this place; one without a place begins now.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub(in crate::http) async fn open(state: Arc<State>, filter: Filter, place: Option<ManyPlace>) -> Result<Self> {
        let follower = state.journal.follow_all();
        let (head, listed) = state.journal.snapshot(filter.query()).await?;
        let floor = state.journal.floor();
        let mut many = Self {
            line: Line::new(state, follower),
            filter,
            ahead: VecDeque::from([retry()]),
            page: Vec::new().into_iter(),
            position: head,
            floor,
            is_behind: false,
        };
        match place {
            None => {}
            Some(ManyPlace::Beginning) => many.go_back_to(0),
            Some(ManyPlace::At { epoch, position }) => {
                let is_known = epoch == many.line.state.journal.epoch() && (floor..=head).contains(&position);
                if is_known { many.go_back_to(position) } else { many.reset() }
            }
        }
        many.snapshot(&listed);
        Ok(many)
    }

    fn go_back_to(&mut self, position: u64) {
        self.position = position;
        self.is_behind = true;
    }

    fn place(&self) -> String {
        match self.position {
            0 => ManyPlace::Beginning.to_string(),
            position => ManyPlace::At { epoch: self.line.state.journal.epoch().to_owned(), position }.to_string(),
        }
    }

    fn reset(&mut self) {
        let reason = "the journal no longer has, or never had, all events after this id";
        self.ahead.push_back(frame::control("reset", Some(&self.place()), &frame::Reset { reason }));
    }

    fn snapshot(&mut self, listed: &[Listed]) {
        let data = frame::ManySnapshot {
            executions: listed.iter().take(SNAPSHOT).map(|listed| frame::Item(&listed.execution)).collect(),
            truncated: listed.len() > SNAPSHOT,
        };
        self.ahead.push_back(frame::control("snapshot", Some(&self.place()), &data));
    }

    /// The record's frame, if it is new and wanted.
    fn take(&mut self, record: &Record) -> Option<Bytes> {
        if record.position <= self.position {
            return None;
        }
        self.position = record.position;
        self.filter.admits(record).then(|| frame::many(record, self.line.state.journal.epoch()))
    }

    async fn read_page(&mut self) -> Result<()> {
        let journal = self.line.state.journal.clone();
        let page = journal.events(EventQuery { after: self.position, limit: PAGE }).await?;
        let floor = journal.floor();
        if floor > self.floor && floor > self.position {
            // Retention overtook the reader: something that it has not read is gone.
            self.floor = floor;
            let (head, listed) = journal.snapshot(self.filter.query()).await?;
            self.position = head;
            self.is_behind = false;
            self.reset();
            self.snapshot(&listed);
            return Ok(());
        }
        self.is_behind = page.len() == PAGE;
        self.page = page.into_iter();
        Ok(())
    }
}

impl Frames for Many {
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
            if self.is_behind {
                self.read_page().await?;
                continue;
            }
            let next = match self.line.follower.try_next() {
                Some(next) => next,
                None => match self.line.wait(None).await {
                    Wake::Next(next) => next,
                    // With an id: a filter may hide events for long, and a reader should not come back from far.
                    Wake::Heartbeat => {
                        return Ok(Some(frame::control("heartbeat", Some(&self.place()), &frame::Heartbeat {})));
                    }
                    Wake::Output | Wake::Due => continue,
                    Wake::Closing => return Ok(None),
                },
            };
            match next {
                Next::Closed => return Ok(None),
                Next::Record(record) => {
                    if let Some(frame) = self.take(&record) {
                        self.line.sent();
                        return Ok(Some(frame));
                    }
                }
                Next::Lagged => {
                    self.line.state.metrics.lagged();
                    self.is_behind = true;
                }
                Next::Changed => {}
            }
        }
    }
}
