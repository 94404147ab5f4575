//! A client that is made anew when the API server will have none of it.
//!
//! Credentials change while podherald runs: tokens rotate, certificates are renewed, somebody writes the kubeconfig anew. kube's
//! client reads a token file and the pod's own authorities again about once a minute, and everything else never. So a client that
//! gets a 401 or no answer is replaced by one that is made of the files as they are by then. What it has open stays open, and
//! the request that failed has failed: whoever made it asks again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use kube::{Client, client::Body};
use tokio::time::Instant;
use tower::Service;

use crate::wording;

/// A server that is down, or a file that is late, is no reason to read the files at every request.
const PAUSE: Duration = Duration::from_secs(5);

/// Makes a client of the files as they are now, or says why there is none.
type Make = dyn Fn() -> BoxFuture<'static, Result<Client, String>> + Send + Sync;

/// `first`, until it is refused; then what `make` makes.
pub(super) fn renewing(first: Client, make: Box<Make>) -> Client {
    let namespace = first.default_namespace().to_owned();
    let renewal = Renewal { client: Mutex::new((0, first)), made_at: tokio::sync::Mutex::default(), make };
    Client::new(Renewing(Arc::new(renewal)), namespace)
}

struct Renewal {
    /// How many there were before, and the present one.
    client: Mutex<(u64, Client)>,
    /// When the last one was made, or could not be.
    made_at: tokio::sync::Mutex<Option<Instant>>,
    make: Box<Make>,
}

impl Renewal {
    fn client(&self) -> (u64, Client) {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the client of this number, if it is still the present one.
    async fn renew(&self, number: u64, refusal: &str) {
        // Whoever is refused meanwhile is refused with the client that is being replaced.
        let Ok(mut made_at) = self.made_at.try_lock() else { return };
        if self.client().0 != number || made_at.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        *made_at = Some(Instant::now());
        match (self.make)().await {
            Ok(client) => {
                *self.client.lock().unwrap_or_else(PoisonError::into_inner) = (number + 1, client);
                tracing::info!(
                    refusal,
                    "the API server could not be asked, credentials and certificates are read anew"
                );
            }
            Err(reason) => {
                tracing::warn!(
                    refusal,
                    reason,
                    "the API server could not be asked, and credentials and certificates cannot be read anew"
                );
            }
        }
    }
}

#[derive(Clone)]
struct Renewing(Arc<Renewal>);

impl Service<Request<Body>> for Renewing {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, kube::Result<Response<Body>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<kube::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let renewal = self.0.clone();
        Box::pin(async move {
            let (number, client) = renewal.client();
            let answer = client.send(request).await;
            if let Some(refusal) = refusal(&answer) {
                renewal.renew(number, &refusal).await;
            }
            answer
        })
    }
}

/// Not known to the server, or without an answer: then the handshake may have failed, on either side.
fn refusal(answer: &kube::Result<Response<Body>>) -> Option<String> {
    match answer {
        Ok(response) if response.status() == StatusCode::UNAUTHORIZED => Some("401 Unauthorized".to_owned()),
        Ok(_) => None,
        Err(error) => Some(wording::of(error)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicU16, AtomicUsize, Ordering},
    };

    use futures::FutureExt;
    use tokio::time::sleep;

    use super::*;

    /// A client whose every answer has the code that `code` shows.
    fn answering(code: Arc<AtomicU16>) -> Client {
        let answer = move |_: Request<Body>| {
            let code = StatusCode::from_u16(code.load(Ordering::SeqCst)).unwrap();
            async move { Ok::<_, Infallible>(Response::builder().status(code).body(Body::empty()).unwrap()) }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    async fn ask(client: &Client) -> u16 {
        client.send(Request::new(Body::empty())).await.unwrap().status().as_u16()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_not_let_in_is_made_anew_but_not_at_every_request() {
        let (old, new) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(401)));
        let made = Arc::new(AtomicUsize::new(0));
        let make = {
            let (new, made) = (new.clone(), made.clone());
            move || {
                made.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Ok(answering(new.clone()))).boxed()
            }
        };
        let client = renewing(answering(old.clone()), Box::new(make));
        for refusal in [200, 403, 404, 429, 503] {
            old.store(refusal, Ordering::SeqCst);
            assert_eq!(ask(&client).await, refusal);
        }
        assert_eq!(made.load(Ordering::SeqCst), 0, "none of these says that we are not known");

        old.store(401, Ordering::SeqCst);
        for _ in 0..10 {
            assert_eq!(ask(&client).await, 401, "the files are as old as the client");
        }
        assert_eq!(made.load(Ordering::SeqCst), 1);
        sleep(PAUSE).await;
        ask(&client).await;
        assert_eq!(made.load(Ordering::SeqCst), 2);
        new.store(200, Ordering::SeqCst);
        assert_eq!(ask(&client).await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_cannot_be_made_anew_stays_what_it_was() {
        let code = Arc::new(AtomicU16::new(401));
        let fail = || std::future::ready(Err("no such file".to_owned())).boxed();
        let client = renewing(answering(code.clone()), Box::new(fail));
        assert_eq!(ask(&client).await, 401);
        code.store(200, Ordering::SeqCst);
        assert_eq!(ask(&client).await, 200);
    }
}
