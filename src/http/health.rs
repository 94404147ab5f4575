//! `/livez`, `/readyz`, `/metrics`: for whoever runs podherald.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json, extract,
    response::{IntoResponse, Response},
};
use http::header;
use prometheus_client::encoding::text;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Error, Problem, State, query::Parameters};
use crate::health::{Finding, Role, SinkHealth};

/// The process runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Live {
    /// Always `ok`.
    #[schema(value_type = String)]
    status: &'static str,
}

/// All that was asked about is well.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    /// Always `ok`.
    #[schema(value_type = String)]
    status: &'static str,
    /// What was probed, each kind once.
    #[schema(value_type = Vec<String>)]
    checks: BTreeSet<&'static str>,
    /// How the sinks are doing, whatever the role; none of them makes the process unready.
    sinks: Vec<SinkHealth>,
}

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, body = Live)))]
pub(super) async fn live() -> Json<Live> {
    Json(Live { status: "ok" })
}

/// The process, or one of its roles, is ready.
///
/// `role=api` is apart from `role=monitor` so that a stale watch does not take away the results of the past.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    params(("role" = Option<String>, Query, description = "`monitor`, `api`, `result_processor` or `resource_cleaner`; without it all roles")),
    responses(
        (status = 200, body = Ready),
        (status = 503, description = "Not ready; the detail names what is wrong", body = Problem,
         content_type = "application/problem+json"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ready(
    extract::State(state): extract::State<Arc<State>>,
    mut parameters: Parameters,
) -> Result<Json<Ready>, Error> {
    let role = parameters.read("role", |text| match text {
        "monitor" => Ok(Role::Monitor),
        "api" => Ok(Role::Api),
        "result_processor" => Ok(Role::ResultProcessor),
        "resource_cleaner" => Ok(Role::ResourceCleaner),
        _ => Err(format!("must be monitor, api, result_processor or resource_cleaner, not {text:?}")),
    })?;
    parameters.finish()?;
    if state.readiness.is_draining() {
        return Err(Error::Closing);
    }
    let findings = state.readiness.check(role);
    if findings.iter().any(|finding| finding.problem.is_some()) {
        return Err(Error::NotReady { findings, sinks: state.readiness.sinks() });
    }
    let checks = findings.iter().map(|Finding { name, .. }| *name).collect();
    Ok(Json(Ready { status: "ok", checks, sinks: state.readiness.sinks() }))
}

/// Numbers for Prometheus, in the OpenMetrics text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(extract::State(state): extract::State<Arc<State>>) -> Response {
    let mut body = String::new();
    text::encode(&mut body, &state.registry).expect("a String takes whatever is written to it");
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], body).into_response()
}
