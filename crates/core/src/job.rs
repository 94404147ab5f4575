//! A Job, and what it means for the attempt that it is.
//!
//! A Job is one attempt, whatever number of pods it makes. Its pods tell what they do (`pod_*`) and keep what they printed;
//! the Job alone tells that the attempt runs and how it ended. Of its conditions only `Complete` and `Failed` end it (T58),
//! and then its pods are waited for: whichever is seen first, the Job's end or that of its last pod, the event is the same.
//! A Job that is gone ends too, and so does one whose program cannot start, by the deadlines that hold for any pod.

pub mod indexes;
mod verdict;

use std::{ops::Range, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    event::{CauseClass, Payload, Slot},
    evidence::{
        Born, Candidate, Deletion, Evidence, Finish, Gone, JobFacts, Outcome, Pending, PendingClass, PodOfJob, Subject,
    },
    identity::{self, Marked, Marks},
    mapper::{self, Policy, Step},
    merge::{fill, parse_intent, sighting},
    output::{Collected, LogEnd},
    pod::{Condition, INDEX_ANNOTATION, INTENT_ANNOTATION, JobRef, Labels, Pod},
    told::{self, Told},
};

/// One observed state of a `batch/v1` Job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Job {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; never empty.
    pub uid: String,
    /// `metadata.resourceVersion`, where it is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// `metadata.creationTimestamp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// `metadata.deletionTimestamp`: an intent, not an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Timestamp>,
    /// `metadata.labels`.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// `metadata.annotations`.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
    /// `spec.activeDeadlineSeconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.completions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completions: Option<u32>,
    /// `status.startTime`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// `status.succeeded`.
    pub succeeded: u32,
    /// `status.failed`.
    pub failed: u32,
    /// `status.conditions`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Something new about a Job.
#[derive(Debug)]
pub enum Observation<'a> {
    /// The Job was seen so.
    Seen(&'a Job),
    /// The Job is no longer there: deleted, or (false) missing from a complete list and from a GET.
    Gone {
        /// True if a deletion was seen.
        deleted: bool,
    },
    /// One of its pods has come on.
    Pod(&'a Evidence),
    /// Nothing but time has passed.
    Tick,
    /// The complete list of its pods that [`JobStep::confirm`] asked for was taken in.
    Confirmed,
    /// The output that [`Step::collect`] asked for.
    Collected(Box<Collected>),
    /// Its pods know that the attempt has ended.
    Released,
    /// Another monitor has told this.
    Told(&'a Told),
}

/// The record of a Job at first sight. Follow it with [`Observation::Seen`] of the same Job.
pub fn begin(job: &Job, execution_id: &str, attempt: u32, now: Timestamp) -> Evidence {
    let born = Born {
        marks: job.marks(),
        namespace: &job.namespace,
        created: job.created,
        attempt_key: identity::attempt_key(job),
    };
    Evidence { subject: Subject::Job(Box::default()), ..Evidence::of(&born, execution_id, attempt, now) }
}

/// The record of a Job that was gone before anybody saw it, after the first of its pods that was seen. What the Job's own
/// annotations said is not known, so the attempt goes by its uid.
pub fn begin_unseen(job: &JobRef, pod: &Pod, execution_id: &str, attempt: u32, now: Timestamp) -> Evidence {
    let marks = Marks { name: &job.name, uid: &job.uid, labels: &pod.labels, annotations: &pod.annotations };
    let born = Born { marks, namespace: &pod.namespace, created: None, attempt_key: &job.uid };
    Evidence {
        subject: Subject::Job(Box::new(JobFacts { unseen: true, ..JobFacts::default() })),
        gone: Some(Gone { at: now, deleted: false }),
        ..Evidence::of(&born, execution_id, attempt, now)
    }
}

/// The record of a pod of a tracked Job at first sight; the Job counts it.
pub fn begin_pod(pod: &Pod, job: &mut Evidence, policy: &Policy, now: Timestamp) -> Evidence {
    let number = match &mut job.subject {
        Subject::Job(facts) => {
            facts.pods += 1;
            facts.pods - 1
        }
        Subject::Pod | Subject::PodOfJob(_) => 0,
    };
    let index = pod.annotations.get(INDEX_ANNOTATION).and_then(|index| index.parse().ok());
    Evidence {
        attempt_key: job.attempt_key.clone(),
        conflict: job.conflict,
        terminal: job.terminal,
        subject: Subject::PodOfJob(Box::new(PodOfJob { job: job.uid.clone(), number, index, ..PodOfJob::default() })),
        ..mapper::begin(pod, &job.execution_id, job.attempt, policy, now)
    }
}

/// What follows from an observation of a Job.
#[derive(Debug, Default, PartialEq)]
pub struct JobStep {
    /// What follows for the Job itself.
    pub own: Step,
    /// `uid` of the pod whose output does not matter any more.
    pub superseded: Option<String>,
    /// It is over, and pods of it have not told their end in time: a watch may be behind, so list them.
    pub confirm: bool,
}

/// Takes one observation into a Job's evidence and says what follows. `pods` gives the evidence of all its pods; it is
/// asked only when all of them matter.
pub fn observe(
    evidence: &mut Evidence,
    observation: Observation<'_>,
    pods: impl FnOnce() -> Vec<Arc<Evidence>>,
    policy: &Policy,
    now: Timestamp,
) -> JobStep {
    let mut step = Step::default();
    let (mut superseded, mut confirm, mut is_stuck) = (None, false, false);
    match observation {
        Observation::Seen(job) => step.changed = merge(evidence, job, now),
        Observation::Gone { deleted } => {
            if evidence.gone.is_none() {
                evidence.gone = Some(Gone { at: now, deleted: deleted || evidence.deletion.is_some() });
                step.changed = true;
            }
        }
        Observation::Pod(pod) => {
            start(evidence, pod, policy, &mut step);
            superseded = weigh(evidence, pod, &mut step);
            if let Subject::Job(facts) = &mut evidence.subject
                && pod.is_given_up()
            {
                step.changed |= !std::mem::replace(&mut facts.may_wait_in_vain, true);
            }
            is_stuck = mapper::never_starts(pod, policy, now);
        }
        Observation::Tick => {}
        Observation::Told(told) => step.changed = told::note(evidence, told),
        Observation::Confirmed => {
            if let Subject::Job(facts) = &mut evidence.subject {
                facts.confirmed_at = Some(now);
                step.changed = true;
            }
        }
        Observation::Collected(output) => end(evidence, *output, policy, &mut step),
        Observation::Released => {
            if let Subject::Job(facts) = &mut evidence.subject {
                step.changed = !std::mem::replace(&mut facts.released, true);
            }
        }
    }
    if !evidence.conflict {
        if evidence.terminal.is_some() {
            let is_released = evidence.subject.job().is_none_or(|facts| facts.released);
            step.wake = (!is_released).then_some(now);
        } else if evidence.ending.is_none() {
            confirm = settle(evidence, is_stuck, pods, policy, now, &mut step);
        }
    }
    JobStep { own: step, superseded, confirm }
}

/// Keeps the pod that tells most. Returns the uid of the one whose output does not matter any more.
fn weigh(job: &mut Evidence, pod: &Evidence, step: &mut Step) -> Option<String> {
    let is_decided = job.ending.is_some();
    let Subject::Job(facts) = &mut job.subject else { return None };
    let part = pod.subject.of_job().filter(|part| part.output.is_some() && !part.superseded)?;
    let ending = pod.ending.as_ref()?;
    if is_decided {
        return (facts.chosen.as_ref() != Some(&pod.uid)).then(|| pod.uid.clone());
    }
    let class = ending.cause.as_ref().map(|cause| cause.class);
    let candidate = Candidate {
        by_itself: !matches!(class, Some(CauseClass::Deleted | CauseClass::Unknown)),
        at: ending.at,
        number: part.number,
        uid: pod.uid.clone(),
    };
    let slot = if ending.outcome == Outcome::Completed { &mut facts.best } else { &mut facts.worst };
    match slot {
        Some(known) if known.uid == candidate.uid => None,
        Some(known) if *known > candidate => Some(candidate.uid),
        _ => {
            step.changed = true;
            slot.replace(candidate).map(|rival| rival.uid)
        }
    }
}

/// Why there is no output of any pod.
pub fn without_output(job: &Evidence) -> LogEnd {
    let facts = job.subject.job().cloned().unwrap_or_default();
    let counted = facts.succeeded + facts.failed;
    match (facts.pods, counted) {
        (0, 0) => LogEnd::None,
        (0, counted) => LogEnd::Lost(format!(
            "the Job counts {counted} pods and none was seen; kube.job_pods = true admits pods without the label"
        )),
        (seen, _) => LogEnd::Lost(format!("none of the Job's {seen} pods was seen to its end")),
    }
}

fn merge(evidence: &mut Evidence, job: &Job, now: Timestamp) -> bool {
    let is_late = evidence.is_newer_than(job.version);
    let mut changed = sighting(evidence, job.version, now);
    changed |=
        fill(&mut evidence.intent, || job.annotations.get(INTENT_ANNOTATION).map(|text| Box::new(parse_intent(text))));
    changed |= fill(&mut evidence.start_time, || job.start_time);
    changed |= fill(&mut evidence.deletion, || {
        job.deletion.map(|_| Deletion { seen_at: now, while_running: true, grace_seconds: None })
    });
    if !is_late && job.active_deadline_seconds.is_some() {
        changed |= replace(&mut evidence.active_deadline_seconds, job.active_deadline_seconds);
    }
    if !is_late {
        changed |= suspend(evidence, job.suspended, now);
    }
    let Subject::Job(facts) = &mut evidence.subject else { return changed };
    if std::mem::take(&mut facts.unseen) {
        // That it was gone is all that was known of it, and whoever said so was behind.
        evidence.gone = None;
        facts.confirmed_at = None;
        changed = true;
    }
    if !is_late {
        changed |= replace(&mut facts.suspended, job.suspended);
        if job.completions.is_some() {
            changed |= replace(&mut facts.completions, job.completions);
        }
    }
    for (known, seen) in [(&mut facts.succeeded, job.succeeded), (&mut facts.failed, job.failed)] {
        changed |= replace(known, seen.max(*known));
    }
    let condition = |kinds: [&str; 2]| job.conditions.iter().find(|c| c.is_true && kinds.contains(&c.kind.as_str()));
    let finish = |kinds: [&str; 2]| {
        condition(kinds).map(|found| Finish {
            complete: found.kind == kinds[0],
            reason: found.reason.clone(),
            message: found.message.clone(),
            at: found.since.unwrap_or(now),
            seen_at: now,
        })
    };
    changed |= fill(&mut facts.target, || finish(["SuccessCriteriaMet", "FailureTarget"]));
    changed |= fill(&mut facts.finish, || finish(["Complete", "Failed"]));
    changed
}

/// Suspended is waiting, not failure (T39, T61).
fn suspend(evidence: &mut Evidence, suspended: bool, now: Timestamp) -> bool {
    if suspended == evidence.pending.is_some() {
        return false;
    }
    let reason = "Suspended".to_owned();
    let pending = Pending { class: PendingClass::Benign, reason, message: None, since: now };
    evidence.pending = suspended.then(|| Box::new(pending));
    true
}

fn replace<T: PartialEq>(slot: &mut T, value: T) -> bool {
    let is_news = *slot != value;
    *slot = value;
    is_news
}

/// The attempt runs from the first start of any of its pods.
fn start(evidence: &mut Evidence, pod: &Evidence, policy: &Policy, step: &mut Step) {
    let is_over = evidence.emitted.started || evidence.terminal.is_some() || evidence.conflict;
    let Some(at) = pod.started_at.filter(|_| !is_over) else { return };
    evidence.started_at = Some(at);
    step.changed = true;
    let pod_name = pod.name.clone();
    let started = Payload::ExecutionStarted {
        pod_name: pod_name.clone(),
        node_name: pod.node_name.clone(),
        container_id: pod.container_id.clone(),
    };
    let was_seen = pod.running_container().is_some();
    for (slot, payload) in [(Slot::Started, started), (Slot::Running, Payload::ExecutionRunning { pod_name })] {
        step.events.push(mapper::draft(evidence, slot, at, !was_seen, policy, payload));
    }
    evidence.emitted.started = true;
    evidence.emitted.running = true;
}

/// Decides, once all pods have told what they can. True if they have to be listed first.
fn settle(
    evidence: &mut Evidence,
    is_stuck: bool,
    pods: impl FnOnce() -> Vec<Arc<Evidence>>,
    policy: &Policy,
    now: Timestamp,
    step: &mut Step,
) -> bool {
    let Subject::Job(facts) = &evidence.subject else { return false };
    let (ending, chosen) = match over_since(evidence, facts) {
        Some(since) => {
            let pods = pods();
            match patience(facts, &pods, since, policy) {
                // A clock that was set back must not make it wait for hours.
                Patience::Until(at) if (facts.confirmed_at.map_or(since, |at| at.max(since))..at).contains(&now) => {
                    step.wake = Some(at);
                    return false;
                }
                Patience::Until(_) if facts.confirmed_at.is_none() => return true,
                Patience::ForOutput => return false,
                Patience::Until(_) | Patience::Over => {}
            }
            verdict::of(evidence, facts, &pods, now)
        }
        None if is_stuck && !facts.suspended => match verdict::never_started(evidence, &pods(), policy, now) {
            Some(ending) => (ending, None),
            None => return false,
        },
        None if facts.may_wait_in_vain && !facts.suspended => {
            let pods = pods();
            match waits_for_lost(&pods, policy) {
                // A clock that was set back must not make it wait for hours.
                Some(time) if time.contains(&now) => {
                    step.wake = Some(time.end);
                    return false;
                }
                Some(_) => verdict::in_vain(evidence, facts, &pods, now),
                None => return false,
            }
        }
        None => return false,
    };
    evidence.ending = Some(Box::new(ending));
    if let Subject::Job(facts) = &mut evidence.subject {
        facts.chosen = chosen;
    }
    step.collect = true;
    step.changed = true;
    false
}

fn over_since(evidence: &Evidence, facts: &JobFacts) -> Option<Timestamp> {
    let finished = facts.finish.as_ref().map(|finish| finish.seen_at);
    finished.or_else(|| evidence.gone.as_ref().map(|gone| gone.at))
}

/// A Job does not end before its pods, so it never does where one of them is lost and stays. In this time it may make another.
fn waits_for_lost(pods: &[Arc<Evidence>], policy: &Policy) -> Option<Range<Timestamp>> {
    let is_open = pods.iter().any(|pod| pod.ending.is_none() || pod.is_collecting());
    if is_open || !pods.iter().any(|pod| pod.is_given_up()) {
        return None;
    }
    let last_end = pods.iter().filter_map(|pod| pod.ending.as_ref()).map(|ending| ending.decided_at).max()?;
    Some(last_end..last_end.checked_add(policy.must_hear?.grace).ok()?)
}

enum Patience {
    /// A pod that ended is being read, which ends by itself.
    ForOutput,
    /// A pod has not told its end, or was not even seen.
    Until(Timestamp),
    Over,
}

fn patience(facts: &JobFacts, pods: &[Arc<Evidence>], since: Timestamp, policy: &Policy) -> Patience {
    let open = pods.iter().filter(|pod| pod.ending.is_none()).map(|pod| match (facts.confirmed_at, &pod.deletion) {
        (Some(confirmed), _) => confirmed,
        (None, Some(Deletion { seen_at, grace_seconds, .. })) => {
            since.max(*seen_at) + SignedDuration::from_secs(grace_seconds.unwrap_or_default().clamp(0, 3600))
        }
        (None, None) => since,
    });
    let counted = usize::try_from(facts.succeeded.saturating_add(facts.failed)).unwrap_or(usize::MAX);
    let may_have_more = facts.unseen || pods.len() < counted;
    let unseen_pods = (facts.confirmed_at.is_none() && may_have_more).then_some(since);
    match open.chain(unseen_pods).max() {
        Some(latest) => Patience::Until(latest + policy.exit_grace),
        None if pods.iter().any(|pod| pod.is_collecting()) => Patience::ForOutput,
        None => Patience::Over,
    }
}

fn end(evidence: &mut Evidence, output: Collected, policy: &Policy, step: &mut Step) {
    if evidence.terminal.is_some() {
        return;
    }
    let Some(ending) = evidence.ending.clone() else { return };
    let (at, payload) = mapper::terminal(evidence, *ending, output);
    let draft = mapper::draft(evidence, Slot::Terminal, at, false, policy, payload);
    evidence.terminal = Some(draft.event_id);
    step.events.push(draft);
    step.changed = true;
}
