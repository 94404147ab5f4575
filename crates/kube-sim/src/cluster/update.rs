//! Changes of what is there.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Cause, Kind, Refusal,
    json::{metadata, section, strip_nulls, text},
    state::{Key, State},
};

/// Which part of an object somebody may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but the status.
    Main,
    /// Only the status and labels, annotations, finalizers.
    Status,
    /// Everything: whoever is inside knows what it does.
    All,
}

/// What stays as it was at birth or is only set by a deletion.
const FIXED: [&str; 7] = [
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
];

impl State {
    /// Changes an object; the result is not stored if it is the same, or if it is all that kept the object from going.
    pub(super) fn change(
        &mut self,
        kind: Kind,
        key: &Key,
        part: Part,
        now: Timestamp,
        change: impl FnOnce(&Value) -> Result<Value, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let old = self.get(kind, key).cloned().ok_or_else(|| Refusal::not_found(kind, &key.1))?;
        let mut new = change(&old)?;
        let resource = kind.resource();
        strip_nulls(&mut new);
        let version = text(&new, "/metadata/resourceVersion");
        if part != Part::All && !version.is_empty() && version != text(&old, "/metadata/resourceVersion") {
            return Err(Refusal::modified(kind, &key.1));
        }
        let mut causes = if part == Part::All { Vec::new() } else { forged(&old, &new) };
        keep_fixed(&old, &mut new);
        if resource.has_status {
            keep_part(part, &old, &mut new);
        }
        (resource.complete)(&mut new);
        if part != Part::All {
            causes.extend(new_finalizers(&old, &new));
            causes.extend(resource.validate(&new));
            if part == Part::Main {
                causes.extend((resource.validate_update)(&old, &new));
            }
            Refusal::if_invalid(resource.group, resource.kind, &key.1, &causes)?;
        }
        if new == *old {
            return Ok(old);
        }
        // To give a pod its node is not to want another pod.
        let is_bound = old.pointer("/spec/nodeName") != new.pointer("/spec/nodeName");
        if resource.counts_generations && !is_bound && new.get("spec") != old.get("spec") {
            next_generation(&mut new);
        }
        let no_grace = old["metadata"]["deletionGracePeriodSeconds"] == 0;
        if no_grace && !has_finalizers(&new) {
            self.vanish(kind, key, now);
            return Ok(Arc::new(new));
        }
        self.put(kind, key.clone(), new)
    }
}

pub(super) fn has_finalizers(object: &Value) -> bool {
    finalizers(object).next().is_some()
}

fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Counts one more change of what is wanted.
pub(super) fn next_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_u64().unwrap_or_default();
    metadata(object).insert("generation".to_owned(), (generation + 1).into());
}

/// What a client changes though nobody may.
fn forged(old: &Value, new: &Value) -> Vec<Cause> {
    let changed = FIXED.iter().filter(|field| **field != "generateName").filter_map(|field| {
        let value = new["metadata"].get(*field)?;
        let is_changed = old["metadata"].get(*field) != Some(value);
        is_changed.then(|| Cause::invalid(format!("metadata.{field}"), value.clone(), "field is immutable"))
    });
    changed.collect()
}

fn new_finalizers(old: &Value, new: &Value) -> Option<Cause> {
    old["metadata"].get("deletionTimestamp")?;
    let added: Vec<String> = finalizers(new)
        .filter(|name| !finalizers(old).any(|known| known == *name))
        .map(|name| format!("{name:?}"))
        .collect();
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    (!added.is_empty()).then(|| Cause::forbidden("metadata.finalizers", &detail))
}

fn keep_fixed(old: &Value, new: &mut Value) {
    let fields = metadata(new);
    fields.remove("managedFields");
    fields.remove("selfLink");
    for field in FIXED.iter().chain(&["resourceVersion", "generation"]) {
        match old["metadata"].get(*field) {
            Some(value) => fields.insert((*field).to_owned(), value.clone()),
            None => fields.remove(*field),
        };
    }
    drop_empty(fields);
    new["apiVersion"] = old["apiVersion"].clone();
    new["kind"] = old["kind"].clone();
}

/// An empty list is the same as none.
pub(super) fn drop_empty(metadata: &mut serde_json::Map<String, Value>) {
    for field in ["finalizers", "labels", "annotations", "ownerReferences"] {
        if metadata.get(field).is_some_and(|value| *value == json!([]) || *value == json!({})) {
            metadata.remove(field);
        }
    }
}

fn keep_part(part: Part, old: &Value, new: &mut Value) {
    let keep = |fields: &mut serde_json::Map<String, Value>, from: &Value, field: &str| {
        match from.get(field) {
            Some(value) => fields.insert(field.to_owned(), value.clone()),
            None => fields.remove(field),
        };
    };
    match part {
        Part::Main => keep(section_of_all(new), old, "status"),
        Part::Status => {
            keep(section_of_all(new), old, "spec");
            keep(section(new, "metadata"), &old["metadata"], "ownerReferences");
        }
        Part::All => {}
    }
}

fn section_of_all(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    object.as_object_mut().expect("its metadata has just been put in place")
}
