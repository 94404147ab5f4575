//! From looks at a pod to events: one step at a time, each a pure function of the evidence and what is new.
//!
//! The caller keeps the order of truth: it makes the evidence durable together with the events of the step, collects the
//! output when [`Step::collect`] says so, and comes back with [`Observation::Collected`].

use jiff::{SignedDuration, Timestamp};

use crate::{
    cause::{self, Decision, decide, facts},
    event::{Cause, CauseClass, ContainerSummary, Draft, Metadata, Payload, Slot, StreamSummary, Terminal, event_id},
    evidence::{Born, Ending, Evidence, Gone, MainState, Outcome, Subject},
    hold,
    identity::{self, Marked},
    job::indexes,
    merge::{choose_main, merge},
    output::{Captured, Collected, Progress, ProgressLine, Summary},
    pod::{ContainerState, ContainerStatus, Phase, Pod},
    silence::{self, Node, Patience},
    told::{self, Told},
};

/// What the operator decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Name of the main container where no annotation names one.
    pub container: String,
    /// How long a container that still runs under a failed pod is waited for.
    pub exit_grace: SignedDuration,
    /// How long an image may fail to come.
    pub image_pull_grace: SignedDuration,
    /// How long a missing ConfigMap or wrong setting may last.
    pub config_error_grace: SignedDuration,
    /// How long a pod may fit no node; none: for ever.
    pub unschedulable_deadline: Option<SignedDuration>,
    /// Of an Indexed Job, the outputs of the indexes below this are kept.
    pub max_indexes: u32,
    /// After how long without a word an attempt is looked for; none: never.
    pub must_hear: Option<Patience>,
    /// Foreign pods are held until their end is told.
    pub hold: bool,
    /// `metadata.service_name` of the events.
    pub service_name: String,
    /// `metadata.service_version` of the events.
    pub service_version: String,
    /// `metadata.environment` of the events.
    pub environment: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            container: "executor".to_owned(),
            exit_grace: SignedDuration::from_secs(10),
            image_pull_grace: SignedDuration::from_secs(300),
            config_error_grace: SignedDuration::from_secs(120),
            unschedulable_deadline: None,
            max_indexes: 100,
            must_hear: None,
            hold: false,
            service_name: "pod-monitor".to_owned(),
            service_version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: "development".to_owned(),
        }
    }
}

/// Something new about a pod.
#[derive(Debug)]
pub enum Observation<'a> {
    /// The pod was seen so.
    Seen(&'a Pod),
    /// The pod is no longer there: deleted, or (false) missing from a complete list and from a GET.
    Gone {
        /// True if a deletion was seen.
        deleted: bool,
    },
    /// Nothing but time has passed.
    Tick,
    /// The main container printed a progress line in this run.
    Progress {
        /// 0 for the first.
        run: u32,
        /// The line.
        line: ProgressLine,
    },
    /// The output that [`Step::collect`] asked for.
    Collected(Box<Collected>),
    /// The Job that the pod is of has told the end of the attempt, in the event of this id.
    AttemptEnded(uuid::Uuid),
    /// Another pod of the Job printed what matters more.
    Superseded,
    /// Another monitor has told this.
    Told(&'a Told),
    /// It was held for as long as may be.
    HeldTooLong,
    /// The look that [`Step::look`] asked for has shown it ([`Observation::Seen`] went before), and this of its node.
    Looked(Node),
}

/// What follows from an observation.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    /// True if the evidence must be made durable.
    pub changed: bool,
    /// To be made durable with it, in this order.
    pub events: Vec<Draft>,
    /// The attempt has just ended: read its output.
    pub collect: bool,
    /// Look again at this time, even if nothing new is seen.
    pub wake: Option<Timestamp>,
    /// Nothing is heard of it that should be: ask for it and for [`node_to_ask`].
    pub look: bool,
}

/// The record of a pod at first sight. Follow it with [`Observation::Seen`] of the same pod.
pub fn begin(pod: &Pod, execution_id: &str, attempt: u32, policy: &Policy, now: Timestamp) -> Evidence {
    let born = Born {
        marks: pod.marks(),
        namespace: &pod.namespace,
        created: pod.created,
        attempt_key: identity::attempt_key(pod),
    };
    Evidence {
        main: choose_main(pod, &policy.container),
        restart_policy: pod.restart_policy,
        active_deadline_seconds: pod.active_deadline_seconds,
        ..Evidence::of(&born, execution_id, attempt, now)
    }
}

/// Takes one observation into the evidence and says what follows.
pub fn observe(evidence: &mut Evidence, observation: Observation<'_>, policy: &Policy, now: Timestamp) -> Step {
    let mut step = Step { changed: forget_the_future(evidence, now), ..Step::default() };
    let mut pod = None;
    let mut collected = None;
    let mut progress = None;
    match observation {
        Observation::Seen(seen) => {
            step.changed |= merge(evidence, seen, &policy.container, now);
            step.changed |= hold::note(evidence, seen, policy.hold);
            pod = Some(seen);
        }
        Observation::Gone { deleted } => {
            if evidence.gone.is_none() {
                evidence.gone = Some(Gone { at: now, deleted: deleted || evidence.deletion.is_some() });
                step.changed = true;
            }
        }
        Observation::Tick => {}
        Observation::Progress { run, line } => progress = Some((run, line)),
        Observation::Collected(output) => collected = Some(*output),
        Observation::Told(told) => step.changed |= told::note(evidence, told),
        Observation::HeldTooLong => {
            step.changed |= evidence.result_unproven.is_none();
            evidence.result_unproven.get_or_insert(now);
        }
        Observation::Looked(node) => {
            silence::note(evidence, node, now);
            step.changed = true;
        }
        Observation::AttemptEnded(terminal) => step.changed |= end_with_job(evidence, terminal),
        Observation::Superseded => {
            let keeps_output = indexes::keeps_output(evidence, policy);
            if let Subject::PodOfJob(part) = &mut evidence.subject {
                step.changed |= !std::mem::replace(&mut part.superseded, true);
                let output = part.output.take().filter(|_| keeps_output);
                part.output = Some(output.map(|output| Box::new(output.without_text())).unwrap_or_default());
            }
        }
    }
    if evidence.conflict {
        return step;
    }
    settle(evidence, policy, now, &mut step);
    let mut events = Events { evidence, policy, now, drafts: &mut step.events };
    events.of_life(pod);
    if let Some((run, line)) = progress {
        events.of_progress(run, line);
    }
    if let Some(output) = collected {
        step.changed |= events.of_end(output);
    }
    events.of_afterwards();
    step.changed |= !step.events.is_empty();
    step
}

/// What waits since a time of our clock that is yet to come, for the clock has been set back, waits since now (T89).
fn forget_the_future(evidence: &mut Evidence, now: Timestamp) -> bool {
    let Evidence { cut_off_at, pending, deletion, last_seen, .. } = evidence;
    let mut is_changed = false;
    let since = [
        cut_off_at.as_mut(),
        pending.as_mut().map(|pending| &mut pending.since),
        deletion.as_mut().map(|deletion| &mut deletion.seen_at),
        Some(last_seen),
    ];
    for time in since.into_iter().flatten().filter(|time| **time > now) {
        *time = now;
        is_changed = true;
    }
    is_changed
}

fn end_with_job(evidence: &mut Evidence, terminal: uuid::Uuid) -> bool {
    let is_news = evidence.terminal.is_none();
    evidence.terminal.get_or_insert(terminal);
    if let Subject::PodOfJob(part) = &mut evidence.subject {
        part.output = None;
    }
    is_news
}

/// True if a pod of a Job waits for something that should have come long ago: the Job has to say what that means.
pub fn never_starts(evidence: &Evidence, policy: &Policy, now: Timestamp) -> bool {
    evidence.ending.is_none() && cause::pending_deadline(evidence, policy).is_some_and(|deadline| deadline <= now)
}

/// The node that has to be asked for, because nothing is heard of the pod that should be.
pub fn node_to_ask<'a>(evidence: &'a Evidence, policy: &Policy, now: Timestamp) -> Option<&'a str> {
    let is_open = evidence.ending.is_none() && evidence.terminal.is_none() && !evidence.conflict;
    let is_due = is_open && matches!(decide(evidence, policy, now), Decision::Open { look: true, .. });
    evidence.node_name.as_deref().filter(|_| is_due)
}

/// Makes the decision, once; until its event is made, a code that comes late may still improve it.
fn settle(evidence: &mut Evidence, policy: &Policy, now: Timestamp, step: &mut Step) {
    if evidence.terminal.is_some() {
        return;
    }
    let decided = evidence.ending.as_ref().map(|ending| (ending.decided_at, ending.exit.code));
    if let Some((_, Some(_))) = decided {
        return;
    }
    match (decide(evidence, policy, now), decided) {
        (Decision::Open { wake, look }, None) => (step.wake, step.look) = (wake, look),
        (Decision::Ended(ending), None) => {
            evidence.ending = Some(ending);
            step.collect = true;
            step.changed = true;
        }
        (Decision::Ended(better), Some((decided_at, None))) if better.exit.code.is_some() => {
            evidence.ending = Some(Box::new(Ending { decided_at, ..*better }));
            step.changed = true;
        }
        _ => {}
    }
}

struct Events<'a> {
    evidence: &'a mut Evidence,
    policy: &'a Policy,
    now: Timestamp,
    drafts: &'a mut Vec<Draft>,
}

impl Events<'_> {
    fn push(&mut self, slot: Slot, timestamp: Timestamp, synthesized: bool, payload: Payload) -> uuid::Uuid {
        let draft = draft(self.evidence, slot, timestamp, synthesized, self.policy, payload);
        let event_id = draft.event_id;
        self.drafts.push(draft);
        event_id
    }

    /// The steps up to the end, in the order of a life; what was skipped is made up from what must have been.
    fn of_life(&mut self, pod: Option<&Pod>) {
        let pod_name = self.evidence.name.clone();
        let was_seen_running = self.evidence.state == MainState::Running;
        if let Some(at) = self.evidence.scheduled_at
            && !self.evidence.emitted.pod_scheduled
        {
            let seen = pod
                .is_some_and(|p| p.phase == Phase::Pending || p.condition("PodScheduled").is_some_and(|c| c.is_true));
            let node_name = self.evidence.node_name.clone();
            self.push(Slot::PodScheduled, at, !seen, Payload::PodScheduled { pod_name: pod_name.clone(), node_name });
            self.evidence.emitted.pod_scheduled = true;
        }
        let is_attempt = matches!(self.evidence.subject, Subject::Pod);
        if let Some(at) = self.evidence.started_at.filter(|_| is_attempt)
            && !self.evidence.emitted.started
        {
            let (node_name, container_id) = (self.evidence.node_name.clone(), self.evidence.container_id.clone());
            let payload = Payload::ExecutionStarted { pod_name: pod_name.clone(), node_name, container_id };
            self.push(Slot::Started, at, !was_seen_running, payload);
            self.evidence.emitted.started = true;
        }
        if let Some(pod) = pod.filter(|pod| !pod.container_statuses.is_empty())
            && !self.evidence.emitted.pod_running
        {
            let runs = pod.phase == Phase::Running;
            if runs || (pod.phase.is_terminal() && self.evidence.started_at.is_some()) {
                let at = pod.container_statuses.iter().filter_map(|s| s.state.started_at()).min().unwrap_or(self.now);
                let container_statuses = pod.container_statuses.iter().map(summary).collect();
                let payload = Payload::PodRunning { pod_name: pod_name.clone(), container_statuses };
                self.push(Slot::PodRunning, at, !runs, payload);
                self.evidence.emitted.pod_running = true;
            }
        }
        if let Some(at) = self.evidence.started_at.filter(|_| is_attempt)
            && !self.evidence.emitted.running
        {
            self.push(Slot::Running, at, !was_seen_running, Payload::ExecutionRunning { pod_name: pod_name.clone() });
            self.evidence.emitted.running = true;
        }
        if (self.evidence.phase.is_terminal() || self.evidence.gone.is_some()) && !self.evidence.emitted.pod_terminated
        {
            let end = self.evidence.exit.as_ref().map(|exit| &exit.end);
            let at = end.and_then(|end| end.finished_at).unwrap_or(self.now);
            let payload = Payload::PodTerminated {
                pod_name,
                exit_code: end.and_then(|end| end.code),
                reason: self.evidence.reason.clone().or_else(|| end.and_then(|end| end.reason.clone())),
                message: self.evidence.message.clone().or_else(|| end.and_then(|end| end.message.clone())),
            };
            self.push(Slot::PodTerminated, at, false, payload);
            self.evidence.emitted.pod_terminated = true;
        }
    }

    /// A log that is read again tells nothing new, and nothing that is under way comes after the end.
    fn of_progress(&mut self, run: u32, line: ProgressLine) {
        let place = (run, line.offset);
        if self.evidence.terminal.is_some() || self.evidence.progress.is_some_and(|known| known >= place) {
            return;
        }
        let ProgressLine { offset, progress: Progress { percentage, message } } = line;
        let payload = Payload::ExecutionProgress { progress_percentage: percentage, message, offset };
        self.push(Slot::Progress { run, offset }, self.now, false, payload);
        self.evidence.progress = Some(place);
    }

    /// The terminal event, or for a pod of a Job what the Job's will be made of. False if nothing was waited for.
    fn of_end(&mut self, output: Collected) -> bool {
        if self.evidence.has_output() {
            return false;
        }
        let Some(ending) = self.evidence.ending.clone() else { return false };
        if let Subject::PodOfJob(part) = &mut self.evidence.subject {
            part.output = Some(Box::new(output));
            return true;
        }
        let (at, payload) = terminal(self.evidence, *ending, output);
        let id = self.push(Slot::Terminal, at, false, payload);
        self.evidence.terminal = Some(id);
        true
    }

    fn of_afterwards(&mut self) {
        if !self.evidence.has_output() {
            return;
        }
        self.of_late_exit();
        self.of_deletion();
    }

    fn of_late_exit(&mut self) {
        let Some(amends) = self.evidence.terminal.filter(|_| matches!(self.evidence.subject, Subject::Pod)) else {
            return;
        };
        let late = self.evidence.ended_run().filter(|end| end.code.is_some()).cloned();
        if let Some(end) = late
            && let Some(ending) = &mut self.evidence.ending
            && ending.exit.code.is_none()
        {
            ending.exit.code = end.code;
            ending.exit.signal = end.signal;
            ending.exit.source = crate::event::ExitSource::Kubelet;
            let exit = Some(ending.exit);
            self.evidence.amendments += 1;
            let slot = Slot::Amended(self.evidence.amendments);
            let payload = Payload::ExecutionAmended { amends, exit, evidence: facts(self.evidence) };
            self.push(slot, end.finished_at.unwrap_or(self.now), false, payload);
        }
    }

    fn of_deletion(&mut self) {
        if let Some(gone) = &self.evidence.gone
            && !self.evidence.emitted.pod_deleted
        {
            let (at, reason) = (gone.at, if gone.deleted { "deleted" } else { "vanished" });
            let payload = Payload::PodDeleted { pod_name: self.evidence.name.clone(), reason: Some(reason.to_owned()) };
            self.push(Slot::PodDeleted, at, false, payload);
            self.evidence.emitted.pod_deleted = true;
        }
    }
}

/// The id of what this record tells in `slot`.
pub(crate) fn id_of(evidence: &Evidence, slot: Slot) -> uuid::Uuid {
    match &evidence.subject {
        // Pods of one Job share an attempt, and each has a life of its own.
        Subject::PodOfJob(_) => {
            event_id(&evidence.execution_id, &format!("{}/{}", evidence.attempt_key, evidence.uid), slot)
        }
        Subject::Pod | Subject::Job(_) => event_id(&evidence.execution_id, &evidence.attempt_key, slot),
    }
}

/// An event of this record.
pub(crate) fn draft(
    evidence: &Evidence,
    slot: Slot,
    timestamp: Timestamp,
    synthesized: bool,
    policy: &Policy,
    payload: Payload,
) -> Draft {
    Draft {
        event_id: id_of(evidence, slot),
        execution_id: evidence.execution_id.clone(),
        attempt: evidence.attempt,
        timestamp,
        synthesized,
        metadata: Metadata {
            service_name: policy.service_name.clone(),
            service_version: policy.service_version.clone(),
            environment: policy.environment.clone(),
            correlation_id: evidence.correlation_id.clone(),
            user_id: evidence.labels.get("user-id").cloned(),
        },
        payload,
    }
}

/// The terminal event: the decision, improved by what the program reported, with its output.
pub(crate) fn terminal(evidence: &Evidence, mut ending: Ending, output: Collected) -> (Timestamp, Payload) {
    let Collected { stdout, stderr, exit_code: reported, mut resource_usage, raw_uri, mut notes, indexes } = output;
    match (reported, ending.exit.code) {
        (Some(code), Some(0)) if code != 0 && ending.outcome == Outcome::Completed => {
            cause::by_report(&mut ending, code);
        }
        (Some(code), known) if known != Some(code) => notes.push(format!("report: exit_code={code}")),
        _ => {}
    }
    if let Some(kills) = resource_usage.as_ref().and_then(|usage| usage.oom_kills).filter(|kills| *kills > 0) {
        notes.push(format!("report: oom_kills={kills}"));
        ending.oom.get_or_insert(crate::event::Oom { seen: true, fatal: false });
    }
    if let Some(usage) = &mut resource_usage {
        usage.memory_limit_kb = evidence.main.as_ref().and_then(|main| main.memory_limit).map(|bytes| bytes / 1024);
    }
    add_notes(&mut ending, notes);
    let stderr = stderr.unwrap_or_else(|| in_place_of_stderr(&ending, &stdout));
    let blob = stdout.summary.uri.as_ref().or(stderr.summary.uri.as_ref()).cloned();
    let is_elsewhere = [&stdout, &stderr].iter().any(|s| !s.whole);
    let uri = blob.or_else(|| is_elsewhere.then(|| output_uri(&evidence.execution_id)));
    let outcome = ending.outcome;
    let failed = outcome == Outcome::Failed;
    let has_error_type = failed || outcome == Outcome::Timeout;
    let cancelled = outcome == Outcome::Cancelled;
    let cause = ending.cause;
    let terminal = Terminal {
        exit_code: if matches!(outcome, Outcome::Completed | Outcome::Failed) { ending.exit.code } else { None },
        exit: ending.exit,
        error_type: cause.as_ref().filter(|_| has_error_type).map(|cause| cause::error_type(cause, ending.exit.code)),
        error_message: cause.as_ref().filter(|_| failed).map(|cause| cause.message.clone()),
        timeout_seconds: ending
            .deadline_seconds
            .or(evidence.active_deadline_seconds)
            .filter(|_| outcome == Outcome::Timeout),
        reason: evidence.intent.as_ref().filter(|_| cancelled).map(|intent| intent.reason.clone()),
        cancelled_by: evidence.intent.as_ref().filter(|_| cancelled).and_then(|intent| intent.by.clone()),
        force_terminated: cancelled.then_some(ending.exit.code.is_none_or(|code| code == 137)),
        cause,
        oom: ending.oom,
        resource_usage,
        stdout: stdout.text,
        stderr: stderr.text,
        output: crate::event::Output { stdout: stdout.summary, stderr: stderr.summary, uri, raw_uri, indexes },
    };
    let payload = match outcome {
        Outcome::Completed => Payload::ExecutionCompleted(terminal),
        Outcome::Failed => Payload::ExecutionFailed(terminal),
        Outcome::Timeout => Payload::ExecutionTimeout(terminal),
        Outcome::Cancelled => Payload::ExecutionCancelled(terminal),
    };
    (ending.at, payload)
}

fn add_notes(ending: &mut Ending, notes: Vec<String>) {
    if notes.is_empty() {
        return;
    }
    let cause = ending.cause.get_or_insert_with(|| Cause {
        class: CauseClass::Unknown,
        reason: "OutputNote".to_owned(),
        message: "the program ended with 0; its output has a remark".to_owned(),
        evidence: vec!["container exit code 0".to_owned()],
    });
    cause.evidence.extend(notes);
}

/// No log told stderr apart: the termination or waiting message stands in. The verdict still describes the log.
fn in_place_of_stderr(ending: &Ending, stdout: &Captured) -> Captured {
    let message = ending.message.as_deref().filter(|message| Summary::parse(message).is_none());
    let text = message.unwrap_or_default().to_owned();
    let summary = StreamSummary {
        bytes_total: None,
        bytes_kept: text.len() as u64,
        sha256: None,
        verdict: stdout.summary.verdict,
        source: message.is_some().then(|| "message".to_owned()),
        uri: None,
    };
    Captured { text, whole: true, summary }
}

/// Where the whole output of an execution is served.
pub fn output_uri(execution_id: &str) -> String {
    execution_uri(execution_id) + "/output"
}

/// Where the stored result of an attempt is served.
pub fn result_uri(execution_id: &str, attempt: u32) -> String {
    format!("{}/result?attempt={attempt}", execution_uri(execution_id))
}

fn execution_uri(execution_id: &str) -> String {
    let mut path = String::from("/executions/");
    for byte in execution_id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

fn summary(status: &ContainerStatus) -> ContainerSummary {
    let state = match &status.state {
        ContainerState::Running { .. } => "running".to_owned(),
        ContainerState::Waiting { reason, .. } => format!("waiting ({})", reason.as_deref().unwrap_or("Unknown")),
        ContainerState::Terminated(end) => match end.code {
            Some(code) => format!("terminated (exit_code={code})"),
            None => "terminated (exit_code=unknown)".to_owned(),
        },
        ContainerState::Unknown => "unknown".to_owned(),
    };
    ContainerSummary { name: status.name.clone(), ready: status.ready, restart_count: status.restart_count, state }
}
