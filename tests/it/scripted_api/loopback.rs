//! The scripted API server on a loopback port, for programs that are not in this process.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use http::{Request, header::AUTHORIZATION};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::{
    answer::{answer, refuse},
    failure::Refusal,
    store::Shared,
};

/// A listener that serves until it is dropped.
pub(crate) struct Loopback {
    address: SocketAddr,
    door: Arc<Door>,
    /// Dropping it ends the server and its connections.
    _server: JoinSet<()>,
}

/// Whom the server lets in.
struct Door {
    shared: Arc<Shared>,
    /// Whoever has this token; none: everybody.
    token: Mutex<Option<String>>,
    /// Whoever passes this handshake.
    tls: Mutex<Option<TlsAcceptor>>,
    closing: watch::Sender<()>,
}

impl Door {
    async fn admit(self: Arc<Self>, connection: TcpStream) {
        let mut closing = self.closing.subscribe();
        let tls = self.tls.lock().unwrap().clone();
        let serving = async {
            match tls {
                None => self.serve(connection).await,
                Some(tls) => {
                    if let Ok(connection) = tls.accept(connection).await {
                        self.serve(connection).await;
                    }
                }
            }
        };
        tokio::select! {
            () = serving => {}
            _ = closing.changed() => {}
        }
    }

    async fn serve(&self, connection: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request: Request<Incoming>| {
            let token = self.token.lock().unwrap().as_ref().map(|token| format!("Bearer {token}"));
            let is_known = token.is_none_or(|token| {
                request.headers().get(AUTHORIZATION).is_some_and(|shown| shown.as_bytes() == token.as_bytes())
            });
            let shared = self.shared.clone();
            async move {
                if is_known {
                    answer(shared, request.into_parts().0).await
                } else {
                    Ok(refuse(&Refusal::of_code(401, "Unauthorized")))
                }
            }
        });
        // Whoever breaks the connection has his reasons.
        drop(http1::Builder::new().serve_connection(TokioIo::new(connection), service).await);
    }
}

impl Loopback {
    pub(super) async fn start(shared: Arc<Shared>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door =
            Arc::new(Door { shared, token: Mutex::default(), tls: Mutex::default(), closing: watch::Sender::new(()) });
        let mut server = JoinSet::new();
        let admitting = door.clone();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(admitting.clone().admit(connection));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, door, _server: server }
    }

    /// From now on a request needs this token.
    pub(crate) fn require_token(&self, token: &str) {
        *self.door.token.lock().unwrap() = Some(token.to_owned());
    }

    /// From now on there is TLS, and what is open is closed.
    pub(crate) fn require_tls(&self, config: ServerConfig) {
        *self.door.tls.lock().unwrap() = Some(TlsAcceptor::from(Arc::new(config)));
        self.door.closing.send_replace(());
    }

    /// The address and port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a kubeconfig that leads here.
    pub(crate) fn write_kubeconfig(&self, file: &Path) {
        write_kubeconfig(file, &json!({"server": format!("http://{}", self.address)}), &json!({}));
    }
}

/// Writes a kubeconfig of this cluster and user.
pub(crate) fn write_kubeconfig(file: &Path, cluster: &Value, user: &Value) {
    // JSON is YAML.
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "scripted",
        "clusters": [{"name": "scripted", "cluster": cluster}],
        "users": [{"name": "scripted", "user": user}],
        "contexts": [{"name": "scripted", "context": {"cluster": "scripted", "user": "scripted"}}],
    });
    std::fs::write(file, config.to_string()).unwrap();
}
