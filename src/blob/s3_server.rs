//! As much of S3 as podherald speaks, in memory, on a loopback port; it knows one bucket and one key. tests/it has it, too.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "not every test asks for everything")]

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

pub(super) const BUCKET: &str = "results";
pub(super) const KEY_ID: &str = "AKTEST";

#[derive(Default)]
pub(super) struct Held {
    pub(super) objects: BTreeMap<String, Bytes>,
    pub(super) uploads: HashMap<String, BTreeMap<u32, Bytes>>,
    /// Methods, in order; uploads apart.
    pub(super) requests: Vec<String>,
    /// So many of the next requests are refused like this.
    pub(super) refusals: Vec<(u16, &'static str)>,
    /// Completing an upload is refused.
    pub(super) never_completes: bool,
    begun: u32,
}

/// Ends when dropped.
pub(super) struct S3 {
    pub(super) endpoint: String,
    held: Arc<Mutex<Held>>,
    _server: JoinSet<()>,
}

impl S3 {
    pub(super) async fn start() -> Self {
        Self::listen("http", None).await
    }

    /// Over TLS, with this certificate and key.
    pub(super) async fn start_tls(certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Self {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        Self::listen("https", Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(scheme: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("{scheme}://{}", listener.local_addr().unwrap());
        let held = Arc::<Mutex<Held>>::default();
        let router = Router::new().fallback(answer).with_state(held.clone());
        let mut server = JoinSet::new();
        server.spawn(serve(listener, tls, router));
        Self { endpoint, held, _server: server }
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap()
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        let tls = tls.clone();
        connections.spawn(async move {
            let Some(tls) = tls else { return converse(stream, service).await };
            // Whoever does not believe the certificate goes away.
            if let Ok(stream) = tls.accept(stream).await {
                converse(stream, service).await;
            }
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, service: TowerToHyperService<Router>) {
    // A client that goes away is no failure of the server.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    State(held): State<Arc<Mutex<Held>>>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut held = held.lock().unwrap();
    let authorization = head.headers.get(header::AUTHORIZATION).map_or("", |value| value.to_str().unwrap());
    let path = head.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let verbs = ["uploads", "uploadId"].iter().filter(|verb| query.contains_key(**verb)).count();
    held.requests.push(if verbs > 0 { format!("{}*", head.method) } else { head.method.to_string() });
    if !held.refusals.is_empty() {
        let (status, code) = held.refusals.remove(0);
        return refused(status, code);
    }
    if !authorization.contains(&format!("Credential={KEY_ID}/")) {
        return refused(403, "InvalidAccessKeyId");
    }
    if bucket != BUCKET {
        return refused(404, "NoSuchBucket");
    }
    let (key, upload) = (key.to_owned(), query.get("uploadId"));
    match (&head.method, upload) {
        (&Method::POST, None) => {
            held.begun += 1;
            let id = format!("u{}", held.begun);
            held.uploads.insert(id.clone(), BTreeMap::new());
            let told = format!("<Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>");
            xml("InitiateMultipartUploadResult", &told)
        }
        (&Method::PUT, Some(id)) => {
            let number = query["partNumber"].parse().unwrap();
            held.uploads.get_mut(id).unwrap().insert(number, body);
            [(header::ETAG, format!("\"part{number}\""))].into_response()
        }
        (&Method::POST, Some(_)) if held.never_completes => refused(500, "InternalError"),
        (&Method::POST, Some(id)) => {
            let parts = held.uploads.remove(id).unwrap();
            held.objects.insert(key.clone(), parts.into_values().collect::<Vec<_>>().concat().into());
            xml("CompleteMultipartUploadResult", &format!("<Key>{key}</Key><ETag>\"whole\"</ETag>"))
        }
        (&Method::DELETE, Some(id)) => {
            held.uploads.remove(id);
            StatusCode::NO_CONTENT.into_response()
        }
        (&Method::PUT, None) => {
            held.objects.insert(key, body);
            [(header::ETAG, "\"whole\"")].into_response()
        }
        (&Method::DELETE, None) => {
            held.objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        (&Method::GET | &Method::HEAD, _) => {
            let Some(object) = held.objects.get(&key) else { return refused(404, "NoSuchKey") };
            let range = head.headers.get(header::RANGE).map(|value| value.to_str().unwrap().to_owned());
            get(object, range.as_deref())
        }
        _ => refused(405, "MethodNotAllowed"),
    }
}

/// A HEAD gets the same, and axum leaves its body out.
fn get(object: &Bytes, range: Option<&str>) -> Response {
    let of = [(header::ETAG, "\"whole\""), (header::LAST_MODIFIED, "Wed, 25 Nov 2026 12:00:00 GMT")];
    let Some(range) = range else { return (of, object.clone()).into_response() };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let content = format!("bytes {first}-{last}/{}", object.len());
    let part = object.slice(first..=last);
    (StatusCode::PARTIAL_CONTENT, of, [(header::CONTENT_RANGE, content)], part).into_response()
}

fn refused(status: u16, code: &str) -> Response {
    let mut response = xml("Error", &format!("<Code>{code}</Code><Message>The server's words.</Message>"));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn xml(element: &str, content: &str) -> Response {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{element}>{content}</{element}>").into_response()
}
