//! What the API says of itself: groups, resources, and as much of its OpenAPI as kubectl asks for.

use serde_json::{Value, json};

use crate::cluster::{Kind, Resource};

/// The version that clients take this for.
const VERSION: (&str, &str) = ("1", "34");

/// The document at a path, if that is what the path is.
pub(super) fn document(path: &str) -> Option<Value> {
    let path = path.trim_end_matches('/');
    Some(match path {
        "/version" => json!({
            "major": VERSION.0, "minor": VERSION.1, "gitVersion": format!("v{}.{}.0+embedded", VERSION.0, VERSION.1),
            "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        }),
        "/livez" | "/readyz" | "/healthz" => json!("ok"),
        "/api" => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        "/apis" => {
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups().map(group).collect::<Vec<_>>()})
        }
        "/api/v1" => resources("", "v1"),
        "/openapi/v3" => openapi_paths(),
        _ => {
            if let Some(path) = path.strip_prefix("/openapi/v3/") {
                return openapi(path);
            }
            let parts: Vec<&str> = path.strip_prefix("/apis/")?.split('/').collect();
            match parts[..] {
                [name] if groups().any(|known| known == name) => group(name),
                [name, version] if groups().any(|known| known == name) => resources(name, version),
                _ => return None,
            }
        }
    })
}

fn resources_of_all() -> impl Iterator<Item = &'static Resource> {
    Kind::ALL.into_iter().map(Kind::resource)
}

fn groups() -> impl Iterator<Item = &'static str> {
    let mut groups: Vec<&str> =
        resources_of_all().map(|resource| resource.group).filter(|group| !group.is_empty()).collect();
    groups.dedup();
    groups.into_iter()
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, version: &str) -> Value {
    let of_group = resources_of_all().filter(|resource| (resource.group, resource.version) == (group, version));
    let resources: Vec<Value> = of_group.flat_map(entries).collect();
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}

fn entries(resource: &'static Resource) -> Vec<Value> {
    let entry = |name: String, verbs: &[&str]| {
        json!({
            "name": name, "singularName": "", "namespaced": resource.is_namespaced, "kind": resource.kind, "verbs": verbs,
        })
    };
    let mut verbs = vec!["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    verbs.retain(|verb| *verb != "deletecollection" || resource.deletes_collections);
    let mut main = entry(resource.plural.to_owned(), &verbs);
    main["singularName"] = resource.singular.into();
    main["shortNames"] = json!(resource.short_names);
    let mut entries = vec![main];
    if resource.has_status {
        entries.push(entry(format!("{}/status", resource.plural), &["get", "patch", "update"]));
    }
    if resource.plural == "pods" {
        entries.push(entry("pods/log".to_owned(), &["get"]));
        entries.push(entry("pods/eviction".to_owned(), &["create"]));
        entries.push(entry("pods/binding".to_owned(), &["create"]));
    }
    entries
}

fn openapi_paths() -> Value {
    let mut paths = serde_json::Map::new();
    for resource in resources_of_all() {
        let path = openapi_path(resource);
        paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}")}));
    }
    json!({"paths": paths})
}

fn openapi_path(resource: &Resource) -> String {
    let prefix = if resource.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", resource.api_version())
}

/// kubectl looks in here for whether the server checks fields itself, and for nothing else.
fn openapi(path: &str) -> Option<Value> {
    let mut paths = serde_json::Map::new();
    for resource in resources_of_all().filter(|resource| openapi_path(resource) == path) {
        let namespace = if resource.is_namespaced { "namespaces/{namespace}/" } else { "" };
        let gvk = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let parameter =
            json!({"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": true}});
        let operation = json!({
            "parameters": [parameter], "responses": {"200": {"description": "OK"}}, "x-kubernetes-group-version-kind": gvk,
        });
        paths.insert(format!("/{path}/{namespace}{}/{{name}}", resource.plural), json!({"patch": operation}));
    }
    let info = json!({"title": "Kubernetes", "version": "embedded"});
    (!paths.is_empty()).then(|| json!({"openapi": "3.0.0", "info": info, "paths": paths}))
}
