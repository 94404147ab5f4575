//! `/dead-letters`: what sinks could never carry.

use std::sync::Arc;

use axum::{Json, extract};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Error, Problem, State, cursor, negotiate::AcceptsJson, query::Parameters};
use crate::journal::{DeadLetterQuery, ListedLetter};

/// Of a page's events, beyond one.
const MAX_BYTES: usize = 4 << 20;

/// An event that a sink could never carry.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetter {
    /// Which sink.
    sink: String,
    /// Of the event in the journal.
    position: u64,
    /// When the sink gave it up.
    #[serde(with = "podherald_core::time")]
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Why, and what would be right.
    reason: String,
    /// `event_id` of the event.
    event_id: Option<String>,
    /// Whose event.
    execution_id: String,
    /// `event_type` of the event.
    event_type: String,
    /// The event ends its attempt: whoever reads that sink does not know how it ended.
    result_unproven: bool,
    /// The event, byte for byte; null where it is no JSON.
    #[schema(value_type = Object)]
    event: Option<Box<RawValue>>,
}

impl From<ListedLetter> for DeadLetter {
    fn from(ListedLetter { sink, letter, .. }: ListedLetter) -> Self {
        Self {
            sink,
            position: letter.position,
            at: letter.at,
            reason: letter.reason,
            event_id: letter.event_id,
            execution_id: letter.execution_id.to_string(),
            event_type: letter.event_type.to_string(),
            result_unproven: letter.result_unproven,
            event: serde_json::from_slice(&letter.bytes).ok(),
        }
    }
}

/// Dead letters, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetterPage {
    items: Vec<DeadLetter>,
    /// Give it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// Events that a sink could never carry, newest first. They are kept as long as ended executions are.
#[utoipa::path(
    get, path = "/dead-letters", tag = "operations",
    params(
        ("sink" = Option<String>, Query, description = "Only of this sink"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Items of a page, 1 to 500, default 50"),
    ),
    responses(
        (status = 200, body = DeadLetterPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    extract::State(state): extract::State<Arc<State>>,
    _: AcceptsJson,
    mut parameters: Parameters,
) -> Result<Json<DeadLetterPage>, Error> {
    let limit = parameters.limit()?;
    let query = DeadLetterQuery {
        sink: parameters.word("sink")?,
        before: parameters.after(cursor::DeadLetters::decode)?.map(|cursor::DeadLetters(key)| key),
        limit: limit + 1,
        max_bytes: MAX_BYTES,
    };
    parameters.finish()?;
    let mut found = state.journal.dead_letters(query).await?;
    let bytes: usize = found.iter().map(|listed| listed.letter.bytes.len()).sum();
    let place = |last: &ListedLetter| cursor::DeadLetters(last.key).encode();
    let next = cursor::cut(&mut found, limit, place);
    // Of a page that is cut for its bytes it is not known whether it is the last.
    let next = next.or_else(|| found.last().filter(|_| bytes >= MAX_BYTES).map(place));
    Ok(Json(DeadLetterPage { items: found.into_iter().map(DeadLetter::from).collect(), next }))
}
