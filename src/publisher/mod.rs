//! The way out of every role but the monitor. [`Publisher`] is the seam: [`kafka`] where there is a Kafka, else [`journal`].
//!
//! A role acknowledges its input only after its outputs are published. What it publishes is made of its input, ids too
//! ([`podherald_core::event::event_id`]), so that input which comes again publishes the same events again.

#[cfg(test)]
pub(crate) mod conformance;
pub mod journal;
pub mod kafka;

use futures::future::BoxFuture;
use podherald_core::event::Draft;
use uuid::Uuid;

use crate::sink::Fault;

/// An event that can never be published. The others of its batch are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Which.
    pub event_id: Uuid,
    /// Why, and what would be right.
    pub reason: String,
}

/// Where a role's events go.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes these events, those of one execution and topic in their order. Returns only once each that is not rejected is
    /// durable there. The publisher gives them `source` and `seq`.
    ///
    /// # Errors
    /// The far side takes nothing now. Some of them may be there all the same: publish them again.
    fn publish(&self, events: Vec<Draft>) -> BoxFuture<'_, Result<Vec<Rejection>, Fault>>;
}
