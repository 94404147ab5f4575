//! The listener and its connections.
//!
//! hyper's own HTTP/1 connection, because `axum::serve` bounds nothing: here the number of connections, the time and
//! size of a request's head, the time of a write and of the shutdown are all bounded.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Error, Metrics, Options, State, router,
    socket::{self, Impatient},
};

/// Over this hyper answers a bare 431 by itself; the router's own limit lies below and explains.
const MAX_HEAD: usize = 64 << 10;
/// Callers told at a time that there are too many; further ones are just closed.
const MAX_REFUSALS: usize = 64;
/// How long a caller has to hear that.
const REFUSAL: Duration = Duration::from_secs(1);
/// How long to let the process recover when it cannot accept, for want of file descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled, then ends the streams, finishes what is under way and returns within
/// [`super::Options::drain_timeout`].
///
/// # Errors
/// If the listener does not know its own address, that is, was never bound.
pub async fn serve(listener: TcpListener, state: Arc<State>, stop: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    let service = Service {
        router: router(state.clone()),
        options: state.options.clone(),
        metrics: state.metrics.clone(),
        closing: state.closing.clone(),
    };
    let connections = service.accept(&listener, &stop).await;
    drop(listener);
    state.readiness.drain();
    service.finish(connections).await;
    Ok(())
}

/// Answers as a standby, for as long as it is polled: alive, and ready for nothing.
pub async fn stand_by(listener: &TcpListener, options: &Options) {
    let router = Router::new().route("/livez", get(|| async { "ok" })).fallback(|| async { Error::Standby });
    let service =
        Service { router, options: options.clone(), metrics: Metrics::default(), closing: CancellationToken::new() };
    service.accept(listener, &CancellationToken::new()).await;
}

/// What every connection shares.
struct Service {
    router: Router,
    options: Options,
    metrics: Metrics,
    closing: CancellationToken,
}

impl Service {
    async fn accept(&self, listener: &TcpListener, stop: &CancellationToken) -> JoinSet<()> {
        let places = Arc::new(Semaphore::new(self.options.max_connections));
        let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return connections,
                Some(ended) = connections.join_next() => {
                    look_at(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_the_clients(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if let Ok(place) = places.clone().try_acquire_owned() {
                let connection = self.connection(stream);
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            } else {
                self.metrics.refused();
                if let Ok(refusal) = refusals.clone().try_acquire_owned() {
                    connections.spawn(async move {
                        // Whoever does not listen for a second does not want to know.
                        let _ = timeout(REFUSAL, refuse(stream)).await;
                        drop(refusal);
                    });
                }
            }
        }
    }

    /// Ends the streams and waits for what is under way.
    async fn finish(&self, mut connections: JoinSet<()>) {
        self.closing.cancel();
        let finished = async {
            while let Some(ended) = connections.join_next().await {
                look_at(ended);
            }
        };
        if timeout(self.options.drain_timeout, finished).await.is_err() {
            tracing::warn!(connections = connections.len(), "cutting connections that did not finish in time");
            connections.shutdown().await;
        }
    }

    fn connection(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + 'static {
        connection(stream, self.router.clone(), self.options.clone(), self.metrics.clone(), self.closing.clone())
    }
}

async fn connection(stream: TcpStream, router: Router, options: Options, metrics: Metrics, closing: CancellationToken) {
    let _open = metrics.open_connection();
    if let Err(error) = socket::prepare(&stream, options.write_timeout) {
        tracing::debug!(%error, "the client has gone before it was heard");
        return;
    }
    let io = TokioIo::new(Impatient::new(stream, options.write_timeout, metrics.clone()));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(io, service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Says why, reading a little of the request first: closing with unread bytes would reset the connection before the
/// client has read the answer.
async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let _ = stream.read(&mut [0; 2048]).await?;
    let body = Error::Crowded.problem().to_bytes();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nretry-after: \
         1\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    stream.shutdown().await
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn look_at(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request handler panicked; its connection is lost, the others go on");
    }
}
