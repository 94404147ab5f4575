//! The body of a watch: it reads the log of changes at its own pace.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use futures::{Stream, stream};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep_until},
};

use super::{
    selector::{Filter, Sort},
    store::{End, Entry, Open, Shared, State, frame},
};

/// The time before its end at which a watch gets a last bookmark.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often a watch gets a bookmark unasked.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How a watch was asked for.
pub(super) struct Terms {
    pub(super) filter: Filter,
    /// Changes after this version.
    pub(super) after: u64,
    pub(super) deadline: Option<Instant>,
    pub(super) bookmarks: bool,
    /// Frames before all others.
    pub(super) first: Vec<Bytes>,
    /// Of the server that is behind.
    pub(super) is_stale: bool,
}

struct Watch {
    shared: Arc<Shared>,
    bell: watch::Receiver<()>,
    id: u64,
    terms: Terms,
    /// What is said in the log before this position to "the watches that are open now" is not for this one.
    opened_at: usize,
    next_bookmark: Option<Instant>,
}

enum Turn {
    Say(Bytes),
    End(End),
    /// There was something, though nothing for this watch.
    Again,
    Wait,
}

/// Opens a watch. It counts as open until the body is dropped.
pub(super) fn open(shared: &Arc<Shared>, terms: Terms) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let bell = shared.bell();
    let mut watch = shared.change(|state| {
        state.watches_ever += 1;
        let id = state.watches_ever;
        let is_older = |entry: &Entry| matches!(entry, Entry::Change(change) if change.version <= terms.after);
        let cursor = state.log.iter().rposition(is_older).map_or(0, |last| last + 1);
        state.open.insert(id, Open { sort: terms.filter.sort, cursor, dead: false, is_stale: terms.is_stale });
        let opened_at = state.log.len();
        Watch { shared: shared.clone(), bell, id, terms, opened_at, next_bookmark: None }
    });
    watch.plan_bookmark();
    watch.terms.first.reverse();
    stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        Some((item, watch))
    })
}

impl Watch {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if let Some(line) = self.terms.first.pop() {
            return Some(Ok(line));
        }
        loop {
            self.bell.mark_unchanged();
            let turn = self.turn();
            if !matches!(turn, Turn::Wait) {
                // Whoever waits for delivery looks again.
                self.shared.change(|_| ());
            }
            match turn {
                Turn::Say(line) => return Some(Ok(line)),
                Turn::End(End::Eof) => return None,
                Turn::End(End::Reset) => {
                    return Some(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the script breaks the watch")));
                }
                Turn::Again => continue,
                Turn::Wait => {}
            }
            let wake = self.terms.deadline.into_iter().chain(self.next_bookmark).min();
            tokio::select! {
                rung = self.bell.changed() => if rung.is_err() { return None },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        let State { open, log, version, stale, .. } = &mut *state;
        let Some(open) = open.get_mut(&self.id) else { return Turn::End(End::Eof) };
        if open.dead {
            (self.terms.deadline, self.next_bookmark) = (None, None);
            return Turn::Wait;
        }
        let begun_at = open.cursor;
        let stale = stale.as_ref().filter(|_| open.is_stale);
        let there_is = stale.map_or(log.len(), |stale| stale.log.max(begun_at));
        let version = stale.map_or(*version, |stale| stale.version);
        while let Some(entry) = log[..there_is].get(open.cursor) {
            let is_ours = open.cursor >= self.opened_at && open.sort == Sort::Pod;
            open.cursor += 1;
            match entry {
                Entry::Change(change) => {
                    if let Some((kind, object)) = change.seen_by(&self.terms.filter) {
                        return Turn::Say(frame(kind, &object));
                    }
                }
                Entry::Raw(line) if is_ours => return Turn::Say(line.clone()),
                Entry::Bookmark(version) if is_ours && self.terms.bookmarks => return Turn::Say(bookmark(*version)),
                Entry::End(end) if is_ours => return Turn::End(*end),
                Entry::Raw(_) | Entry::Bookmark(_) | Entry::End(_) => {}
            }
        }
        if open.cursor != begun_at {
            return Turn::Again;
        }
        let now = Instant::now();
        if self.terms.deadline.is_some_and(|at| at <= now) {
            return Turn::End(End::Eof);
        }
        if self.next_bookmark.is_some_and(|at| at <= now) {
            self.plan_bookmark();
            return Turn::Say(bookmark(version));
        }
        Turn::Wait
    }

    /// The next one comes after the usual time, or shortly before the watch ends.
    fn plan_bookmark(&mut self) {
        if !self.terms.bookmarks {
            return;
        }
        let now = Instant::now();
        let farewell = self.terms.deadline.and_then(|at| at.checked_sub(FAREWELL)).filter(|at| *at > now);
        self.next_bookmark = farewell.into_iter().chain([now + BOOKMARK_EVERY]).min();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.change(|state| state.open.remove(&self.id));
    }
}

/// The frame that tells nothing but a version.
pub(super) fn bookmark(version: u64) -> Bytes {
    frame("BOOKMARK", &bookmark_object(version))
}

pub(super) fn bookmark_object(version: u64) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"resourceVersion": version.to_string()},
        "spec": {"containers": null}, "status": {},
    })
}

/// Never fails, never ends.
pub(super) fn silence() -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::pending()
}
