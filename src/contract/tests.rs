#![allow(clippy::unwrap_used)]

use std::fs;

use podherald_core::{event::EVENT_TYPES, gap};
use serde_json::{Value, json};

use super::*;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi");

#[test]
#[expect(clippy::disallowed_methods, reason = "how a developer asks for the new documents is no setting")]
fn the_committed_documents_are_those_that_are_generated() {
    for (name, document) in [("asyncapi.json", asyncapi_document()), ("events.schema.json", of_all())] {
        let (path, text) = (format!("{DIRECTORY}/{name}"), pretty(&document));
        if std::env::var_os("PODHERALD_UPDATE_OPENAPI").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == text,
            "openapi/{name} is not what the types say; \
             PODHERALD_UPDATE_OPENAPI=1 cargo test -p podherald the_committed_document writes it anew"
        );
    }
}

#[test]
fn every_type_has_its_schema_and_its_line() {
    let mut names: Vec<String> = catalogue().into_iter().map(|entry| entry.name).collect();
    let (mut known, table) = ([&EVENT_TYPES[..], &[gap::EVENT_TYPE]].concat(), table());
    names.sort_unstable();
    known.sort_unstable();
    assert_eq!(names, known);
    for name in known {
        let schema = of_type(name).unwrap();
        jsonschema::draft202012::meta::validate(&schema).unwrap();
        assert_eq!(schema["properties"]["event_type"]["const"], name);
        let line = table.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
        let sender = match name.split(['_', '.']).next().unwrap() {
            "result" => "result-processor",
            "podherald" => "podherald",
            _ => "pod-monitor",
        };
        assert!(line.contains(sender) && line.contains(schema["description"].as_str().unwrap()), "{line}");
    }
    assert_eq!(of_type("weather_changed"), None);
}

#[test]
fn every_reference_resolves() {
    for document in [asyncapi_document(), of_all()].into_iter().chain(EVENT_TYPES.map(|name| of_type(name).unwrap())) {
        let text = document.to_string();
        for reference in text.split(r##""$ref":"#"##).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}

#[test]
fn a_schema_takes_what_is_so_and_names_what_is_not() {
    let schema = jsonschema::options().should_validate_formats(true).build(&of_all()).unwrap();
    let event = json!({
        "event_id": "00000000-0000-0000-0000-000000000001", "event_type": "execution_amended", "event_version": "1.0",
        "timestamp": "2026-03-01T12:00:02.500000Z", "execution_id": "e", "attempt": 1, "source": "pod-monitor:x", "seq": 1,
        "metadata": {"service_name": "pod-monitor", "service_version": "0", "environment": "test"},
        "amends": "00000000-0000-0000-0000-000000000002", "exit": {"code": null, "signal": null, "source": "none"},
        "evidence": ["seen late"], "of_a_later_version": true,
    });
    assert!(schema.is_valid(&event));
    let wrong = |field: &str, value: Value| {
        let mut event = event.clone();
        event[field] = value;
        schema.is_valid(&event)
    };
    for (field, value) in [
        ("event_type", json!("execution_completed")),
        ("event_version", json!("2.0")),
        ("event_id", json!("one")),
        ("timestamp", json!("noon")),
        ("attempt", json!(0)),
        ("seq", json!("1")),
        ("metadata", json!({})),
        ("exit", json!({"code": 1})),
        ("exit", Value::Null),
        ("evidence", json!("seen late")),
    ] {
        assert!(!wrong(field, value), "{field}");
    }
}

#[test]
fn a_gap_is_as_its_schema_says() {
    let schema = jsonschema::options().should_validate_formats(true).build(&of_type(gap::EVENT_TYPE).unwrap()).unwrap();
    let gap = gap::Gap::new("epoch", "kafka", 3..=7, jiff::Timestamp::UNIX_EPOCH);
    let with_times = gap::Gap { since: Some(gap.timestamp), until: Some(gap.timestamp), ..gap.clone() };
    for gap in [&gap, &with_times] {
        let gap: Value = serde_json::from_slice(&gap.to_bytes()).unwrap();
        assert!(schema.is_valid(&gap), "{:?}", schema.iter_errors(&gap).collect::<Vec<_>>());
        for (field, wrong) in [("event_type", json!("pod_deleted")), ("missed", json!(0)), ("since", Value::Null)] {
            let mut gap = gap.clone();
            gap[field] = wrong;
            assert!(!schema.is_valid(&gap), "{field}");
        }
    }
    let document = asyncapi_document();
    let message = &document["components"]["messages"][gap::EVENT_TYPE];
    assert_eq!(message["headers"]["properties"]["ce_type"]["const"], gap::EVENT_TYPE);
    assert_eq!(message["headers"]["required"].as_array().unwrap().len(), gap::ATTRIBUTES.len() + 1);
    assert_eq!(document["channels"]["evaluation_gaps"]["address"], "evaluation:events::gaps");
}

#[test]
fn a_topic_is_described_as_it_is_created() {
    let document = asyncapi_document();
    let topic = &document["channels"]["execution_events"];
    assert_eq!(topic["bindings"]["kafka"]["partitions"], 10);
    assert_eq!(topic["bindings"]["kafka"]["topicConfiguration"]["retention.ms"], 7 * 24 * 3_600_000);
    assert_eq!(topic["messages"].as_object().unwrap().len(), 9);
    assert_eq!(document["channels"]["evaluation_events"]["address"], "evaluation:events:{execution_id}");
    assert_eq!(document["channels"]["dead_letter_queue"]["bindings"]["kafka"]["partitions"], 3);
    let headers = &document["components"]["messages"]["pod_running"]["headers"];
    assert_eq!(headers["properties"]["ce_type"]["const"], "pod_running");
    assert_eq!(headers["required"].as_array().unwrap().len(), 11);
}
