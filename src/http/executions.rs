//! `/executions`: what became of them.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{self, Path, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use podherald_core::execution::Execution;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{Error, Problem, State, cursor, frame::Item, negotiate::AcceptsJson, query::Parameters};
use crate::journal::{self, ExecutionQuery, Next};

/// Executions, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct ExecutionPage<'a> {
    /// Without `stdout` and `stderr`.
    #[schema(value_type = Vec<Execution>)]
    items: Vec<Item<'a>>,
    /// Give it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// Executions, newest first.
#[utoipa::path(
    get, path = "/executions", tag = "executions",
    params(
        ("status" = Option<String>, Query, description = "Only with one of these statuses; repeated or joined by commas"),
        ("namespace" = Option<String>, Query, description = "Only of this namespace"),
        ("label" = Option<Vec<String>>, Query, description = "Only with this label, as key=value; repeated: with all"),
        ("user" = Option<String>, Query, description = "Only of this user"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Items of a page, 1 to 500, default 50"),
    ),
    responses(
        (status = 200, body = ExecutionPage<'static>),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    extract::State(state): extract::State<Arc<State>>,
    _: AcceptsJson,
    mut parameters: Parameters,
) -> Result<Response, Error> {
    let limit = parameters.limit()?;
    let query = ExecutionQuery {
        statuses: parameters.statuses()?,
        namespace: parameters.word("namespace")?,
        labels: parameters.labels()?,
        user_id: parameters.word("user")?,
        ids: Vec::new(),
        before: parameters.after(cursor::Executions::decode)?.map(|cursor::Executions(key)| key),
        limit: limit + 1,
    };
    parameters.finish()?;
    let mut found = state.journal.executions(query).await?;
    let next = cursor::cut(&mut found, limit, |last| cursor::Executions(last.key).encode());
    Ok(Json(ExecutionPage { items: found.iter().map(Item).collect(), next }).into_response())
}

/// One execution.
///
/// With `wait` the answer is held until the latest attempt has ended or the time is up; an unknown execution is held for
/// too, and is a 404 only then.
#[utoipa::path(
    get, path = "/executions/{id}", tag = "executions",
    params(
        ("id" = String, Path, description = "The execution's id"),
        ("wait" = Option<String>, Query, description = "How long to hold, like `30s`; at most 60s"),
    ),
    responses(
        (status = 200, body = Execution),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "With `wait`: `http.max_streams` are open already, or the server stops", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    extract::State(state): extract::State<Arc<State>>,
    path: Result<Path<String>, PathRejection>,
    _: AcceptsJson,
    mut parameters: Parameters,
) -> Result<Json<Execution>, Error> {
    let Path(id) = path.map_err(|_| Error::NoRoute)?;
    let wait = parameters.wait()?;
    parameters.finish()?;
    let found = match wait {
        None => state.journal.execution(id.clone()).await?,
        Some(wait) => {
            let _seat = state.seats.take()?;
            held(&state, &id, wait).await?
        }
    };
    found.map(Json).ok_or(Error::NoExecution(id))
}

/// The execution once it has ended, or as it is when the time is up or the process ends.
async fn held(state: &State, id: &str, wait: Duration) -> Result<Option<Execution>, journal::Error> {
    let mut follower = state.journal.follow(id);
    let ended = async {
        loop {
            let execution = state.journal.execution(id.to_owned()).await?;
            if execution.as_ref().is_some_and(|execution| execution.status.is_terminal()) {
                return Ok(execution);
            }
            loop {
                match follower.next().await {
                    Next::Record(record) if record.status.is_some_and(|status| status.is_terminal()) => break,
                    Next::Record(_) | Next::Changed => {}
                    Next::Lagged => break,
                    Next::Closed => return Err(journal::Error::Closed),
                }
            }
        }
    };
    let over = tokio::select! {
        ended = timeout(wait, ended) => ended.ok(),
        () = state.closing.cancelled() => None,
    };
    match over {
        Some(ended) => ended,
        None => state.journal.execution(id.to_owned()).await,
    }
}
