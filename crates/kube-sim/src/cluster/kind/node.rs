//! `v1` Node.

use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use super::{super::text, AGE, Column, NAME, PLAIN, Resource, typed};

pub(super) const RESOURCE: Resource = Resource {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    is_namespaced: false,
    has_status: true,
    fields: &[("spec.unschedulable", "/spec/unschedulable")],
    columns: &[
        NAME,
        Column { name: "Status", sort: "string", priority: 0, cell: |object, _| status(object).into() },
        Column { name: "Roles", sort: "string", priority: 0, cell: |_, _| "<none>".into() },
        AGE,
        Column {
            name: "Version",
            sort: "string",
            priority: 0,
            cell: |object, _| text(object, "/status/nodeInfo/kubeletVersion").into(),
        },
    ],
    fit: typed::fit::<Node>,
    ..PLAIN
};

fn status(node: &Value) -> String {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    let mut status = match ready.map(|condition| &condition["status"]) {
        Some(state) if *state == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}
