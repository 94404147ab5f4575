//! Over loopback: the conformance suite of sinks, TLS, and what can be wrong on the way.

use std::{fs, net::SocketAddr};

use axum::{Router, extract::State, routing::post};
use http::header;
use podherald_core::gap::Gap;
use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};
use tokio_rustls::{TlsAcceptor, rustls};

use super::*;
use crate::{
    clock::{Clock, SystemClock},
    sink::{Sink, conformance},
    webhook::MAX_EVENT_BYTES,
};

/// The endpoint that these settings make, of those that a process would have.
async fn open(dir: &TempDir, settings: &[(&str, &str)]) -> Result<Arc<Endpoint>, crate::webhook::Error> {
    let path = dir.path().join("journal.db");
    let journal: Arc<dyn Journal> =
        Sqlite::open(journal::Options { path, ..journal::Options::default() }).await.unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = Config::of(settings).unwrap();
    let mut endpoints =
        crate::webhook::open(&config.webhook, dir.path(), &journal, &clock, &Metrics::default()).await?;
    Ok(endpoints.remove(0))
}

/// A port of loopback that is nobody else's, whether somebody listens on it or not: the socket that holds it never does.
struct Port {
    address: SocketAddr,
    _holder: TcpSocket,
}

impl Port {
    fn new() -> Self {
        let holder = Self::socket("127.0.0.1:0".parse().unwrap());
        Self { address: holder.local_addr().unwrap(), _holder: holder }
    }

    fn listen(&self) -> TcpListener {
        Self::socket(self.address).listen(128).unwrap()
    }

    fn socket(address: SocketAddr) -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        // Beside each other as long as only one of them listens.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        socket
    }
}

/// An HTTP server on loopback that keeps the bodies it is sent.
struct Receiver {
    port: Port,
    endpoint: Arc<Endpoint>,
    bodies: Arc<Mutex<Vec<Bytes>>>,
    serving: JoinSet<()>,
    _dir: TempDir,
}

impl Receiver {
    async fn new() -> Self {
        let port = Port::new();
        let dir = TempDir::new().unwrap();
        let url = format!("http://{}/hook", port.address);
        let mut settings = vec![("webhook.a.url", url.as_str()), ("webhook.a.secret", SECRET)];
        settings.extend([("webhook.a.allow_private", "true"), ("webhook.a.mode", "binary")]);
        let mut endpoint = open(&dir, &settings).await.unwrap();
        let options = &mut Arc::get_mut(&mut endpoint).unwrap().options;
        assert_eq!(options.max_event_bytes, MAX_EVENT_BYTES);
        options.max_event_bytes = conformance::MAX_BYTES;
        let mut receiver = Self { port, endpoint, bodies: Arc::default(), serving: JoinSet::new(), _dir: dir };
        receiver.serve();
        receiver
    }

    fn serve(&mut self) {
        let listener = self.port.listen();
        let take = |State(bodies): State<Arc<Mutex<Vec<Bytes>>>>, body: Bytes| async move {
            bodies.lock().unwrap().push(body);
            // Who goes away takes its connections along.
            [(header::CONNECTION, "close")]
        };
        let router = Router::new().route("/hook", post(take)).with_state(self.bodies.clone());
        self.serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    }

    /// Of gaps or of events.
    fn bodies(&self, of_gaps: bool) -> Vec<Bytes> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().filter(|body| Gap::is_in(body) == of_gaps).cloned().collect()
    }
}

impl conformance::Far for Receiver {
    fn sink(&self) -> Arc<dyn Sink> {
        self.endpoint.clone()
    }

    fn arrived(&self) -> BoxFuture<'_, Vec<Bytes>> {
        async { self.bodies(false) }.boxed()
    }

    fn gaps(&self) -> BoxFuture<'_, Vec<Bytes>> {
        async { self.bodies(true) }.boxed()
    }

    fn leave(&mut self) -> BoxFuture<'_, ()> {
        self.serving.shutdown().boxed()
    }

    fn come_back(&mut self) -> BoxFuture<'_, ()> {
        self.bodies.lock().unwrap().clear();
        self.serve();
        std::future::ready(()).boxed()
    }
}

mod contract {
    use super::{Receiver, conformance};

    async fn open() -> Receiver {
        Receiver::new().await
    }

    conformance::suite!(open);
}

/// A server that answers every request so, over TLS if there is an acceptor.
async fn server(answer: &'static str, tls: Option<TlsAcceptor>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            connections.spawn(async move {
                match tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(stream, answer).await;
                        }
                    }
                    None => converse(stream, answer).await,
                }
            });
        }
    });
    (address, tasks)
}

async fn converse(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, answer: &str) {
    let mut buffer = [0; 16_384];
    while let Ok(1..) = stream.read(&mut buffer).await {
        if !answer.is_empty() && stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A certificate for loopback, signed by itself, in PEM; and who shows it.
fn certificate() -> (String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    (certificate.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn whatever_is_wrong_on_the_way_names_the_setting_and_what_it_is() {
    let (pem, acceptor) = certificate();
    let port = Port::new();
    let nobody = port.address;
    let moved = "HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n";
    let long = "HTTP/1.1 401 No\r\ncontent-length: 5000\r\n\r\n";
    let (plain, _plain) = server(moved, None).await;
    let (silent, _silent) = server("", None).await;
    let (endless, _endless) = server(long, None).await;
    let (secure, _secure) = server("HTTP/1.1 204 Taken\r\n\r\n", Some(acceptor)).await;
    for (url, private, expected) in [
        (format!("http://{nobody}"), "true", "it cannot be reached at 127.0.0.1"),
        (format!("http://{plain}"), "true", "it answers 307 Temporary Redirect; redirects are not followed"),
        (format!("http://{silent}"), "true", "no answer within its timeout, 500ms"),
        (format!("http://{endless}"), "true", "no answer within its timeout, 500ms"),
        (format!("https://{plain}"), "true", "received corrupt message"),
        (format!("https://{secure}"), "true", "invalid peer certificate"),
        (format!("http://{secure}"), "false", "which is no address of the public Internet; `allow_private = true`"),
        ("http://localhost:9/?k=s3cret".to_owned(), "false", "localhost is "),
        ("http://no-such-host.invalid".to_owned(), "true", "its name no-such-host.invalid cannot be resolved"),
    ] {
        let dir = TempDir::new().unwrap();
        let settings = [("webhook.a.url", &*url), ("webhook.a.secret", SECRET), ("webhook.a.allow_private", private)];
        let endpoint = open(&dir, &[&settings[..], &[("webhook.a.timeout", "500ms")]].concat()).await.unwrap();
        let said = endpoint.deliver(&[conformance::record(1, "x")]).await.unwrap_err().to_string();
        assert!(said.starts_with("webhook.a.url = http") && said.contains(expected), "{url}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    let dir = TempDir::new().unwrap();
    let ca_file = dir.path().join("ca.pem");
    fs::write(&ca_file, pem).unwrap();
    let (url, ca_file) = (format!("https://{secure}"), ca_file.display().to_string());
    let settings = [
        ("webhook.a.url", url.as_str()),
        ("webhook.a.secret", SECRET),
        ("webhook.a.ca_file", &ca_file),
        ("webhook.a.allow_private", "true"),
    ];
    let endpoint = open(&dir, &settings).await.unwrap();
    endpoint.check().await.unwrap();
    assert_eq!(endpoint.deliver(&[conformance::record(1, "x")]).await, Ok(vec![]));
}

#[tokio::test]
async fn a_file_that_a_setting_names_must_be_right_at_the_start_and_a_secret_may_change_later() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file").display().to_string();
    let with = |key: &'static str| [("webhook.a.url", "https://127.0.0.1:9"), (key, file.as_str())];
    let wrong = async |settings: &[(&str, &str)]| crate::wording::of(&open(&dir, settings).await.err().unwrap());
    let said = wrong(&with("webhook.a.secret_file")).await;
    assert!(said.starts_with("webhook.a.secret_file ") && said.contains("No such file"), "{said}");
    fs::write(&file, "whsec_s3cret").unwrap();
    let said = wrong(&with("webhook.a.secret_file")).await;
    assert!(said.contains("`whsec_` and 24 to 64 bytes in base64") && !said.contains("s3cret"), "{said}");
    let said = wrong(&[&with("webhook.a.ca_file")[..], &[("webhook.a.secret", SECRET)]].concat()).await;
    assert!(said.starts_with("webhook.a.ca_file ") && said.ends_with("there is no certificate in it"), "{said}");

    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let endpoint = open(&dir, &with("webhook.a.secret_file")).await.unwrap();
    fs::remove_file(&file).unwrap();
    let said = endpoint.deliver(&[conformance::record(1, "x")]).await.unwrap_err().to_string();
    assert!(said.starts_with("webhook.a.secret_file "), "{said}");
    assert_eq!(endpoint.check().await.unwrap_err().to_string(), said);
}
