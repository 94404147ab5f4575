//! What a caller is told when it cannot have what it asked for: RFC 9457 problems, never internals.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    blob,
    health::{Finding, SinkHealth},
    journal, output_store, replica, store, webhook,
};

/// Why a request has no better answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// No such path.
    NoRoute,
    /// The path is there, the method is not.
    Method,
    /// Nobody has seen an execution with this id.
    NoExecution(String),
    /// No pod of this namespace and name was tracked.
    NoPod {
        /// Namespace asked for.
        namespace: String,
        /// Name asked for.
        name: String,
    },
    /// No webhook of this name is configured.
    NoWebhook(String),
    /// The log of deliveries has no such event.
    NoDelivery(String),
    /// The event cannot be sent again, and why.
    Unsendable(String),
    /// The event cannot be skipped, and why.
    Unskippable(&'static str),
    /// The execution is there, this output is not.
    NoOutput(String),
    /// The execution may be there, its result is not.
    NoResult(String),
    /// No role of this process tidies the cluster up.
    NoCleaner,
    /// Only a monitor has it, and this is none: why it cannot be asked.
    NotHere(&'static str),
    /// The monitor does not answer; the log has the reason.
    MonitorAway,
    /// The API server does not answer; the log has the reason.
    ClusterAway,
    /// The store of results does not answer; the log has the reason.
    StoreAway,
    /// A parameter, header or path segment that cannot be understood.
    Invalid {
        /// Its name.
        parameter: String,
        /// What would be right.
        reason: String,
    },
    /// The range that was asked for begins behind the last byte.
    NotSatisfiable {
        /// How many bytes there are.
        length: u64,
    },
    /// The blob store does not give what it has; the log has the reason.
    BlobAway,
    /// The cursor points to where the history no longer reaches.
    Gone,
    /// No representation that the caller accepts; holds those there are.
    NotAcceptable(String),
    /// Host or Origin is not what it must be.
    Forbidden(&'static str),
    /// More than 16 KiB of headers.
    HeadersTooLarge,
    /// More than 1 MiB of body.
    BodyTooLarge,
    /// More connections than `http.max_connections`.
    Crowded,
    /// More event streams and held requests than `http.max_streams`.
    NoSeat,
    /// Another process owns the data directory.
    Standby,
    /// The process is not ready for what was asked.
    NotReady {
        /// What was asked.
        findings: Vec<Finding>,
        /// How the sinks are doing all the same.
        sinks: Vec<SinkHealth>,
    },
    /// The process is on its way out.
    Closing,
    /// The handler took too long.
    TimedOut,
    /// The journal or an output file could not be read; the log has the reason.
    Unreadable,
}

/// An answer as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Stable: `urn:podherald:problem:` and a word.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: &'static str,
    /// The kind in words.
    #[schema(value_type = String)]
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here, and what would be right.
    pub detail: String,
    /// The parameter, header or path segment at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// How the sinks are doing; only where something is not ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkHealth>,
}

impl Error {
    /// A parameter that cannot be understood.
    pub(super) fn invalid(parameter: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { parameter: parameter.into(), reason: reason.into() }
    }

    /// What the caller is told.
    pub fn problem(&self) -> Problem {
        let (status, kind, title, detail) = match self {
            Self::NoRoute => (
                StatusCode::NOT_FOUND,
                "urn:podherald:problem:no-route",
                "No such path",
                "this path is none of podherald's; /openapi.json lists them".to_owned(),
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "urn:podherald:problem:method-not-allowed",
                "Method not allowed",
                "this path does not answer to this method; the Allow header has those that it does".to_owned(),
            ),
            Self::NoExecution(id) => (
                StatusCode::NOT_FOUND,
                "urn:podherald:problem:execution-not-found",
                "No such execution",
                format!("no pod of an execution {id:?} has been seen, or its history is no longer kept"),
            ),
            Self::NoPod { namespace, name } => (
                StatusCode::NOT_FOUND,
                "urn:podherald:problem:pod-not-found",
                "No such pod",
                format!("no pod {name:?} of namespace {namespace:?} is tracked"),
            ),
            Self::NoWebhook(name) => (
                StatusCode::NOT_FOUND,
                "urn:podherald:problem:webhook-not-found",
                "No such webhook",
                format!("there is no table [webhook.{}] in the configuration; /webhooks lists them", name.escape_debug()),
            ),
            Self::NoDelivery(id) => (
                StatusCode::NOT_FOUND,
                "urn:podherald:problem:delivery-not-found",
                "No such delivery",
                format!("the log of this webhook's deliveries has no event {id:?}"),
            ),
            Self::Unsendable(reason) => (
                StatusCode::CONFLICT,
                "urn:podherald:problem:not-redeliverable",
                "The event cannot be sent again",
                reason.clone(),
            ),
            Self::Unskippable(reason) => (
                StatusCode::CONFLICT,
                "urn:podherald:problem:not-skippable",
                "The event cannot be skipped",
                (*reason).to_owned(),
            ),
            Self::NoOutput(detail) => {
                (StatusCode::NOT_FOUND, "urn:podherald:problem:output-not-found", "No such output", detail.clone())
            }
            Self::Invalid { parameter, reason } => (
                StatusCode::BAD_REQUEST,
                "urn:podherald:problem:invalid-parameter",
                "Invalid parameter",
                format!("{parameter}: {reason}"),
            ),
            Self::NotSatisfiable { length } => (
                StatusCode::RANGE_NOT_SATISFIABLE,
                "urn:podherald:problem:range-not-satisfiable",
                "Range not satisfiable",
                format!("Range must begin within the {length} bytes that there are"),
            ),
            Self::NoResult(detail) => {
                (StatusCode::NOT_FOUND, "urn:podherald:problem:result-not-found", "No such result", detail.clone())
            }
            Self::NoCleaner => (
                StatusCode::NOT_FOUND,
                "urn:podherald:problem:no-cleaner",
                "Nothing is tidied up here",
                "this podherald deletes nothing: it needs the role resource_cleaner".to_owned(),
            ),
            Self::NotHere(why) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:not-here",
                "Only the monitor has it",
                format!("this podherald watches no pods, and only one that does has this: {why}"),
            ),
            Self::MonitorAway => (
                StatusCode::BAD_GATEWAY,
                "urn:podherald:problem:monitor-away",
                "The monitor does not answer",
                "only the monitor has this, and the one of http.monitor_url does not answer: ask again; the log says why"
                    .to_owned(),
            ),
            Self::ClusterAway => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:cluster-away",
                "The cluster cannot be read",
                "what is there is known to the API server only, and that does not answer as it should: ask again; the log says \
                 why"
                .to_owned(),
            ),
            Self::StoreAway => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:store-away",
                "The store cannot be read",
                "this is in the store only, and that does not answer: ask again; the log says why".to_owned(),
            ),
            Self::BlobAway => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:blob-store-away",
                "The blob store cannot be read",
                "the output is in the blob store only, and that does not answer: ask again; /readyz says why".to_owned(),
            ),
            Self::Gone => (
                StatusCode::GONE,
                "urn:podherald:problem:history-gone",
                "The history no longer reaches back that far",
                "what this cursor points to is no longer kept: begin again without it".to_owned(),
            ),
            Self::NotAcceptable(offered) => (
                StatusCode::NOT_ACCEPTABLE,
                "urn:podherald:problem:not-acceptable",
                "Not acceptable",
                format!("Accept must admit {offered}"),
            ),
            Self::Forbidden(detail) => {
                (StatusCode::FORBIDDEN, "urn:podherald:problem:forbidden", "Forbidden", (*detail).to_owned())
            }
            Self::HeadersTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "urn:podherald:problem:headers-too-large",
                "Headers too large",
                "request line and headers may have 16 KiB together".to_owned(),
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "urn:podherald:problem:body-too-large",
                "Body too large",
                "a request body may have 1 MiB".to_owned(),
            ),
            Self::Crowded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:too-many-connections",
                "Too many connections",
                "http.max_connections are open already: try again later".to_owned(),
            ),
            Self::NoSeat => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:too-many-streams",
                "Too many streams",
                "http.max_streams event streams and held requests are open already: try again later, or ask for a page, or \
                 without wait"
                    .to_owned(),
            ),
            Self::Standby => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:standby",
                "Standby",
                "another podherald owns the data directory; this one waits to take over".to_owned(),
            ),
            Self::NotReady { findings, .. } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:not-ready",
                "Not ready",
                findings
                    .iter()
                    .filter_map(|finding| Some(format!("{}: {}", finding.name, finding.problem.as_deref()?)))
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
            Self::Closing => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:shutting-down",
                "Shutting down",
                "this process is about to end: ask again".to_owned(),
            ),
            Self::TimedOut => (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:podherald:problem:timed-out",
                "Timed out",
                "the answer took too long: ask again".to_owned(),
            ),
            Self::Unreadable => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "urn:podherald:problem:unreadable",
                "Storage could not be read",
                "podherald could not read what it has stored; its log has the reason".to_owned(),
            ),
        };
        let parameter = match self {
            Self::Invalid { parameter, .. } => Some(parameter.clone()),
            _ => None,
        };
        let sinks = match self {
            Self::NotReady { sinks, .. } => sinks.clone(),
            _ => Vec::new(),
        };
        Problem { kind, title, status: status.as_u16(), detail, parameter, sinks }
    }

    /// Seconds; of use with a 503 only.
    fn retry_after(&self) -> &'static str {
        // Who has a seat keeps it for long.
        if *self == Self::NoSeat { "5" } else { "1" }
    }
}

impl Problem {
    /// The body.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a problem holds only strings and a number")
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let mut response = problem.to_bytes().into_response();
        *response.status_mut() = StatusCode::from_u16(problem.status).expect("made from a status above");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if problem.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(self.retry_after()));
        }
        if let Self::NotSatisfiable { length } = &self {
            let range = format!("bytes */{length}");
            headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&range).expect("made of a number"));
        }
        // Who found no seat shall not keep a connection from those who only ask.
        if self == Self::NoSeat {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<output_store::Error> for Error {
    fn from(error: output_store::Error) -> Self {
        tracing::error!(%error, "an output could not be read");
        Self::Unreadable
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        tracing::error!(%error, "a request could not be answered from the store");
        Self::StoreAway
    }
}

impl From<replica::Error> for Error {
    fn from(error: replica::Error) -> Self {
        match error {
            replica::Error::Store(error) => error.into(),
            replica::Error::Journal(error) => error.into(),
        }
    }
}

impl From<blob::Fault> for Error {
    fn from(fault: blob::Fault) -> Self {
        tracing::error!(%fault, "a blob could not be read");
        Self::BlobAway
    }
}

impl From<webhook::StoreError> for Error {
    fn from(error: webhook::StoreError) -> Self {
        tracing::error!(%error, "what is kept of webhooks could not be read or written");
        Self::Unreadable
    }
}

impl From<webhook::OperationError> for Error {
    fn from(error: webhook::OperationError) -> Self {
        match error {
            webhook::OperationError::Store(error) => error.into(),
            webhook::OperationError::Journal(error) => error.into(),
        }
    }
}

impl From<journal::Error> for Error {
    fn from(error: journal::Error) -> Self {
        match error {
            journal::Error::Closed => Self::Closing,
            error => {
                tracing::error!(%error, "a request could not be answered from the journal");
                Self::Unreadable
            }
        }
    }
}
