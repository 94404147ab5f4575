//! `v1` Event.

use super::{super::text, Column, PLAIN, Resource, Shape, since};

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
    shape: &[("involvedObject", Shape::Object), ("count", Shape::Integer), ("message", Shape::Text)],
    ..PLAIN
};
