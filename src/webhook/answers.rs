//! What the API is told of endpoints.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::store::{Delivery, Disabled, Error as StoreError};
use crate::journal;

/// An endpoint and how it stands.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Status {
    /// `NAME` of `[webhook.NAME]`.
    pub name: String,
    /// `url`, its path and query masked.
    pub url: String,
    /// `structured` or `binary`.
    #[schema(value_type = String)]
    pub mode: &'static str,
    /// Only events of these types; empty for all.
    #[schema(value_type = Vec<String>)]
    pub events: Vec<&'static str>,
    /// Only events that bring one of these about; empty for all.
    #[schema(value_type = Vec<String>)]
    pub statuses: Vec<&'static str>,
    /// Only of these namespaces; empty for all.
    pub namespaces: Vec<String>,
    /// Only with all of these labels, each `KEY=VALUE`.
    pub labels: Vec<String>,
    /// Since when nothing is sent to it, and why; null while it is enabled.
    pub disabled: Option<Disabled>,
    /// It has neither acknowledged nor refused an event since, though it should have; null otherwise.
    #[serde(serialize_with = "optional_time")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<Timestamp>,
}

fn optional_time<S: serde::Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => podherald_core::time::serialize(time, serializer),
        None => serializer.serialize_none(),
    }
}

/// What came of the wish to send an event again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redelivery {
    /// It was sent; the delivery says how that went.
    Sent(Delivery),
    /// No delivery of such an event is in the log.
    Unknown,
    /// Retention has taken the event.
    Gone,
    /// It cannot be sent, and why.
    Impossible(String),
}

/// What came of the wish to leave an event out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// It is not sent by itself any more; the delivery is what the log says of that.
    Skipped(Delivery),
    /// No delivery of such an event is in the log.
    Unknown,
    /// Retention has taken the event.
    Gone,
    /// It was acknowledged or left out before.
    Done,
}

/// Why the wish to send an event again, or to leave it out, could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] journal::Error),
}
