//! Every event that a test sees is as its schema says, and has nothing that the schema does not know.

use std::{collections::HashMap, process::Command, sync::LazyLock};

use jsonschema::Validator;
use podherald::contract;
use serde_json::{Value, json};

static SCHEMAS: LazyLock<HashMap<String, Validator>> = LazyLock::new(|| {
    let validator = |name: &str| {
        let schema = closed(contract::of_type(name).unwrap());
        jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
    };
    contract::catalogue().into_iter().map(|entry| (entry.name.clone(), validator(&entry.name))).collect()
});

/// Each of the events holds to its schema to the last field.
pub(crate) fn assert_exact(events: &[Value]) {
    for event in events {
        let name = event["event_type"].as_str().unwrap();
        let schema = SCHEMAS.get(name).unwrap_or_else(|| panic!("{name} has no schema: {event:#}"));
        let errors: Vec<_> =
            schema.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{name} is not as its schema says: {errors:#?}\n{event:#}");
    }
}

fn podherald(arguments: &[&str]) -> (String, String, Option<i32>) {
    let run = Command::new(env!("CARGO_BIN_EXE_podherald")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(run.stdout), text(run.stderr), run.status.code())
}

#[test]
fn the_program_prints_what_readers_may_rely_on() {
    let (table, _, status) = podherald(&["events"]);
    assert_eq!((table, status), (contract::table(), Some(0)));
    for (arguments, document) in [
        (vec!["events", "--schema", "execution_failed"], contract::of_type("execution_failed").unwrap()),
        (vec!["events", "--schema"], contract::of_all()),
        (vec!["asyncapi"], contract::asyncapi_document()),
    ] {
        let (printed, _, status) = podherald(&arguments);
        assert_eq!((serde_json::from_str::<Value>(&printed).unwrap(), status), (document, Some(0)), "{arguments:?}");
    }
    let (_, said, status) = podherald(&["events", "--schema", "execution_exploded"]);
    assert!(said.contains("execution_exploded") && said.contains("execution_failed"), "{said}");
    assert_eq!(status, Some(2));
}

/// The schema without room for what a later version may say.
fn closed(schema: Value) -> Value {
    match schema {
        Value::Object(mut fields) => {
            if fields.get("properties").is_some_and(|properties| properties.get("properties").is_none()) {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.into_iter().map(|(name, value)| (name, closed(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(closed).collect(),
        other => other,
    }
}
