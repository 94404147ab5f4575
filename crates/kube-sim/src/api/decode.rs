//! Objects from bodies, and what becomes of fields that nobody knows.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::{Body, request::Asked};
use crate::cluster::{Cause, Kind, Refusal, text};

/// What the answer says besides.
#[must_use]
#[derive(Default)]
pub(super) struct Warnings(Vec<String>);

/// The object in a body.
pub(super) fn object(kind: Kind, asked: &Asked, body: &[u8]) -> Result<(Value, Warnings), Refusal> {
    let mut object = asked.body(kind.resource().kind, body)?;
    let warnings = fit(kind, asked, &mut object)?;
    Ok((object, warnings))
}

/// Holds what a patch has made against its type: that it does not fit any more is the patch's fault.
pub(super) fn patched(kind: Kind, asked: &Asked, object: &mut Value) -> Result<Warnings, Refusal> {
    let name = text(object, "/metadata/name").to_owned();
    fit(kind, asked, object).or_else(|refusal| {
        if refusal.code == StatusCode::BAD_REQUEST {
            let cause = Cause::invalid("patch", name.as_str(), &refusal.message);
            Refusal::if_invalid("", kind.resource().kind, &name, &[cause])?;
        }
        Err(refusal)
    })
}

/// `fieldValidation` says whether a field that nobody knows is refused, told of, or passed over.
fn fit(kind: Kind, asked: &Asked, object: &mut Value) -> Result<Warnings, Refusal> {
    let validation = asked.query.get("fieldValidation").unwrap_or("Warn");
    let options = if asked.creates() { "CreateOptions" } else { "UpdateOptions" };
    if !["Ignore", "Strict", "Warn"].contains(&validation) {
        let cause = Cause::unsupported("fieldValidation", validation, &["", "Ignore", "Strict", "Warn"]);
        Refusal::if_invalid("meta.k8s.io", options, "", &[cause])?;
    }
    let unknown = kind.resource().decode(object)?;
    let unknown: Vec<String> = unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
    match validation {
        "Strict" if !unknown.is_empty() => {
            Err(kind.resource().not_handled(&format!("strict decoding error: {}", unknown.join(", "))))
        }
        "Ignore" => Ok(Warnings::default()),
        _ => Ok(Warnings(unknown)),
    }
}

impl Warnings {
    /// The answer with what kubectl prints as `Warning: ...`.
    pub(super) fn on(self, mut answer: Response<Body>) -> Response<Body> {
        for warning in self.0 {
            // Names of fields come from the body, and may be of any bytes.
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                answer.headers_mut().append(header::WARNING, value);
            }
        }
        answer
    }
}
