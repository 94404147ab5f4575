//! Do the events fulfil the expectation?

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::grammar::{Expect, Required};

/// All that is wrong with these events, given in the order in which they were emitted.
pub(super) fn differences(expect: &Expect, events: &[Value]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut rest = events.iter();
    for (index, required) in expect.required_in_order.iter().enumerate() {
        // The first that fits is the right one: whatever fits later leaves less for those that follow.
        if !rest.any(|event| mismatch(required, event).is_none()) {
            differences.push(format!("required event {index} is missing{}", nearest(required, events)));
            break;
        }
    }
    let occurring: BTreeSet<&str> = events.iter().map(event_type).collect();
    for forbidden in &expect.forbidden {
        if occurring.contains(forbidden.as_str()) {
            differences.push(format!("{forbidden} must not occur"));
        }
    }
    // A repetition under the same id is the same event.
    let distinct: BTreeMap<&str, &Value> = events.iter().map(|event| (text(event, "event_id"), event)).collect();
    let is_terminal = |event: &&&Value| expect.terminal_types.iter().any(|name| name == event_type(event));
    let terminal = distinct.values().filter(is_terminal).count();
    let count = expect.terminal_events;
    if terminal < count.least || terminal > count.most {
        differences.push(format!("{terminal} terminal events instead of {}..{}", count.least, count.most));
    }
    let mut per_type = BTreeMap::<_, usize>::new();
    for event in distinct.values() {
        // Attempts are told apart by the pod's uid, so the number stands for it.
        let pod = (text(event, "execution_id"), event["attempt"].as_u64());
        *per_type.entry((event_type(event), pod)).or_default() += 1;
    }
    for ((name, (execution, attempt)), count) in per_type {
        if count > expect.max_per_type_and_uid {
            let attempt = attempt.unwrap_or_default();
            differences.push(format!("{count} events {name} of attempt {attempt} of {execution}"));
        }
    }
    differences
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event[key].as_str().unwrap_or_default()
}

fn event_type(event: &Value) -> &str {
    text(event, "event_type")
}

/// Why the event is not the required one.
fn mismatch(required: &Required, event: &Value) -> Option<String> {
    if !required.event_type.names().iter().any(|name| name == event_type(event)) {
        return Some(format!("is a {}", event_type(event)));
    }
    required.fields.iter().find_map(|(path, expected)| {
        let actual = path.split('.').fold(event, |value, key| &value[key]);
        let what = || format!("{path} is {actual} instead of {expected}");
        (!fits(expected, actual)).then(what)
    })
}

/// Objects fit as subsets, objects in lists by their name, numbers by their value, null also what is not there.
fn fits(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            expected.iter().all(|(key, value)| fits(value, actual.get(key).unwrap_or(&Value::Null)))
        }
        (Value::Array(expected), Value::Array(actual)) if expected.iter().all(|item| item["name"].is_string()) => {
            expected.iter().all(|item| {
                let same_name = actual.iter().find(|other| other["name"] == item["name"]);
                same_name.is_some_and(|other| fits(item, other))
            })
        }
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(e, a)| fits(e, a))
        }
        (Value::Number(expected), Value::Number(actual)) => expected.as_f64() == actual.as_f64(),
        (expected, actual) => expected == actual,
    }
}

/// The events of the right type, and what is wrong with each; without any, the types that there are.
fn nearest(required: &Required, events: &[Value]) -> String {
    let names = required.event_type.names();
    let near: Vec<String> = events
        .iter()
        .filter(|event| names.iter().any(|name| name == event_type(event)))
        .map(|event| match mismatch(required, event) {
            Some(why) => format!("{}: {why}", event_type(event)),
            None => format!("{}: fits, but comes too early", event_type(event)),
        })
        .collect();
    if near.is_empty() {
        let types: Vec<&str> = events.iter().map(event_type).collect();
        return format!(": no {} among [{}]", names.join(" or "), types.join(", "));
    }
    format!(" ({})", near.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: &str, event_type: &str, fields: Value) -> Value {
        let mut event = json!({"event_id": id, "event_type": event_type, "execution_id": "e", "attempt": 1});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        event
    }

    fn check(expect: Value, events: &[Value]) -> Vec<String> {
        let mut whole =
            json!({"required_in_order": [], "forbidden": [], "terminal_events": "0..9", "max_per_type_and_uid": 9});
        whole.as_object_mut().unwrap().extend(expect.as_object().unwrap().clone());
        differences(&serde_json::from_value(whole).unwrap(), events)
    }

    #[test]
    fn required_events_are_a_subsequence_in_order() {
        let events = ["a", "b", "c", "b"].map(|name| event(name, name, json!({})));
        let required = |names: &[&str]| {
            let required: Vec<_> = names.iter().map(|name| json!({"event_type": name, "fields": {}})).collect();
            check(json!({"required_in_order": required}), &events)
        };
        assert_eq!(required(&["a", "c"]), Vec::<String>::new());
        assert_eq!(required(&["b", "b"]), Vec::<String>::new());
        assert_eq!(required(&["c", "a"]), ["required event 1 is missing (a: fits, but comes too early)"]);
        assert_eq!(required(&["d"]), ["required event 0 is missing: no d among [a, b, c, b]"]);
        let either = json!({"required_in_order": [{"event_type": ["x", "c"], "fields": {}}]});
        assert_eq!(check(either, &events), Vec::<String>::new());
    }

    #[test]
    fn listed_fields_are_compared_and_no_others() {
        let event = event(
            "1",
            "t",
            json!({
                "code": 0, "wall": 0.0, "text": "x",
                "metadata": {"user": "u", "service": "s"},
                "list": [{"name": "b", "state": "running", "more": 1}, {"name": "a", "state": "waiting"}],
            }),
        );
        let with = |fields: Value| {
            let required = json!({"required_in_order": [{"event_type": "t", "fields": fields}]});
            check(required, std::slice::from_ref(&event))
        };
        for fitting in [
            json!({"code": 0, "wall": 0}),
            json!({"metadata.user": "u"}),
            json!({"metadata": {"user": "u"}}),
            json!({"list": [{"name": "a", "state": "waiting"}, {"name": "b"}]}),
            json!({"absent": null, "metadata.absent": null}),
        ] {
            assert_eq!(with(fitting.clone()), Vec::<String>::new(), "{fitting}");
        }
        for other in [
            json!({"code": 1}),
            json!({"code": "0"}),
            json!({"metadata.user": "v"}),
            json!({"metadata": {"user": "u", "absent": "x"}}),
            json!({"list": [{"name": "a", "state": "running"}]}),
            json!({"list": [{"name": "c"}]}),
            json!({"text": null}),
            json!({"absent": ""}),
        ] {
            assert_eq!(with(other.clone()).len(), 1, "{other}");
        }
        assert_eq!(with(json!({"code": 7})), ["required event 0 is missing (t: code is 0 instead of 7)"]);
    }

    #[test]
    fn terminal_events_count_by_distinct_id() {
        let failed = |id| event(id, "execution_failed", json!({}));
        let cancelled = |id| event(id, "execution_cancelled", json!({}));
        let twice = [failed("1"), failed("1")];
        assert_eq!(check(json!({"terminal_events": 1}), &twice), Vec::<String>::new());
        let two = [failed("1"), failed("2")];
        assert_eq!(check(json!({"terminal_events": 1}), &two), ["2 terminal events instead of 1..1"]);
        assert_eq!(check(json!({"terminal_events": "1..2"}), &two), Vec::<String>::new());
        assert_eq!(check(json!({"terminal_events": 0}), &[cancelled("1")]), Vec::<String>::new());
        let with_types = json!({"terminal_events": 1, "terminal_types": ["execution_cancelled"]});
        assert_eq!(check(with_types, &[cancelled("1"), failed("2")]), Vec::<String>::new());
    }

    #[test]
    fn forbidden_types_and_duplicates_of_a_pod_are_told() {
        let mut other_pod = event("3", "a", json!({}));
        other_pod["attempt"] = 2.into();
        let events = [event("1", "a", json!({})), event("1", "a", json!({})), other_pod];
        assert_eq!(check(json!({"max_per_type_and_uid": 1}), &events), Vec::<String>::new());
        assert_eq!(check(json!({"forbidden": ["b", "a"]}), &events), ["a must not occur"]);
        let twice = [event("1", "a", json!({})), event("2", "a", json!({}))];
        assert_eq!(check(json!({"max_per_type_and_uid": 1}), &twice), ["2 events a of attempt 1 of e"]);
    }
}
