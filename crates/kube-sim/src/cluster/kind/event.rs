//! `v1` Event.

use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use super::{super::text, Cause, Column, PLAIN, Resource, since, typed};

pub(super) const RESOURCE: Resource = Resource {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    fields: &[
        ("involvedObject.kind", "/involvedObject/kind"),
        ("involvedObject.namespace", "/involvedObject/namespace"),
        ("involvedObject.name", "/involvedObject/name"),
        ("involvedObject.uid", "/involvedObject/uid"),
        ("involvedObject.apiVersion", "/involvedObject/apiVersion"),
        ("involvedObject.resourceVersion", "/involvedObject/resourceVersion"),
        ("involvedObject.fieldPath", "/involvedObject/fieldPath"),
        ("reason", "/reason"),
        ("reportingComponent", "/reportingComponent"),
        ("source", "/source/component"),
        ("type", "/type"),
    ],
    columns: &[
        Column {
            name: "Last Seen",
            sort: "string",
            priority: 0,
            cell: |event, now| {
                let last = ["/lastTimestamp", "/eventTime"].map(|pointer| text(event, pointer));
                since(last.into_iter().find(|time| !time.is_empty()).unwrap_or_default(), now).into()
            },
        },
        Column { name: "Type", sort: "string", priority: 0, cell: |event, _| text(event, "/type").into() },
        Column { name: "Reason", sort: "string", priority: 0, cell: |event, _| text(event, "/reason").into() },
        Column {
            name: "Object",
            sort: "string",
            priority: 0,
            cell: |event, _| {
                let kind = text(event, "/involvedObject/kind").to_ascii_lowercase();
                format!("{kind}/{}", text(event, "/involvedObject/name")).into()
            },
        },
        Column { name: "Message", sort: "string", priority: 0, cell: |event, _| text(event, "/message").trim().into() },
    ],
    creates_on_update: true,
    fit: typed::fit::<Event>,
    check,
    ..PLAIN
};

/// An event lies where that is which it is about; one about what is in no namespace lies in the default one.
fn check(event: &Value) -> Vec<Cause> {
    let (own, about) = (text(event, "/metadata/namespace"), text(event, "/involvedObject/namespace"));
    let is_right = if about.is_empty() { own == "default" } else { about == own };
    let cause =
        (!is_right).then(|| Cause::invalid("involvedObject.namespace", about, "does not match event.namespace"));
    cause.into_iter().collect()
}
