//! JSON Schemas (2020-12) of events, each complete in itself.
//!
//! They are open: a later podherald may say more, and a reader that validates must not fall over it. That nothing is said
//! which they do not know is for podherald's own tests to hold.

use podherald_core::event::EVENT_VERSION;
use serde_json::{Map, Value, json};

use super::{
    catalogue::{Entry, catalogue},
    types::{Types, referring_to},
};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
const DEFINITIONS: &str = "#/$defs/";

/// The schema of events of one type; none for a type that podherald does not send.
pub fn of_type(event_type: &str) -> Option<Value> {
    let Entry { mut schema, .. } = catalogue().into_iter().find(|entry| entry.name == event_type)?;
    let definitions = Types::of_events().behind(&schema);
    schema["$schema"] = json!(DIALECT);
    schema["$id"] = json!(format!("urn:podherald:event:{event_type}:{EVENT_VERSION}"));
    schema["$defs"] = Value::Object(definitions);
    Some(referring_to(DEFINITIONS, schema))
}

/// The schema of any event; `$defs` has one for each type under its name.
pub fn of_all() -> Value {
    let types = Types::of_events();
    let entries = catalogue();
    let one_of: Vec<Value> = entries.iter().map(|it| json!({"$ref": format!("{DEFINITIONS}{}", it.name)})).collect();
    let mut definitions = Map::new();
    for Entry { name, schema, .. } in entries {
        definitions.extend(types.behind(&schema));
        definitions.insert(name, schema);
    }
    let schema = json!({
        "$schema": DIALECT,
        "$id": format!("urn:podherald:events:{EVENT_VERSION}"),
        "title": "An event of podherald",
        "description": "`$defs` has a schema for each `event_type`, under its name.",
        "oneOf": one_of,
        "$defs": definitions,
    });
    referring_to(DEFINITIONS, schema)
}
