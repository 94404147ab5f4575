//! `/cleanup`: what of the cluster would be tidied up now, and why the rest would not.

use std::sync::Arc;

use axum::{Json, extract};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Error, Problem, State, cursor, negotiate::AcceptsJson, query::Parameters};
use crate::worker::resource_cleaner::{self, Fault, Planned, plan::Verdict};

/// Items of a page at most: some are asked for one by one.
const MAX_ITEMS: usize = 100;

/// An object with podherald's labels, and what the next sweep would do with it.
#[derive(Serialize, ToSchema)]
pub(super) struct CleanupItem {
    /// `Pod` or `ConfigMap`.
    #[schema(value_type = String)]
    kind: &'static str,
    /// `metadata.namespace`.
    namespace: String,
    /// `metadata.name`.
    name: String,
    /// `metadata.uid`.
    uid: String,
    /// The execution that it belongs to.
    execution_id: Option<String>,
    /// True if it would be deleted now.
    goes: bool,
    /// Why it goes (`stored`, `orphan`, `unstored`) or stays (`unmarked`, `belongs_to_another`, `leaving`, `young`, `result_not_stored`,
    /// `failed`, `in_use`, `pod_may_come`).
    #[schema(value_type = String)]
    reason: &'static str,
    /// The reason in words.
    #[schema(value_type = String)]
    message: &'static str,
    /// Until when it stays if nothing else comes between; null where no time will do.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

impl From<Planned> for CleanupItem {
    fn from(Planned { object, execution_id, verdict }: Planned) -> Self {
        let (goes, reason, message, until) = match verdict {
            Verdict::Delete(cause) => (true, cause.as_str(), cause.sentence(), None),
            Verdict::Keep(reason, until) => (false, reason.as_str(), reason.sentence(), until),
        };
        let (kind, namespace, name, uid) = (object.kind.as_str(), object.namespace, object.name, object.uid);
        Self { kind, namespace, name, uid, execution_id, goes, reason, message, until }
    }
}

/// Marked objects, pods before ConfigMaps.
#[derive(Serialize, ToSchema)]
pub(super) struct CleanupPage {
    items: Vec<CleanupItem>,
    /// Give it as `after` for the next page; null at the end. A page may be empty before the end.
    next: Option<String>,
}

/// What the role resource_cleaner would delete now, and why it leaves the rest. Nothing is deleted by asking.
#[utoipa::path(
    get, path = "/cleanup", tag = "operations",
    params(
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Items of a page, 1 to 500, default 50; no page has more than 100"),
    ),
    responses(
        (status = 200, body = CleanupPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "This process tidies nothing up", body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The cluster or the store cannot be read", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    extract::State(state): extract::State<Arc<State>>,
    _: AcceptsJson,
    mut parameters: Parameters,
) -> Result<Json<CleanupPage>, Error> {
    let limit = u32::try_from(parameters.limit()?.min(MAX_ITEMS)).expect("it is no more than MAX_ITEMS");
    let after = parameters.after(cursor::Cleanup::decode)?.map(|cursor::Cleanup(position)| position);
    parameters.finish()?;
    let cleaner = state.cleaner.as_ref().ok_or(Error::NoCleaner)?;
    let (items, next) = cleaner.preview(after, limit).await?;
    let next = next.map(|position| cursor::Cleanup(position).encode());
    Ok(Json(CleanupPage { items: items.into_iter().map(CleanupItem::from).collect(), next }))
}

impl From<resource_cleaner::Error> for Error {
    fn from(error: resource_cleaner::Error) -> Self {
        match error {
            resource_cleaner::Error::Store(error) => error.into(),
            resource_cleaner::Error::Cluster(Fault::Expired) => Self::invalid("after", Fault::Expired.to_string()),
            resource_cleaner::Error::Cluster(fault) => {
                tracing::error!(%fault, "a request could not be answered from the cluster");
                Self::ClusterAway
            }
        }
    }
}
