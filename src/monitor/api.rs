//! The one way to the API server: kube's client behind a thin service that keeps the server's requested silences and
//! notes when it last gave a sign of life.
//!
//! kube's own retry is off: it would hide a 429 or 503 for minutes. Whoever makes a request sees its failure at once and
//! backs off with [`Backoff`](crate::backoff::Backoff); the service only holds back requests until a `Retry-After` is over.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use http_body::Frame;
use kube::{Client, client::Body};
use tokio::time::Instant;
use tower::Service;

/// A server that asks for more patience than this is asked again all the same.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// When the API server last answered well, or sent a byte of such an answer.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    /// Counts from now.
    pub fn begin() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// The last sign of life.
    pub fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// `base` behind the service of this module.
pub fn attentive(base: &Client, activity: Activity) -> Client {
    let namespace = base.default_namespace().to_owned();
    Client::new(Attentive { client: base.clone(), activity, silent_until: Arc::default() }, namespace)
}

#[derive(Clone)]
struct Attentive {
    client: Client,
    activity: Activity,
    silent_until: Arc<Mutex<Option<Instant>>>,
}

impl Attentive {
    fn silence(&self) -> Option<Instant> {
        *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, response: &Response<Body>) {
        if response.status().is_success() {
            self.activity.touch();
        }
        let asks = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if let Some(wait) = retry_after(response).filter(|_| asks) {
            *self.silent_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + wait);
        }
    }
}

/// `Retry-After` in seconds, within reason.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

impl Service<Request<Body>> for Attentive {
    type Response = Response<Observed>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if let Some(until) = service.silence() {
                tokio::time::sleep_until(until).await;
            }
            let response = service.client.send(request).await?;
            service.note(&response);
            let activity = response.status().is_success().then_some(service.activity);
            Ok(response.map(|body| Observed { body, activity }))
        })
    }
}

/// A body that notes each frame of a good answer.
struct Observed {
    body: Body,
    activity: Option<Activity>,
}

impl http_body::Body for Observed {
    type Data = bytes::Bytes;
    type Error = kube::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(Ok(_)), Some(activity)) = (&frame, &self.activity) {
            activity.touch();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
