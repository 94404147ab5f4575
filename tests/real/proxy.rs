//! A bad network between podherald and a server: Toxiproxy, by its HTTP interface.

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// One proxy, in front of one server.
pub(crate) struct Proxy {
    /// Host and port of Toxiproxy itself.
    api: String,
    name: String,
}

/// What a network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing gets through, and what was connected is cut off.
    Cut,
    /// Each connection ends after so many bytes have been sent: in the middle of a batch.
    EndsAfter(u32),
    /// What is sent arrives; no answer comes back.
    LosesAnswers,
    /// Each connection is reset after so many milliseconds.
    ResetsAfter(u32),
    /// KiB a second.
    Slow(u32),
}

impl Proxy {
    /// The one of this name at Toxiproxy's URL.
    pub(crate) fn new(name: &str, url: &str) -> Self {
        Self { api: url.strip_prefix("http://").unwrap().to_owned(), name: name.to_owned() }
    }

    /// Puts one in front of this address, and gives its own too.
    pub(crate) async fn before(upstream: &str, name: &str, url: &str) -> (Self, String) {
        let proxy = Self::new(name, url);
        let made = proxy.post("/proxies", &json!({"name": name, "listen": "127.0.0.1:0", "upstream": upstream})).await;
        (proxy, made["listen"].as_str().unwrap().to_owned())
    }

    /// From now on, until [`heal`](Self::heal).
    pub(crate) async fn break_by(&self, fault: Fault) {
        let proxy = format!("/proxies/{}", self.name);
        let toxic = |kind: &str, stream: &str, attributes: Value| json!({"type": kind, "stream": stream, "attributes": attributes});
        let toxic = match fault {
            Fault::Cut => return drop(self.post(&proxy, &json!({"enabled": false})).await),
            Fault::EndsAfter(bytes) => toxic("limit_data", "upstream", json!({"bytes": bytes})),
            Fault::LosesAnswers => toxic("timeout", "downstream", json!({"timeout": 0})),
            Fault::ResetsAfter(milliseconds) => toxic("reset_peer", "upstream", json!({"timeout": milliseconds})),
            Fault::Slow(rate) => toxic("bandwidth", "upstream", json!({"rate": rate})),
        };
        self.post(&format!("{proxy}/toxics"), &toxic).await;
    }

    /// Everything gets through again, at once.
    pub(crate) async fn heal(&self) {
        self.post("/reset", &json!({})).await;
    }

    #[expect(clippy::disallowed_methods, reason = "the connection's task ends with its request")]
    async fn post(&self, path: &str, body: &Value) -> Value {
        let stream = TcpStream::connect(&self.api).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(Method::POST).uri(path).header(header::HOST, &self.api);
        let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let said = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status.is_success(), "POST {path} {body}: {status} {said:?}");
        serde_json::from_slice(&said).unwrap_or_default()
    }
}
