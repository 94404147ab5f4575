//! Whether an attempt has ended, how, and why.
//!
//! Everything is read off the evidence, so the same evidence always gives the same answer. What the kubelet knows
//! (deadline, OOM, eviction, preemption, lost node) outranks what the program printed; what nobody knows stays unknown.

mod facts;

use jiff::{SignedDuration, Timestamp};

use crate::{
    event::{Cause, CauseClass, ErrorType, Exit, ExitSource, Oom},
    evidence::{Ending, Evidence, Outcome, PendingClass, Subject},
    mapper::Policy,
    merge::{NODE_LOST, is_node_lost, will_restart},
    pod::{Phase, Termination},
    silence::{self, Loss, Verdict},
};

pub(crate) use self::facts::facts;

/// SIGKILL and SIGTERM by the shell's convention: what a kubelet's kill looks like.
const KILLED: [i32; 2] = [137, 143];

/// Has the attempt ended?
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// Not yet.
    Open {
        /// Look again at this time even if nothing new is seen.
        wake: Option<Timestamp>,
        /// Nothing is heard of it that should be: the API server has to be asked.
        look: bool,
    },
    /// Yes, so.
    Ended(Box<Ending>),
}

/// Decides from the evidence, at `now`.
pub(crate) fn decide(evidence: &Evidence, policy: &Policy, now: Timestamp) -> Decision {
    let judge = Judge { evidence, now };
    let is_of_job = matches!(evidence.subject, Subject::PodOfJob(_));
    // A Job that gives up deletes its pod between two runs: there will be no other, and the log goes with it (T53).
    let is_over = evidence.phase.is_terminal() || evidence.gone.is_some() || (is_of_job && evidence.deletion.is_some());
    if let Some(end) = evidence.ended_run()
        && (is_over || !will_restart_main(evidence, end))
    {
        return judge.ended(judge.by_exit(end));
    }
    if let Some(failure) = &evidence.init_failure
        && evidence.started_at.is_none()
        && (failure.is_final || is_over)
    {
        return judge.ended(judge.by_init(&failure.container, &failure.end));
    }
    if evidence.gone.is_some() {
        return judge.ended(judge.without_exit());
    }
    let lost = is_node_lost(evidence);
    if evidence.phase.is_terminal() || lost {
        // A failed pod's or lost node's container may still tell its code (T24).
        let until = evidence.cut_off_at.map(|since| since + exit_patience(evidence, policy));
        return match until.filter(|until| now < *until) {
            Some(until) => Decision::Open { wake: Some(until), look: false },
            None => judge.ended(judge.without_exit()),
        };
    }
    let deadline = pending_deadline(evidence, policy);
    let is_stuck = deadline.is_some_and(|deadline| now >= deadline);
    // A Job may have other pods, so what this means is for the Job to say.
    if is_stuck && !is_of_job {
        return judge.ended(judge.never_started());
    }
    let deadline = deadline.filter(|_| !is_stuck);
    match silence::judge(evidence, policy.must_hear, now) {
        Verdict::Bear => Decision::Open { wake: deadline, look: false },
        Verdict::Wait(until) => Decision::Open { wake: deadline.into_iter().chain([until]).min(), look: false },
        Verdict::Look => Decision::Open { wake: deadline, look: true },
        Verdict::Lost(loss) => judge.ended(judge.lost(loss)),
    }
}

/// The end of an attempt whose program waits, in this pod, for something that does not come.
pub(crate) fn never_started(evidence: &Evidence, now: Timestamp) -> Ending {
    let judge = Judge { evidence, now };
    judge.ending(judge.never_started())
}

fn will_restart_main(evidence: &Evidence, end: &Termination) -> bool {
    evidence.main.as_ref().is_some_and(|main| will_restart(main, evidence.restart_policy, end.code))
}

/// `exit_grace`, after whatever time a node that is only tainted gives its pods to end.
fn exit_patience(evidence: &Evidence, policy: &Policy) -> SignedDuration {
    let own_grace = match &evidence.deletion {
        Some(deletion) if evidence.reason.as_deref() != Some(NODE_LOST) && !evidence.phase.is_terminal() => {
            deletion.grace_seconds.unwrap_or_default().clamp(0, 3600)
        }
        _ => 0,
    };
    policy.exit_grace + SignedDuration::from_secs(own_grace)
}

pub(crate) fn pending_deadline(evidence: &Evidence, policy: &Policy) -> Option<Timestamp> {
    let pending = evidence.pending.as_ref()?;
    let grace = match pending.class {
        PendingClass::Benign => return None,
        PendingClass::InvalidImage => SignedDuration::ZERO,
        PendingClass::ImagePull => policy.image_pull_grace,
        PendingClass::ConfigError => policy.config_error_grace,
        PendingClass::Unschedulable => policy.unschedulable_deadline?,
    };
    Some(pending.since + grace)
}

/// The program reported `code` though its container ended with 0 (older wrappers always do).
pub(crate) fn by_report(ending: &mut Ending, code: i32) {
    let (class, reason) = class_of_code(code, None);
    let evidence = ending.cause.take().map(|cause| cause.evidence).unwrap_or_default();
    ending.outcome = Outcome::Failed;
    ending.exit = Exit { code: Some(code), signal: None, source: ExitSource::Report };
    ending.cause = Some(Cause {
        class,
        reason: reason.to_owned(),
        message: format!("the program reported exit code {code}"),
        evidence: evidence
            .into_iter()
            .chain([format!("report: exit_code={code}"), "container exit code 0".to_owned()])
            .collect(),
    });
}

/// `error_type` of a failure or a timeout.
pub(crate) fn error_type(cause: &Cause, code: Option<i32>) -> ErrorType {
    match cause.class {
        CauseClass::UserCode | CauseClass::NeverStarted if code == Some(126) => ErrorType::PermissionDenied,
        CauseClass::UserCode => ErrorType::ScriptError,
        CauseClass::ResourceLimit => ErrorType::ResourceLimit,
        CauseClass::Evicted if cause.reason == "Evicted" => ErrorType::ResourceLimit,
        CauseClass::Timeout => ErrorType::Timeout,
        CauseClass::Unknown if code.is_some() => ErrorType::ScriptError,
        _ => ErrorType::SystemError,
    }
}

/// What an exit code says by itself, with the kubelet's reason.
fn class_of_code(code: i32, reason: Option<&str>) -> (CauseClass, &'static str) {
    match (code, reason) {
        // The image or the command is wrong, the program never ran (T47).
        (_, Some("StartError")) => (CauseClass::NeverStarted, "StartError"),
        (_, Some("ContainerCannotRun")) => (CauseClass::NeverStarted, "ContainerCannotRun"),
        // Grace expiry, liveness probe, the node's OOM killer, or the program itself (T43, T44).
        (137, _) => (CauseClass::Unknown, "Killed"),
        _ => (CauseClass::UserCode, "Error"),
    }
}

struct Judge<'a> {
    evidence: &'a Evidence,
    now: Timestamp,
}

/// Class, reason and message of a cause to be.
struct Why(CauseClass, String, String);

impl Why {
    fn new(class: CauseClass, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self(class, reason.into(), message.into())
    }
}

/// How it ended and, unless it is a plain success, why.
type Judgement = (Outcome, Option<Why>);

/// An ending without what all endings share.
struct Finding {
    outcome: Outcome,
    cause: Option<Why>,
    exit: Exit,
    end: Option<Termination>,
    container: Option<String>,
    message: Option<String>,
}

impl Judge<'_> {
    fn ended(&self, finding: Finding) -> Decision {
        Decision::Ended(Box::new(self.ending(finding)))
    }

    fn ending(&self, finding: Finding) -> Ending {
        let evidence = self.evidence;
        let oom = finding.end.as_ref().filter(|end| end.reason.as_deref() == Some("OOMKilled")).map(|end| Oom {
            seen: true,
            // The counter behind the word is cumulative: any other code says that a child was killed (T46).
            fatal: end.code == Some(137),
        });
        let cause = finding.cause.map(|Why(class, reason, message)| Cause {
            class,
            reason,
            message,
            evidence: facts(evidence),
        });
        let at = finding.end.as_ref().and_then(|end| end.finished_at).unwrap_or(self.now);
        Ending {
            outcome: finding.outcome,
            exit: finding.exit,
            cause,
            oom,
            at,
            decided_at: self.now,
            container: finding.container,
            message: finding.message,
            deadline_seconds: None,
        }
    }

    fn by_exit(&self, end: &Termination) -> Finding {
        let evidence = self.evidence;
        let outside = self.ended_from_outside(end.code, end);
        let (outcome, cause) = match (end.code, outside) {
            (_, Some(found)) => found,
            (Some(0), None) => (Outcome::Completed, self.remark_on_success(end)),
            (None, None) => {
                let message = "the kubelet lost the container and does not know how it ended".to_owned();
                (Outcome::Failed, Some(Why::new(CauseClass::Unknown, end.reason.clone().unwrap_or_default(), message)))
            }
            (Some(code), None) => {
                let (class, reason) = class_of_code(code, end.reason.as_deref());
                (Outcome::Failed, Some(Why::new(class, reason, exit_message(code, class, end))))
            }
        };
        Finding {
            outcome,
            cause,
            exit: exit_of(end),
            container: evidence.main.as_ref().map(|main| main.name.clone()),
            message: end.message.clone().or_else(|| self.pending_message()),
            end: Some(end.clone()),
        }
    }

    /// Was it ended from outside? `code` is the container's, none if it is not known.
    fn ended_from_outside(&self, code: Option<i32>, end: &Termination) -> Option<Judgement> {
        let evidence = self.evidence;
        let was_killed = code.is_none_or(|code| KILLED.contains(&code));
        if let Some(cancelled) = self.cancelled(was_killed) {
            return Some(cancelled);
        }
        if code == Some(0) {
            return None;
        }
        if evidence.reason.as_deref() == Some("DeadlineExceeded") {
            return (!self.ended_before_deadline(end)).then(|| self.timed_out());
        }
        if code == Some(137) && end.reason.as_deref() == Some("OOMKilled") {
            let message = "the container used more memory than its limit and was killed".to_owned();
            return Some((Outcome::Failed, Some(Why::new(CauseClass::ResourceLimit, "OOMKilled", message))));
        }
        if let Some(cause) = self.pod_level(code) {
            return Some((Outcome::Failed, Some(cause)));
        }
        None
    }

    /// Somebody asked for the end, by intent and deletion, and it did not end by itself before.
    fn cancelled(&self, was_killed: bool) -> Option<Judgement> {
        let intent = self.evidence.intent.as_ref().filter(|intent| intent.cancels())?;
        let deletion = self.evidence.deletion.as_ref()?;
        let why = Why::new(CauseClass::Cancelled, "Cancelled", intent.reason.clone());
        (deletion.while_running || was_killed).then_some((Outcome::Cancelled, Some(why)))
    }

    /// Eviction, preemption, loss of the node and plain deletion, as the pod tells of them.
    fn pod_level(&self, code: Option<i32>) -> Option<Why> {
        let evidence = self.evidence;
        let was_killed = code.is_none_or(|code| KILLED.contains(&code));
        let say = |class, reason: &str, fallback: &str| {
            let message = evidence.message.clone().unwrap_or_else(|| fallback.to_owned());
            Some(Why::new(class, reason, message))
        };
        match evidence.reason.as_deref() {
            Some("Evicted") => return say(CauseClass::Evicted, "Evicted", "the kubelet evicted the pod"),
            Some("Preempting" | "Preempted") => {
                return say(CauseClass::Preempted, "Preempting", "a more important pod took its place");
            }
            Some(reason @ ("NodeShutdown" | "Shutdown" | "Terminated")) => {
                return say(CauseClass::NodeLost, reason, "its node was shut down");
            }
            Some(NODE_LOST) if was_killed => return say(CauseClass::NodeLost, NODE_LOST, "its node stopped answering"),
            _ => {}
        }
        if !was_killed {
            return None; // marked, but it finished by itself (T36)
        }
        if let Some(disruption) = &evidence.disruption {
            let (class, sentence) = match disruption.reason.as_str() {
                "PreemptionByScheduler" => (CauseClass::Preempted, "a more important pod took its place"),
                "DeletionByTaintManager" | "DeletionByPodGC" => (CauseClass::NodeLost, "its node was lost"),
                "EvictionByEvictionAPI" => (CauseClass::Evicted, "it was evicted through the API"),
                "TerminationByKubelet" => (CauseClass::Evicted, "its kubelet ended it"),
                _ => (CauseClass::Platform, "the cluster ended it"),
            };
            let message = disruption.message.clone().unwrap_or_else(|| sentence.to_owned());
            return Some(Why::new(class, disruption.reason.clone(), message));
        }
        // Whoever tidies up deletes what had ended: where there is a code, it is not of that deletion.
        if code.is_some() && evidence.intent.as_ref().is_some_and(|intent| !intent.cancels()) {
            return None;
        }
        let deleted = evidence.deletion.is_some() || evidence.gone.as_ref().is_some_and(|gone| gone.deleted);
        let sentence = match evidence.started_at {
            Some(_) => "the pod was deleted while its program ran",
            None => "the pod was deleted before its program was seen to run",
        };
        deleted.then(|| Why::new(CauseClass::Deleted, "Deleted", sentence))
    }

    fn timed_out(&self) -> Judgement {
        let message = match self.evidence.active_deadline_seconds {
            Some(seconds) => format!("the program ran longer than its deadline of {seconds} s"),
            None => "the program ran longer than its deadline".to_owned(),
        };
        (Outcome::Timeout, Some(Why::new(CauseClass::Timeout, "DeadlineExceeded", message)))
    }

    /// The container failed by itself more than a second before the deadline that the pod then also ran into.
    fn ended_before_deadline(&self, end: &Termination) -> bool {
        let evidence = self.evidence;
        let (Some(code), Some(finished), Some(start), Some(seconds)) =
            (end.code, end.finished_at, evidence.start_time, evidence.active_deadline_seconds)
        else {
            return false;
        };
        !KILLED.contains(&code)
            && start.saturating_add(SignedDuration::from_secs(seconds - 1)).is_ok_and(|at| finished < at)
    }

    /// A success worth a remark: the pod was ended from outside, or memory was short, and the program made it all the same.
    fn remark_on_success(&self, end: &Termination) -> Option<Why> {
        let made_it = |class, reason: &str| {
            Some(Why::new(class, reason, format!("the program ended with 0 although its pod says {reason}")))
        };
        match self.evidence.reason.as_deref() {
            Some("DeadlineExceeded") => return made_it(CauseClass::Timeout, "DeadlineExceeded"),
            Some("Evicted") => return made_it(CauseClass::Evicted, "Evicted"),
            _ => {}
        }
        if end.reason.as_deref() == Some("OOMKilled") { made_it(CauseClass::ResourceLimit, "OOMKilled") } else { None }
    }

    fn by_init(&self, container: &str, end: &Termination) -> Finding {
        let message = match end.code {
            Some(code) => format!("init container {container} ended with {code}: the program never started"),
            None => format!("init container {container} was lost: the program never started"),
        };
        Finding {
            outcome: Outcome::Failed,
            cause: Some(Why::new(CauseClass::NeverStarted, "InitContainerFailed", message)),
            exit: exit_of(end),
            container: Some(container.to_owned()),
            message: end.message.clone().or_else(|| self.pending_message()),
            end: Some(end.clone()),
        }
    }

    /// Ended, and nobody knows the main container's code.
    fn without_exit(&self) -> Finding {
        let evidence = self.evidence;
        let main = evidence.main.as_ref().map(|main| main.name.clone());
        if evidence.phase == Phase::Succeeded {
            return Finding {
                outcome: Outcome::Completed,
                cause: None,
                exit: Exit { code: Some(0), signal: None, source: ExitSource::Kubelet },
                end: None,
                container: main,
                message: None,
            };
        }
        let (outcome, cause) = self.why_without_exit();
        let never_ran = cause.as_ref().is_some_and(|why| why.0 == CauseClass::NeverStarted);
        Finding {
            outcome,
            cause,
            exit: Exit::default(),
            end: None,
            container: main.filter(|_| !never_ran),
            message: self.pending_message(),
        }
    }

    /// Nobody told its end in time, and nobody will.
    fn lost(&self, loss: Loss) -> Finding {
        let (class, reason, sentence) = loss.cause();
        let (outcome, cause) =
            self.cancelled(true).unwrap_or_else(|| (Outcome::Failed, Some(Why::new(class, reason, sentence))));
        Finding {
            outcome,
            cause,
            exit: Exit::default(),
            end: None,
            container: self.evidence.main.as_ref().map(|main| main.name.clone()),
            message: None,
        }
    }

    fn why_without_exit(&self) -> Judgement {
        let evidence = self.evidence;
        if let Some(found) = self.ended_from_outside(None, &Termination::default()) {
            return found;
        }
        let why = if evidence.phase != Phase::Failed {
            let message = "the pod disappeared while nobody watched, and nothing tells how it ended";
            Why::new(CauseClass::Unknown, "Vanished", message)
        } else if evidence.started_at.is_some() {
            Why::new(CauseClass::Unknown, "Unknown", "the pod failed and nothing tells how its program ended")
        } else if evidence.pending.is_some() {
            return (Outcome::Failed, self.never_started().cause);
        } else if let Some(reason) = &evidence.reason {
            let message = evidence.message.clone().unwrap_or_else(|| "its node refused the pod".to_owned());
            Why::new(CauseClass::NeverStarted, reason, message)
        } else {
            Why::new(CauseClass::Unknown, "Unknown", "the pod failed and nothing tells why")
        };
        (Outcome::Failed, Some(why))
    }

    /// The program waits for something that does not come.
    fn never_started(&self) -> Finding {
        let evidence = self.evidence;
        let (reason, message) = match &evidence.pending {
            Some(pending) => (pending.reason.clone(), pending.message.clone()),
            None => ("Unknown".to_owned(), None),
        };
        let class = if evidence.started_at.is_some() { CauseClass::Platform } else { CauseClass::NeverStarted };
        let sentence = match &message {
            Some(message) => format!("the program could not start: {reason}: {message}"),
            None => format!("the program could not start: {reason}"),
        };
        Finding {
            outcome: Outcome::Failed,
            cause: Some(Why::new(class, reason, sentence)),
            exit: Exit::default(),
            end: None,
            container: None,
            message,
        }
    }

    fn pending_message(&self) -> Option<String> {
        self.evidence.pending.as_ref().and_then(|pending| pending.message.clone())
    }
}

fn exit_of(end: &Termination) -> Exit {
    let source = if end.code.is_some() { ExitSource::Kubelet } else { ExitSource::None };
    Exit { code: end.code, signal: end.signal, source }
}

fn exit_message(code: i32, class: CauseClass, end: &Termination) -> String {
    let detail = end.message.as_deref().map(str::trim).filter(|m| !m.is_empty()).and_then(|m| m.lines().last());
    match (class, detail) {
        (CauseClass::NeverStarted, Some(detail)) => format!("the program could not start: {detail}"),
        (CauseClass::NeverStarted, None) => format!("the program could not start (exit code {code})"),
        (CauseClass::Unknown, _) => format!("the program was killed (exit code {code}) and nothing tells by whom"),
        _ => format!("the program ended with exit code {code}"),
    }
}
