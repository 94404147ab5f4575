//! Pods as a kubelet shows them.

use serde_json::{Value, json};

pub(crate) const NAMESPACE: &str = "work";

/// Pod `executor-<id>` of execution `id`, waiting.
pub(crate) fn pending(id: &str) -> Value {
    let status = json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-02-10T12:00:00Z"}],
    });
    pod(id, status)
}

/// The same, running.
pub(crate) fn running(id: &str) -> Value {
    let state = json!({"running": {"startedAt": "2026-02-10T12:00:01Z"}});
    pod(id, json!({"phase": "Running", "containerStatuses": [container(state)]}))
}

/// The same, ended with this code.
pub(crate) fn ended(id: &str, code: i32) -> Value {
    let (phase, reason) = if code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    let state = json!({"terminated": {
        "exitCode": code, "reason": reason,
        "startedAt": "2026-02-10T12:00:01Z", "finishedAt": "2026-02-10T12:00:02Z",
    }});
    pod(id, json!({"phase": phase, "containerStatuses": [container(state)]}))
}

fn container(state: Value) -> Value {
    json!({"name": "executor", "image": "none", "imageID": "", "ready": false, "restartCount": 0, "state": state})
}

fn pod(id: &str, status: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": NAMESPACE, "name": format!("executor-{id}"), "uid": format!("uid-{id}"),
            "creationTimestamp": "2026-02-10T12:00:00Z", "labels": {"execution-id": id},
        },
        "spec": {
            "containers": [{"name": "executor", "image": "none"}], "restartPolicy": "Never", "nodeName": "node-1",
        },
        "status": status,
    })
}
