//! What may go, and when. Nothing is done here: objects and what the store knows in, a verdict out.
//!
//! Ages are from the API server's clock to ours: whatever they differ by is added to or taken from each age.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    event::{Slot, event_id},
    execution::Status,
    identity::{self, Marked, Marks, Place},
    pod::Labels,
};
use uuid::Uuid;

/// Labels without which nothing is touched, whatever `cleaner.selector` admits.
pub const MARK: [(&str, &str); 1] = [("component", "executor")];
/// The label that names the execution.
pub const EXECUTION_LABEL: &str = "execution-id";
/// Begins the name of the ConfigMap that holds an execution's script.
pub const SCRIPT_PREFIX: &str = "script-";

/// A value of a label at most.
const MAX_LABEL: usize = 63;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pod of one attempt.
    Pod,
    /// The ConfigMap with the script of an execution.
    Script,
}

impl Kind {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Script => "ConfigMap",
        }
    }
}

/// An object as far as it decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: Labels,
    /// `metadata.creationTimestamp`.
    pub created: Option<Timestamp>,
    /// `metadata.deletionTimestamp` is set.
    pub is_leaving: bool,
    /// Kind and name of what controls it, or owns it and is no pod.
    pub belongs_to: Option<String>,
}

impl Marked for Object {
    fn marks(&self) -> Marks<'_> {
        Marks { name: &self.name, uid: &self.uid, labels: &self.labels, annotations: &self.annotations }
    }
}

impl Object {
    /// True if podherald's own labels mark it.
    pub fn is_marked(&self) -> bool {
        let is_named = self.kind == Kind::Pod || self.name.starts_with(SCRIPT_PREFIX);
        let has = |(key, value): (&str, &str)| self.labels.get(key).is_some_and(|found| found == value);
        is_named && MARK.into_iter().all(has) && self.labels.contains_key(EXECUTION_LABEL)
    }

    /// The execution, read as the monitor reads it; of a ConfigMap the label alone counts, which has all of a short id.
    pub fn execution_id(&self, places: &[Place]) -> Option<&str> {
        match self.kind {
            Kind::Pod => identity::execution_id(self, places),
            Kind::Script => self.labels.get(EXECUTION_LABEL).map(String::as_str),
        }
    }

    /// The id of the event that ends a pod's attempt: it says which result is this pod's, without a number or a name.
    pub fn ends_by(&self, places: &[Place]) -> Option<Uuid> {
        let execution_id = self.execution_id(places)?;
        Some(event_id(execution_id, identity::attempt_key(self), Slot::Terminal))
    }
}

/// How long what stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// `cleaner.min_age`.
    pub min_age: Duration,
    /// `cleaner.keep_failed`.
    pub keep_failed: Duration,
    /// `cleaner.orphan_age`.
    pub orphan_age: Duration,
    /// `cleaner.unstored_age`.
    pub unstored_age: Option<Duration>,
}

/// An attempt that has ended and whose result is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub status: Status,
    /// When.
    pub at: Timestamp,
}

/// What is to become of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes now.
    Delete(Cause),
    /// It stays, if nothing else comes between until the given time.
    Keep(Reason, Option<Timestamp>),
}

/// Why an object goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The result of its attempt, or of its execution, is stored.
    Stored,
    /// A ConfigMap whose pod never came, or went without a word.
    Orphan,
    /// No result is stored, and `cleaner.unstored_age` says to wait no longer.
    Unstored,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stored, Self::Orphan, Self::Unstored];

    /// For a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Orphan => "orphan",
            Self::Unstored => "unstored",
        }
    }

    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Stored => "its result is stored",
            Self::Orphan => "there is no pod of its execution",
            Self::Unstored => "no result of it is stored, and it is older than cleaner.unstored_age",
        }
    }
}

/// Why an object stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It lacks a label of podherald's.
    Unmarked,
    /// Something else made it, and tidies it up.
    BelongsToAnother,
    /// Its deletion is under way.
    Leaving,
    /// It is younger than `cleaner.min_age`.
    Young,
    /// No result of its attempt is stored.
    ResultNotStored,
    /// It failed, and somebody may want to look at it.
    Failed,
    /// A pod of its execution is there.
    InUse,
    /// Its pod may still come.
    PodMayCome,
}

impl Reason {
    /// For a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unmarked => "unmarked",
            Self::BelongsToAnother => "belongs_to_another",
            Self::Leaving => "leaving",
            Self::Young => "young",
            Self::ResultNotStored => "result_not_stored",
            Self::Failed => "failed",
            Self::InUse => "in_use",
            Self::PodMayCome => "pod_may_come",
        }
    }

    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Unmarked => "it lacks a label of podherald's: it is somebody else's",
            Self::BelongsToAnother => "its owner is no pod of podherald's and tidies it up",
            Self::Leaving => "its deletion is under way",
            Self::Young => "it is younger than cleaner.min_age: a create that comes late shall find it",
            Self::ResultNotStored => "no result of its attempt is stored",
            Self::Failed => "it failed, and cleaner.keep_failed is not over",
            Self::InUse => "a pod of its execution is there",
            Self::PodMayCome => "its pod may still come: cleaner.orphan_age is not over",
        }
    }
}

/// What can be said of an object before anything is asked of the store; none if the store has to be asked.
pub fn at_first_sight(object: &Object, policy: &Policy, now: Timestamp) -> Option<Verdict> {
    let keep = |reason| Some(Verdict::Keep(reason, None));
    // Of something that does not say how old it is nothing is known.
    let Some(created) = object.created.filter(|_| object.is_marked()) else { return keep(Reason::Unmarked) };
    if object.belongs_to.is_some() {
        return keep(Reason::BelongsToAnother);
    }
    if object.is_leaving {
        return keep(Reason::Leaving);
    }
    let due = later(created, policy.min_age);
    (now < due).then_some(Verdict::Keep(Reason::Young, Some(due)))
}

/// What becomes of a pod whose attempt came to this, as far as the store knows.
pub fn of_pod(pod: &Object, result: Option<Ended>, policy: &Policy, now: Timestamp) -> Verdict {
    if let Some(verdict) = at_first_sight(pod, policy, now) {
        return verdict;
    }
    let Some(ended) = result else {
        let due = pod.created.zip(policy.unstored_age).map(|(created, age)| later(created, age));
        return match due {
            Some(due) if now >= due => Verdict::Delete(Cause::Unstored),
            due => Verdict::Keep(Reason::ResultNotStored, due),
        };
    };
    let due = later(ended.at, policy.keep_failed);
    match ended.status {
        Status::Failed | Status::Timeout if now < due => Verdict::Keep(Reason::Failed, Some(due)),
        _ => Verdict::Delete(Cause::Stored),
    }
}

/// What becomes of a script. `in_use`: a pod of the execution is there, and nobody has asked it to leave. `is_stored`: the execution
/// has come to something.
pub fn of_script(script: &Object, in_use: bool, is_stored: bool, policy: &Policy, now: Timestamp) -> Verdict {
    if let Some(verdict) = at_first_sight(script, policy, now) {
        return verdict;
    }
    if in_use {
        return Verdict::Keep(Reason::InUse, None);
    }
    if is_stored {
        return Verdict::Delete(Cause::Stored);
    }
    let due = script.created.map(|created| later(created, policy.orphan_age));
    if due.is_some_and(|due| now >= due) {
        Verdict::Delete(Cause::Orphan)
    } else {
        Verdict::Keep(Reason::PodMayCome, due)
    }
}

/// True if a label can hold this execution's id, whole: what cannot be a value may not get into a selector either.
pub fn is_label(execution_id: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    execution_id.len() <= MAX_LABEL
        && execution_id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && is_end(execution_id.chars().next())
        && is_end(execution_id.chars().next_back())
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        min_age: Duration::from_mins(5),
        keep_failed: Duration::from_hours(1),
        orphan_age: Duration::from_hours(2),
        unstored_age: None,
    };

    fn at(minutes: i64) -> Timestamp {
        "2026-02-10T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)
    }

    /// Made at minute 0.
    fn object(kind: Kind, name: &str) -> Object {
        let labels = [("component", "executor"), ("execution-id", "e1")];
        Object {
            kind,
            namespace: "runs".to_owned(),
            name: name.to_owned(),
            uid: "u1".to_owned(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            annotations: Labels::new(),
            created: Some(at(0)),
            is_leaving: false,
            belongs_to: None,
        }
    }

    fn pod() -> Object {
        object(Kind::Pod, "executor-e1")
    }

    fn script() -> Object {
        object(Kind::Script, "script-e1")
    }

    fn without(mut object: Object, label: &str) -> Object {
        object.labels.remove(label);
        object
    }

    #[test]
    fn a_pod_goes_when_its_result_is_stored_and_nobody_may_still_want_it() {
        let ended = |status| Some(Ended { status, at: at(10) });
        let keep = |reason, due: Option<i64>| Verdict::Keep(reason, due.map(at));
        let generous = Policy { unstored_age: Some(Duration::from_hours(24)), ..POLICY };
        for (what, pod, result, policy, minute, expected) in [
            ("done", pod(), ended(Status::Completed), POLICY, 11, Verdict::Delete(Cause::Stored)),
            ("cancelled", pod(), ended(Status::Cancelled), POLICY, 11, Verdict::Delete(Cause::Stored)),
            ("just failed", pod(), ended(Status::Failed), POLICY, 69, keep(Reason::Failed, Some(70))),
            ("just timed out", pod(), ended(Status::Timeout), POLICY, 69, keep(Reason::Failed, Some(70))),
            ("failed", pod(), ended(Status::Failed), POLICY, 70, Verdict::Delete(Cause::Stored)),
            (
                "young",
                pod(),
                Some(Ended { status: Status::Completed, at: at(1) }),
                POLICY,
                4,
                keep(Reason::Young, Some(5)),
            ),
            ("old, not stored", pod(), None, POLICY, 1_000_000, keep(Reason::ResultNotStored, None)),
            ("not stored", pod(), None, generous, 1439, keep(Reason::ResultNotStored, Some(1440))),
            ("given up", pod(), None, generous, 1440, Verdict::Delete(Cause::Unstored)),
            (
                "leaving",
                Object { is_leaving: true, ..pod() },
                ended(Status::Completed),
                POLICY,
                11,
                keep(Reason::Leaving, None),
            ),
            (
                "a Job's",
                Object { belongs_to: Some("Job x".to_owned()), ..pod() },
                ended(Status::Completed),
                POLICY,
                11,
                keep(Reason::BelongsToAnother, None),
            ),
            (
                "ageless",
                Object { created: None, ..pod() },
                ended(Status::Completed),
                generous,
                9999,
                keep(Reason::Unmarked, None),
            ),
            (
                "a stranger",
                without(pod(), "component"),
                ended(Status::Completed),
                generous,
                9999,
                keep(Reason::Unmarked, None),
            ),
            (
                "nameless",
                without(pod(), "execution-id"),
                ended(Status::Completed),
                generous,
                9999,
                keep(Reason::Unmarked, None),
            ),
        ] {
            assert_eq!(of_pod(&pod, result, &policy, at(minute)), expected, "{what}");
        }
    }

    #[test]
    fn a_script_goes_when_no_pod_needs_it_or_none_ever_came() {
        // T96
        let keep = |reason, due: Option<i64>| Verdict::Keep(reason, due.map(at));
        for (what, script, in_use, is_stored, minute, expected) in [
            ("done", script(), false, true, 5, Verdict::Delete(Cause::Stored)),
            ("another attempt", script(), true, true, 5, keep(Reason::InUse, None)),
            ("running", script(), true, false, 9999, keep(Reason::InUse, None)),
            ("young", script(), false, true, 4, keep(Reason::Young, Some(5))),
            ("waits for its pod", script(), false, false, 119, keep(Reason::PodMayCome, Some(120))),
            ("its pod never came", script(), false, false, 120, Verdict::Delete(Cause::Orphan)),
            ("a stranger", object(Kind::Script, "settings-e1"), false, true, 9999, keep(Reason::Unmarked, None)),
            ("another's", without(script(), "component"), false, true, 9999, keep(Reason::Unmarked, None)),
        ] {
            assert_eq!(of_script(&script, in_use, is_stored, &POLICY, at(minute)), expected, "{what}");
        }
    }

    #[test]
    fn an_attempt_is_known_by_the_event_that_ended_it_and_never_by_a_name() {
        let places = identity::default_places();
        let first = pod().ends_by(&places).unwrap();
        assert_eq!(first, event_id("e1", "u1", Slot::Terminal));
        let namesake = Object { uid: "u2".to_owned(), ..pod() };
        assert_ne!(namesake.ends_by(&places), Some(first));
    }
}
