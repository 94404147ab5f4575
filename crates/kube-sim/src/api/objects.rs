//! Objects: get, list, create, update, patch, delete.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Body, json as answer, request::Asked, selector::Filter, table};
use crate::cluster::{Cause, Cluster, Deletion, Kept, Key, Kind, Refusal, key, text};

/// Where a list goes on: the version of its first page, and the last object so far.
#[derive(Serialize, Deserialize)]
struct Continue {
    version: u64,
    after: Key,
}

pub(super) fn get(
    cluster: &Cluster,
    kind: Kind,
    namespace: &str,
    name: &str,
    asked: &Asked,
) -> Result<Response<Body>, Refusal> {
    let object = cluster.get(kind, namespace, name).ok_or_else(|| Refusal::not_found(kind, name))?;
    Ok(shown(cluster, StatusCode::OK, kind, &object, asked))
}

/// An object, as a table if that was asked for.
fn shown(cluster: &Cluster, status: StatusCode, kind: Kind, object: &Arc<Value>, asked: &Asked) -> Response<Body> {
    if asked.as_table {
        let version = text(object, "/metadata/resourceVersion");
        return answer(
            status,
            &table::of(cluster, kind, std::slice::from_ref(object), &json!({"resourceVersion": version})),
        );
    }
    answer(status, object)
}

pub(super) fn list(cluster: &Cluster, kind: Kind, namespace: &str, asked: &Asked) -> Result<Response<Body>, Refusal> {
    let filter = filter(kind, namespace, "", asked)?;
    let limit = asked
        .query
        .number("limit")?
        .filter(|limit| *limit > 0)
        .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let token = asked.query.get("continue").map(read_token).transpose()?;
    let state = cluster.lock();
    let version = match &token {
        Some(token) => token.version,
        None => wanted_version(asked, state.version())?,
    };
    let objects = state.at(kind, version).ok_or_else(|| too_old(version))?;
    let rest = objects
        .into_iter()
        .filter(|(key, object)| token.as_ref().is_none_or(|token| *key > token.after) && filter.admits(object));
    let mut page: Vec<(Key, Arc<Value>)> = rest.collect();
    drop(state);
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if page.len() > limit {
        let remaining = page.len() - limit;
        page.truncate(limit);
        let after = page.last().map(|(key, _)| key.clone()).unwrap_or_default();
        metadata["continue"] = json!(token_of(&Continue { version, after }));
        metadata["remainingItemCount"] = json!(remaining);
    }
    let items: Vec<Arc<Value>> = page.into_iter().map(|(_, object)| object).collect();
    if asked.as_table {
        return Ok(answer(StatusCode::OK, &table::of(cluster, kind, &items, &metadata)));
    }
    Ok(answer(StatusCode::OK, &list_of(kind, &items, &metadata)))
}

/// Items of a list do not repeat its kind.
fn list_of(kind: Kind, items: &[Arc<Value>], metadata: &Value) -> Value {
    let items: Vec<Value> = items
        .iter()
        .map(|item| {
            let mut item = Value::clone(item);
            if let Some(fields) = item.as_object_mut() {
                fields.remove("kind");
                fields.remove("apiVersion");
            }
            item
        })
        .collect();
    json!({
        "kind": format!("{}List", kind.resource().kind), "apiVersion": kind.resource().api_version(), "metadata": metadata, "items": items,
    })
}

pub(super) fn filter(kind: Kind, namespace: &str, name: &str, asked: &Asked) -> Result<Filter, Refusal> {
    Filter::read(kind, namespace, name, asked.query.get("labelSelector"), asked.query.get("fieldSelector"))
}

/// Which version a list is of.
fn wanted_version(asked: &Asked, newest: u64) -> Result<u64, Refusal> {
    let Some(wanted) = asked.query.get("resourceVersion") else {
        let rule = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        let cause = asked.query.get("resourceVersionMatch").map(|_| Cause::forbidden("resourceVersionMatch", rule));
        invalid_options(cause.as_ref())?;
        return Ok(newest);
    };
    let version: u64 = wanted.parse().map_err(|_| {
        Refusal::bad_request(format!(
            "resourceVersion: Invalid value: {wanted:?}: strconv.ParseUint: parsing {wanted:?}: invalid syntax"
        ))
    })?;
    if version > newest {
        return Err(too_large(version, newest));
    }
    let is_exact = asked.query.get("resourceVersionMatch") == Some("Exact");
    Ok(if is_exact { version } else { newest })
}

/// What is wrong with how a list or a watch was asked for.
pub(super) fn invalid_options(cause: Option<&Cause>) -> Result<(), Refusal> {
    Refusal::if_invalid("meta.k8s.io", "ListOptions", "", cause.map(std::slice::from_ref).unwrap_or_default())
}

/// T18
fn too_large(version: u64, newest: u64) -> Refusal {
    let message = format!("Timeout: Too large resource version: {version}, current: {newest}");
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).with(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1,
    }))
}

pub(super) fn too_old(version: u64) -> Refusal {
    Refusal::new(StatusCode::GONE, "Expired", format!("too old resource version: {version}"))
}

fn token_of(token: &Continue) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).expect("a token is plain"))
}

fn read_token(text: &str) -> Result<Continue, Refusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
    let token = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    token.ok_or_else(|| Refusal::bad_request("continue key is not valid: it must be the token of an earlier page"))
}

pub(super) fn create(
    cluster: &Cluster,
    kind: Kind,
    namespace: &str,
    asked: &Asked,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    asked.refuse_dry_run()?;
    let object = asked.body(body)?;
    if kind.resource().is_namespaced && namespace.is_empty() {
        return Err(asked.not_allowed());
    }
    let own = text(&object, "/metadata/namespace");
    if kind.resource().is_namespaced && !own.is_empty() && own != namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let created = cluster.create(kind, namespace, object)?;
    Ok(shown(cluster, StatusCode::CREATED, kind, &created, asked))
}

pub(super) fn put(cluster: &Cluster, asked: &Asked, body: &[u8]) -> Result<Response<Body>, Refusal> {
    asked.refuse_dry_run()?;
    let (kind, namespace, name, part) = asked.object();
    let object = asked.body(body)?;
    let own = text(&object, "/metadata/name");
    if own != name {
        let message = format!("the name of the object ({own}) does not match the name on the URL ({name})");
        return Err(Refusal::bad_request(message));
    }
    let uid = text(&object, "/metadata/uid").to_owned();
    let changed = cluster.change(kind, &key(namespace, name), part, |old| {
        if !uid.is_empty() && uid != text(old, "/metadata/uid") {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                text(old, "/metadata/uid")
            );
            return Err(Refusal::conflict(kind, name, &why));
        }
        Ok(object)
    })?;
    Ok(shown(cluster, StatusCode::OK, kind, &changed, asked))
}

/// What a patch does to an object.
type Change = Box<dyn FnOnce(&mut Value) -> Result<(), Refusal>>;

pub(super) fn patch(cluster: &Cluster, asked: &Asked, body: &[u8]) -> Result<Response<Body>, Refusal> {
    asked.refuse_dry_run()?;
    let (kind, namespace, name, part) = asked.object();
    let unreadable = |error: serde_json::Error| Refusal::bad_request(format!("the patch is not one: {error}"));
    let change: Change = match asked.content_type.as_str() {
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_slice(body).map_err(unreadable)?;
            Box::new(move |object| {
                json_patch::patch(object, &patch).map_err(|error| {
                    let message = format!("the server rejected our request due to an error in our request: {error}");
                    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
                })
            })
        }
        "application/merge-patch+json" => {
            let patch: Value = serde_json::from_slice(body).map_err(unreadable)?;
            Box::new(move |object| {
                json_patch::merge(object, &patch);
                Ok(())
            })
        }
        _ => return Err(asked.unsupported("application/json-patch+json, application/merge-patch+json")),
    };
    let changed = cluster.change(kind, &key(namespace, name), part, |old| {
        let mut new = old.clone();
        change(&mut new)?;
        Ok(new)
    })?;
    Ok(shown(cluster, StatusCode::OK, kind, &changed, asked))
}

pub(super) fn delete(cluster: &Cluster, asked: &Asked, body: &[u8]) -> Result<Response<Body>, Refusal> {
    asked.refuse_dry_run()?;
    let (kind, namespace, name, _) = asked.object();
    let deletion = deletion(asked, body)?;
    let last = match cluster.delete(kind, namespace, name, &deletion)? {
        Kept::Waits(object) => return Ok(answer(StatusCode::OK, &object)),
        Kept::Gone(last) if kind.resource().returns_deleted => return Ok(answer(StatusCode::OK, &last)),
        Kept::Gone(last) => last,
    };
    let uid = &last["metadata"]["uid"];
    let details = json!({"name": name, "kind": kind.resource().plural, "uid": uid});
    Ok(answer(
        StatusCode::OK,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}),
    ))
}

pub(super) fn delete_all(
    cluster: &Cluster,
    kind: Kind,
    namespace: &str,
    asked: &Asked,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    asked.refuse_dry_run()?;
    let deletion = deletion(asked, body)?;
    let filter = filter(kind, namespace, "", asked)?;
    let mut deleted = Vec::new();
    for object in cluster.list(kind, namespace).into_iter().filter(|object| filter.admits(object)) {
        let (namespace, name) = (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        // One that went meanwhile is deleted as well.
        if let Ok(Kept::Gone(last) | Kept::Waits(last)) = cluster.delete(kind, namespace, name, &deletion) {
            deleted.push(last);
        }
    }
    let version = cluster.lock().version();
    Ok(answer(StatusCode::OK, &list_of(kind, &deleted, &json!({"resourceVersion": version.to_string()}))))
}

/// `DeleteOptions` from the body, else from the query.
pub(super) fn deletion(asked: &Asked, body: &[u8]) -> Result<Deletion, Refusal> {
    let options = if body.is_empty() { Value::Null } else { asked.body(body)? };
    let text = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let grace = match options["gracePeriodSeconds"].as_i64() {
        Some(seconds) => Some(seconds),
        None => asked.query.number("gracePeriodSeconds")?.and_then(|seconds| i64::try_from(seconds).ok()),
    };
    let propagation = text("/propagationPolicy").or_else(|| asked.query.get("propagationPolicy").map(str::to_owned));
    let orphans = propagation.as_deref() == Some("Orphan");
    Ok(Deletion { grace, orphans, uid: text("/preconditions/uid"), version: text("/preconditions/resourceVersion") })
}
