//! The scripted API server on a loopback port, for programs that are not in this process.

use std::{net::SocketAddr, path::Path, sync::Arc};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use super::{answer::answer, store::Shared};

/// A listener that serves until it is dropped.
pub(crate) struct Loopback {
    address: SocketAddr,
    /// Dropping it ends the server and its connections.
    _server: JoinSet<()>,
}

impl Loopback {
    pub(super) async fn start(shared: Arc<Shared>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                let shared = shared.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    answer(shared.clone(), request.into_parts().0)
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, _server: server }
    }

    /// `http://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a kubeconfig that leads here.
    pub(crate) fn write_kubeconfig(&self, file: &Path) {
        // JSON is YAML.
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "scripted",
            "clusters": [{"name": "scripted", "cluster": {"server": self.url()}}],
            "users": [{"name": "scripted", "user": {}}],
            "contexts": [{"name": "scripted", "context": {"cluster": "scripted", "user": "scripted"}}],
        });
        std::fs::write(file, config.to_string()).unwrap();
    }
}
