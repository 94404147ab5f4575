//! A pod's status, as a kubelet writes it.

use jiff::Timestamp;
use serde_json::{Value, json};

/// Of the node and all its pods.
pub(super) const ADDRESS: &str = "127.0.0.1";

/// What is known of one container.
#[derive(Debug, Clone)]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) state: State,
    pub(super) last: Option<Terminated>,
    pub(super) restarts: u64,
    /// Of the run now, or the last one.
    pub(super) id: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    Waiting { reason: &'static str, message: Option<String> },
    Running { since: Timestamp },
    Terminated(Terminated),
}

#[derive(Debug, Clone)]
pub(super) struct Terminated {
    pub(super) code: i32,
    pub(super) reason: &'static str,
    pub(super) message: Option<String>,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Timestamp,
    pub(super) id: Option<String>,
}

/// All that goes into a status.
pub(super) struct Facts<'a> {
    pub(super) phase: &'static str,
    /// `reason` and `message` of the pod.
    pub(super) why: Option<(&'static str, &'a str)>,
    pub(super) started: Timestamp,
    pub(super) init: &'a [ContainerStatus],
    pub(super) main: &'a [ContainerStatus],
    pub(super) is_initialized: bool,
}

/// Whole seconds, as Kubernetes has them (T50).
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes the facts into a pod; conditions that stay as they are keep their time.
pub(super) fn write(pod: &mut Value, facts: &Facts<'_>, now: Timestamp) {
    let status = &mut pod["status"];
    status["phase"] = json!(facts.phase);
    if let Some((reason, message)) = facts.why {
        status["reason"] = json!(reason);
        status["message"] = json!(message);
    }
    status["startTime"] = json!(time(facts.started));
    for (one, all) in [("hostIP", "hostIPs"), ("podIP", "podIPs")] {
        status[one] = json!(ADDRESS);
        status[all] = json!([{"ip": ADDRESS}]);
    }
    if !facts.init.is_empty() {
        status["initContainerStatuses"] = facts.init.iter().map(container).collect();
    }
    // As a kubelet sorts them (T26).
    let mut main: Vec<_> = facts.main.iter().collect();
    main.sort_by(|a, b| a.name.cmp(&b.name));
    status["containerStatuses"] = main.into_iter().map(container).collect();

    let is_over = matches!(facts.phase, "Succeeded" | "Failed");
    let is_ready = facts.main.iter().all(|container| matches!(container.state, State::Running { .. })) && !is_over;
    let not_ready = match facts.phase {
        "Succeeded" => "PodCompleted",
        "Failed" => "PodFailed",
        _ => "ContainersNotReady",
    };
    let not_initialized = (!facts.is_initialized).then_some("ContainersNotInitialized");
    set_condition(status, "PodReadyToStartContainers", !is_over, None, now);
    set_condition(status, "Initialized", facts.is_initialized, not_initialized, now);
    set_condition(status, "Ready", is_ready, (!is_ready).then_some(not_ready), now);
    set_condition(status, "ContainersReady", is_ready, (!is_ready).then_some(not_ready), now);
    set_condition(status, "PodScheduled", true, None, now);
}

/// Sets a condition of a status.
pub(crate) fn set_condition(status: &mut Value, kind: &str, holds: bool, reason: Option<&str>, now: Timestamp) {
    let value = if holds { "True" } else { "False" };
    let conditions = &mut status["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let conditions = conditions.as_array_mut().expect("it is one by now");
    let known = conditions.iter().position(|condition| condition["type"] == kind);
    let since = known.map(|index| &conditions[index]).filter(|known| known["status"] == value);
    let since = since.map_or_else(|| json!(time(now)), |known| known["lastTransitionTime"].clone());
    let mut condition = json!({"type": kind, "status": value, "lastProbeTime": null, "lastTransitionTime": since});
    if let Some(reason) = reason {
        condition["reason"] = json!(reason);
    }
    match known {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

fn container(status: &ContainerStatus) -> Value {
    let (state, is_running) = match &status.state {
        State::Waiting { reason, message } => {
            let mut waiting = json!({"reason": reason});
            if let Some(message) = message {
                waiting["message"] = json!(message);
            }
            (json!({"waiting": waiting}), false)
        }
        State::Running { since } => (json!({"running": {"startedAt": time(*since)}}), true),
        State::Terminated(end) => (json!({"terminated": terminated(end)}), false),
    };
    let last = status.last.as_ref().map_or_else(|| json!({}), |end| json!({"terminated": terminated(end)}));
    let mut value = json!({
        "name": status.name, "image": status.image, "imageID": "", "ready": is_running, "started": is_running,
        "restartCount": status.restarts, "state": state, "lastState": last,
    });
    if let Some(id) = &status.id {
        value["containerID"] = json!(id);
    }
    value
}

fn terminated(end: &Terminated) -> Value {
    let mut value = json!({
        "exitCode": end.code, "reason": end.reason,
        "startedAt": time(end.started.unwrap_or(Timestamp::UNIX_EPOCH)), "finishedAt": time(end.finished),
    });
    if let Some(message) = &end.message {
        value["message"] = json!(message);
    }
    if let Some(id) = &end.id {
        value["containerID"] = json!(id);
    }
    value
}
