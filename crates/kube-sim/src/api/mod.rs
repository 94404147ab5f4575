//! The Kubernetes API over a cluster, as a tower service: under `kube::Client` in process, or behind [`serve`].

mod decode;
mod discovery;
mod listen;
mod lists;
mod objects;
mod pods;
mod request;
mod selector;
mod table;
mod watch;

use std::{
    convert::Infallible,
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use serde::Serialize;
use tower::{BoxError, Service};

use self::request::{Asked, Query, Target};
use crate::cluster::{Cluster, Refusal};

pub use listen::serve;

/// An answer's body.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A request body at most, as the API server has it.
const MAX_BODY: usize = 3 << 20;

/// The API of one cluster; a clone is the same one.
#[derive(Clone)]
pub struct Api {
    cluster: Cluster,
}

impl Api {
    /// The API of this cluster.
    pub fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    async fn answer<B>(self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send,
    {
        let (head, body) = request.into_parts();
        let answered = async {
            let asked = Asked::read(&head)?;
            let bytes = match head.method {
                Method::GET | Method::HEAD => Bytes::new(),
                _ => read(body).await?,
            };
            self.dispatch(&asked, &bytes).await
        };
        answered.await.unwrap_or_else(|refusal| refused(&refusal))
    }

    async fn dispatch(&self, asked: &Asked, body: &[u8]) -> Result<Response<Body>, Refusal> {
        match &asked.target {
            Target::Discovery(document) if asked.method == Method::GET => Ok(json(StatusCode::OK, document)),
            Target::Discovery(_) => Err(asked.not_allowed()),
            Target::Collection { kind, namespace } => match asked.method {
                Method::GET if asked.query.is_watch() => watch::open(&self.cluster, *kind, namespace, "", asked),
                Method::GET => lists::list(&self.cluster, *kind, namespace, asked).await,
                Method::POST => objects::create(&self.cluster, *kind, namespace, asked, body),
                Method::DELETE => objects::delete_all(&self.cluster, *kind, namespace, asked, body),
                _ => Err(asked.not_allowed()),
            },
            Target::Object { kind, namespace, name, subresource } => match (&asked.method, subresource.as_str()) {
                (&Method::GET, "") if asked.query.is_watch() => {
                    watch::open(&self.cluster, *kind, namespace, name, asked)
                }
                (&Method::GET, "" | "status") => objects::get(&self.cluster, *kind, namespace, name, asked).await,
                (&Method::PUT, "" | "status") => objects::put(&self.cluster, asked, body),
                (&Method::PATCH, "" | "status") => objects::patch(&self.cluster, asked, body),
                (&Method::DELETE, "") => objects::delete(&self.cluster, asked, body),
                (&Method::GET, "log") => pods::log(&self.cluster, namespace, name, &asked.query).await,
                (&Method::POST, "eviction") => pods::evict(&self.cluster, namespace, name, body),
                (&Method::POST, "binding") => pods::bind(&self.cluster, namespace, name, body),
                _ => Err(asked.not_allowed()),
            },
        }
    }
}

impl<B> Service<Request<B>> for Api
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.clone().answer(request).map(Ok).boxed()
    }
}

async fn read<B>(body: B) -> Result<Bytes, Refusal>
where
    B: http_body::Body<Error: Into<BoxError>>,
{
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {MAX_BODY}");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message))
        }
        Err(error) => Err(Refusal::bad_request(format!("the request broke off: {error}"))),
    }
}

fn json(status: StatusCode, object: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_vec(object).expect("objects are made of JSON");
    let mut response = Response::new(whole(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refused(refusal: &Refusal) -> Response<Body> {
    json(refusal.code, &refusal.to_status())
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn query_of(head: &http::request::Parts) -> Query {
    Query::parse(head.uri.query().unwrap_or_default())
}
