//! Where events go beyond this process. [`Sink`] is the seam; a relay feeds each from the journal.

#[cfg(test)]
pub(crate) mod conformance;
pub mod kafka;
#[cfg(test)]
pub(crate) mod memory;
pub mod redis;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use podherald_core::gap::{self, Gap};

#[cfg(test)]
use crate::journal::Frames;
use crate::journal::Record;

/// What stands in one place of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event of the journal.
    Event(Arc<Record>),
    /// Where events of the journal were.
    Gap(Arc<Gap>),
}

impl Item {
    /// Its last place in the journal.
    pub fn position(&self) -> u64 {
        match self {
            Self::Event(record) => record.position,
            Self::Gap(gap) => gap.last,
        }
    }

    /// What is of one key stays in order: the execution, or the gap's source.
    pub fn key(&self) -> Arc<str> {
        match self {
            Self::Event(record) => record.execution_id.clone(),
            Self::Gap(gap) => gap.source.as_str().into(),
        }
    }

    /// `event_type`.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::Event(record) => record.event_type,
            Self::Gap(_) => gap::EVENT_TYPE,
        }
    }

    /// Its JSON.
    pub fn bytes(&self) -> Bytes {
        match self {
            Self::Event(record) => record.bytes.clone(),
            Self::Gap(gap) => gap.to_bytes().into(),
        }
    }
}

/// What this sink can never carry. The stream goes on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// [`Item::position`].
    pub position: u64,
    /// Why, and what would be right.
    pub reason: String,
}

/// Why nothing could be carried: the far side, or the way there. It is tried again until it can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// A place that events are carried to, at least once each.
pub trait Sink: Send + Sync + 'static {
    /// Carries these in their order. Returns only once the far side has acknowledged each that is not rejected.
    ///
    /// # Errors
    /// None of them counts as carried, and some may be there: they come again, as they do when the future is dropped.
    fn carry<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Result<Vec<Rejection>, Fault>>;

    /// The same of records alone.
    ///
    /// # Errors
    /// As [`Sink::carry`].
    fn deliver<'a>(&'a self, records: &'a [Arc<Record>]) -> BoxFuture<'a, Result<Vec<Rejection>, Fault>> {
        async {
            let items: Vec<Item> = records.iter().cloned().map(Item::Event).collect();
            self.carry(&items).await
        }
        .boxed()
    }

    /// Whether the far side would take something now.
    ///
    /// # Errors
    /// Why it would not.
    fn check(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Returns when another try after a failure makes sense: after this pause, unless the sink knows better.
    fn recover(&self, pause: Duration) -> BoxFuture<'_, ()> {
        tokio::time::sleep(pause).boxed()
    }
}
