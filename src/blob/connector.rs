//! How a store on the network is spoken to: over the same client as everything else, with a bound on every wait.

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Client, Error, connect},
    rt::TokioExecutor,
};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse,
        HttpResponseBody, HttpService,
    },
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::OpenError;

/// Whom to believe of a store over TLS.
pub(super) enum Trust<'a> {
    /// Nobody: the store is not spoken to over TLS.
    None,
    /// The authorities of the system.
    System,
    /// Those of `blob.ca_file`.
    File(&'a Path),
}

/// A client; clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct Connector(Client<TimeoutConnector<HttpsConnector<connect::HttpConnector>>, HttpRequestBody>);

impl Connector {
    /// Reads the authorities. Blocks.
    pub(super) fn new(trust: &Trust<'_>, timeout: Duration) -> Result<Self, OpenError> {
        let mut tcp = connect::HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let mut connector = TimeoutConnector::new(tls(trust)?.https_or_http().enable_http1().wrap_connector(tcp));
        connector.set_connect_timeout(Some(timeout));
        connector.set_read_timeout(Some(timeout));
        connector.set_write_timeout(Some(timeout));
        connector.set_reset_reader_on_write(true);
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector)))
    }
}

type Builder = HttpsConnectorBuilder<hyper_rustls::builderstates::WantsSchemes>;

fn tls(trust: &Trust<'_>) -> Result<Builder, OpenError> {
    let builder = HttpsConnectorBuilder::new();
    let provider = ring::default_provider();
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => return builder.with_provider_and_native_roots(provider).map_err(OpenError::NoAuthorities),
        Trust::None => {}
        Trust::File(path) => {
            let unreadable = || OpenError::Authorities { path: (*path).to_owned() };
            let found = CertificateDer::pem_file_iter(path).map_err(|_| unreadable())?;
            for certificate in found {
                roots.add(certificate.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
            }
            if roots.is_empty() {
                return Err(unreadable());
            }
        }
    }
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("ring speaks the versions that are compiled in")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(builder.with_tls_config(config))
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.request(request).await.map_err(failed)?;
        let broken = |error| HttpError::new(HttpErrorKind::Interrupted, error);
        Ok(response.map(|body| HttpResponseBody::new(body.map_err(broken))))
    }
}

fn failed(error: Error) -> HttpError {
    let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
    HttpError::new(kind, error)
}
