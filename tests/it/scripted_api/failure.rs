//! Answers that are no success: `Status` objects in the API server's own words.

use serde_json::{Value, json};

use super::selector::Sort;

/// How a request fails.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// An answer with this code.
    Refused(Refusal),
    /// The connection breaks before an answer.
    Reset,
    /// No answer, ever.
    Hang,
}

/// A `Status`, or for the API server's own overload protection a bare text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    /// `Retry-After`, seconds.
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Value,
}

impl Refusal {
    fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message.into(), "reason": reason, "code": code,
        });
        Self { code, retry_after: None, body }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.body[key] = value;
        self
    }

    /// The reason that belongs to a code.
    pub(crate) fn of_code(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Expired",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        };
        Self::new(code, reason, message)
    }

    pub(crate) fn not_found(sort: Sort, name: &str) -> Self {
        let plural = sort.plural();
        Self::of_code(404, format!("{plural} \"{name}\" not found"))
            .with("details", json!({"name": name, "kind": plural}))
    }

    pub(crate) fn forbidden(sort: Sort, verb: &str, namespace: Option<&str>) -> Self {
        let scope = namespace
            .map_or("at the cluster scope".to_owned(), |namespace| format!("in the namespace \"{namespace}\""));
        let (plural, group) = (sort.plural(), if sort == Sort::Job { "batch" } else { "" });
        let user = "system:serviceaccount:podherald:podherald";
        let message = format!(
            "{plural} is forbidden: User \"{user}\" cannot {verb} resource \"{plural}\" in API group \"{group}\" {scope}"
        );
        Self::of_code(403, message).with("details", json!({"kind": plural}))
    }

    /// A watch from a version that is no longer in the history.
    pub(crate) fn too_old(asked: u64, oldest: u64) -> Self {
        Self::of_code(410, format!("too old resource version: {asked} ({oldest})"))
    }

    /// A `continue` token whose snapshot is gone.
    pub(crate) fn expired_continue(inconsistent: &str) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
                       new list without the continue parameter, or use the continue token in this response to retrieve \
                       the remainder of the results. Continuing with the provided token results in an inconsistent \
                       list - objects that were created, modified, or deleted between the time the first chunk was \
                       returned and now may show up in the list.";
        Self::of_code(410, message).with("metadata", json!({"continue": inconsistent}))
    }

    /// A version that the server has not reached (after a restore, for instance).
    pub(crate) fn too_large(asked: u64, current: u64) -> Self {
        Self::of_code(504, format!("Timeout: Too large resource version: {asked}, current: {current}")).with(
            "details",
            json!({
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            }),
        )
    }

    /// What the server's overload protection answers: no `Status`, a line of text.
    pub(crate) fn too_many_requests(retry_after: u64) -> Self {
        let body = Value::from("Too many requests, please try again later.\n");
        Self { code: 429, retry_after: Some(retry_after), body }
    }

    /// The answer of the log endpoint while the container waits.
    pub(crate) fn container_waits(container: &str, pod: &str, reason: &str) -> Self {
        Self::of_code(400, format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}"))
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
