//! A pod's status, as a kubelet writes it.

use jiff::Timestamp;
use serde_json::{Value, json};

/// Of the node and all its pods.
pub(super) const ADDRESS: &str = "127.0.0.1";

/// What a container is to its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that stays: the next one starts once it runs.
    Sidecar,
    Main,
}

/// What is known of one container.
#[derive(Debug, Clone)]
pub(super) struct ContainerStatus {
    pub(super) role: Role,
    pub(super) name: String,
    pub(super) image: String,
    pub(super) resources: Value,
    pub(super) mounts: Vec<Value>,
    pub(super) state: State,
    pub(super) last: Option<Terminated>,
    pub(super) restarts: u64,
    /// Of the run now, or the last one.
    pub(super) id: Option<String>,
}

impl ContainerStatus {
    /// Of one that has not been started.
    pub(super) fn new(role: Role, container: &Value, waits_for: &'static str) -> Self {
        let text = |field: &str| container[field].as_str().unwrap_or_default().to_owned();
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        Self {
            role,
            name: text("name"),
            image: text("image"),
            resources: container["resources"].clone(),
            mounts: mounts.map(mount).collect(),
            state: State::Waiting { reason: waits_for, message: None },
            last: None,
            restarts: 0,
            id: None,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    pub(super) fn has_succeeded(&self) -> bool {
        matches!(&self.state, State::Terminated(end) if end.code == 0)
    }

    pub(super) fn has_started(&self) -> bool {
        self.last.is_some() || !matches!(self.state, State::Waiting { .. })
    }

    /// An init container is ready when it is done.
    fn is_ready(&self) -> bool {
        match self.role {
            Role::Init => self.has_succeeded(),
            Role::Sidecar | Role::Main => self.is_running(),
        }
    }
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
    /// It has its volumes, so that its containers can start.
    pub(super) is_set_up: bool,
    /// Init containers and sidecars.
    pub(super) init: &'a [ContainerStatus],
    pub(super) main: &'a [ContainerStatus],
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
    status["hostIP"] = json!(ADDRESS);
    status["hostIPs"] = json!([{"ip": ADDRESS}]);
    if facts.is_set_up {
        status["podIP"] = json!(ADDRESS);
        status["podIPs"] = json!([{"ip": ADDRESS}]);
    }
    if !facts.init.is_empty() {
        status["initContainerStatuses"] = facts.init.iter().map(container).collect();
    }
    // As a kubelet sorts them (T26).
    let mut main: Vec<_> = facts.main.iter().collect();
    main.sort_by(|a, b| a.name.cmp(&b.name));
    status["containerStatuses"] = main.into_iter().map(container).collect();

    let (initialized, ready) = (initialized(facts), ready(facts));
    let is_over = matches!(facts.phase, "Succeeded" | "Failed");
    set_condition(status, "PodReadyToStartContainers", facts.is_set_up && !is_over, None, now);
    set_condition(status, "Initialized", initialized.holds, initialized.why(), now);
    set_condition(status, "Ready", ready.holds, ready.why(), now);
    set_condition(status, "ContainersReady", ready.holds, ready.why(), now);
    set_condition(status, "PodScheduled", true, None, now);
    let generation = pod["metadata"]["generation"].clone();
    let status = &mut pod["status"];
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["observedGeneration"] = generation.clone();
    }
    status["observedGeneration"] = generation;
}

/// Whether a condition holds, and why.
#[derive(Default)]
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    const YES: Self = Self { holds: true, reason: "", message: String::new() };

    /// No while there are such containers, else yes.
    fn unless(reason: &'static str, what: &str, names: &[&str]) -> Self {
        if names.is_empty() {
            return Self::YES;
        }
        Self { holds: false, reason, message: format!("containers with {what} status: [{}]", names.join(" ")) }
    }

    fn why(&self) -> Option<(&str, &str)> {
        (!self.reason.is_empty()).then_some((self.reason, &self.message))
    }
}

fn initialized(facts: &Facts<'_>) -> Verdict {
    if facts.phase == "Succeeded" {
        return Verdict { reason: "PodCompleted", ..Verdict::YES };
    }
    // A sidecar that is being started anew takes nothing back.
    if facts.main.iter().any(ContainerStatus::has_started) {
        return Verdict::YES;
    }
    let incomplete: Vec<_> = facts.init.iter().filter(|init| !init.is_ready()).map(|init| init.name.as_str()).collect();
    Verdict::unless("ContainersNotInitialized", "incomplete", &incomplete)
}

fn ready(facts: &Facts<'_>) -> Verdict {
    match facts.phase {
        "Succeeded" => return Verdict { reason: "PodCompleted", ..Verdict::default() },
        "Failed" => return Verdict { reason: "PodFailed", ..Verdict::default() },
        _ => {}
    }
    let lasting = facts.init.iter().filter(|init| init.role == Role::Sidecar).chain(facts.main);
    let unready: Vec<_> = lasting.filter(|one| !one.is_ready()).map(|one| one.name.as_str()).collect();
    Verdict::unless("ContainersNotReady", "unready", &unready)
}

/// Sets a condition of a status; `why` is its reason and, where that is not empty, its message.
pub(crate) fn set_condition(status: &mut Value, kind: &str, holds: bool, why: Option<(&str, &str)>, now: Timestamp) {
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
    if let Some((reason, message)) = why {
        condition["reason"] = json!(reason);
        if !message.is_empty() {
            condition["message"] = json!(message);
        }
    }
    match known {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

fn container(status: &ContainerStatus) -> Value {
    let state = match &status.state {
        State::Waiting { reason, message } => {
            let mut waiting = json!({"reason": reason});
            if let Some(message) = message {
                waiting["message"] = json!(message);
            }
            json!({"waiting": waiting})
        }
        State::Running { since } => json!({"running": {"startedAt": time(*since)}}),
        State::Terminated(end) => json!({"terminated": terminated(end)}),
    };
    let last = status.last.as_ref().map_or_else(|| json!({}), |end| json!({"terminated": terminated(end)}));
    let mut value = json!({
        "name": status.name, "image": status.image, "imageID": "", "ready": status.is_ready(),
        "started": status.is_running(),
        "restartCount": status.restarts, "state": state, "lastState": last,
    });
    if let Some(id) = &status.id {
        value["containerID"] = json!(id);
        value["resources"] = status.resources.clone();
        if !status.resources["requests"].is_null() {
            value["allocatedResources"] = status.resources["requests"].clone();
        }
    }
    if !status.mounts.is_empty() {
        value["volumeMounts"] = json!(status.mounts);
    }
    value
}

/// A mount as a status has it.
fn mount(mount: &Value) -> Value {
    let mut value = json!({"name": mount["name"], "mountPath": mount["mountPath"]});
    if mount["readOnly"] == true {
        value["readOnly"] = json!(true);
        value["recursiveReadOnly"] = json!("Disabled");
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
