//! Types of the fields that somebody relies on; what nobody here knows is kept as it is.

use serde_json::Value;

use super::super::{Cause, is_label_key, is_label_value};
use crate::quantity;

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Text,
    Integer,
    Object,
    /// An object of texts.
    Texts,
    /// A list of objects.
    Objects,
    /// A list of texts.
    List,
    /// An amount such as `64Mi`.
    Quantity,
    /// An object of amounts.
    Quantities,
}

/// Of every object. `*` stands for each item of a list.
pub(super) const METADATA: &[(&str, Shape)] = &[
    ("", Shape::Object),
    ("metadata", Shape::Object),
    ("metadata.name", Shape::Text),
    ("metadata.generateName", Shape::Text),
    ("metadata.namespace", Shape::Text),
    ("metadata.uid", Shape::Text),
    ("metadata.resourceVersion", Shape::Text),
    ("metadata.labels", Shape::Texts),
    ("metadata.annotations", Shape::Texts),
    ("metadata.finalizers", Shape::List),
    ("metadata.ownerReferences", Shape::Objects),
];

/// Says what is of another type than it should be.
pub(super) fn check<'a>(object: &Value, shapes: impl Iterator<Item = &'a (&'static str, Shape)>) -> Result<(), String> {
    for (path, shape) in shapes {
        let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
        if let Some(wrong) = find_wrong(object, &parts, *shape) {
            if matches!(shape, Shape::Quantity | Shape::Quantities) {
                return Err(quantity::RULE.to_owned());
            }
            let field = if path.is_empty() { "the object" } else { path };
            return Err(format!("json: cannot unmarshal {} into {field} of type {}", sort(wrong), shape.name()));
        }
    }
    Ok(())
}

fn find_wrong<'a>(value: &'a Value, path: &[&str], shape: Shape) -> Option<&'a Value> {
    match path {
        [] => shape.find_wrong(value),
        ["*", rest @ ..] => value.as_array()?.iter().find_map(|item| find_wrong(item, rest, shape)),
        [field, rest @ ..] => find_wrong(value.get(*field)?, rest, shape),
    }
}

impl Shape {
    fn find_wrong(self, value: &Value) -> Option<&Value> {
        let item_of = |is_right: fn(&Value) -> bool| match value {
            Value::Array(items) => items.iter().find(|item| !is_right(item)),
            _ => Some(value),
        };
        match (self, value) {
            (_, Value::Null) | (Self::Text, Value::String(_)) | (Self::Object, Value::Object(_)) => None,
            (Self::Integer, Value::Number(number)) if number.is_i64() => None,
            (Self::Texts, Value::Object(fields)) => {
                fields.values().find(|value| !(value.is_string() || value.is_null()))
            }
            (Self::Quantity, _) => quantity::parse(value).is_none().then_some(value),
            (Self::Quantities, Value::Object(fields)) => {
                fields.values().find(|value| Self::Quantity.find_wrong(value).is_some())
            }
            (Self::Objects, _) => item_of(Value::is_object),
            (Self::List, _) => item_of(Value::is_string),
            _ => Some(value),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Integer => "int64",
            Self::Object => "object",
            Self::Texts => "map[string]string",
            Self::Objects => "[]object",
            Self::List => "[]string",
            Self::Quantity => "Quantity",
            Self::Quantities => "map[string]Quantity",
        }
    }
}

fn sort(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Labels that nobody could select by.
pub(super) fn check_labels(object: &Value) -> Vec<Cause> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let mut causes = Vec::new();
    for (key, value) in labels {
        let value = value.as_str().unwrap_or_default();
        if !is_label_key(key) {
            causes.push(Cause::invalid("metadata.labels", key.as_str(), "name part must consist of alphanumeric \
                 characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or \
                 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"));
        }
        if !is_label_value(value) {
            causes.push(Cause::invalid(
                "metadata.labels",
                value,
                "a valid label must be an empty string or consist of \
                 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
                 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ));
        }
    }
    causes
}
