//! The contract as an OpenAPI 3.1 document.

use axum::response::{IntoResponse, Response};
use http::header;
use utoipa::OpenApi;

use super::router;
use crate::contract;

/// What the document says beside the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "podherald",
        description = "Watches pods that run someone's code and tells, at once and for certain, what became of it.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "executions", description = "What became of them"),
        (name = "events", description = "What happened, past and live"),
        (name = "pods", description = "What the monitor tracks"),
        (name = "webhooks", description = "Where events are POSTed to"),
        (name = "operations", description = "For whoever runs podherald"),
    )
)]
pub(super) struct Contract;

/// The document as pretty JSON: `/openapi.json`, and the file `openapi/openapi.json`.
pub fn document() -> String {
    let mut text = router::routes().to_openapi().to_pretty_json().expect("the document holds only plain values");
    text.push('\n');
    text
}

/// The contract.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses((status = 200, body = Object)))]
pub(super) async fn get() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}

/// The contract of what is sent to Kafka and Redis.
#[utoipa::path(get, path = "/asyncapi.json", tag = "operations", responses((status = 200, body = Object)))]
pub(super) async fn get_asyncapi() -> Response {
    let document = contract::pretty(&contract::asyncapi_document());
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");

    #[test]
    #[expect(clippy::disallowed_methods, reason = "how a developer asks for the new document is no setting")]
    fn the_committed_document_is_the_one_that_is_served() {
        if std::env::var_os("PODHERALD_UPDATE_OPENAPI").is_some() {
            fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi")).unwrap();
            fs::write(FILE, document()).unwrap();
        }
        let committed = fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            committed == document(),
            "openapi/openapi.json is not what the routes say; \
             PODHERALD_UPDATE_OPENAPI=1 cargo test -p podherald the_committed_document writes it anew"
        );
    }

    #[test]
    fn every_reference_of_the_document_resolves() {
        let text = document();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let references: Vec<&str> =
            text.split("\"$ref\": \"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
