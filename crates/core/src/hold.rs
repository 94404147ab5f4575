//! Pods that are held by our finalizer until their end is told: what is wished of each, and the patches that do it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    event::{Slot, event_id},
    evidence::{Emitted, Evidence},
    pod::{Labels, Pod},
};

/// The finalizer.
pub const FINALIZER: &str = "podherald.dev/result";
/// Annotation of a pod that was let go: id of the terminal event, a recorded outcome for any monitor.
pub const OUTCOME_ANNOTATION: &str = "podherald.dev/outcome";
/// Its JSON pointer.
const OUTCOME_POINTER: &str = "/metadata/annotations/podherald.dev~1outcome";

/// How a pod stands with our finalizer, as last seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// It never had it.
    #[default]
    Free,
    /// It has it.
    Held,
    /// It had it.
    LetGo,
    /// It should have had it, but was being deleted when it was first seen.
    Unheld,
}

impl Hold {
    /// True for what need not be written down.
    pub fn is_free(&self) -> bool {
        *self == Self::Free
    }
}

/// What is to be done with a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Put the finalizer on.
    Hold,
    /// Take it off, once this terminal event has been carried to whoever must have it.
    Release(Uuid),
    /// Take it off at once: nothing will be told of it, or it was waited for too long.
    Abandon,
}

/// Takes note of how `pod`, which was just merged, stands. True if that is worth keeping.
pub(crate) fn note(evidence: &mut Evidence, pod: &Pod, is_wanted: bool) -> bool {
    let is_late = evidence.is_newer_than(pod.version);
    let unheld = is_wanted && pod.deletion.is_some() && evidence.terminal.is_none();
    let hold = match (pod.is_held, evidence.hold) {
        _ if is_late => evidence.hold,
        (true, _) => Hold::Held,
        (false, Hold::Held) => Hold::LetGo,
        (false, Hold::Free) if unheld => Hold::Unheld,
        (false, known) => known,
    };
    let is_news = hold != evidence.hold;
    evidence.hold = hold;
    recorded(evidence, &pod.annotations) || is_news
}

/// Believes the outcome that a pod bears, which another monitor, or this one with a disk that is lost, has told: nothing of this attempt is told anew.
fn recorded(evidence: &mut Evidence, annotations: &Labels) -> bool {
    let Some(id) = annotations.get(OUTCOME_ANNOTATION).and_then(|text| text.parse::<Uuid>().ok()) else { return false };
    // A copied annotation is another attempt's.
    let own = event_id(&evidence.execution_id, &evidence.attempt_key, Slot::Terminal);
    let is_news = evidence.terminal.is_none() && evidence.ending.is_none() && id == own;
    // The end of a Job is more than its pods know, and is told again under the same id.
    if is_news && evidence.subject.is_pod() {
        evidence.terminal = Some(id);
        evidence.untold.clear();
        evidence.emitted = Emitted {
            pod_scheduled: true,
            started: true,
            pod_running: true,
            running: true,
            pod_terminated: true,
            pod_deleted: true,
        };
        return true;
    }
    false
}

/// What is wished of a pod of which this is known; `is_wanted`: foreign pods are to be held.
pub fn wish(evidence: &Evidence, is_wanted: bool) -> Option<Wish> {
    if evidence.gone.is_some() || evidence.subject.job().is_some() {
        return None;
    }
    let told = evidence.terminal.filter(|_| evidence.untold.is_empty());
    match evidence.hold {
        Hold::Held if evidence.conflict || evidence.result_unproven.is_some() => Some(Wish::Abandon),
        Hold::Held => told.map(Wish::Release),
        Hold::Free if is_wanted && !evidence.conflict => {
            (evidence.terminal.is_none() && evidence.deletion.is_none()).then_some(Wish::Hold)
        }
        Hold::Free | Hold::LetGo | Hold::Unheld => None,
    }
}

/// True if a held pod that somebody wants gone has been kept for longer than this.
pub fn is_overdue(evidence: &Evidence, ceiling: SignedDuration, now: Timestamp) -> bool {
    let is_held = evidence.hold == Hold::Held && evidence.gone.is_none() && evidence.result_unproven.is_none();
    let since = evidence.deletion.as_ref().filter(|_| is_held).map(|deletion| deletion.seen_at);
    since.is_some_and(|since| now.duration_since(since) >= ceiling)
}

/// A pod's metadata, as far as a patch depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    /// `uid`.
    pub uid: &'a str,
    /// `resourceVersion`.
    pub version: &'a str,
    /// `finalizers`; none if the field is not there.
    pub finalizers: Option<&'a [String]>,
    /// It has annotations.
    pub is_annotated: bool,
    /// It has a `deletionTimestamp`.
    pub is_deleted: bool,
}

/// The JSON patch that fulfils the wish; none if there is nothing to do.
///
/// It names what it goes by, so that the API server refuses it if somebody was faster (T93). What cannot be named
/// piece by piece (a field that is not there) is held by the version of the whole.
pub fn patch(wish: Wish, marks: &Marks<'_>) -> Option<Vec<Value>> {
    let finalizers = marks.finalizers.filter(|finalizers| !finalizers.is_empty());
    let place = finalizers.and_then(|all| all.iter().position(|finalizer| finalizer == FINALIZER));
    let uid = json!({"op": "test", "path": "/metadata/uid", "value": marks.uid});
    let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": marks.version});
    let outcome = match (wish, place) {
        (Wish::Hold, None) if !marks.is_deleted => {
            return Some(match finalizers {
                Some(_) => vec![uid, json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})],
                None => vec![uid, version, json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})],
            });
        }
        (Wish::Hold, _) | (_, None) => return None,
        (Wish::Release(outcome), Some(_)) => Some(outcome),
        (Wish::Abandon, Some(_)) => None,
    };
    let path = format!("/metadata/finalizers/{}", place?);
    let mut operations = vec![uid, json!({"op": "test", "path": path, "value": FINALIZER})];
    operations.push(json!({"op": "remove", "path": path}));
    if let Some(outcome) = outcome {
        if !marks.is_annotated {
            operations.insert(1, version);
            operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
        }
        operations.push(json!({"op": "add", "path": OUTCOME_POINTER, "value": outcome.to_string()}));
    }
    Some(operations)
}
