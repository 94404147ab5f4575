//! What a change may change.

use serde_json::{Map, Value};

use super::{
    Kind, Refusal,
    json::{self, text},
    pod,
};

/// Which part of an object a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything, as the control plane does.
    All,
    /// Everything but the status, where that is a subresource.
    Main,
    /// Nothing but the status.
    Status,
}

/// Fields of the metadata that only the API server writes.
const OWN: [&str; 6] =
    ["uid", "name", "namespace", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

/// The object as it will be: `new` as far as a request for `part` may have it, `old` for the rest.
pub(super) fn allowed(kind: Kind, part: Part, old: &Value, mut new: Value) -> Result<Value, Refusal> {
    let name = text(old, "/metadata/name");
    let wanted = text(&new, "/metadata/resourceVersion");
    if !wanted.is_empty() && wanted != text(old, "/metadata/resourceVersion") {
        return Err(Refusal::modified(kind, name));
    }
    if part == Part::Status {
        let mut kept = old.clone();
        kept["status"] = new["status"].take();
        return Ok(kept);
    }
    let own = if part == Part::All { &OWN[..4] } else { &OWN[..] };
    let metadata = json::metadata(&mut new);
    restore(metadata, &old["metadata"], own);
    metadata.remove("managedFields");
    if part == Part::Main {
        let resource = kind.resource();
        new["apiVersion"] = old["apiVersion"].clone();
        new["kind"] = old["kind"].clone();
        if resource.has_status
            && let Some(fields) = new.as_object_mut()
        {
            restore(fields, old, &["status"]);
        }
        if kind == Kind::Pod {
            pod::check_update(old, &new)?;
        }
    }
    Ok(new)
}

fn restore(fields: &mut Map<String, Value>, old: &Value, names: &[&str]) {
    for name in names {
        match old.get(name) {
            Some(value) => fields.insert((*name).to_owned(), value.clone()),
            None => fields.remove(*name),
        };
    }
}
