//! Connections to endpoints: a name is resolved once, and the very address that was looked at is connected to.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tower::Service;

use super::address;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("its name {host} cannot be resolved")]
    Name {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "{host} is {address}, which is no address of the public Internet; `allow_private = true` allows such endpoints"
    )]
    NotPublic { host: String, address: IpAddr },
    #[error("it cannot be reached at {address}")]
    Unreachable {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Connects to what may be connected to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connector {
    pub(super) allow_private: bool,
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<TcpStream, Error> {
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        // A literal goes the same way, however it is written.
        let found = lookup_host((host.as_str(), port)).await.map(Iterator::collect);
        match found {
            Ok(found) => self.connect_to_one(host, found).await,
            Err(source) => Err(Error::Name { host, source }),
        }
    }

    async fn connect_to_one(self, host: String, found: Vec<SocketAddr>) -> Result<TcpStream, Error> {
        let nobody = io::Error::from(io::ErrorKind::NotFound);
        let mut why = Error::Name { host: host.clone(), source: nobody };
        let (open, closed): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|found| self.allow_private || address::is_public(found.ip()));
        if let Some(closed) = closed.first() {
            why = Error::NotPublic { host, address: closed.ip() };
        }
        for address in open {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // A request is one write; waiting for more gains nothing.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(source) => why = Error::Unreachable { address, source },
            }
        }
        Err(why)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = *self;
        async move { connector.connect(uri).await.map(TokioIo::new) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_private_address_is_refused_however_it_is_written_unless_it_is_allowed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1"] {
            let uri: Uri = format!("http://{host}:{port}/").parse().unwrap();
            let refused = Connector { allow_private: false }.connect(uri.clone()).await.unwrap_err();
            assert!(matches!(refused, Error::NotPublic { .. }), "{host}: {refused:?}");
            Connector { allow_private: true }.connect(uri).await.unwrap();
        }
        // Only those that were let through have come.
        for _ in 0..6 {
            listener.accept().await.unwrap();
        }
        assert!(listener.accept().now_or_never().is_none());
    }

    #[tokio::test]
    async fn of_several_addresses_only_those_that_may_be_are_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let connector = Connector { allow_private: false };
        let refused = connector.connect_to_one("mixed.example".to_owned(), vec![local, local]).await.unwrap_err();
        assert!(refused.to_string().starts_with("mixed.example is 127.0.0.1, which is no address"), "{refused}");
        assert!(listener.accept().now_or_never().is_none());
        let nobody = connector.connect_to_one("empty.example".to_owned(), vec![]).await.unwrap_err();
        assert_eq!(nobody.to_string(), "its name empty.example cannot be resolved");
    }
}
