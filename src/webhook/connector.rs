//! Connections to endpoints: a name is resolved once, and the very address that was looked at is connected to.
//!
//! Several addresses are raced as in RFC 8305, "Happy Eyeballs": each next one is tried as soon as the one before has failed, or
//! has not answered for [`STAGGER`], and all that are under way may still win. So each has all of the time that is left, and
//! one that swallows everything costs the others a moment.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, lookup_host},
    time::sleep,
};
use tower::Service;

use super::address;

/// The "Connection Attempt Delay" that RFC 8305 recommends.
const STAGGER: Duration = Duration::from_millis(250);

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
        match race(by_turns(open), TcpStream::connect).await {
            Some(Ok(stream)) => {
                // A request is one write; waiting for more gains nothing.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Some(Err((address, source))) => Err(Error::Unreachable { address, source }),
            None => Err(why),
        }
    }
}

/// The families in turn, that of the first one first, else in the order of the resolver: a family without a route must not
/// be all that is tried.
fn by_turns(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let is_first_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_first_v6);
    let (mut families, mut ordered) = ([first, second], VecDeque::new());
    while families.iter().any(|family| !family.is_empty()) {
        ordered.extend(families.iter_mut().filter_map(VecDeque::pop_front));
    }
    ordered
}

/// The first connection that is made, or the last failure; none if there is no address.
async fn race<T, Connecting: Future<Output = io::Result<T>>>(
    mut waiting: VecDeque<SocketAddr>,
    connect: impl Fn(SocketAddr) -> Connecting,
) -> Option<Result<T, (SocketAddr, io::Error)>> {
    let mut trying = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if let Some(address) = waiting.pop_front() {
            let connecting = connect(address);
            trying.push(async move { connecting.await.map_err(|error| (address, error)) });
        }
        tokio::select! {
            ended = trying.next() => match ended {
                Some(Err(error)) => failure = Some(Err(error)),
                ended => return ended.or(failure),
            },
            () = sleep(STAGGER), if !waiting.is_empty() => {}
        }
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

    /// Time until a connection, of addresses 1, 2, ... that answer after so many milliseconds: with a failure if negative.
    async fn raced(answers: &[i64]) -> Option<(u64, Result<u16, String>)> {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = (1..).map(local).take(answers.len()).collect();
        let begun = tokio::time::Instant::now();
        let raced = race(addresses, |address| async move {
            let answer = answers[usize::from(address.port()) - 1];
            sleep(Duration::from_millis(answer.unsigned_abs())).await;
            if answer < 0 { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(address.port()) }
        });
        let raced = raced.await?.map_err(|(address, _)| address.to_string());
        Some((u64::try_from(begun.elapsed().as_millis()).unwrap(), raced))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_everything_costs_the_others_a_moment_and_a_slow_one_may_still_win() {
        let never = 1_000_000;
        for (answers, expected) in [
            (&[][..], None),
            (&[100], Some((100, Ok(1)))),
            (&[never, 10], Some((260, Ok(2)))),
            (&[never, never, never, 10], Some((760, Ok(4)))),
            (&[-5, 10], Some((15, Ok(2)))),
            (&[9000, never, -10], Some((9000, Ok(1)))),
            (&[-300, -10], Some((300, Err("127.0.0.1:1".to_owned())))),
        ] {
            assert_eq!(raced(answers).await, expected, "{answers:?}");
        }
    }

    #[test]
    fn families_take_turns() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let (given, expected) =
            (["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"], ["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]);
        assert_eq!(Vec::from(by_turns(addresses(&given))), addresses(&expected));
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
