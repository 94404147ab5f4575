//! Objects from bodies, and what becomes of fields that nobody knows.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use super::{Body, request::Asked};
use crate::cluster::{Cause, Kind, Refusal, text};

/// No more fields that nobody knows are named.
const MOST_UNKNOWN: usize = 100;
/// Characters of all warnings together; where they are more, each is cut and the last ones are left out.
const WARNINGS_LENGTH: usize = 4096;
/// Characters of a warning that is cut.
const WARNING_LENGTH: usize = 256;

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
    let unknown: Vec<String> =
        unknown.iter().take(MOST_UNKNOWN).map(|field| format!("unknown field {field:?}")).collect();
    match validation {
        "Strict" if !unknown.is_empty() => {
            Err(kind.resource().not_handled(&format!("strict decoding error: {}", unknown.join(", "))))
        }
        "Ignore" => Ok(Warnings::default()),
        _ => Ok(Warnings(unknown)),
    }
}

impl Warnings {
    /// One more.
    pub(super) fn and(mut self, warning: Option<&str>) -> Self {
        self.0.extend(warning.map(str::to_owned));
        self
    }

    /// The answer with what kubectl prints as `Warning: ...`.
    pub(super) fn on(self, mut answer: Response<Body>) -> Response<Body> {
        for warning in bounded(self.0) {
            // Names of fields come from the body, and may be of any bytes.
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                answer.headers_mut().append(header::WARNING, value);
            }
        }
        answer
    }
}

/// Clients bound what headers they read.
fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    let length = |warning: &String| warning.chars().count();
    if warnings.iter().map(length).sum::<usize>() <= WARNINGS_LENGTH {
        return warnings;
    }
    tracing::warn!(warnings = warnings.len(), "the warnings of an answer are too long and are cut");
    let mut written = 0;
    warnings.retain_mut(|warning| {
        let fits = written < WARNINGS_LENGTH;
        if let Some((end, _)) = warning.char_indices().nth(WARNING_LENGTH) {
            warning.truncate(end);
        }
        written += length(warning);
        fits
    });
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_cut_only_where_they_are_too_long_together() {
        let long = "ñ".repeat(3000);
        assert_eq!(bounded(vec![long.clone(), "short".to_owned()]), [long.as_str(), "short"]);
        let cut = "ñ".repeat(WARNING_LENGTH);
        assert_eq!(bounded(vec![long.clone(), "short".to_owned(), long]), [cut.as_str(), "short", &cut]);
    }
}
