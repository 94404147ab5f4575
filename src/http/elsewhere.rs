//! What only the monitor has, in a process that watches nothing: it is asked of the monitor.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State as Shared},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, Method, header};

use super::{Error, State};
use crate::upstream::{FORWARDED, Upstream};

/// Answered by the monitor alone.
const OF_THE_MONITOR: [&str; 3] = ["/pods", "/pods/{namespace}/{name}", "/audit"];
/// Of a request, what the monitor's answer depends on.
const ASKED_WITH: [HeaderName; 4] = [header::ACCEPT, header::RANGE, header::IF_RANGE, header::IF_NONE_MATCH];
/// Of an answer, what is between two and no further.
const OF_THE_CONNECTION: [HeaderName; 4] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, HeaderName::from_static("keep-alive")];

/// Where the monitor is.
#[derive(Debug, Clone)]
pub enum Monitor {
    /// Here.
    Here,
    /// Nobody says.
    Unknown,
    /// There.
    At(Arc<Upstream>),
}

impl Monitor {
    /// True if it is here.
    pub(super) fn is_here(&self) -> bool {
        matches!(self, Self::Here)
    }

    /// None if it is here.
    ///
    /// # Errors
    /// [`Error::NotHere`] if it is neither here nor known.
    pub(super) fn elsewhere(&self) -> Result<Option<&Upstream>, Error> {
        match self {
            Self::Here => Ok(None),
            Self::Unknown => Err(Error::NotHere(
                "http.monitor_url says where one is, and is off (outputs can also be shared by blob.url)",
            )),
            Self::At(upstream) => Ok(Some(upstream)),
        }
    }
}

/// Passes on what the monitor alone can answer.
pub(super) async fn forward(Shared(state): Shared<Arc<State>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let is_asked = request.method() == Method::GET || request.method() == Method::HEAD;
    if !is_asked || !route.is_some_and(|route| OF_THE_MONITOR.contains(&route.as_str())) {
        return next.run(request).await;
    }
    let upstream = match state.monitor.elsewhere() {
        Ok(None) => return next.run(request).await,
        Ok(Some(upstream)) => upstream,
        Err(error) => return error.into_response(),
    };
    // Nothing but what the route says may come of it at a server that normalises paths.
    if ["..", "%"].iter().any(|part| request.uri().path().contains(part)) {
        return Error::NoRoute.into_response();
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    ask(upstream, path, request.headers()).await.unwrap_or_else(IntoResponse::into_response)
}

/// Refuses what somebody has passed on already: it would go in a circle.
///
/// # Errors
/// The request was passed on by another who is no monitor either.
pub(super) fn is_first(asked: &HeaderMap) -> Result<(), Error> {
    if asked.contains_key(FORWARDED) {
        return Err(Error::NotHere("http.monitor_url of who passed this on must name one that is"));
    }
    Ok(())
}

/// The monitor's answer to what was asked here.
///
/// # Errors
/// There is none, or who was asked is no monitor either.
pub(super) async fn ask(upstream: &Upstream, path: &str, asked: &HeaderMap) -> Result<Response, Error> {
    is_first(asked)?;
    let mut headers = HeaderMap::new();
    for name in ASKED_WITH {
        headers.extend(asked.get_all(&name).iter().map(|value| (name.clone(), value.clone())));
    }
    let answer = upstream.get(path, &headers).await.map_err(|reason| {
        tracing::warn!(reason, "what only the monitor has could not be shown");
        Error::MonitorAway
    })?;
    let (mut head, body) = answer.into_parts();
    for name in OF_THE_CONNECTION {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Body::new(body)))
}
