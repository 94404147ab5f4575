//! The monitor, asked over HTTP by a process that watches nothing itself.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::crypto::ring::default_provider;
use tokio::time::timeout;

use crate::wording;

/// Connections without a request are closed after this.
const IDLE: Duration = Duration::from_secs(30);
/// Until there is a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Until the answer's head is there.
const ANSWER: Duration = Duration::from_secs(10);

/// Says that a request was passed on: whoever would pass it on again must not.
pub const FORWARDED: header::HeaderName = header::HeaderName::from_static("podherald-forwarded");

/// See the module.
#[derive(Debug, Clone)]
pub struct Upstream {
    base: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Upstream {
    /// The podherald at this address.
    ///
    /// # Errors
    /// The system's certificates cannot be read.
    pub fn new(base: Uri) -> io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { base, client })
    }

    /// Its answer to a GET of this path (and query) with these headers; the body as it comes.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub async fn get(&self, path: &str, headers: &HeaderMap) -> Result<Response<Incoming>, String> {
        let wrong = |error: http::Error| format!("http.monitor_url = {} cannot be asked: {error}", self.base);
        let prefix = self.base.path().trim_end_matches('/');
        let uri = Uri::builder()
            .scheme(self.base.scheme_str().unwrap_or("http"))
            .authority(self.base.authority().map_or("", |authority| authority.as_str()))
            .path_and_query(format!("{prefix}{path}"));
        let mut request = Request::get(uri.build().map_err(wrong)?).body(Empty::new()).map_err(wrong)?;
        request.headers_mut().extend(headers.clone());
        request.headers_mut().insert(FORWARDED, HeaderValue::from_static("1"));
        let away = |reason: String| format!("no podherald at http.monitor_url = {} answers: {reason}", self.base);
        match timeout(ANSWER, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| away(wording::of(&error))),
            Err(_) => Err(away(format!("nothing came within {ANSWER:?}"))),
        }
    }
}
