//! `v1` ConfigMap.

use serde_json::Value;

use super::{AGE, Cause, Column, NAME, PLAIN, Resource, Shape};

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
    shape: &[("data", Shape::Texts), ("binaryData", Shape::Texts)],
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
