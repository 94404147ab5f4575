//! Objects as the tables that kubectl shows.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::{Kind, text};

type Cell = fn(&Value) -> Value;

/// Name, whether only `-o wide` shows it, and what stands in it.
const fn columns(kind: Kind) -> &'static [(&'static str, bool, Cell)] {
    match kind {
        Kind::Pod => &[
            ("Name", false, name),
            ("Ready", false, ready),
            ("Status", false, status),
            ("Restarts", false, restarts),
            ("Age", false, age),
            ("IP", true, |pod| or_none(text(pod, "/status/podIP"))),
            ("Node", true, |pod| or_none(text(pod, "/spec/nodeName"))),
        ],
        Kind::Namespace => &[
            ("Name", false, name),
            ("Status", false, |object| json!(text(object, "/status/phase"))),
            ("Age", false, age),
        ],
        Kind::Node => &[
            ("Name", false, name),
            ("Status", false, |_| json!("Ready")),
            ("Age", false, age),
            ("Version", false, |node| json!(text(node, "/status/nodeInfo/kubeletVersion"))),
        ],
        Kind::ConfigMap => &[
            ("Name", false, name),
            ("Data", false, |map| json!(entries(&map["data"]) + entries(&map["binaryData"]))),
            ("Age", false, age),
        ],
        Kind::Event => &[
            ("Type", false, |event| json!(text(event, "/type"))),
            ("Reason", false, |event| json!(text(event, "/reason"))),
            ("Object", false, |event| {
                json!(format!(
                    "{}/{}",
                    text(event, "/involvedObject/kind").to_lowercase(),
                    text(event, "/involvedObject/name")
                ))
            }),
            ("Message", false, |event| json!(text(event, "/message"))),
        ],
        Kind::Lease => &[
            ("Name", false, name),
            ("Holder", false, |lease| or_none(text(lease, "/spec/holderIdentity"))),
            ("Age", false, age),
        ],
    }
}

/// A table of these objects, which are all of one kind.
pub(super) fn of(kind: Kind, objects: &[Arc<Value>], metadata: &Value) -> Value {
    let columns = columns(kind);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|(name, is_wide, _)| {
            json!({
                "name": name, "type": "string", "format": if *name == "Name" { "name" } else { "" },
                "description": name, "priority": i32::from(*is_wide),
            })
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|(_, _, cell)| cell(object)).collect();
            let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]});
            json!({"cells": cells, "object": partial})
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

fn or_none(value: &str) -> Value {
    json!(if value.is_empty() { "<none>" } else { value })
}

fn entries(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

fn statuses(pod: &Value) -> &[Value] {
    pod["status"]["containerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn ready(pod: &Value) -> Value {
    let ready = statuses(pod).iter().filter(|status| status["ready"] == true).count();
    let all = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    json!(format!("{ready}/{all}"))
}

/// The most telling word, as kubectl chooses it.
fn status(pod: &Value) -> Value {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return json!("Terminating");
    }
    let told = statuses(pod).iter().rev().find_map(|status| {
        let state = &status["state"];
        let word = [&state["waiting"]["reason"], &state["terminated"]["reason"]].into_iter().find_map(Value::as_str);
        word.filter(|word| !word.is_empty())
    });
    let reason = pod["status"]["reason"].as_str().filter(|reason| !reason.is_empty());
    json!(reason.or(told).unwrap_or_else(|| text(pod, "/status/phase")))
}

fn restarts(pod: &Value) -> Value {
    json!(statuses(pod).iter().filter_map(|status| status["restartCount"].as_u64()).sum::<u64>().to_string())
}

/// kubectl prints what stands here; it does not count by itself.
fn age(object: &Value) -> Value {
    let created: Option<Timestamp> = text(object, "/metadata/creationTimestamp").parse().ok();
    json!(created.map_or_else(|| "<unknown>".to_owned(), |created| since(created)))
}

#[expect(clippy::disallowed_methods, reason = "an age for people's eyes, by the clock on their wall")]
fn since(created: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(created).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
