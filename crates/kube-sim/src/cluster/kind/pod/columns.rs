//! What kubectl shows of a pod.

use jiff::Timestamp;
use serde_json::Value;

use super::super::{super::text, AGE, Column, NAME};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    Column { name: "Ready", sort: "string", priority: 0, cell: ready },
    Column { name: "Status", sort: "string", priority: 0, cell: |pod, _| status(pod).into() },
    Column { name: "Restarts", sort: "string", priority: 0, cell: restarts },
    AGE,
    Column { name: "IP", sort: "string", priority: 1, cell: |pod, _| or_none(text(pod, "/status/podIP")) },
    Column { name: "Node", sort: "string", priority: 1, cell: |pod, _| or_none(text(pod, "/spec/nodeName")) },
    Column {
        name: "Nominated Node",
        sort: "string",
        priority: 1,
        cell: |pod, _| or_none(text(pod, "/status/nominatedNodeName")),
    },
    Column { name: "Readiness Gates", sort: "string", priority: 1, cell: |_, _| "<none>".into() },
];

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn statuses<'a>(pod: &'a Value, list: &str) -> impl DoubleEndedIterator<Item = &'a Value> {
    pod["status"][list].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

fn ready(pod: &Value, _: Timestamp) -> Value {
    let ready = statuses(pod, "containerStatuses").filter(|status| status["ready"] == true).count();
    let all = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    format!("{ready}/{all}").into()
}

fn restarts(pod: &Value, _: Timestamp) -> Value {
    let counts = statuses(pod, "containerStatuses").filter_map(|status| status["restartCount"].as_u64());
    counts.sum::<u64>().to_string().into()
}

/// The phase, or what is more telling.
fn status(pod: &Value) -> String {
    let mut status = match text(pod, "/status/reason") {
        "" => text(pod, "/status/phase").to_owned(),
        reason => reason.to_owned(),
    };
    let inits = pod["spec"]["initContainers"].as_array().map_or(0, Vec::len);
    let unfinished = statuses(pod, "initContainerStatuses")
        .enumerate()
        .find(|(_, init)| init.pointer("/state/terminated/exitCode") != Some(&0.into()));
    if let Some((index, init)) = unfinished {
        status = match why(init) {
            Some(reason) if reason != "PodInitializing" => format!("Init:{reason}"),
            _ => format!("Init:{index}/{inits}"),
        };
    } else {
        let mut is_running = false;
        for container in statuses(pod, "containerStatuses").rev() {
            match why(container) {
                Some(reason) => status = reason,
                None => is_running |= container["ready"] == true && container["state"].get("running").is_some(),
            }
        }
        // One has ended and another goes on.
        if status == "Completed" && is_running {
            status = "Running".to_owned();
        }
    }
    if pod["metadata"].get("deletionTimestamp").is_some() {
        status = if text(pod, "/status/reason") == "NodeLost" { "Unknown" } else { "Terminating" }.to_owned();
    }
    status
}

/// Why a container waits or has ended.
fn why(container: &Value) -> Option<String> {
    let state = &container["state"];
    if let Some(waiting) = state.get("waiting") {
        return Some(text(waiting, "/reason").to_owned()).filter(|reason| !reason.is_empty());
    }
    let ended = state.get("terminated")?;
    Some(match (text(ended, "/reason"), ended["signal"].as_i64(), ended["exitCode"].as_i64()) {
        ("", Some(signal), _) if signal != 0 => format!("Signal:{signal}"),
        ("", _, code) => format!("ExitCode:{}", code.unwrap_or_default()),
        (reason, _, _) => reason.to_owned(),
    })
}
