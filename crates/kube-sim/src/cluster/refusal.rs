//! Why something is not done, in the API server's words.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Kind, text};

/// Why something was not done, as a `Status` says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub code: StatusCode,
    /// `reason` of the `Status`: `NotFound`, `Conflict`, `AlreadyExists`, `Invalid`, `Expired`...
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// `details` of the `Status`.
    pub details: Option<Box<Value>>,
    /// `metadata.continue` of the `Status`: where a list may go on all the same.
    pub continued: Option<String>,
}

/// One thing that is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    reason: &'static str,
    field: String,
    message: String,
}

impl Cause {
    pub(crate) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    pub(crate) fn invalid(field: impl Into<String>, value: impl Into<Value>, detail: &str) -> Self {
        let message = format!("Invalid value: {}: {detail}", value.into());
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    pub(crate) fn too_long(field: impl Into<String>, longest: usize) -> Self {
        let message = format!("Too long: may not be more than {longest} bytes");
        Self { reason: "FieldValueTooLong", field: field.into(), message }
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: &str) -> Self {
        Self { reason: "FieldValueDuplicate", field: field.into(), message: format!("Duplicate value: {value:?}") }
    }

    pub(crate) fn not_found(field: impl Into<String>, value: &str) -> Self {
        Self { reason: "FieldValueNotFound", field: field.into(), message: format!("Not found: {value:?}") }
    }

    pub(crate) fn unsupported(field: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", supported.join(", "));
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    pub(crate) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {detail}") }
    }

    fn to_json(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

impl Refusal {
    /// One without details.
    pub fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continued: None }
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if let Some(details) = &self.details {
            status["details"] = (**details).clone();
        }
        if let Some(token) = &self.continued {
            status["metadata"]["continue"] = token.as_str().into();
        }
        status
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub(crate) fn not_found(kind: Kind, name: &str) -> Self {
        let plural = kind.resource().qualified();
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{plural} {name:?} not found")).about(kind, name)
    }

    pub(crate) fn already_exists(kind: Kind, name: &str) -> Self {
        let plural = kind.resource().qualified();
        let message = format!("{plural} {name:?} already exists");
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(kind, name)
    }

    pub(crate) fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let plural = kind.resource().qualified();
        let message = format!("Operation cannot be fulfilled on {plural} {name:?}: {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    pub(crate) fn modified(kind: Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    pub(crate) fn forbidden(kind: Kind, name: &str, why: &str) -> Self {
        let plural = kind.resource().qualified();
        let message = format!("{plural} {name:?} is forbidden: {why}");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(kind, name)
    }

    /// What is wrong with an object, if anything is.
    pub(crate) fn if_invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Result<(), Self> {
        let messages: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let what = match &messages[..] {
            [] => return Ok(()),
            [only] => only.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut details = json!({
            "kind": kind,
            "causes": causes.iter().map(Cause::to_json).collect::<Vec<_>>(),
        });
        for (field, value) in [("name", name), ("group", group)] {
            if !value.is_empty() {
                details[field] = value.into();
            }
        }
        let message = format!("{qualified} {name:?} is invalid: {what}");
        let refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        Err(refusal.with(details))
    }

    pub(crate) fn with(mut self, details: Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    pub(crate) fn continued_by(mut self, token: String) -> Self {
        self.continued = Some(token);
        self
    }

    fn about(self, kind: Kind, name: &str) -> Self {
        let resource = kind.resource();
        let mut details = json!({"name": name, "kind": resource.plural});
        if !resource.group.is_empty() {
            details["group"] = resource.group.into();
        }
        self.with(details)
    }
}

/// Refuses what is meant for another object of that name.
pub(super) fn expect_uid(kind: Kind, name: &str, uid: &str, object: &Value) -> Result<(), Refusal> {
    let found = text(object, "/metadata/uid");
    if uid == found {
        return Ok(());
    }
    let why = format!(
        "the UID in the precondition ({uid}) does not match the UID in record ({found}). The object might have been \
         deleted and then recreated"
    );
    Err(Refusal::conflict(kind, name, &why))
}
