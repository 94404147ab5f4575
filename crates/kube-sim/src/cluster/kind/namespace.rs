//! `v1` Namespace.

use k8s_openapi::api::core::v1::Namespace;

use super::{super::text, AGE, Column, NAME, PLAIN, Resource, typed};

pub(super) const RESOURCE: Resource = Resource {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    is_namespaced: false,
    has_status: true,
    returns_deleted: true,
    fields: &[("status.phase", "/status/phase")],
    columns: &[
        NAME,
        Column { name: "Status", sort: "string", priority: 0, cell: |object, _| text(object, "/status/phase").into() },
        AGE,
    ],
    deletes_collections: false,
    fit: typed::fit::<Namespace>,
    begin: |object| {
        object["status"] = serde_json::json!({"phase": "Active"});
        let name = object["metadata"]["name"].clone();
        let labels = super::super::json::section(&mut object["metadata"], "labels");
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    },
    ..PLAIN
};
