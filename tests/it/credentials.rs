//! Tokens and certificates that change while podherald uses them.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer, server::WebPkiClientVerifier,
};

use crate::{
    herald::{Herald, LIMIT, POLL},
    pods,
    scripted_api::{End, Kind, Loopback, ScriptedApi, write_kubeconfig},
};

#[tokio::test]
async fn a_rotated_token_is_taken_up_as_soon_as_the_old_one_is_refused() {
    let (api, data) = (ScriptedApi::new(), TempDir::new().unwrap());
    let port = api.listen().await;
    let (kubeconfig, token) = (data.path().join("kubeconfig"), data.path().join("token"));
    let cluster = json!({"server": format!("http://{}", port.address())});
    write_kubeconfig(&kubeconfig, &cluster, &json!({"tokenFile": token}));
    // Whoever writes such a file by hand ends its line.
    for (old, new) in [("one", "two"), ("one\n", "two\n")] {
        port.require_token(old.trim());
        fs::write(&token, old).unwrap();
        api.apply(pods::running("a"));
        let own = TempDir::new().unwrap();
        let herald = Herald::start(&kubeconfig, &own, &[]).await;
        herald.until_running("a").await;

        fs::write(&token, new).unwrap();
        port.require_token(new.trim());
        api.disconnect(End::Eof);
        api.apply(pods::ended("a", 0));
        // kube alone would need most of a minute.
        let ended = timeout(Duration::from_secs(30), herald.ended("a")).await;
        assert_eq!(ended.unwrap_or_else(|_| panic!("not in time: {}", herald.log()))["status"], "completed");
        herald.kill().await;
    }
}

#[tokio::test]
async fn renewed_certificates_of_either_side_and_a_new_authority_are_taken_up() {
    let (api, data) = (ScriptedApi::new(), TempDir::new().unwrap());
    let port = api.listen().await;
    let kubeconfig = data.path().join("kubeconfig");
    let (authority, certificate, key) =
        (data.path().join("ca.crt"), data.path().join("client.crt"), data.path().join("client.key"));
    write_kubeconfig(
        &kubeconfig,
        &json!({"server": format!("https://{}", port.address()), "certificate-authority": authority}),
        &json!({"client-certificate": certificate, "client-key": key}),
    );
    let first = Authority::new();
    fs::write(&authority, first.pem()).unwrap();
    first.issue_client(&certificate, &key);
    port.require_tls(first.server());
    api.apply(pods::running("a"));
    api.apply(pods::running("b"));
    let herald = Herald::start(&kubeconfig, &data, &[]).await;
    herald.until_running("a").await;

    // The server's own certificate under the same authority needs no file.
    handshake_anew(&api, &port, &first).await;
    api.apply(pods::ended("a", 0));
    assert_eq!(herald.ended("a").await["status"], "completed");

    // Both sides under a new authority: who knows the old files only is let in by nobody.
    let second = Authority::new();
    fs::write(&authority, first.pem() + &second.pem()).unwrap();
    second.issue_client(&certificate, &key);
    handshake_anew(&api, &port, &second).await;
    api.apply(pods::ended("b", 0));
    assert_eq!(herald.ended("b").await["status"], "completed");
}

#[tokio::test]
async fn a_kubeconfig_that_names_another_server_meanwhile_is_not_followed() {
    let (api, other, data) = (ScriptedApi::new(), ScriptedApi::new(), TempDir::new().unwrap());
    let (port, port_of_other) = (api.listen().await, other.listen().await);
    let kubeconfig = data.path().join("kubeconfig");
    port.write_kubeconfig(&kubeconfig);
    api.apply(pods::running("a"));
    let herald = Herald::start(&kubeconfig, &data, &[]).await;
    herald.until_running("a").await;

    port_of_other.write_kubeconfig(&kubeconfig);
    port.require_token("none");
    api.disconnect(End::Eof);
    let said = async {
        while !herald.log().contains("names another API server now") {
            sleep(POLL).await;
        }
    };
    timeout(LIMIT, said).await.unwrap_or_else(|_| panic!("{}", herald.log()));
    assert!(other.requests_of(Kind::List).is_empty());
    assert_eq!(herald.get("/executions/a").await["status"], "running");
}

/// Waits until podherald has passed the handshake with a server that this authority signed: its watches are open again.
async fn handshake_anew(api: &ScriptedApi, port: &Loopback, authority: &Authority) {
    let watches = api.requests_of(Kind::Watch).len();
    port.require_tls(authority.server());
    api.wait_for_requests(Kind::Watch, watches + 2).await;
}

/// Who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn issue_client(&self, certificate: &Path, key: &Path) {
        let (issued, own_key) = self.issue(&["podherald"], ExtendedKeyUsagePurpose::ClientAuth);
        fs::write(certificate, issued.pem()).unwrap();
        fs::write(key, own_key.serialize_pem()).unwrap();
    }

    /// A server that lets in whom this authority knows.
    fn server(&self) -> ServerConfig {
        let (issued, key) = self.issue(&["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
        let mut known = RootCertStore::empty();
        known.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(known), provider.clone()).build().unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![issued.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap()
    }
}
