//! Where events go beyond this process. [`Sink`] is the seam; a relay feeds each from the journal.

#[cfg(test)]
pub(crate) mod conformance;
pub mod kafka;
#[cfg(test)]
pub(crate) mod memory;
pub mod redis;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};

#[cfg(test)]
use crate::journal::Frames;
use crate::journal::Record;

/// A record that this sink can never carry. The stream goes on without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Which.
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
    /// Carries these records in their order. Returns only once the far side has acknowledged each that is not rejected.
    ///
    /// # Errors
    /// None of them counts as carried, and some may be there: they come again, as they do when the future is dropped.
    fn deliver<'a>(&'a self, records: &'a [Arc<Record>]) -> BoxFuture<'a, Result<Vec<Rejection>, Fault>>;

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
