//! The page: plain HTML, CSS and JavaScript out of the binary, for a browser that is given no rights but to ask this server.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    extract::{Path, rejection::PathRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use super::{Error, State};

/// Scripts and styles are this server's own files, nothing is inline, and text never becomes markup: what a program
/// prints is shown on this page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    // Asked for again each time, and answered 304: a new podherald never meets an old script.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
];

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// A file of the page.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! assets {
    ($($name:literal: $media_type:expr,)*) => {
        &[$(Asset {
            name: $name,
            media_type: $media_type,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/frontend-stub/", $name)),
        },)*]
    };
}

static ASSETS: &[Asset] = assets! {
    "index.html": HTML,
    "docs.html": HTML,
    "style.css": STYLE,
    "icon.svg": IMAGE,
    "api.js": SCRIPT,
    "app.js": SCRIPT,
    "docs.js": SCRIPT,
    "dom.js": SCRIPT,
    "execution.js": SCRIPT,
    "health.js": SCRIPT,
    "list.js": SCRIPT,
    "live.js": SCRIPT,
    "output.js": SCRIPT,
    "plain.js": SCRIPT,
    "pods.js": SCRIPT,
    "route.js": SCRIPT,
    "rows.js": SCRIPT,
    "store.js": SCRIPT,
    "stream.js": SCRIPT,
    "timeline.js": SCRIPT,
    "words.js": SCRIPT,
};

/// A quoted digest of each asset, in their order.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| ASSETS.iter().map(|asset| tag(asset.bytes)).collect());

/// `/`, `/docs` and `/assets/`. They are for people, so the contract does not list them.
pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| answer("index.html", &headers)))
        .route("/docs", get(async |headers: HeaderMap| answer("docs.html", &headers)))
        .route(
            "/assets/{name}",
            get(async |path: Result<Path<String>, PathRejection>, headers: HeaderMap| {
                let Path(name) = path.map_err(|_| Error::NoRoute)?;
                answer(&name, &headers)
            }),
        )
}

fn answer(name: &str, headers: &HeaderMap) -> Result<Response, Error> {
    let index = ASSETS.iter().position(|asset| asset.name == name).ok_or(Error::NoRoute)?;
    let (asset, tag) = (&ASSETS[index], &TAGS[index]);
    let etag = [(header::ETAG, HeaderValue::from_str(tag).expect("a tag is hexadecimal digits in quotes"))];
    if knows(headers, tag) {
        return Ok((StatusCode::NOT_MODIFIED, HEADERS, etag).into_response());
    }
    Ok((HEADERS, etag, [(header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type))], asset.bytes)
        .into_response())
}

/// True if `If-None-Match` has this tag.
fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = values.flat_map(|value| value.split(',')).map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn tag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let digits: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}
