//! Objects as the tables that kubectl shows.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Kind};

/// A table of these objects, which are all of one kind.
pub(super) fn of(cluster: &Cluster, kind: Kind, objects: &[Arc<Value>], metadata: &Value) -> Value {
    let (columns, now) = (kind.resource().columns, cluster.now());
    let definitions: Vec<Value> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.sort, "format": if column.name == "Name" { "name" } else { "" },
                "description": column.name, "priority": column.priority,
            })
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|column| (column.cell)(object, now)).collect();
            let metadata = &object["metadata"];
            let partial =
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
            json!({"cells": cells, "object": partial})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}
