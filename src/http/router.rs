//! The routes, and what holds for all of them.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State as Shared},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Uri, header};
use tokio::time::timeout;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Error, State, audit, cleanup, dead_letters, elsewhere, events, executions, health, openapi, output, page, pods,
    query::MAX_WAIT, results, webhooks,
};

/// Request line and headers at most.
const MAX_HEADERS: usize = 16 << 10;
/// A request body at most.
const MAX_BODY: usize = 1 << 20;

/// All of podherald's routes.
pub fn router(state: Arc<State>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .merge(page::routes())
        .fallback(|| async { Error::NoRoute })
        .method_not_allowed_fallback(|| async { Error::Method })
        .layer(middleware::from_fn_with_state(state.clone(), elsewhere::forward))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(state.clone(), within_time))
        .layer(middleware::from_fn_with_state(state.clone(), guard))
        .with_state(state)
}

/// The routes with their documentation.
pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::with_openapi(openapi::Contract::openapi())
        .routes(routes!(executions::list))
        .routes(routes!(executions::one))
        .routes(routes!(events::of_one))
        .routes(routes!(output::get))
        .routes(routes!(results::get))
        .routes(routes!(events::of_many))
        .routes(routes!(dead_letters::list))
        .routes(routes!(cleanup::list))
        .routes(routes!(pods::list))
        .routes(routes!(pods::one))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::enable))
        .routes(routes!(webhooks::redeliver))
        .routes(routes!(webhooks::skip))
        .routes(routes!(audit::get))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::get))
        .routes(routes!(openapi::get_asyncapi))
}

/// Refuses what no handler should see, and counts all answers.
async fn guard(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = match admit(&state, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    // A browser must not take a program's output for a page or a script.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    state.metrics.answered(route.as_ref().map_or("none", |route| route.as_str()), response.status().as_u16());
    response
}

fn admit(state: &State, request: &Request) -> Result<(), Error> {
    if size(request.uri(), request.headers()) > MAX_HEADERS {
        return Err(Error::HeadersTooLarge);
    }
    state.options.access.check(request.method(), request.uri(), request.headers())?;
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > MAX_BODY) {
        return Err(Error::BodyTooLarge);
    }
    Ok(())
}

/// About what the head took on the wire: `name: value` and a line end each.
fn size(uri: &Uri, headers: &HeaderMap) -> usize {
    let line = uri.path_and_query().map_or(0, |path| path.as_str().len());
    line + headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>()
}

/// Only the answer is timed: the body of a stream or of an output goes on, within the connection's bounds.
async fn within_time(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let is_held = request.uri().query().is_some_and(|query| query.contains("wait="));
    let limit = state.options.request_timeout + if is_held { MAX_WAIT } else { Duration::ZERO };
    timeout(limit, next.run(request)).await.unwrap_or_else(|_| Error::TimedOut.into_response())
}
