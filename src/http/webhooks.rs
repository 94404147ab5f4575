//! `/webhooks`: where events are POSTed to, what came of it, and what can be done about it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{self, Path, rejection::PathRejection},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Error, Problem, State, cursor, negotiate::AcceptsJson, query::Parameters};
use crate::{
    health::SinkHealth,
    webhook::{Delivery, Endpoint, Redelivery, Skip, Status},
};

/// A webhook.
#[derive(Serialize, ToSchema)]
pub(super) struct Webhook {
    #[serde(flatten)]
    status: Status,
    /// How far it has come, as in `/readyz`.
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<SinkHealth>,
}

/// All webhooks, by name.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookList {
    items: Vec<Webhook>,
}

/// Attempts, newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveryPage {
    items: Vec<Delivery>,
    /// Give it as `after` for the next page; null at the end.
    next: Option<String>,
}

type Named<T> = Result<Path<T>, PathRejection>;

/// All webhooks, by name, and how they stand.
#[utoipa::path(
    get, path = "/webhooks", tag = "webhooks",
    responses(
        (status = 200, body = WebhookList),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    extract::State(state): extract::State<Arc<State>>,
    _: AcceptsJson,
    parameters: Parameters,
) -> Result<Json<WebhookList>, Error> {
    parameters.finish()?;
    Ok(Json(WebhookList { items: state.webhooks.iter().map(|endpoint| webhook(&state, endpoint)).collect() }))
}

/// The latest attempts to deliver events, newest first; the log keeps 1,000 of each webhook.
#[utoipa::path(
    get, path = "/webhooks/{name}/deliveries", tag = "webhooks",
    params(
        ("name" = String, Path, description = "`NAME` of `[webhook.NAME]`"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Items of a page, 1 to 500, default 50"),
    ),
    responses(
        (status = 200, body = DeliveryPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn deliveries(
    extract::State(state): extract::State<Arc<State>>,
    path: Named<String>,
    _: AcceptsJson,
    mut parameters: Parameters,
) -> Result<Json<DeliveryPage>, Error> {
    let Path(name) = path.map_err(|_| Error::NoRoute)?;
    let limit = parameters.limit()?;
    let after = parameters.after(cursor::Deliveries::decode)?.map(|after| after.0);
    parameters.finish()?;
    let mut items = find(&state, &name)?.deliveries(after, limit + 1).await?;
    let next = cursor::cut(&mut items, limit, |last| cursor::Deliveries(last.id).encode());
    Ok(Json(DeliveryPage { items, next }))
}

/// Sends to a webhook again, from where it stopped, and at once; one that is not disabled does not wait for its next try.
#[utoipa::path(
    post, path = "/webhooks/{name}/enable", tag = "webhooks",
    params(("name" = String, Path, description = "`NAME` of `[webhook.NAME]`")),
    responses(
        (status = 200, body = Webhook),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn enable(
    extract::State(state): extract::State<Arc<State>>,
    path: Named<String>,
    _: AcceptsJson,
    parameters: Parameters,
) -> Result<Json<Webhook>, Error> {
    let Path(name) = path.map_err(|_| Error::NoRoute)?;
    parameters.finish()?;
    let endpoint = find(&state, &name)?;
    endpoint.enable().await?;
    Ok(Json(webhook(&state, endpoint)))
}

/// Sends an event that is in the log of deliveries once more, as it is in the journal, and tells how that went.
#[utoipa::path(
    post, path = "/webhooks/{name}/deliveries/{event_id}/redeliver", tag = "webhooks",
    params(
        ("name" = String, Path, description = "`NAME` of `[webhook.NAME]`"),
        ("event_id" = String, Path, description = "`event_id` of a delivery"),
    ),
    responses(
        (status = 200, description = "It was sent; `status` and `error` say how that went", body = Delivery),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The event cannot be sent, or is no longer kept", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn redeliver(
    extract::State(state): extract::State<Arc<State>>,
    path: Named<(String, String)>,
    _: AcceptsJson,
    parameters: Parameters,
) -> Result<Json<Delivery>, Error> {
    let Path((name, event_id)) = path.map_err(|_| Error::NoRoute)?;
    parameters.finish()?;
    match find(&state, &name)?.redeliver(&event_id).await? {
        Redelivery::Sent(delivery) => Ok(Json(delivery)),
        Redelivery::Unknown => Err(Error::NoDelivery(event_id)),
        Redelivery::Gone => Err(Error::Unsendable("retention has taken the event".to_owned())),
        Redelivery::Impossible(reason) => Err(Error::Unsendable(reason)),
    }
}

/// Leaves out an event that the webhook does not take, so that those after it are sent; it becomes a dead letter.
#[utoipa::path(
    post, path = "/webhooks/{name}/deliveries/{event_id}/skip", tag = "webhooks",
    params(
        ("name" = String, Path, description = "`NAME` of `[webhook.NAME]`"),
        ("event_id" = String, Path, description = "`event_id` of a delivery"),
    ),
    responses(
        (status = 200, description = "It is left out, at once or when the webhook is enabled", body = Delivery),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The event was acknowledged or left out before, or is no longer kept", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn skip(
    extract::State(state): extract::State<Arc<State>>,
    path: Named<(String, String)>,
    _: AcceptsJson,
    parameters: Parameters,
) -> Result<Json<Delivery>, Error> {
    let Path((name, event_id)) = path.map_err(|_| Error::NoRoute)?;
    parameters.finish()?;
    match find(&state, &name)?.skip(&event_id).await? {
        Skip::Skipped(delivery) => Ok(Json(delivery)),
        Skip::Unknown => Err(Error::NoDelivery(event_id)),
        Skip::Gone => Err(Error::Unskippable("retention has taken the event")),
        Skip::Done => Err(Error::Unskippable("the webhook has acknowledged it, or it was left out before")),
    }
}

fn find<'a>(state: &'a State, name: &str) -> Result<&'a Arc<Endpoint>, Error> {
    let found = state.webhooks.iter().find(|endpoint| endpoint.name() == name);
    found.ok_or_else(|| Error::NoWebhook(name.to_owned()))
}

fn webhook(state: &State, endpoint: &Endpoint) -> Webhook {
    let name = endpoint.subscription().sink;
    let sink = state.readiness.sinks().into_iter().find(|sink| sink.name == name);
    Webhook { status: endpoint.status(), sink }
}
