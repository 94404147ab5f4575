//! `v1` ConfigMap.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{AGE, Cause, Column, NAME, PLAIN, Resource, typed};

/// The values of all entries together.
const MAX_BYTES: usize = 1 << 20;
const MAX_KEY: usize = 253;
const KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
     'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

pub(super) const RESOURCE: Resource = Resource {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    columns: &[
        NAME,
        Column {
            name: "Data",
            sort: "integer",
            priority: 0,
            cell: |object, _| (entries(object, "data") + entries(object, "binaryData")).into(),
        },
        AGE,
    ],
    fit: typed::fit::<ConfigMap>,
    check,
    validate_update: |old, new| {
        let changed = ["data", "binaryData"].into_iter().filter(|field| old.get(*field) != new.get(*field));
        let is_immutable = old["immutable"] == true;
        changed
            .filter(|_| is_immutable)
            .map(|field| Cause::forbidden(field, "field is immutable when `immutable` is set"))
            .collect()
    },
    ..PLAIN
};

fn entries(object: &Value, field: &str) -> usize {
    object[field].as_object().map_or(0, serde_json::Map::len)
}

fn check(map: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut bytes = 0;
    let binary: BTreeSet<&String> = map["binaryData"].as_object().into_iter().flatten().map(|(key, _)| key).collect();
    for field in ["data", "binaryData"] {
        for (key, value) in map[field].as_object().into_iter().flatten() {
            bytes += value.as_str().map_or(0, str::len);
            let at = format!("{field}[{key}]");
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(is_plain) {
                causes.push(Cause::invalid(&at, key.as_str(), KEY_RULE));
            } else if field == "data" && binary.contains(key) {
                causes.push(Cause::invalid(&at, key.as_str(), "duplicate of key present in binaryData"));
            }
        }
    }
    if bytes > MAX_BYTES {
        causes.push(Cause::too_long("[]", MAX_BYTES));
    }
    causes
}
