//! The types of events as JSON Schemas: what utoipa says of them, made exact.
//!
//! An optional field of an event is absent where it is not known, never null, which utoipa cannot say. References stay
//! as utoipa has them, below `#/components/schemas/`, where AsyncAPI wants them too.

use std::collections::{BTreeMap, BTreeSet};

use podherald_core::{
    event::{EVENT_VERSION, Event, Payload, carried},
    gap::{self, Gap},
};
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

const REFERENCE: &str = "#/components/schemas/";
/// Numbers have formats that are OpenAPI's alone.
const FORMATS: [&str; 2] = ["uuid", "date-time"];

/// Named schemas.
pub(super) struct Types(BTreeMap<String, Value>);

impl Types {
    /// All that events are made of.
    pub(super) fn of_events() -> Self {
        let mut found = vec![("Event".to_owned(), Event::schema()), ("Payload".to_owned(), Payload::schema())];
        Event::schemas(&mut found);
        let named = found.into_iter().map(|(name, schema)| (name, exact(plain(&schema))));
        Self(named.collect())
    }

    /// One object schema for each event type, envelope and payload together, in the order of the catalogue's source.
    pub(super) fn events(&self) -> Vec<(String, Value)> {
        let envelope = self.0["Event"]["allOf"].as_array().and_then(|parts| parts.last());
        let envelope = envelope.expect("an event is its payload and an envelope");
        let payloads = self.0["Payload"]["oneOf"].as_array().expect("a payload is one of many");
        payloads.iter().map(|payload| self.event(envelope, payload)).collect()
    }

    fn event(&self, envelope: &Value, payload: &Value) -> (String, Value) {
        let mut object = Object::default();
        self.add(envelope, &mut object);
        self.add(payload, &mut object);
        let event_type = object.properties["event_type"]["const"].as_str().expect("the tag of a payload").to_owned();
        object.properties["event_type"]["description"] = json!("What happened.");
        fix(&mut object.properties["event_version"], EVENT_VERSION);
        let carried = carried(&event_type);
        object.required.extend(carried.always.iter().map(|field| (*field).to_owned()));
        object.properties.retain(|field, _| !carried.never.contains(&field.as_str()));
        let schema = json!({
            "title": event_type,
            "description": payload["description"],
            "type": "object",
            "required": object.required,
            "properties": object.properties,
        });
        (event_type, schema)
    }

    /// Adds the fields of a schema that is an object, a reference to one, or several of them together.
    fn add(&self, schema: &Value, object: &mut Object) {
        if let Some(name) = reference(schema) {
            self.add(&self.0[name], object);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.add(part, object);
        }
        let properties = schema["properties"].as_object().into_iter().flatten();
        object.properties.extend(properties.map(|(name, schema)| (name.clone(), schema.clone())));
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        object.required.extend(required.map(str::to_owned));
    }

    /// The named schemas that this one refers to, directly or not.
    pub(super) fn behind(&self, schema: &Value) -> Map<String, Value> {
        let mut found = Map::new();
        let mut open = vec![schema];
        while let Some(value) = open.pop() {
            if let Some(name) = reference(value).filter(|name| !found.contains_key(*name)) {
                found.insert(name.to_owned(), self.0[name].clone());
                open.push(&self.0[name]);
            }
            match value {
                Value::Object(fields) => open.extend(fields.values()),
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        found
    }
}

#[derive(Default)]
struct Object {
    required: BTreeSet<String>,
    properties: Map<String, Value>,
}

/// The object schema of a gap.
pub(super) fn of_gap() -> Value {
    let mut schema = of::<Gap>();
    schema["title"] = json!(gap::EVENT_TYPE);
    for (field, value) in [("event_type", gap::EVENT_TYPE), ("event_version", EVENT_VERSION)] {
        fix(&mut schema["properties"][field], value);
    }
    schema
}

/// A text that is always the same.
fn fix(property: &mut Value, value: &str) {
    *property = json!({"const": value, "type": "string", "description": property["description"]});
}

/// The schema of one type by itself, exact.
pub(super) fn of<T: ToSchema>() -> Value {
    exact(plain(&T::schema()))
}

/// The same with all references to another place.
pub(super) fn referring_to(place: &str, mut schema: Value) -> Value {
    if let Some(name) = reference(&schema) {
        schema["$ref"] = json!(format!("{place}{name}"));
    }
    each_below(schema, &|below| referring_to(place, below))
}

fn plain(schema: &impl serde::Serialize) -> Value {
    serde_json::to_value(schema).expect("a schema holds only plain values")
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(REFERENCE)
}

fn exact(mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        if let Some([only]) = fields.get("enum").and_then(Value::as_array).map(Vec::as_slice) {
            let only = only.clone();
            fields.remove("enum");
            fields.insert("const".to_owned(), only);
        }
        if fields.get("format").and_then(Value::as_str).is_some_and(|format| !FORMATS.contains(&format)) {
            fields.remove("format");
        }
    }
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let optional = properties.iter_mut().filter(|(name, _)| !required.contains(&json!(name)));
        optional.for_each(|(_, property)| *property = without_null(property.take()));
    }
    each_below(schema, &exact)
}

fn without_null(mut schema: Value) -> Value {
    let is_null = |one: &Value| *one == json!("null") || *one == json!({"type": "null"});
    for key in ["type", "oneOf"] {
        let Some(all) = schema.get_mut(key).and_then(Value::as_array_mut) else { continue };
        all.retain(|one| !is_null(one));
        if let [only] = all.as_mut_slice() {
            let only = only.take();
            if key == "oneOf" {
                return only;
            }
            schema[key] = only;
        }
    }
    schema
}

fn each_below(schema: Value, change: &impl Fn(Value) -> Value) -> Value {
    match schema {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, change(value))).collect(),
        Value::Array(items) => items.into_iter().map(change).collect(),
        other => other,
    }
}
