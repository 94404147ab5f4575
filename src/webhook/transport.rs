//! One request and its answer. [`Transport`] lets tests stand in for the network.

use std::{error::Error, fs, io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::timeout;
use tower::Service;

use super::connector::Connector;
use crate::wording;

/// What is read of an answer: it is for the log only.
const MAX_ANSWER: usize = 1024;
/// Connections without a request are closed after this.
const IDLE: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<String>,
    /// The beginning of the body; empty where it is long or no text.
    pub(super) text: String,
}

/// The way to an endpoint.
pub(super) trait Transport: Send + Sync {
    /// POSTs.
    ///
    /// # Errors
    /// Why there was no answer, in words.
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, String>>;

    /// Connects, and sends nothing.
    ///
    /// # Errors
    /// Why it could not.
    fn reach(&self) -> BoxFuture<'_, Result<(), String>>;
}

/// The network.
pub(super) struct Http {
    uri: Uri,
    timeout: Duration,
    connector: HttpsConnector<Connector>,
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
}

impl Http {
    pub(super) fn new(uri: Uri, timeout: Duration, allow_private: bool, tls: ClientConfig) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector { allow_private });
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector.clone());
        Self { uri, timeout, connector, client }
    }

    async fn exchange(&self, headers: HeaderMap, body: Bytes) -> Result<Answer, String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        let response = self.client.request(request).await.map_err(|error| in_words(&error))?;
        let (head, body) = response.into_parts();
        let text = Limited::new(body, MAX_ANSWER).collect().await.map(http_body_util::Collected::to_bytes);
        let text = text.ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()).unwrap_or_default();
        let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| Some(value.to_str().ok()?.to_owned()));
        Ok(Answer { status: head.status, retry_after, text })
    }

    async fn within<T>(&self, what: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let silent = || format!("no answer within its timeout, {:?}", self.timeout);
        timeout(self.timeout, what).await.unwrap_or_else(|_| Err(silent()))
    }
}

impl Transport for Http {
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, String>> {
        self.within(self.exchange(headers, body)).boxed()
    }

    fn reach(&self) -> BoxFuture<'_, Result<(), String>> {
        let mut connector = self.connector.clone();
        let connected = async move {
            let connected = connector.call(self.uri.clone()).await;
            connected.map(drop).map_err(|error| wording::of(&*error))
        };
        self.within(connected).boxed()
    }
}

/// Of a failed connection only why it failed.
fn in_words(error: &hyper_util::client::legacy::Error) -> String {
    match error.source() {
        Some(source) if error.is_connect() => wording::of(source),
        _ => wording::of(error),
    }
}

/// TLS with the system's authorities, or those of this file.
///
/// # Errors
/// The file cannot be read, or there is no certificate in it.
pub(super) fn tls(ca_file: Option<&Path>) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let Some(path) = ca_file else { return Ok(builder.with_native_roots()?.with_no_client_auth()) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&fs::read(path)?) {
        roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    if roots.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no certificate in it"));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
