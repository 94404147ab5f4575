//! `/executions`: what became of them.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{self, Path, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use podherald_core::execution::{Execution, Status};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{
    Error, Problem, State, cursor,
    frame::Item,
    lines,
    negotiate::{self, AcceptsJson, Media},
    query::{MAX_LIMIT, Parameters},
};
use crate::{
    journal::{self, ExecutionQuery, Next},
    store,
};

/// Executions, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct ExecutionPage<'a> {
    /// Without `stdout` and `stderr`.
    #[schema(value_type = Vec<Execution>)]
    items: Vec<Item<'a>>,
    /// Give it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// Which executions are asked for.
#[derive(Debug, Clone)]
struct Asked {
    statuses: Vec<Status>,
    namespace: Option<String>,
    labels: Vec<(String, String)>,
    user_id: Option<String>,
}

/// Where a page ends.
#[derive(Debug, Clone)]
enum Place {
    /// In the journal of a process that watches.
    Here(cursor::Executions),
    /// In the store.
    Past(cursor::Stored),
}

impl Place {
    fn encode(&self) -> String {
        match self {
            Self::Here(cursor) => cursor.encode(),
            Self::Past(cursor) => cursor.encode(),
        }
    }
}

/// Executions, newest first.
///
/// With `Accept: application/x-ndjson` all of them come, from `after` on, a line each.
#[utoipa::path(
    get, path = "/executions", tag = "executions",
    params(
        ("status" = Option<String>, Query, description = "Only with one of these statuses; repeated or joined by commas"),
        ("namespace" = Option<String>, Query, description = "Only of this namespace"),
        ("label" = Option<Vec<String>>, Query, description = "Only with this label, as key=value; repeated: with all"),
        ("user" = Option<String>, Query, description = "Only of this user"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Page: items, 1 to 500, default 50"),
    ),
    responses(
        (status = 200, content((ExecutionPage<'static> = "application/json"), (String = "application/x-ndjson"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be read. Lines: `http.max_streams` are open already", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    extract::State(state): extract::State<Arc<State>>,
    headers: HeaderMap,
    mut parameters: Parameters,
) -> Result<Response, Error> {
    let media = negotiate::choose(&headers, &[Media::Json, Media::JsonLines])?;
    let asked = Asked {
        statuses: parameters.statuses()?,
        namespace: parameters.word("namespace")?,
        labels: parameters.labels()?,
        user_id: parameters.word("user")?,
    };
    let after = match &state.past {
        None => parameters.after(cursor::Executions::decode)?.map(Place::Here),
        Some(_) => parameters.after(cursor::Stored::decode)?.map(Place::Past),
    };
    if media == Media::JsonLines {
        parameters.finish()?;
        let seat = state.seats.take()?;
        return Ok(lines::response(state.clone(), after, seat, move |state, after| {
            let asked = asked.clone();
            async move {
                let (executions, next) = page(&state, &asked, after, MAX_LIMIT).await?;
                let lines = executions.iter().map(|execution| lines::line(&Item(execution)));
                Ok((lines.collect(), next))
            }
        }));
    }
    let limit = parameters.limit()?;
    parameters.finish()?;
    let (executions, next) = page(&state, &asked, after, limit).await?;
    let next = next.as_ref().map(Place::encode);
    Ok(Json(ExecutionPage { items: executions.iter().map(Item).collect(), next }).into_response())
}

/// The executions behind a place, and the place of the next page.
async fn page(
    state: &State,
    asked: &Asked,
    after: Option<Place>,
    limit: usize,
) -> Result<(Vec<Execution>, Option<Place>), Error> {
    let Asked { statuses, namespace, labels, user_id } = asked.clone();
    if let Some(past) = &state.past {
        let after = after.and_then(|place| if let Place::Past(cursor) = place { Some(cursor.0) } else { None });
        let page =
            past.executions(store::ExecutionQuery { statuses, namespace, labels, user_id, after, limit }).await?;
        let executions = page.items.into_iter().map(|listed| listed.execution).collect();
        return Ok((executions, page.next.map(|cursor| Place::Past(cursor::Stored(cursor)))));
    }
    let before = after.and_then(|place| if let Place::Here(cursor) = place { Some(cursor.0) } else { None });
    let query = ExecutionQuery { statuses, namespace, labels, user_id, ids: Vec::new(), before, limit: limit + 1 };
    let mut found = state.journal.executions(query).await?;
    let next = cursor::cut(&mut found, limit, |last| Place::Here(cursor::Executions(last.key)));
    Ok((found.into_iter().map(|listed| listed.execution).collect(), next))
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
        (status = 503, description = "The store cannot be read. With `wait`: `http.max_streams` are open already, or the server stops", body = Problem,
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
    state.recall(&id).await?;
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
