//! Objects: get, list, create, update, patch, delete.

use std::sync::Arc;

use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::{Value, json};

use super::{
    Body,
    decode::{self, Warnings},
    json as answer,
    lists::{filter, list_of, reach, version_number},
    request::Asked,
    table,
};
use crate::cluster::{Cause, Cluster, Deletion, Kept, Kind, Refusal, key, text};

pub(super) async fn get(
    cluster: &Cluster,
    kind: Kind,
    namespace: &str,
    name: &str,
    asked: &Asked,
) -> Result<Response<Body>, Refusal> {
    if let Some(version) = asked.query.get("resourceVersion") {
        reach(cluster, version_number(version)?).await?;
    }
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
    answer(status, &**object)
}

pub(super) fn create(
    cluster: &Cluster,
    kind: Kind,
    namespace: &str,
    asked: &Asked,
    body: &[u8],
) -> Result<Response<Body>, Refusal> {
    asked.refuse_dry_run()?;
    let (object, warnings) = decode::object(kind, asked, body)?;
    if kind.resource().is_namespaced && namespace.is_empty() {
        return Err(asked.not_allowed());
    }
    let own = text(&object, "/metadata/namespace");
    if kind.resource().is_namespaced && !own.is_empty() && own != namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let created = cluster.create_decoded(kind, namespace, object)?;
    let warnings = warnings.and(kind.resource().caveat);
    Ok(warnings.on(shown(cluster, StatusCode::CREATED, kind, &created, asked)))
}

pub(super) fn put(cluster: &Cluster, asked: &Asked, body: &[u8]) -> Result<Response<Body>, Refusal> {
    asked.refuse_dry_run()?;
    let (kind, namespace, name, part) = asked.object();
    let (object, warnings) = decode::object(kind, asked, body)?;
    expect_name(name, &object)?;
    let resource = kind.resource();
    if resource.creates_on_update && cluster.get(kind, namespace, name).is_none() {
        let created = cluster.create_decoded(kind, namespace, object)?;
        return Ok(warnings.on(shown(cluster, StatusCode::CREATED, kind, &created, asked)));
    }
    if resource.needs_version && text(&object, "/metadata/resourceVersion").is_empty() {
        let cause = Cause::invalid("metadata.resourceVersion", 0, "must be specified for an update");
        Refusal::if_invalid(resource.group, resource.plural, name, &[cause])?;
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
    Ok(warnings.on(shown(cluster, StatusCode::OK, kind, &changed, asked)))
}

fn expect_name(name: &str, object: &Value) -> Result<(), Refusal> {
    let own = text(object, "/metadata/name");
    if own == name {
        return Ok(());
    }
    let message = format!("the name of the object ({own}) does not match the name on the URL ({name})");
    Err(Refusal::bad_request(message))
}

/// What becomes of that which the deleted object owns.
const POLICIES: [&str; 3] = ["Foreground", "Background", "Orphan"];

/// What a patch does to an object.
type Change = Box<dyn FnOnce(&mut Value) -> Result<(), Refusal>>;

pub(super) fn patch(cluster: &Cluster, asked: &Asked, body: &[u8]) -> Result<Response<Body>, Refusal> {
    asked.refuse_dry_run()?;
    let (kind, namespace, name, part) = asked.object();
    let change = read_patch(asked, body)?;
    let mut warnings = Warnings::default();
    let changed = cluster.change(kind, &key(namespace, name), part, |old| {
        let mut new = old.clone();
        change(&mut new)?;
        warnings = decode::patched(kind, asked, &mut new)?;
        expect_name(name, &new)?;
        Ok(new)
    })?;
    Ok(warnings.on(shown(cluster, StatusCode::OK, kind, &changed, asked)))
}

fn read_patch(asked: &Asked, body: &[u8]) -> Result<Change, Refusal> {
    let no_patch = |why: &dyn std::fmt::Display| Refusal::bad_request(format!("error decoding patch: {why}"));
    let impossible = |why: &dyn std::fmt::Display| {
        let message = format!("the server rejected our request due to an error in our request: {why}");
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    };
    match asked.content_type.as_str() {
        "application/json-patch+json" => {
            let operations: Vec<Value> = serde_json::from_slice(body).map_err(|error| no_patch(&error))?;
            let patch: json_patch::Patch =
                serde_json::from_value(operations.into()).map_err(|error| impossible(&error))?;
            Ok(Box::new(move |object| json_patch::patch(object, &patch).map_err(|error| impossible(&error))))
        }
        "application/merge-patch+json" => {
            let fields: serde_json::Map<String, Value> =
                serde_json::from_slice(body).map_err(|error| no_patch(&error))?;
            let patch = Value::Object(fields);
            Ok(Box::new(move |object| {
                json_patch::merge(object, &patch);
                Ok(())
            }))
        }
        _ => Err(asked.unsupported("application/json-patch+json, application/merge-patch+json")),
    }
}

pub(super) fn delete(cluster: &Cluster, asked: &Asked, body: &[u8]) -> Result<Response<Body>, Refusal> {
    asked.refuse_dry_run()?;
    let (kind, namespace, name, _) = asked.object();
    let deletion = deletion(asked, body)?;
    let last = match cluster.delete(kind, namespace, name, &deletion)? {
        Kept::Waits(object) => return Ok(answer(StatusCode::OK, &*object)),
        Kept::Gone(last) if kind.resource().returns_deleted => return Ok(answer(StatusCode::OK, &*last)),
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
    if !kind.resource().deletes_collections || (kind.resource().is_namespaced && namespace.is_empty()) {
        return Err(asked.not_allowed());
    }
    let deletion = deletion(asked, body)?;
    let filter = filter(kind, namespace, "", asked)?;
    let mut deleted = Vec::new();
    for object in cluster.list(kind, namespace).into_iter().filter(|object| filter.admits(object)) {
        let (namespace, name) = (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        match cluster.delete(kind, namespace, name, &deletion) {
            Ok(Kept::Gone(last) | Kept::Waits(last)) => deleted.push(last),
            // One that went meanwhile is deleted as well.
            Err(refusal) if refusal.code == StatusCode::NOT_FOUND => {}
            Err(refusal) => return Err(refusal),
        }
    }
    let version = cluster.lock().version();
    Ok(answer(StatusCode::OK, &list_of(kind, &deleted, &json!({"resourceVersion": version.to_string()}))))
}

/// `DeleteOptions` from the body, else from the query.
fn deletion(asked: &Asked, body: &[u8]) -> Result<Deletion, Refusal> {
    let options = if body.is_empty() { json!({}) } else { asked.body("DeleteOptions", body)? };
    let options: DeleteOptions = serde_path_to_error::deserialize(options)
        .map_err(|error| Refusal::bad_request(format!("DeleteOptions: {error}")))?;
    if options.dry_run.is_some_and(|stages| !stages.is_empty()) {
        return Err(Asked::no_dry_run());
    }
    let grace = match options.grace_period_seconds {
        Some(seconds) => Some(seconds),
        None => asked.query.number("gracePeriodSeconds")?,
    };
    let propagation = options.propagation_policy.as_deref().or_else(|| asked.query.get("propagationPolicy"));
    if let Some(policy) = propagation.filter(|policy| !POLICIES.contains(policy)) {
        let cause = Cause::unsupported("propagationPolicy", policy, &POLICIES);
        Refusal::if_invalid("meta.k8s.io", "DeleteOptions", "", &[cause])?;
    }
    let only = options.preconditions.unwrap_or_default();
    Ok(Deletion { grace, orphans: propagation == Some("Orphan"), uid: only.uid, version: only.resource_version })
}
