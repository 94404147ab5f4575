//! `/audit`: whether all that was seen is accounted for.

use std::sync::Arc;

use axum::{Json, extract};
use jiff::Timestamp;
use podherald_core::evidence::{Evidence, MonitorState};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Error, Problem, State, negotiate::AcceptsJson, query::Parameters};

/// Attempts, by what is known of their end. Each is one of the three.
#[derive(Serialize, ToSchema)]
pub(super) struct Audit {
    /// All that the journal has.
    attempts: u64,
    /// Their end is told.
    ended: u64,
    /// A pod of them, or their Job, is still there.
    live: u64,
    /// Nothing of them is there any more, and their end is not told: it is about to be, unless this stays so.
    unaccounted: u64,
    /// Pods and Jobs that claim another namespace's execution; they are no attempts.
    conflicts: u64,
    /// Those that are unaccounted for, oldest first, at most `limit`.
    items: Vec<Unaccounted>,
}

/// A pod or Job of an attempt that is unaccounted for.
#[derive(Serialize, ToSchema)]
pub(super) struct Unaccounted {
    /// Whose.
    execution_id: String,
    /// Counted from 1.
    attempt: u32,
    /// Of the pod or Job.
    namespace: String,
    /// Of the pod or Job.
    name: String,
    /// Of the pod or Job.
    uid: String,
    /// What is missing: `collecting` while its output is read.
    state: MonitorState,
    /// When it was known to be gone.
    #[schema(value_type = Option<String>, format = DateTime)]
    gone_since: Option<Timestamp>,
}

impl From<Evidence> for Unaccounted {
    fn from(evidence: Evidence) -> Self {
        Self {
            state: evidence.monitor_state(),
            gone_since: evidence.gone.map(|gone| gone.at),
            execution_id: evidence.execution_id,
            attempt: evidence.attempt,
            namespace: evidence.namespace,
            name: evidence.name,
            uid: evidence.uid,
        }
    }
}

/// Whether all that was seen is accounted for: attempts = ended + live + unaccounted.
#[utoipa::path(
    get, path = "/audit", tag = "operations",
    params(("limit" = Option<u32>, Query, description = "Items at most, 1 to 500, default 50")),
    responses(
        (status = 200, body = Audit),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    _: AcceptsJson,
    mut parameters: Parameters,
) -> Result<Json<Audit>, Error> {
    let limit = parameters.limit()?;
    parameters.finish()?;
    let found = state.journal.audit(limit).await?;
    Ok(Json(Audit {
        attempts: found.ended + found.live + found.unaccounted,
        ended: found.ended,
        live: found.live,
        unaccounted: found.unaccounted,
        conflicts: found.conflicts,
        items: found.items.into_iter().map(Unaccounted::from).collect(),
    }))
}
