//! What must hold when a walk is over.

use std::collections::{BTreeMap, BTreeSet};

use kube_sim::{cluster::Kind, fault::life::Truth};
use serde_json::Value;

use super::{NAMESPACE, Played, Walk};
use crate::herald::{assert_in_order, ends};

/// Checks everything and tells the story: what went wrong how often, and all events.
pub(super) async fn all(walk: &mut Walk) -> String {
    let mut events = walk.herald.events().await;
    for (number, played) in walk.played.iter().enumerate() {
        attempt(walk, number, played, &events).await;
    }
    readers(walk, &events);
    pods(walk).await;
    let tally = walk.faults.tally();
    walk.readers.clear();
    walk.herald.kill().await;
    // In one moment attempts end in any order, and each of them tells its story in only one.
    events.sort_by_cached_key(|event| (event["execution_id"].to_string(), event["attempt"].as_u64()));
    let story: Vec<String> = events.into_iter().map(without_journal).collect();
    format!("seed {}: {tally:?}\n{}", walk.seed, story.join("\n"))
}

/// An event without what differs between two journals.
fn without_journal(mut event: Value) -> String {
    event["source"] = Value::Null;
    event["seq"] = Value::Null;
    event.to_string()
}

async fn attempt(walk: &Walk, number: usize, played: &Played, events: &[Value]) {
    let name = format!("executor-{number}");
    let truth = walk.chronicle.truth(&played.uid).unwrap();
    let execution = walk.herald.execution(&played.execution_id).await;
    let is_there = walk.cluster.get(Kind::Pod, NAMESPACE, &name).is_some();
    let was_in_sight = played.ends_at > walk.clear_from;
    let pods = execution["pods"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(pod) = pods.iter().find(|pod| pod["uid"] == *played.uid) else {
        assert!(!is_there && !was_in_sight, "nobody has seen {name}: {truth:?}");
        return;
    };
    let of_attempt = |event: &&Value| {
        event["execution_id"] == *played.execution_id && event["attempt"] == pod["attempt"] && ends(event)
    };
    // P1
    let [end] = events.iter().filter(of_attempt).collect::<Vec<_>>()[..] else {
        panic!("{name} has not one end: {truth:?}\n{execution:#}");
    };
    if pod["attempt"] == execution["attempt"] {
        assert_eq!(execution["cause"], end["cause"], "{name}");
    }
    // P2
    let amendments = events.iter().filter(|event| event["amends"] == end["event_id"]);
    let told = amendments.fold(Outcome::told(end), Outcome::amended);
    let real = Outcome::real(&truth);
    // Of a pod that went while things went wrong the end may have been shown to nobody.
    let is_right = told == real || (!is_there && !was_in_sight && told.is_ignorance_of(&truth));
    assert!(is_right, "{name} is said to be {told:?}, but is {real:?}: {truth:?}\n{end:#}");
    // P3
    let printed = if truth.started { played.life.output.as_ref() } else { b"" };
    let kept = end["stdout"].as_str().unwrap().as_bytes();
    match end["output"]["stdout"]["verdict"].as_str().unwrap() {
        "complete" => assert_eq!(kept, printed, "{name}: {end:#}"),
        "partial" => assert!(printed.starts_with(kept), "{name}: {end:#}"),
        "lost" => assert!(kept.is_empty(), "{name}: {end:#}"),
        verdict => panic!("{name}: nothing makes its output {verdict}: {end:#}"),
    }
}

/// How an attempt ended.
#[derive(Debug, PartialEq)]
struct Outcome {
    kind: String,
    code: Option<i64>,
    class: Option<String>,
}

impl Outcome {
    fn told(end: &Value) -> Self {
        Self {
            kind: end["event_type"].as_str().unwrap().to_owned(),
            code: end["exit"]["code"].as_i64(),
            // A success whose output was not read says so there.
            class: end["cause"]["class"].as_str().filter(|_| end["cause"]["reason"] != "OutputNote").map(str::to_owned),
        }
    }

    /// A code that came after the end was told.
    fn amended(self, amendment: &Value) -> Self {
        Self { code: amendment["exit"]["code"].as_i64().or(self.code), ..self }
    }

    /// What somebody who saw everything would say.
    fn real(truth: &Truth) -> Self {
        let outcome = |kind: &str, code: Option<i32>, class: Option<&str>| Self {
            kind: kind.to_owned(),
            code: code.map(i64::from),
            class: class.map(str::to_owned),
        };
        match (truth.init_failed, truth.reason, truth.exit) {
            (Some(code), ..) => outcome("execution_failed", Some(code), Some("never_started")),
            (_, Some("DeadlineExceeded"), code) => outcome("execution_timeout", code, Some("timeout")),
            (_, Some(_), code) => outcome("execution_failed", code, Some("evicted")),
            (.., Some(0)) => outcome("execution_completed", Some(0), None),
            (.., Some(137)) if truth.oom => outcome("execution_failed", Some(137), Some("resource_limit")),
            (.., Some(code)) if truth.deleted && matches!(code, 137 | 143) => {
                outcome("execution_failed", Some(code), Some("deleted"))
            }
            (.., Some(137)) => outcome("execution_failed", Some(137), Some("unknown")),
            (.., Some(code)) => outcome("execution_failed", Some(code), Some("user_code")),
            (.., None) if truth.node_lost => outcome("execution_failed", None, Some("node_lost")),
            (.., None) => outcome("execution_failed", None, Some("deleted")),
        }
    }

    /// True if this claims nothing that is not so: who did not see the end says no more than that.
    fn is_ignorance_of(&self, truth: &Truth) -> bool {
        let knows_no_code = self.code.is_none();
        match (self.kind.as_str(), self.class.as_deref()) {
            ("execution_failed", Some("unknown" | "deleted")) => knows_no_code,
            ("execution_failed", Some("node_lost")) => knows_no_code && truth.node_lost,
            ("execution_timeout", Some("timeout")) => knows_no_code && truth.reason == Some("DeadlineExceeded"),
            _ => false,
        }
    }
}

/// P4, and the order within each execution.
pub(super) fn readers(walk: &Walk, events: &[Value]) {
    assert_in_order(events, &[]);
    let mut of_execution: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in events {
        of_execution.entry(event["execution_id"].as_str().unwrap()).or_default().push(event);
    }
    for reader in &walk.readers {
        let read: Vec<&Value> = reader.events.iter().collect();
        match &reader.execution_id {
            None => assert_eq!(names(&read), names(&events.iter().collect::<Vec<_>>()), "the reader of all"),
            Some(id) => {
                let all = of_execution.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
                // A stream ends with the attempt that was the latest then; what came after is for the next reader.
                assert!(all.starts_with(&read), "the reader of {id} has {:#?} of {:#?}", names(&read), names(all));
                assert!(reader.has_ended || read.len() == all.len(), "the reader of {id} still waits");
            }
        }
    }
}

/// Enough of each event to know it by.
fn names(events: &[&Value]) -> Vec<String> {
    events.iter().map(|event| format!("{} {} {}", event["execution_id"], event["seq"], event["event_type"])).collect()
}

/// Nobody is forgotten, and nobody is remembered for ever.
async fn pods(walk: &Walk) {
    let (_, page) = walk.herald.get("/pods?limit=500").await;
    let tracked: BTreeSet<&str> =
        page["items"].as_array().unwrap().iter().map(|pod| pod["uid"].as_str().unwrap()).collect();
    let is_there = |number: &usize| walk.cluster.get(Kind::Pod, NAMESPACE, &format!("executor-{number}")).is_some();
    let there: BTreeSet<&str> =
        (0..walk.played.len()).filter(is_there).map(|number| walk.played[number].uid.as_str()).collect();
    assert_eq!(tracked, there, "the pods that are tracked, and those that are there");
}
