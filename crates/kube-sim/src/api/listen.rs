//! The API on a loopback port, for kubectl.
//!
//! Whoever may make pods runs programs as this process's user. So nobody is let in without the token of the kubeconfig, and
//! a web page could not use even that: requests must name this host, come from no other origin, and have a body in JSON.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use http::{HeaderMap, Request, StatusCode, Uri, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{Api, refused};
use crate::{cluster::Refusal, tls::Credentials};

const MAX_CONNECTIONS: usize = 256;
/// For the TLS handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to let the process recover when it cannot accept, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled; what is open then is cut.
///
/// # Errors
/// If the listener is not bound to a loopback address.
pub async fn serve(
    api: Api,
    listener: TcpListener,
    credentials: Credentials,
    stop: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        let message =
            format!("the embedded cluster listens on loopback addresses only, not on {address}: it has no isolation");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let credentials = Arc::new(credentials);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("too many connections to the embedded cluster, refusing one");
            continue;
        };
        let (api, credentials) = (api.clone(), credentials.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, api, credentials).await {
                tracing::debug!(%error, "a connection to the embedded cluster ended early");
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, api: Api, credentials: Arc<Credentials>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = timeout(PATIENCE, credentials.acceptor.accept(stream)).await??;
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut api, credentials) = (api.clone(), credentials.clone());
        async move {
            match admit(request.uri(), request.headers(), &credentials) {
                Ok(()) => api.call(request).await,
                Err(refusal) => Ok::<_, Infallible>(refused(&refusal)),
            }
        }
    });
    let mut serving = http1::Builder::new();
    serving.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    serving.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

fn admit(uri: &Uri, headers: &HeaderMap, credentials: &Credentials) -> Result<(), Refusal> {
    let host = uri.host().or_else(|| headers.get(header::HOST)?.to_str().ok()).unwrap_or_default();
    if !is_loopback(host) {
        let message = format!("the host {host:?} is not this machine's own");
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", message));
    }
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", "web pages are not let in"));
    }
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    if !credentials.admits(authorization) {
        let message = "Unauthorized: use the kubeconfig that podherald has written";
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", message));
    }
    Ok(())
}

/// A name by which only this machine is called, with or without a port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    matches!(name, "localhost" | "127.0.0.1" | "::1")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_the_token_and_is_no_web_page_is_let_in() {
        let credentials = Credentials::generate().unwrap();
        let admitted = |pairs: &[(header::HeaderName, &str)]| {
            let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            admit(&Uri::from_static("/api"), &headers, &credentials).map_err(|refusal| refusal.code.as_u16())
        };
        let bearer = format!("Bearer {}", credentials.token());
        let authorized = (header::AUTHORIZATION, bearer.as_str());
        let local = (header::HOST, "127.0.0.1:1234");
        assert_eq!(admitted(&[local.clone(), authorized.clone()]), Ok(()));
        assert_eq!(admitted(&[(header::HOST, "[::1]:1"), authorized.clone()]), Ok(()));
        assert_eq!(admitted(std::slice::from_ref(&local)), Err(401));
        assert_eq!(admitted(&[local.clone(), (header::AUTHORIZATION, "Bearer x")]), Err(401));
        assert_eq!(admitted(&[(header::HOST, "evil.example"), authorized.clone()]), Err(403));
        assert_eq!(admitted(&[local, authorized, (header::ORIGIN, "http://127.0.0.1:1234")]), Err(403));
    }
}
