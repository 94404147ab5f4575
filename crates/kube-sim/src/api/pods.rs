//! What only pods have: logs, eviction, binding.

use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Body, json as answer, request::Query};
use crate::{
    cluster::{Cause, Cluster, Deletion, Kind, Part, Refusal, key, text},
    logs::LogRequest,
};

pub(super) async fn log(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let bounds = Bounds::read(name, query, cluster.now())?;
    let pod = cluster.get(Kind::Pod, namespace, name).ok_or_else(|| Refusal::not_found(Kind::Pod, name))?;
    let container = container(&pod, name, query.get("container"))?;
    let request = LogRequest {
        namespace: namespace.to_owned(),
        pod: name.to_owned(),
        uid: text(&pod, "/metadata/uid").to_owned(),
        container,
        previous: query.flag("previous"),
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        since: bounds.since,
        tail_lines: bounds.tail_lines,
        limit_bytes: bounds.limit_bytes,
    };
    if text(&pod, "/spec/nodeName").is_empty() {
        let mut response = Response::new(super::whole(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let Some(logs) = cluster.logs() else {
        let message = format!("pod {name} does not have a host assigned");
        return Err(Refusal::bad_request(message));
    };
    let log = logs.open(request).await.map_err(|no_log| {
        let reason = match no_log.status {
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::NOT_FOUND => "NotFound",
            _ => "InternalError",
        };
        Refusal::new(no_log.status, reason, no_log.message)
    })?;
    let mut response = Response::new(StreamBody::new(log.map(|part| part.map(Frame::data))).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// How much of a log.
struct Bounds {
    since: Option<Timestamp>,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
}

impl Bounds {
    fn read(pod: &str, query: &Query, now: Timestamp) -> Result<Self, Refusal> {
        let since_time: Option<Timestamp> = query.get("sinceTime").map(read_time).transpose()?;
        let mut causes = Vec::new();
        let mut at_least = |name: &str, least: i64, rule: &str| {
            let number = query.number(name)?;
            causes.extend(number.filter(|number| *number < least).map(|number| Cause::invalid(name, number, rule)));
            Ok::<_, Refusal>(number)
        };
        let tail_lines = at_least("tailLines", 0, "must be greater than or equal to 0")?;
        let limit_bytes = at_least("limitBytes", 1, "must be greater than 0")?;
        let since_seconds = at_least("sinceSeconds", 1, "must be greater than 0")?;
        if since_time.is_some() && since_seconds.is_some() {
            causes.push(Cause::forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
        }
        if query.get("stream").is_some() {
            causes.push(Cause::forbidden("stream", "may not be specified"));
        }
        Refusal::if_invalid("", "PodLogOptions", pod, &causes)?;
        let since_seconds = since_seconds.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        Ok(Self {
            since: since_time.or(since_seconds),
            tail_lines: tail_lines.and_then(|lines| lines.try_into().ok()),
            limit_bytes: limit_bytes.and_then(|bytes| bytes.try_into().ok()),
        })
    }
}

fn read_time(text: &str) -> Result<Timestamp, Refusal> {
    let no_time = |_| Refusal::bad_request(format!("sinceTime: {text:?} is no time such as 2026-03-01T12:00:00Z"));
    text.parse().map_err(no_time)
}

fn container(pod: &Value, name: &str, wanted: Option<&str>) -> Result<String, Refusal> {
    let lists = ["initContainers", "containers"];
    let all = lists.iter().flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    let names: Vec<&str> = all.map(|container| text(container, "/name")).collect();
    match (wanted, &names[..]) {
        (Some(wanted), names) if names.contains(&wanted) => Ok(wanted.to_owned()),
        (Some(wanted), _) => Err(Refusal::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, names) => {
            let names = names.join(" ");
            Err(Refusal::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{names}]"
            )))
        }
    }
}

pub(super) fn evict(cluster: &Cluster, namespace: &str, name: &str, body: &[u8]) -> Result<Response<Body>, Refusal> {
    let eviction: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("the body is not JSON: {error}")))?;
    let deletion = Deletion { grace: eviction["deleteOptions"]["gracePeriodSeconds"].as_i64(), ..Deletion::default() };
    let now = cluster.now();
    cluster.update(Kind::Pod, namespace, name, None, |pod| {
        crate::node::set_condition(
            &mut pod["status"],
            "DisruptionTarget",
            true,
            Some(("EvictionByEvictionAPI", "Eviction API: evicting")),
            now,
        );
    })?;
    cluster.delete(Kind::Pod, namespace, name, &deletion)?;
    Ok(answer(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

pub(super) fn bind(cluster: &Cluster, namespace: &str, name: &str, body: &[u8]) -> Result<Response<Body>, Refusal> {
    let binding: Value =
        serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("the body is not JSON: {error}")))?;
    let node = text(&binding, "/target/name").to_owned();
    cluster.change(Kind::Pod, &key(namespace, name), Part::All, |old| {
        let bound = text(old, "/spec/nodeName");
        if !bound.is_empty() {
            return Err(Refusal::conflict(
                Kind::Pod,
                name,
                &format!("pod {name} is already assigned to node {bound:?}"),
            ));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!(node);
        Ok(new)
    })?;
    Ok(answer(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}
