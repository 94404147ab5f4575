//! `/pods`: what the monitor tracks.

use std::sync::Arc;

use axum::{
    Json,
    extract::{self, Path, rejection::PathRejection},
};
use jiff::Timestamp;
use podherald_core::{
    evidence::{Evidence, MonitorState},
    pod::Phase,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Error, Problem, State, cursor, negotiate::AcceptsJson, query::Parameters};
use crate::journal::PodQuery;

/// A tracked pod.
#[derive(Serialize, ToSchema)]
pub(super) struct Pod {
    /// `metadata.namespace`.
    namespace: String,
    /// `metadata.name`.
    name: String,
    /// `metadata.uid`.
    uid: String,
    /// The execution that it belongs to, or claims to.
    execution_id: String,
    /// Which attempt, counted from 1.
    attempt: u32,
    /// The furthest phase seen.
    phase: Phase,
    /// Why its program is not running yet; null where nothing is known to keep it.
    pending: Option<Pending>,
    /// The node, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<String>,
    /// Where the monitor stands with it.
    state: MonitorState,
    /// When it was first seen.
    #[serde(with = "podherald_core::time")]
    #[schema(value_type = String, format = DateTime)]
    first_seen: Timestamp,
    /// When it was last seen, to the minute; once its attempt has been told, when something was last new of it.
    #[serde(with = "podherald_core::time")]
    #[schema(value_type = String, format = DateTime)]
    last_seen: Timestamp,
}

/// What keeps a pod's program from running.
#[derive(Serialize, ToSchema)]
pub(super) struct Pending {
    /// The API's own word.
    reason: String,
    /// The API's own sentence.
    message: Option<String>,
    /// When a problem of this class was first seen.
    #[serde(with = "podherald_core::time")]
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
}

impl From<Evidence> for Pod {
    fn from(evidence: Evidence) -> Self {
        let state = evidence.monitor_state();
        Self {
            namespace: evidence.namespace,
            name: evidence.name,
            uid: evidence.uid,
            execution_id: evidence.execution_id,
            attempt: evidence.attempt,
            phase: evidence.phase,
            pending: evidence.pending.map(|pending| Pending {
                reason: pending.reason,
                message: pending.message,
                since: pending.since,
            }),
            node_name: evidence.node_name,
            state,
            first_seen: evidence.first_seen,
            last_seen: evidence.last_seen,
        }
    }
}

/// Pods, by namespace and name.
#[derive(Serialize, ToSchema)]
pub(super) struct PodPage {
    items: Vec<Pod>,
    /// Give it as `after` for the next page; null at the end.
    next: Option<String>,
}

/// The pods that are there, by namespace and name.
#[utoipa::path(
    get, path = "/pods", tag = "pods",
    params(
        ("namespace" = Option<String>, Query, description = "Only of this namespace"),
        ("execution" = Option<String>, Query, description = "Only of this execution"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Items of a page, 1 to 500, default 50"),
    ),
    responses(
        (status = 200, body = PodPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    extract::State(state): extract::State<Arc<State>>,
    _: AcceptsJson,
    mut parameters: Parameters,
) -> Result<Json<PodPage>, Error> {
    let limit = parameters.limit()?;
    let query = PodQuery {
        namespace: parameters.word("namespace")?,
        execution_id: parameters.word("execution")?,
        after: parameters.after(cursor::Pods::decode)?.map(|after| (after.namespace, after.name, after.uid)),
        limit: limit + 1,
    };
    parameters.finish()?;
    let mut found = state.journal.pods(query).await?;
    let next = cursor::cut(&mut found, limit, |last| {
        cursor::Pods { namespace: last.namespace.clone(), name: last.name.clone(), uid: last.uid.clone() }.encode()
    });
    Ok(Json(PodPage { items: found.into_iter().map(Pod::from).collect(), next }))
}

/// The latest pod of this namespace and name, also when it is gone.
#[utoipa::path(
    get, path = "/pods/{namespace}/{name}", tag = "pods",
    params(
        ("namespace" = String, Path, description = "`metadata.namespace`"),
        ("name" = String, Path, description = "`metadata.name`"),
    ),
    responses(
        (status = 200, body = Pod),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn one(
    extract::State(state): extract::State<Arc<State>>,
    path: Result<Path<(String, String)>, PathRejection>,
    _: AcceptsJson,
    parameters: Parameters,
) -> Result<Json<Pod>, Error> {
    let Path((namespace, name)) = path.map_err(|_| Error::NoRoute)?;
    parameters.finish()?;
    let pod = state.journal.pod(namespace.clone(), name.clone()).await?;
    pod.map(|evidence| Json(Pod::from(evidence))).ok_or(Error::NoPod { namespace, name })
}
