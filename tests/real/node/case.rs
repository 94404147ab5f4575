//! A pod of the real node, what is done to it, and what podherald is to tell of it.

use bytes::Bytes;
use serde_json::{Value, json};

/// One pod's story.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Makes up the execution's id and the pod's name.
    pub(super) name: &'static str,
    pub(super) annotations: Value,
    pub(super) spec: Value,
    pub(super) act: Act,
    /// Type of the terminal event.
    pub(super) event_type: &'static str,
    /// Fields of the terminal event; objects fit as subsets.
    pub(super) fields: Value,
    pub(super) prints: Prints,
}

/// What is done to a pod whose program has printed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    Evict,
    Delete,
    ForceDelete,
    /// Deletes it once its container waits to be started again.
    DeleteInCrashLoop,
    /// Lets its deadline come while its container waits to be started for the third time, which is for 20 s.
    LimitInCrashLoop,
}

/// What is to be had of the output.
#[derive(Debug, Clone)]
pub(super) enum Prints {
    /// Every byte.
    All(Bytes),
    /// The kubelet may have taken the log away before anybody could read it: every byte, or it is said to be lost.
    AllUnlessLost(Bytes),
}

impl Prints {
    pub(super) fn bytes(&self) -> &Bytes {
        match self {
            Self::All(bytes) | Self::AllUnlessLost(bytes) => bytes,
        }
    }
}

impl Case {
    /// A pod with this spec that is expected to complete without a word.
    pub(super) fn new(name: &'static str, spec: Value) -> Self {
        let fields = json!({"exit_code": 0, "exit": {"code": 0, "signal": null, "source": "kubelet"}});
        Self {
            name,
            annotations: json!({}),
            spec,
            act: Act::Nothing,
            event_type: "execution_completed",
            fields,
            prints: Prints::All(Bytes::new()),
        }
    }

    pub(super) fn prints(self, bytes: impl Into<Bytes>) -> Self {
        Self { prints: Prints::All(bytes.into()), ..self }
    }

    pub(super) fn prints_unless_lost(self, bytes: impl Into<Bytes>) -> Self {
        Self { prints: Prints::AllUnlessLost(bytes.into()), ..self }
    }

    pub(super) fn act(self, act: Act) -> Self {
        Self { act, ..self }
    }

    pub(super) fn annotated(self, annotations: Value) -> Self {
        Self { annotations, ..self }
    }

    /// Fails with this code, if one is known, for a cause of this class.
    pub(super) fn fails(self, code: Option<i32>, class: &str) -> Self {
        let source = if code.is_some() { "kubelet" } else { "none" };
        let exit = json!({"code": code, "signal": null, "source": source});
        let fields = json!({"exit_code": code, "exit": exit, "cause": {"class": class}});
        Self { event_type: "execution_failed", fields, ..self }
    }

    /// Ends with an event of this type and these fields.
    pub(super) fn ends(self, event_type: &'static str, fields: Value) -> Self {
        Self { event_type, fields, ..self }
    }

    /// Expects these fields too.
    pub(super) fn with(mut self, more: Value) -> Self {
        merge(&mut self.fields, more);
        self
    }

    /// What of `event` is not as expected.
    pub(super) fn difference(&self, event: &Value) -> Option<String> {
        if event["event_type"] != self.event_type {
            return Some(format!("{} instead of {}", event["event_type"], self.event_type));
        }
        difference("", &self.fields, event)
    }
}

/// The spec of a pod whose container `executor` runs this script.
pub(super) fn shell(script: &str) -> Value {
    json!({"containers": [container("executor", script)]})
}

/// A container that runs this script.
pub(super) fn container(name: &str, script: &str) -> Value {
    // Kubernetes takes `$(x)` for a variable and `$$` for `$`.
    let script = script.replace('$', "$$");
    json!({"name": name, "image": "localhost/busybox:1", "command": ["/bin/sh", "-c", script]})
}

/// `value` with `more` in it, object by object.
pub(super) fn with(mut value: Value, more: Value) -> Value {
    merge(&mut value, more);
    value
}

/// `pod` with `more` in its first container.
pub(super) fn with_container(mut spec: Value, more: Value) -> Value {
    merge(&mut spec["containers"][0], more);
    spec
}

fn merge(value: &mut Value, more: Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            for (key, more) in more {
                merge(value.entry(key).or_insert(Value::Null), more);
            }
        }
        (value, more) => *value = more,
    }
}

fn difference(path: &str, expected: &Value, actual: &Value) -> Option<String> {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => expected.iter().find_map(|(key, expected)| {
            let actual = actual.get(key).unwrap_or(&Value::Null);
            difference(&format!("{path}.{key}"), expected, actual)
        }),
        (expected, actual) if expected == actual => None,
        _ => Some(format!("{path} is {actual} instead of {expected}")),
    }
}
