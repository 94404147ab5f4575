//! How a Job ended and why, from its condition and what its pods know.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    cause,
    event::{Cause, CauseClass, Exit, ExitSource},
    evidence::{Candidate, Ending, Evidence, Finish, JobFacts, Outcome},
    mapper::{self, Policy},
};

type Pods = [Arc<Evidence>];

/// Outcome, class, reason and message.
struct Why(Outcome, CauseClass, String, String);

/// The ending of a Job that is finished or gone, and the pod whose output is the attempt's.
pub(super) fn of(evidence: &Evidence, facts: &JobFacts, pods: &Pods, now: Timestamp) -> (Ending, Option<String>) {
    let evidence_of = |candidate: &Option<Candidate>| {
        let candidate = candidate.as_ref()?;
        pods.iter().find(|pod| pod.uid == candidate.uid).map(|pod| &**pod)
    };
    let (best, worst) = (evidence_of(&facts.best), evidence_of(&facts.worst));
    let case = Case { evidence, facts, pods, now };
    let (ending, pod) = match &facts.finish {
        Some(Finish { complete: true, .. }) => (case.completed(best), best),
        _ if case.is_cancelled() => (case.otherwise(case.cancelled(), worst), worst.or(best)),
        Some(finish) => (case.failed(finish, worst), worst.or(best)),
        None if case.all_succeeded() => (case.completed(best), best),
        None => (case.otherwise(case.gone(), worst), worst.or(best)),
    };
    (ending, pod.map(|pod| pod.uid.clone()))
}

/// The ending of a Job that waits for a pod which is lost, and stays: what the Job has announced or its pods have done, else what
/// became of that pod.
pub(super) fn in_vain(evidence: &Evidence, facts: &JobFacts, pods: &Pods, now: Timestamp) -> (Ending, Option<String>) {
    let case = Case { evidence, facts, pods, now };
    if facts.target.is_some() || case.all_succeeded() {
        return of(evidence, &JobFacts { finish: facts.target.clone(), ..facts.clone() }, pods, now);
    }
    let decided_at = |pod: &&Arc<Evidence>| pod.ending.as_ref().map(|ending| ending.decided_at);
    let lost = pods.iter().filter(|pod| pod.is_given_up()).max_by_key(decided_at).map(|pod| &**pod);
    let as_lost = case.as_its_pod(lost, "the Job waits for it in vain").filter(|_| !case.is_cancelled());
    let ending = as_lost.unwrap_or_else(|| case.otherwise(case.cancelled(), lost));
    let has_text = |pod: &&Evidence| pod.subject.of_job().is_some_and(|part| !part.superseded);
    let worst = || facts.worst.as_ref().map(|worst| worst.uid.clone());
    (ending, lost.filter(has_text).map(|pod| pod.uid.clone()).or_else(worst))
}

/// The ending of a Job whose program has not started anywhere, and waits for what does not come.
pub(super) fn never_started(evidence: &Evidence, pods: &Pods, policy: &Policy, now: Timestamp) -> Option<Ending> {
    let ever_started = evidence.started_at.is_some() || pods.iter().any(|pod| pod.started_at.is_some());
    let stuck = pods.iter().filter(|_| !ever_started).find(|pod| mapper::never_starts(pod, policy, now))?;
    let mut ending = cause::never_started(stuck, now);
    if let Some(cause) = &mut ending.cause {
        cause.evidence.insert(0, format!("pod {}", stuck.name));
    }
    Some(ending)
}

struct Case<'a> {
    evidence: &'a Evidence,
    facts: &'a JobFacts,
    pods: &'a Pods,
    now: Timestamp,
}

impl Case<'_> {
    /// Somebody asked for it and the Job had not ended by itself before.
    fn is_cancelled(&self) -> bool {
        let asked = self.evidence.deletion.as_ref().map(|deletion| deletion.seen_at);
        let asked = asked.or_else(|| self.evidence.gone.as_ref().map(|gone| gone.at));
        let Some(asked) = asked.filter(|_| self.evidence.intent.as_ref().is_some_and(|intent| intent.cancels())) else {
            return false;
        };
        self.facts.finish.as_ref().is_none_or(|finish| finish.seen_at >= asked)
    }

    /// Nobody saw the Job complete, but its pods did all that it asked for.
    fn all_succeeded(&self) -> bool {
        let wanted = usize::try_from(self.facts.completions.unwrap_or(1)).unwrap_or(usize::MAX);
        !self.facts.unseen && self.succeeded_pods() >= wanted.max(1)
    }

    fn succeeded_pods(&self) -> usize {
        let is_success =
            |pod: &&Arc<Evidence>| pod.ending.as_ref().is_some_and(|ending| ending.outcome == Outcome::Completed);
        self.pods.iter().filter(is_success).count()
    }

    fn completed(&self, best: Option<&Evidence>) -> Ending {
        let told = best.and_then(|pod| pod.ending.as_ref());
        // A pod counts as succeeded only if all its containers ended with 0.
        let by_count =
            (self.facts.succeeded > 0).then_some(Exit { code: Some(0), signal: None, source: ExitSource::Kubelet });
        Ending {
            outcome: Outcome::Completed,
            exit: told.map(|ending| ending.exit).or(by_count).unwrap_or_default(),
            cause: told.and_then(|ending| ending.cause.clone()).map(|cause| self.with_facts(cause, best)),
            ..self.ending(best)
        }
    }

    /// What ended the pod ended the attempt, unless the Job ran out of time or nobody saw the pod.
    fn failed(&self, finish: &Finish, worst: Option<&Evidence>) -> Ending {
        let reason = finish.reason.as_deref().unwrap_or("Failed");
        if reason == "DeadlineExceeded" {
            return self.otherwise(self.timed_out(), worst);
        }
        self.as_its_pod(worst, &format!("the Job gave up: {reason}")).unwrap_or_else(|| {
            let message = finish.message.clone().unwrap_or_else(|| "nothing tells how its pods ended".to_owned());
            let sentence = format!("the Job failed: {message}");
            self.otherwise(Why(Outcome::Failed, CauseClass::Unknown, reason.to_owned(), sentence), worst)
        })
    }

    /// What ended the pod, and then `what` became of the Job; none where nobody knows.
    fn as_its_pod(&self, pod: Option<&Evidence>, what: &str) -> Option<Ending> {
        let told = pod?.ending.as_ref()?;
        let cause = told.cause.clone()?;
        let message = format!("{}, and {what}", cause.message);
        Some(Ending {
            outcome: told.outcome,
            cause: Some(self.with_facts(Cause { message, ..cause }, pod)),
            deadline_seconds: pod?.active_deadline_seconds.filter(|_| told.outcome == Outcome::Timeout),
            ..self.ending(pod)
        })
    }

    fn otherwise(&self, Why(outcome, class, reason, message): Why, worst: Option<&Evidence>) -> Ending {
        let cause = Cause { class, reason, message, evidence: Vec::new() };
        Ending { outcome, cause: Some(self.with_facts(cause, worst)), ..self.ending(worst) }
    }

    fn cancelled(&self) -> Why {
        let reason = self.evidence.intent.as_ref().map(|intent| intent.reason.clone()).unwrap_or_default();
        Why(Outcome::Cancelled, CauseClass::Cancelled, "Cancelled".to_owned(), reason)
    }

    fn timed_out(&self) -> Why {
        let within = match self.evidence.active_deadline_seconds {
            Some(seconds) => format!("its deadline of {seconds} s"),
            None => "its deadline".to_owned(),
        };
        let message = if self.has_pods() {
            format!("the Job ran longer than {within}")
        } else {
            format!("the Job made no pod within {within}: its events tell why")
        };
        Why(Outcome::Timeout, CauseClass::Timeout, "DeadlineExceeded".to_owned(), message)
    }

    fn gone(&self) -> Why {
        let deleted = self.evidence.gone.as_ref().is_some_and(|gone| gone.deleted);
        let (class, reason, message) = match (deleted, self.evidence.started_at) {
            (true, Some(_)) => (CauseClass::Deleted, "Deleted", "the Job was deleted while its program ran"),
            (true, None) if !self.has_pods() => {
                (CauseClass::Deleted, "Deleted", "the Job was deleted before it made a pod")
            }
            (true, None) => (CauseClass::Deleted, "Deleted", "the Job was deleted before its program was seen to run"),
            (false, _) if self.facts.unseen => (
                CauseClass::Unknown,
                "Vanished",
                "the Job was gone before anybody saw it, and its pods alone cannot tell how it ended",
            ),
            (false, _) => (
                CauseClass::Unknown,
                "Vanished",
                "the Job disappeared while nobody watched, and nothing tells how it ended",
            ),
        };
        Why(Outcome::Failed, class, reason.to_owned(), message.to_owned())
    }

    fn has_pods(&self) -> bool {
        self.facts.pods + self.facts.succeeded + self.facts.failed > 0
    }

    /// What every ending takes over from the pod that it goes by.
    fn ending(&self, pod: Option<&Evidence>) -> Ending {
        let told = pod.and_then(|pod| pod.ending.as_ref());
        let at = self.facts.finish.as_ref().map(|finish| finish.at);
        Ending {
            outcome: Outcome::Failed,
            exit: told.map(|ending| ending.exit).unwrap_or_default(),
            cause: None,
            oom: told.and_then(|ending| ending.oom),
            at: at.or_else(|| self.evidence.gone.as_ref().map(|gone| gone.at)).unwrap_or(self.now),
            decided_at: self.now,
            container: told.and_then(|ending| ending.container.clone()),
            message: told.and_then(|ending| ending.message.clone()),
            deadline_seconds: None,
        }
    }

    fn with_facts(&self, mut cause: Cause, pod: Option<&Evidence>) -> Cause {
        cause.evidence = self.facts();
        if let Some(pod) = pod {
            cause.evidence.push(format!("pod {}", pod.name));
            cause.evidence.extend(cause::facts(pod));
        }
        cause
    }

    fn facts(&self) -> Vec<String> {
        let facts = self.facts;
        let mut lines = Vec::new();
        if let Some(finish) = &facts.finish {
            lines.push(describe(if finish.complete { "Complete" } else { "Failed" }, finish));
        } else if let Some(target) = &facts.target {
            lines.push(describe(if target.complete { "SuccessCriteriaMet" } else { "FailureTarget" }, target));
        }
        lines.push(match facts.unseen {
            true => format!("of the Job's pods {} were seen, {} of them to succeed", facts.pods, self.succeeded_pods()),
            false => format!(
                "the Job counts {} succeeded and {} failed pods, {} were seen",
                facts.succeeded, facts.failed, facts.pods
            ),
        });
        if let Some(intent) = &self.evidence.intent {
            lines.push(format!("annotated intent: {}", intent.reason));
        }
        if let Some(gone) = &self.evidence.gone {
            lines.push(if gone.deleted { "Job deleted".to_owned() } else { "Job not found".to_owned() });
        }
        lines
    }
}

fn describe(condition: &str, finish: &Finish) -> String {
    let details = finish.reason.iter().chain(&finish.message);
    details.fold(format!("Job condition {condition}"), |line, detail| line + ": " + detail)
}
