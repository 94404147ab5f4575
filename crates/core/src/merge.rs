//! One more look at a pod, merged into what is known of it. Evidence only grows (T65a), whatever the order of the looks; the few
//! facts that may change back (what a pod waits for, whether its node is lost) are not taken from a look older than the newest.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    evidence::{
        Deletion, Disruption, Evidence, InitFailure, Intent, MainState, Pending, PendingClass, Purpose, RunEnd,
    },
    pod::{
        Container, ContainerState, ContainerStatus, DEFAULT_CONTAINER_ANNOTATION, INTENT_ANNOTATION, Phase, Pod,
        RestartPolicy, Termination,
    },
};

/// `last_seen` is refreshed no more often than this: it alone must not cost a write a frame.
const LAST_SEEN_STEP: Duration = Duration::from_secs(60);

/// Reason of a pod whose node stopped answering.
pub(crate) const NODE_LOST: &str = "NodeLost";

/// Merges `pod`, as seen at `now`, into `evidence`. True if anything worth keeping changed.
pub(crate) fn merge(evidence: &mut Evidence, pod: &Pod, preferred_container: &str, now: Timestamp) -> bool {
    let is_late = evidence.is_newer_than(pod.version);
    let mut merge = Merge { evidence, changed: false, is_late, now };
    merge.sighting(pod);
    merge.spec(pod, preferred_container);
    merge.phase(pod);
    merge.main(pod);
    merge.init(pod);
    merge.scheduling(pod);
    merge.pending(pod);
    merge.ending_from_outside(pod);
    merge.changed
}

/// Notes that the pod or Job is still there, in this version.
pub(crate) fn sighting(evidence: &mut Evidence, version: Option<u64>, now: Timestamp) -> bool {
    if !evidence.is_newer_than(version) {
        evidence.version = version.or(evidence.version);
    }
    let is_due =
        now.duration_since(evidence.last_seen) >= jiff::SignedDuration::try_from(LAST_SEEN_STEP).expect("a minute");
    if is_due {
        evidence.last_seen = now;
    }
    is_due
}

/// The container that decides: named by annotation, else by configuration, else the first of the spec (never of the
/// statuses, which are sorted by name: T26).
pub(crate) fn choose_main(pod: &Pod, preferred: &str) -> Option<Container> {
    let named = |name: &str| pod.containers.iter().find(|c| c.name == name);
    pod.annotations
        .get(DEFAULT_CONTAINER_ANNOTATION)
        .and_then(|name| named(name))
        .or_else(|| named(preferred))
        .or_else(|| pod.containers.first())
        .cloned()
}

struct Merge<'a> {
    evidence: &'a mut Evidence,
    changed: bool,
    /// The look is older than the newest.
    is_late: bool,
    now: Timestamp,
}

impl Merge<'_> {
    fn sighting(&mut self, pod: &Pod) {
        self.changed |= sighting(self.evidence, pod.version, self.now);
    }

    fn spec(&mut self, pod: &Pod, preferred: &str) {
        if self.evidence.main.is_none() {
            let main = choose_main(pod, preferred);
            self.changed |= main.is_some();
            self.evidence.main = main;
        }
        // The one field of a running pod's spec that may change: it may be lowered.
        if !self.is_late
            && pod.active_deadline_seconds.is_some()
            && pod.active_deadline_seconds != self.evidence.active_deadline_seconds
        {
            self.evidence.active_deadline_seconds = pod.active_deadline_seconds;
            self.changed = true;
        }
        self.changed |= fill(&mut self.evidence.node_name, || pod.node_name.clone());
        self.changed |= fill(&mut self.evidence.start_time, || pod.start_time);
        self.changed |= fill(&mut self.evidence.intent, || {
            pod.annotations.get(INTENT_ANNOTATION).map(|text| Box::new(parse_intent(text)))
        });
    }

    fn phase(&mut self, pod: &Pod) {
        let known = self.evidence.phase;
        let advances = match (known, pod.phase) {
            (Phase::Pending, Phase::Running) => true,
            (Phase::Pending | Phase::Running, phase) => phase.is_terminal(),
            _ => false,
        };
        if advances {
            self.evidence.phase = pod.phase;
            self.changed = true;
        }
        let is_final = known.is_terminal() && self.evidence.reason.is_some();
        if is_final || (self.is_late && !pod.phase.is_terminal()) {
            return;
        }
        let recovered = pod.reason.is_none() && self.evidence.reason.as_deref() == Some(NODE_LOST);
        if recovered || (pod.reason.is_some() && pod.reason != self.evidence.reason) {
            self.evidence.reason.clone_from(&pod.reason);
            self.evidence.message.clone_from(&pod.message);
            self.changed = true;
        }
    }

    fn main(&mut self, pod: &Pod) {
        let Some(main) = &self.evidence.main else { return };
        let Some(status) = pod.status_of(&main.name) else { return };
        let run = status.restart_count;
        if let Some(end) = status.state.terminated() {
            self.end_of_run(run, end, status);
        }
        if let Some(end) = status.last_state.terminated() {
            self.end_of_run(run.saturating_sub(1), end, status);
        }
        let state = main_state(&status.state);
        if (run, state) > (self.evidence.restart_count, self.evidence.state) {
            self.evidence.restart_count = run;
            self.evidence.state = state;
            self.changed = true;
        }
        let started = match (&status.state, status.last_state.started_at()) {
            (_, Some(first)) => Some(first),
            (ContainerState::Running { started_at }, None) => Some(started_at.unwrap_or(self.now)),
            (state, None) => state.started_at(),
        };
        if self.evidence.started_at.is_none() && started.is_some() {
            self.evidence.started_at = started;
            self.evidence.container_id = container_id(status);
            self.changed = true;
        }
    }

    /// Keeps the end of the latest run, and of the same run's tellings the one that knows more.
    fn end_of_run(&mut self, run: u32, end: &Termination, status: &ContainerStatus) {
        let mut end = end.clone();
        if end.is_lost() {
            end.code = None;
        }
        if end.container_id.is_none() {
            end.container_id.clone_from(&status.container_id);
        }
        let is_news = match &self.evidence.exit {
            None => true,
            Some(known) if known.run != run => known.run < run,
            Some(known) => known.end.code.is_none() && end.code.is_some(),
        };
        if is_news {
            self.evidence.exit = Some(Box::new(RunEnd { run, end }));
            self.changed = true;
        }
    }

    fn init(&mut self, pod: &Pod) {
        if self.evidence.init_failure.as_ref().is_some_and(|known| known.is_final) {
            return;
        }
        for spec in &pod.init_containers {
            if spec.restart_policy == Some(RestartPolicy::Always) {
                continue; // a native sidecar (T27)
            }
            let Some(status) = pod.init_container_statuses.iter().find(|s| s.name == spec.name) else { continue };
            let Some(end) = status.state.terminated().or_else(|| status.last_state.terminated()) else { continue };
            if end.code == Some(0) {
                continue;
            }
            let mut end = end.clone();
            if end.is_lost() {
                end.code = None;
            }
            let is_final =
                status.state.terminated().is_some() && !will_restart(spec, self.evidence.restart_policy, end.code);
            let failure = Box::new(InitFailure { container: spec.name.clone(), is_final, end });
            if self.evidence.init_failure.as_ref() != Some(&failure) {
                self.evidence.init_failure = Some(failure);
                self.changed = true;
            }
            return;
        }
    }

    fn scheduling(&mut self, pod: &Pod) {
        if self.evidence.scheduled_at.is_some() {
            return;
        }
        let condition = pod.condition("PodScheduled").filter(|c| c.is_true);
        let at = match condition {
            Some(condition) => Some(condition.since.unwrap_or(self.now)),
            None if self.evidence.started_at.is_some() => self.evidence.started_at,
            None => self.evidence.node_name.is_some().then_some(self.now),
        };
        self.evidence.scheduled_at = at;
        self.changed |= at.is_some();
    }

    fn pending(&mut self, pod: &Pod) {
        let state = self.evidence.state;
        let waits = state <= MainState::Waiting || (state == MainState::Terminated && main_waits(self.evidence, pod));
        if waits && self.is_late {
            return;
        }
        let found = if waits { waiting(self.evidence, pod) } else { None };
        let pending = found.map(|(class, reason, message)| {
            let since = self
                .evidence
                .pending
                .as_ref()
                .filter(|known| known.class == class)
                .map_or(self.now, |known| known.since);
            Box::new(Pending { class, reason, message, since })
        });
        if !same_problem(self.evidence.pending.as_deref(), pending.as_deref()) {
            self.evidence.pending = pending;
            self.changed = true;
        }
    }

    fn ending_from_outside(&mut self, pod: &Pod) {
        self.changed |= fill(&mut self.evidence.disruption, || {
            let condition = pod.condition("DisruptionTarget").filter(|c| c.is_true)?;
            let (reason, message) = (condition.reason.clone().unwrap_or_default(), condition.message.clone());
            Some(Box::new(Disruption { reason, message }))
        });
        let running = self.evidence.state == MainState::Running;
        self.changed |= fill(&mut self.evidence.deletion, || {
            pod.deletion.map(|_| Deletion {
                seen_at: self.now,
                while_running: running,
                grace_seconds: pod.deletion_grace_seconds,
            })
        });
        let cut_off = (self.evidence.phase.is_terminal() && running)
            || (is_node_lost(self.evidence) && self.evidence.state != MainState::Terminated);
        if cut_off != self.evidence.cut_off_at.is_some() {
            self.evidence.cut_off_at = cut_off.then_some(self.now);
            self.changed = true;
        }
    }
}

/// True if the pod's node is known to be lost. Phase `Unknown` alone says nothing (T34).
pub(crate) fn is_node_lost(evidence: &Evidence) -> bool {
    evidence.reason.as_deref() == Some(NODE_LOST)
        || (evidence.deletion.is_some()
            && evidence
                .disruption
                .as_ref()
                .is_some_and(|d| matches!(d.reason.as_str(), "DeletionByTaintManager" | "DeletionByPodGC")))
}

/// Whether the kubelet will run this container again after an end with this code.
pub(crate) fn will_restart(container: &Container, of_pod: RestartPolicy, code: Option<i32>) -> bool {
    if let Some(rule) =
        container.restart_rules.iter().find(|rule| code.is_some_and(|code| rule.codes.contains(&code) == rule.within))
    {
        return rule.restarts;
    }
    match container.restart_policy.unwrap_or(of_pod) {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != Some(0),
        RestartPolicy::Never => false,
    }
}

pub(crate) fn fill<T>(slot: &mut Option<T>, found: impl FnOnce() -> Option<T>) -> bool {
    if slot.is_none() {
        *slot = found();
        return slot.is_some();
    }
    false
}

fn main_state(state: &ContainerState) -> MainState {
    match state {
        ContainerState::Unknown => MainState::Unknown,
        ContainerState::Waiting { .. } => MainState::Waiting,
        ContainerState::Running { .. } => MainState::Running,
        ContainerState::Terminated(_) => MainState::Terminated,
    }
}

fn container_id(status: &ContainerStatus) -> Option<String> {
    let of_end = |state: &ContainerState| state.terminated().and_then(|end| end.container_id.clone());
    of_end(&status.last_state).or_else(|| status.container_id.clone()).or_else(|| of_end(&status.state))
}

fn main_waits(evidence: &Evidence, pod: &Pod) -> bool {
    let status = evidence.main.as_ref().and_then(|main| pod.status_of(&main.name));
    status
        .is_some_and(|s| s.restart_count >= evidence.restart_count && matches!(s.state, ContainerState::Waiting { .. }))
}

/// What the program waits for: a problem of its own container, else of an init container, else anything at all.
fn waiting(evidence: &Evidence, pod: &Pod) -> Option<(PendingClass, String, Option<String>)> {
    let of_status = |status: &ContainerStatus| match &status.state {
        ContainerState::Waiting { reason, message } => {
            let reason = reason.clone().unwrap_or_else(|| "Waiting".to_owned());
            Some((class_of_waiting(&reason), reason, message.clone()))
        }
        _ => None,
    };
    let main = evidence.main.as_ref().and_then(|main| pod.status_of(&main.name)).and_then(of_status);
    let is_problem = |found: &(PendingClass, String, Option<String>)| found.0 != PendingClass::Benign;
    if main.as_ref().is_some_and(is_problem) {
        return main;
    }
    let init = pod.init_container_statuses.iter().filter_map(of_status).find(is_problem);
    init.or(main).or_else(|| {
        let condition = pod.condition("PodScheduled").filter(|c| !c.is_true)?;
        let reason = condition.reason.clone()?;
        let class = if reason == "Unschedulable" { PendingClass::Unschedulable } else { PendingClass::Benign };
        Some((class, reason, condition.message.clone()))
    })
}

fn class_of_waiting(reason: &str) -> PendingClass {
    match reason {
        "InvalidImageName" => PendingClass::InvalidImage,
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => PendingClass::ImagePull,
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "PreCreateHookError"
        | "PreStartHookError"
        | "PostStartHookError" => PendingClass::ConfigError,
        _ => PendingClass::Benign,
    }
}

/// Scheduler messages count nodes and change all the time (T38): only the words matter.
fn same_problem(known: Option<&Pending>, found: Option<&Pending>) -> bool {
    let words = |message: &Option<String>| -> String {
        message.as_deref().unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).collect()
    };
    match (known, found) {
        (Some(a), Some(b)) => a.class == b.class && a.reason == b.reason && words(&a.message) == words(&b.message),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// A bare text is the reason; a JSON object may also name who asked.
pub(crate) fn parse_intent(text: &str) -> Intent {
    serde_json::from_str(text).unwrap_or_else(|_| Intent {
        reason: text.to_owned(),
        by: None,
        purpose: Purpose::Cancel,
    })
}
