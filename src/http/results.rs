//! `/executions/{id}/result`: what an attempt came to, as it is kept for good.

use std::sync::Arc;

use axum::{
    Json,
    extract::{self, Path, rejection::PathRejection},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use podherald_core::{
    event::{Cause, ErrorType, Exit, Oom, Output, ResourceUsage},
    execution::Status,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Error, Problem, State, negotiate::AcceptsJson, query::Parameters};
use crate::store::Outcome;

/// What an attempt came to.
#[derive(Serialize, ToSchema)]
pub(super) struct StoredOutcome {
    /// Whose.
    execution_id: String,
    /// Counted from 1.
    attempt: u32,
    /// `completed`, `failed`, `timeout` or `cancelled`.
    status: Status,
    /// Id of the event that ended the attempt.
    #[schema(value_type = String, format = "uuid")]
    event_id: Uuid,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    ended_at: Timestamp,
    /// Code, signal and who says so.
    exit: Exit,
    /// Why it ended as it did; null on a plain success.
    cause: Option<Cause>,
    /// Only after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<ErrorType>,
    /// Only after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<String>,
    /// The deadline that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<i64>,
    /// Out-of-memory kills.
    #[serde(skip_serializing_if = "Option::is_none")]
    oom: Option<Oom>,
    /// What the program used.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_usage: Option<ResourceUsage>,
    /// What it printed; absent where that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    /// In place of `stdout`, of bytes that are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
    /// As `stdout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    /// As `stdout_base64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_base64: Option<String>,
    /// How complete they are, and where the rest is.
    output: Output,
}

impl From<Outcome> for StoredOutcome {
    fn from(outcome: Outcome) -> Self {
        let Outcome { execution_id, attempt, event_id, status, ended_at, terminal, stdout, stderr } = outcome;
        let (stdout, stdout_base64) = text(&stdout);
        let (stderr, stderr_base64) = text(&stderr);
        Self {
            execution_id,
            attempt,
            status,
            event_id,
            ended_at,
            exit: terminal.exit,
            cause: terminal.cause,
            error_type: terminal.error_type,
            error_message: terminal.error_message,
            timeout_seconds: terminal.timeout_seconds,
            oom: terminal.oom,
            resource_usage: terminal.resource_usage,
            stdout,
            stdout_base64,
            stderr,
            stderr_base64,
            output: terminal.output,
        }
    }
}

fn text(bytes: &Bytes) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// What an attempt came to, as it is kept for good.
#[utoipa::path(
    get, path = "/executions/{id}/result", tag = "executions",
    params(
        ("id" = String, Path, description = "The execution's id"),
        ("attempt" = Option<u32>, Query, description = "Which attempt; without it the latest that has a result"),
    ),
    responses(
        (status = 200, body = StoredOutcome),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such execution, or no result of it yet", body = Problem,
         content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be read", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get(
    extract::State(state): extract::State<Arc<State>>,
    path: Result<Path<String>, PathRejection>,
    _: AcceptsJson,
    mut parameters: Parameters,
) -> Result<Json<StoredOutcome>, Error> {
    let Path(id) = path.map_err(|_| Error::NoRoute)?;
    let attempt = parameters.read("attempt", |text| match text.parse() {
        Ok(attempt) if attempt > 0 => Ok(attempt),
        _ => Err(format!("must be a number from 1 on, not {text:?}")),
    })?;
    parameters.finish()?;
    let Some(store) = &state.store else {
        return Err(Error::NoResult("this podherald stores no results: it needs the role result_processor".to_owned()));
    };
    if let Some(outcome) = store.result(id.clone(), attempt).await? {
        return Ok(Json(outcome.into()));
    }
    state.recall(&id).await?;
    let execution = state.journal.execution(id.clone()).await?.ok_or(Error::NoExecution(id))?;
    Err(Error::NoResult(if let Some(attempt) = attempt.filter(|attempt| *attempt > execution.attempts) {
        format!("there is no attempt {attempt}; it has had {}", execution.attempts)
    } else if execution.status.is_terminal() {
        "its result is not stored yet; the event result_stored says when it is".to_owned()
    } else {
        format!("it has not ended: its status is {}", execution.status.as_str())
    }))
}
