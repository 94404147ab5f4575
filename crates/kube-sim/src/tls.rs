//! Who may speak to the API on a port: a certificate and a token, both made at start and written to a kubeconfig that only
//! its owner can read.
//!
//! Whoever may make pods runs programs as this process's user, so being on the same machine is not enough. kubectl sends
//! its token over TLS only, hence the certificate.

use std::{fs, io, io::Write, net::SocketAddr, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, pki_types::PrivateKeyDer},
};
use uuid::Uuid;

/// Names by which a loopback listener is called.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See the source.
    #[error("the API's certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// See the source.
    #[error("the API's certificate could not be used")]
    Tls(#[from] rustls::Error),
}

/// A certificate and a token that live as long as the listener.
pub struct Credentials {
    certificate: String,
    token: String,
    pub(crate) acceptor: TlsAcceptor,
}

impl Credentials {
    /// New ones.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub fn generate() -> Result<Self, Error> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(NAMES.map(str::to_owned))?;
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        Ok(Self {
            certificate: cert.pem(),
            token: Uuid::new_v4().simple().to_string(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    #[cfg(test)]
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// True for the value of an `Authorization` header that lets its bearer in.
    pub(crate) fn admits(&self, authorization: &[u8]) -> bool {
        let Some(token) = authorization.strip_prefix(b"Bearer ") else { return false };
        // Every byte is compared, so that the time tells nothing.
        token.len() == self.token.len()
            && token.iter().zip(self.token.as_bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }

    /// Writes what kubectl needs to be let in at `address`, readable by its owner only.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_kubeconfig(&self, address: SocketAddr, path: &Path) -> io::Result<()> {
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "embedded",
            "clusters": [{"name": "embedded", "cluster": {
                "server": format!("https://{address}"),
                "certificate-authority-data": BASE64_STANDARD.encode(&self.certificate),
            }}],
            "users": [{"name": "embedded", "user": {"token": self.token}}],
            "contexts": [{"name": "embedded", "context": {"cluster": "embedded", "user": "embedded", "namespace": "default"}}],
        });
        // A file of an earlier run may be open to others, and writing into it would keep its mode.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec_pretty(&kubeconfig).expect("made of strings"))
    }
}
