//! From a request to its answer.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    failure::{Failure, Refusal},
    request::{self, Asked, Kind},
    selector::Sort,
    store::{GoneAs, LogAttempt, LogEnd, Shared, State, frame},
    stream::{self as watching, Terms},
};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Answers as the API server would, unless the script has other plans.
pub(super) async fn answer(shared: Arc<Shared>, request: Parts) -> io::Result<Response<Body>> {
    let asked = match request::parse(&request.method, &request.uri) {
        Ok(asked) => asked,
        Err(problem) => {
            shared.change(|state| state.unexpected.push(problem.clone()));
            return Ok(refuse(&Refusal::of_code(404, problem)));
        }
    };
    let kind = asked.kind;
    let (failure, is_stale) = shared.change(|state| {
        state.asked.push(asked.clone());
        let is_stale = state.stale.as_mut().is_some_and(|stale| (stale.answers)(kind));
        let forbidden =
            state.forbidden.then(|| Refusal::forbidden(kind.sort(), kind.verb(), asked.namespace.as_deref()).into());
        (forbidden.or_else(|| state.planned_failure(kind)), is_stale)
    });
    if let Some(failure) = failure {
        return fail(failure).await;
    }
    let from_state = |state: &mut State| match kind {
        Kind::List | Kind::ListJobs => list(state, &asked),
        Kind::Get | Kind::GetJob | Kind::GetNode => get(state, &asked),
        Kind::Log => log(state, &asked),
        Kind::Watch | Kind::WatchJobs => unreachable!("watches are answered apart"),
    };
    let answered = match kind {
        Kind::Watch | Kind::WatchJobs => watch(&shared, &asked, is_stale),
        _ if is_stale => shared.lock().as_it_was(from_state),
        _ => from_state(&mut shared.lock()),
    };
    match answered {
        Ok(response) => Ok(response),
        Err(failure) => fail(failure).await,
    }
}

async fn fail(failure: Failure) -> io::Result<Response<Body>> {
    match failure {
        Failure::Refused(refusal) => Ok(refuse(&refusal)),
        Failure::Reset => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the script breaks the connection")),
        Failure::Hang => std::future::pending().await,
    }
}

pub(super) fn refuse(refusal: &Refusal) -> Response<Body> {
    let mut response = match &refusal.body {
        Value::String(text) => full("text/plain; charset=utf-8", text.clone().into()),
        status => full("application/json", status.to_string().into()),
    };
    *response.status_mut() = StatusCode::from_u16(refusal.code).unwrap();
    if let Some(seconds) = refusal.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn full(content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    Response::builder().header(header::CONTENT_TYPE, content_type).body(body).unwrap()
}

fn flowing(
    content_type: &'static str,
    parts: impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    let body = StreamBody::new(parts.map_ok(Frame::data)).boxed_unsync();
    Response::builder().header(header::CONTENT_TYPE, content_type).body(body).unwrap()
}

fn bad(problem: String) -> Failure {
    Refusal::of_code(400, problem).into()
}

/// What a `continue` token says: version of the snapshot, and the first pod that is still to come.
fn token(version: u64, start: usize) -> String {
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": version, "start": start.to_string()}).to_string())
}

fn read_token(token: &str) -> Option<(u64, usize)> {
    let token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    Some((token["rv"].as_u64()?, token["start"].as_str()?.parse().ok()?))
}

fn list(state: &mut State, asked: &Asked) -> Result<Response<Body>, Failure> {
    let filter = asked.filter().map_err(bad)?;
    let limit = asked.number("limit").map_err(bad)?.and_then(|limit| usize::try_from(limit).ok()).filter(|n| *n > 0);
    let limit = limit.into_iter().chain(state.page_limit).min().unwrap_or(usize::MAX);
    let (version, start, pods) = match asked.parameter("continue") {
        Some(text) => {
            let (version, start) = read_token(text).ok_or_else(|| bad(format!("continue key is not valid: {text}")))?;
            let Some(pods) = state.snapshots.get(&version) else {
                return Err(Refusal::expired_continue(&token(state.version, start)).into());
            };
            (version, start, pods.clone())
        }
        None => {
            if let Some(asked) = asked.number("resourceVersion").map_err(bad)?
                && asked > state.version
            {
                return Err(Refusal::too_large(asked, state.version).into());
            }
            (state.version, 0, state.select(&filter))
        }
    };
    let end = start.saturating_add(limit).min(pods.len());
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if state.page_limit.is_some() {
        // Some servers say in so many words that nothing follows (T13).
        metadata["continue"] = "".into();
    }
    if end < pods.len() {
        metadata["continue"] = token(version, end).into();
        if filter.is_open() {
            metadata["remainingItemCount"] = (pods.len() - end).into();
        }
    }
    let items: Vec<Value> = pods[start.min(end)..end].iter().map(|pod| as_item(pod)).collect();
    if end < pods.len() {
        state.snapshots.insert(version, pods);
    }
    let sort = asked.kind.sort();
    let (kind, version) = (format!("{}List", sort.kind()), sort.api_version());
    let list = json!({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items});
    Ok(full("application/json", list.to_string().into()))
}

/// Items of a list bear no kind.
fn as_item(pod: &Value) -> Value {
    let mut item = pod.clone();
    if let Some(fields) = item.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

fn watch(shared: &Arc<Shared>, asked: &Asked, is_stale: bool) -> Result<Response<Body>, Failure> {
    let filter = asked.filter().map_err(bad)?;
    let from = asked.number("resourceVersion").map_err(bad)?;
    let seconds = asked.number("timeoutSeconds").map_err(bad)?.filter(|seconds| *seconds > 0);
    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let bookmarks = asked.is_true("allowWatchBookmarks");
    let initial = asked.parameter("sendInitialEvents").map(|_| asked.is_true("sendInitialEvents"));
    if initial.is_some() && asked.parameter("resourceVersionMatch") != Some("NotOlderThan") {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents \
                       requires setting resourceVersionMatch to NotOlderThan";
        return Err(Refusal::of_code(422, message).into());
    }
    let mut state = shared.lock();
    let (oldest, gone_as) = (state.oldest, state.gone_as);
    let look = |state: &mut State| (state.version, state.select(&filter));
    let (current, there) = if is_stale { state.as_it_was(look) } else { look(&mut state) };
    let mut first = Vec::new();
    let after = match from {
        None | Some(0) => {
            // From "now" the server first tells what is there, unless it was asked not to.
            if initial != Some(false) {
                first.extend(there.iter().map(|pod| frame("ADDED", pod)));
            }
            current
        }
        Some(version) if version < oldest => match (Refusal::too_old(version, oldest), gone_as) {
            (refusal, GoneAs::Status) => return Err(refusal.into()),
            (refusal, GoneAs::Frame) => {
                let error = stream::iter([Ok(frame("ERROR", &refusal.body))]);
                return Ok(flowing("application/json", error));
            }
        },
        Some(version) if is_stale && version > current => return Err(Refusal::too_large(version, current).into()),
        Some(version) => version,
    };
    drop(state);
    if initial == Some(true) {
        first.extend(bookmarks.then(|| end_of_initial_events(current)));
    }
    let terms = Terms { filter, after, deadline, bookmarks, first, is_stale };
    Ok(flowing("application/json", watching::open(shared, terms)))
}

fn end_of_initial_events(version: u64) -> Bytes {
    let mut object = watching::bookmark_object(version);
    object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    frame("BOOKMARK", &object)
}

fn get(state: &State, asked: &Asked) -> Result<Response<Body>, Failure> {
    let pod = find(state, asked)?;
    Ok(full("application/json", pod.to_string().into()))
}

fn find<'a>(state: &'a State, asked: &Asked) -> Result<&'a Value, Refusal> {
    let name = asked.name.clone().unwrap_or_default();
    let key = (asked.kind.sort(), asked.namespace.clone().unwrap_or_default(), name);
    state.pods.get(&key).map(|pod| &**pod).ok_or_else(|| Refusal::not_found(key.0, &key.2))
}

fn log(state: &mut State, asked: &Asked) -> Result<Response<Body>, Failure> {
    let limit = asked.number("limitBytes").map_err(bad)?;
    let pod = find(state, asked)?;
    let name = asked.name.clone().unwrap_or_default();
    let names: Vec<&str> = ["/spec/initContainers", "/spec/containers"]
        .iter()
        .filter_map(|pointer| pod.pointer(pointer)?.as_array())
        .flatten()
        .filter_map(|container| container["name"].as_str())
        .collect();
    let container = match (asked.parameter("container"), &names[..]) {
        (Some(container), names) if names.contains(&container) => container.to_owned(),
        (Some(container), _) => {
            return Err(bad(format!("container {container} is not valid for pod {name}")));
        }
        (None, [only]) => (*only).to_owned(),
        (None, names) => {
            let names = names.join(" ");
            return Err(bad(format!("a container name must be specified for pod {name}, choose one of: [{names}]")));
        }
    };
    let previous = asked.is_true("previous");
    let key = (Sort::Pod, asked.namespace.clone().unwrap_or_default(), name.clone());
    let script = state.logs.get_mut(&(key, container.clone(), previous));
    if previous && script.is_none() {
        return Err(bad(format!("previous terminated container \"{container}\" in pod \"{name}\" not found")));
    }
    let attempt = script.and_then(|script| {
        script.next += 1;
        script.attempts.get(script.next - 1).or(script.attempts.last()).cloned()
    });
    match attempt {
        Some(LogAttempt::Text(parts, end)) => Ok(log_body(parts, end, limit)),
        Some(LogAttempt::Fails(failure)) => Err(failure),
        None => Ok(log_body(Vec::new(), LogEnd::Complete, limit)),
    }
}

fn log_body(mut parts: Vec<Bytes>, mut end: LogEnd, limit: Option<u64>) -> Response<Body> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    if parts.iter().map(Bytes::len).sum::<usize>() > limit {
        // The server cuts without a word (T75).
        let mut left = limit;
        for part in &mut parts {
            part.truncate(left);
            left -= part.len();
        }
        end = LogEnd::Complete;
    }
    let parts = stream::iter(parts.into_iter().filter(|part| !part.is_empty()).map(Ok));
    match end {
        LogEnd::Complete => flowing("text/plain", parts),
        LogEnd::BreaksOff => {
            let error = io::Error::new(io::ErrorKind::ConnectionReset, "the script breaks the log off");
            flowing("text/plain", parts.chain(stream::iter([Err(error)])))
        }
        LogEnd::Hangs => flowing("text/plain", parts.chain(watching::silence().map_err(|never| match never {}))),
    }
}
