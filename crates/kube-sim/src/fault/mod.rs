//! Faults on demand, on virtual time.
//!
//! [`Faults`] stands around the API as a tower layer and does to requests and watch frames what the [`Weather`] says; what
//! it does is drawn from a seed, so that the same requests in the same order meet the same faults. [`life`] plays pods: how
//! they go on, end, are evicted, lose their node, on tokio's clock and without processes.

mod frames;
pub mod life;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::time::sleep;
use tower::{BoxError, Layer, Service};

/// How likely what is, from 0 to 1; by default all is well.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Weather {
    /// A request gets 429 with Retry-After, 500 or 403, one as likely as the other.
    pub refused: f64,
    /// A request's connection breaks before an answer.
    pub broken: f64,
    /// A request waits up to [`LONGEST_DELAY`] before it is looked at.
    pub delayed: f64,
    /// A list shows what an earlier one showed.
    pub stale_list: f64,
    /// A list or a watch is told that its version is gone.
    pub expired: f64,
    /// A watch ends after a frame as if all were well.
    pub watch_ended: f64,
    /// A watch breaks after a frame.
    pub watch_broken: f64,
    /// A watch says nothing any more after a frame, and does not end.
    pub watch_silent: f64,
    /// A frame is lost.
    pub frame_dropped: f64,
    /// A frame comes twice.
    pub frame_doubled: f64,
    /// A frame comes after the next one.
    pub frame_swapped: f64,
    /// A frame, and all after it, come late.
    pub frame_delayed: f64,
    /// A log breaks off somewhere, or never ends.
    pub log_broken: f64,
    /// A log is 200 with the kubelet's excuse in place of the log.
    pub log_unretrievable: f64,
}

/// No fault holds anything up for longer.
pub const LONGEST_DELAY: Duration = Duration::from_secs(20);

/// What went wrong how often; names of the fields of [`Weather`].
pub type Tally = BTreeMap<&'static str, u64>;

/// The faults. A clone is the same ones.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<State>>);

struct State {
    seed: u64,
    weather: Weather,
    tally: Tally,
    /// How often each thing was asked for.
    asked: BTreeMap<String, u64>,
    /// What each list showed last.
    shown: BTreeMap<String, Bytes>,
}

/// The luck of one request. It follows from the seed, what is asked and how often it was asked before, not from what other
/// requests came between: threads that finish in another order change nothing.
struct Dice {
    faults: Faults,
    random: StdRng,
}

/// What is asked for, as far as faults differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    List,
    Watch,
    Log,
    Other,
}

/// An answer's body.
pub type FaultyBody = UnsyncBoxBody<Bytes, BoxError>;

impl Faults {
    /// All is well, until [`Faults::set`].
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            seed,
            weather: Weather::default(),
            tally: Tally::new(),
            asked: BTreeMap::new(),
            shown: BTreeMap::new(),
        })))
    }

    /// From now on; watches that are open feel it with their next frame.
    pub fn set(&self, weather: Weather) {
        self.with(|state| state.weather = weather);
    }

    /// What has gone wrong so far.
    pub fn tally(&self) -> Tally {
        self.with(|state| state.tally.clone())
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn dice(&self, asked: &str) -> Dice {
        let seed = self.with(|state| {
            let times = state.asked.entry(asked.to_owned()).or_default();
            *times += 1;
            digest(&[&state.seed.to_le_bytes(), asked.as_bytes(), &times.to_le_bytes()])
        });
        Dice { faults: self.clone(), random: StdRng::seed_from_u64(seed) }
    }
}

/// FNV-1a: the same on every machine and in every version, which the standard library's hasher does not promise.
fn digest(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .copied()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Dice {
    fn strikes(&mut self, name: &'static str, likelihood: impl FnOnce(&Weather) -> f64) -> bool {
        let likelihood = self.faults.with(|state| likelihood(&state.weather));
        // Thrown even in fair weather, so that what comes after does not depend on it.
        let strikes = self.random.random::<f64>() < likelihood;
        if strikes {
            self.faults.with(|state| *state.tally.entry(name).or_default() += 1);
        }
        strikes
    }

    /// A whole number below `bound`.
    fn throw(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    fn delay(&mut self) -> Duration {
        LONGEST_DELAY.mul_f64(self.random.random())
    }

    /// An answer that comes instead of the API's own.
    fn refusal(&mut self, asked: Asked) -> Option<Response<FaultyBody>> {
        if self.strikes("refused", |weather| weather.refused) {
            return Some(match self.throw(3) {
                0 => status(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "the server is busy"),
                1 => status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "the server has a problem"),
                _ => status(StatusCode::FORBIDDEN, "Forbidden", "somebody took the right away"),
            });
        }
        let may_expire = matches!(asked, Asked::List | Asked::Watch);
        (may_expire && self.strikes("expired", |weather| weather.expired))
            .then(|| status(StatusCode::GONE, "Expired", "too old resource version"))
    }
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response<FaultyBody> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": message,
    });
    let mut response = Response::new(whole(Bytes::from(status.to_string())));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    if code == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    }
    response
}

fn whole(bytes: Bytes) -> FaultyBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn connection_reset() -> BoxError {
    io::Error::new(io::ErrorKind::ConnectionReset, "a fault breaks the connection").into()
}

impl Asked {
    fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let has = |part: &str| uri.query().is_some_and(|query| query.split('&').any(|pair| pair == part));
        if request.method() != Method::GET {
            Self::Other
        } else if has("watch=true") || has("watch=1") {
            Self::Watch
        } else if uri.path().ends_with("/log") {
            Self::Log
        } else if uri.path().ends_with("/pods") || uri.path().ends_with("/jobs") {
            Self::List
        } else {
            Self::Other
        }
    }
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty { inner, faults: self.clone() }
    }
}

/// A service to which faults happen.
#[derive(Clone)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S, R, B> Service<Request<R>> for Faulty<S>
where
    S: Service<Request<R>, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + 'static,
    S::Future: Send,
    R: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<FaultyBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<R>) -> Self::Future {
        // The one that is ready is used, its clone is not.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let faults = self.faults.clone();
        async move {
            let asked = Asked::of(&request);
            let mut dice = faults.dice(&signature(&request));
            if dice.strikes("delayed", |weather| weather.delayed) {
                sleep(dice.delay()).await;
            }
            if dice.strikes("broken", |weather| weather.broken) {
                return Err(connection_reset());
            }
            if let Some(refusal) = dice.refusal(asked) {
                return Ok(refusal);
            }
            let uri = request.uri().to_string();
            let response = inner.call(request).await.map_err(Into::into)?;
            if response.status() != StatusCode::OK {
                return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()));
            }
            match asked {
                Asked::List => dice.list(uri, response).await,
                Asked::Watch => Ok(response.map(|body| frames::disturb(dice, body))),
                Asked::Log => Ok(dice.log(response)),
                Asked::Other => Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
            }
        }
        .boxed()
    }
}

/// What a request is for; versions and tokens differ where nothing else does.
fn signature<B>(request: &Request<B>) -> String {
    let uri = request.uri();
    let query = uri.query().unwrap_or_default().split('&');
    let stable = query.filter(|pair| !pair.starts_with("resourceVersion=") && !pair.starts_with("continue="));
    format!("{} {}?{}", request.method(), uri.path(), stable.collect::<Vec<_>>().join("&"))
}

impl Dice {
    /// T7: what an earlier list showed, or this one.
    async fn list<B>(&mut self, uri: String, response: Response<B>) -> Result<Response<FaultyBody>, BoxError>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, body) = response.into_parts();
        let now = body.collect().await.map_err(Into::into)?.to_bytes();
        // Tokens of pages belong to their own snapshots.
        if uri.contains("continue=") {
            return Ok(Response::from_parts(head, whole(now)));
        }
        let before = self.faults.with(|state| state.shown.insert(uri, now.clone()));
        let shown = match before {
            Some(before) if self.strikes("stale_list", |weather| weather.stale_list) => before,
            _ => now,
        };
        Ok(Response::from_parts(head, whole(shown)))
    }

    fn log<B>(&mut self, response: Response<B>) -> Response<FaultyBody>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        // T62
        if self.strikes("log_unretrievable", |weather| weather.log_unretrievable) {
            let excuse = "unable to retrieve container logs for containerd://0123456789abcdef";
            return response.map(|_| whole(Bytes::from_static(excuse.as_bytes())));
        }
        if !self.strikes("log_broken", |weather| weather.log_broken) {
            return response.map(|body| body.map_err(Into::into).boxed_unsync());
        }
        let (hangs, kept) = (self.throw(2) == 0, usize::try_from(self.throw(3)).unwrap_or_default());
        response.map(|body| {
            let head = body.into_data_stream().map(|part| part.map_err(Into::into)).take(kept);
            let end =
                stream::once(async move { if hangs { std::future::pending().await } else { Err(connection_reset()) } });
            StreamBody::new(head.chain(end).map(|part| part.map(Frame::data))).boxed_unsync()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::{
        api::Api,
        cluster::{Cluster, Kind, Options},
    };

    #[tokio::test(start_paused = true)]
    async fn lists_of_pods_and_of_jobs_are_stale_and_expire() {
        let clock = Arc::new(|| jiff::Timestamp::UNIX_EPOCH);
        let cluster = Cluster::new(Options { clock, seed: Some(1) });
        let faults = Faults::new(1);
        let get = async |path: &str| {
            let request = Request::get(path).body(Full::<Bytes>::default()).unwrap();
            let response = faults.layer(Api::new(cluster.clone())).oneshot(request).await.unwrap();
            (response.status(), response.into_body().collect().await.unwrap().to_bytes())
        };
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]});
        let pods = (Kind::Pod, "/api/v1/namespaces/default/pods", spec.clone());
        let jobs = (Kind::Job, "/apis/batch/v1/namespaces/default/jobs", json!({"template": {"spec": spec}}));
        for (kind, path, spec) in [pods, jobs] {
            faults.set(Weather { stale_list: 1.0, ..Weather::default() });
            let (_, before) = get(path).await;
            let object: Value = json!({"metadata": {"name": "a"}, "spec": spec});
            cluster.create(kind, "default", object).unwrap();
            assert_eq!(get(path).await, (StatusCode::OK, before), "{path}");
            faults.set(Weather { expired: 1.0, ..Weather::default() });
            assert_eq!(get(path).await.0, StatusCode::GONE, "{path}");
        }
    }
}
