//! What must hold when a walk is over.

use std::collections::BTreeMap;

use kube_sim::{cluster::Kind, fault::life::Truth};
use serde_json::Value;

use super::{NAMESPACE, Walk};
use crate::herald::{assert_in_order, ends};

/// Checks everything and tells the story: what went wrong how often, and all events.
pub(super) async fn all(walk: &mut Walk) -> String {
    let events = walk.herald.events().await;
    for number in 0..walk.played.len() {
        attempt(walk, number, &events).await;
    }
    readers(walk, &events);
    let tally = walk.faults.tally();
    walk.readers.clear();
    walk.herald.kill().await;
    let story: Vec<String> = events.iter().map(without_source).collect();
    format!("seed {}: {tally:?}\n{}", walk.seed, story.join("\n"))
}

/// An event without what differs between two journals.
fn without_source(event: &Value) -> String {
    let mut event = event.clone();
    event["source"] = Value::Null;
    event.to_string()
}

async fn attempt(walk: &Walk, number: usize, events: &[Value]) {
    let played = &walk.played[number];
    let truth = walk.chronicle.truth(&played.uid).unwrap();
    let execution = walk.herald.execution(&played.execution_id).await;
    let is_there = walk.cluster.get(Kind::Pod, NAMESPACE, &format!("executor-{number}")).is_some();
    let pods = execution["pods"].as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(pod) = pods.iter().find(|pod| pod["uid"] == *played.uid) else {
        assert!(!is_there, "{}: nobody has seen executor-{number}: {truth:?}", played.execution_id);
        return;
    };
    let mut of_attempt = events.iter().filter(|event| {
        event["execution_id"] == *played.execution_id && event["attempt"] == pod["attempt"] && ends(event)
    });
    // P1
    let end = of_attempt.next().unwrap_or_else(|| panic!("executor-{number} has no end: {truth:?}\n{execution}"));
    assert_eq!(of_attempt.next(), None, "executor-{number} has two ends");
    // P2
    let told = Outcome::told(end);
    let real = Outcome::real(&truth);
    let is_right = told == real || (!is_there && told.is_ignorance_of(&truth));
    assert!(is_right, "executor-{number} is said to be {told:?}, but is {real:?}: {truth:?}\n{end}");
    // P3
    if end["output"]["stdout"]["verdict"] == "complete" {
        let printed = if truth.started { played.life.output.as_ref() } else { b"" };
        assert_eq!(end["stdout"].as_str().unwrap().as_bytes(), printed, "executor-{number}: {end}");
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
            class: end["cause"]["class"].as_str().map(str::to_owned),
        }
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
            (.., None) => outcome("execution_failed", None, Some("deleted")),
        }
    }

    /// True if this claims nothing that is not so: somebody who did not see the end says no more than that.
    fn is_ignorance_of(&self, truth: &Truth) -> bool {
        let knows_code = self.code.is_none() || self.code == truth.exit.map(i64::from) || self.code == Some(1);
        let may_be = match self.kind.as_str() {
            "execution_failed" => true,
            "execution_timeout" => truth.reason == Some("DeadlineExceeded"),
            _ => false,
        };
        knows_code && may_be
    }
}

/// P4, and the order within each execution.
fn readers(walk: &Walk, events: &[Value]) {
    assert_in_order(events, &[]);
    let mut of_execution: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for event in events {
        of_execution.entry(event["execution_id"].as_str().unwrap()).or_default().push(event);
    }
    for reader in &walk.readers {
        let read: Vec<&Value> = reader.events.iter().collect();
        match &reader.execution_id {
            None => assert_eq!(read, events.iter().collect::<Vec<_>>(), "the reader of all"),
            Some(id) => {
                let all = of_execution.get(id.as_str()).map(Vec::as_slice).unwrap_or_default();
                // A stream ends with the attempt that was the latest then; what came after is for the next reader.
                assert!(all.starts_with(&read), "the reader of {id} has {read:#?} of {all:#?}");
                assert!(reader.has_ended || read.len() == all.len(), "the reader of {id} still waits");
            }
        }
    }
}
