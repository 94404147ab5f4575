//! What is wrong with an object's metadata, whatever its kind.

use serde_json::Value;

use super::super::{
    Cause, is_label_key, is_label_value,
    names::{LABEL_RULE, MAX_LABEL, MAX_SUBDOMAIN, SUBDOMAIN_RULE, is_label, is_subdomain},
    text,
};

const KEY_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
     must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const FINALIZER_RULE: &str = "name is neither a standard finalizer name nor is it fully qualified";
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];
/// All annotations of an object together, names and values.
const MAX_ANNOTATIONS: usize = 256 << 10;

pub(super) fn check(object: &Value, name_is_label: bool) -> Vec<Cause> {
    let metadata = &object["metadata"];
    let mut causes = Vec::new();
    causes.extend(check_name(text(metadata, "/name"), name_is_label));
    check_labels(metadata, &mut causes);
    check_annotations(metadata, &mut causes);
    for (index, name) in list(metadata, "finalizers").enumerate() {
        let name = name.as_str().unwrap_or_default();
        let is_qualified = name.contains('/') && is_label_key(name);
        if !is_qualified && !STANDARD_FINALIZERS.contains(&name) {
            causes.push(Cause::invalid(format!("metadata.finalizers[{index}]"), name, FINALIZER_RULE));
        }
    }
    for owner in list(metadata, "ownerReferences") {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{field}")).is_empty() {
                let what = if field == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                causes.push(Cause::invalid(format!("metadata.ownerReferences.{field}"), "", what));
            }
        }
    }
    causes
}

fn check_name(name: &str, is_to_be_label: bool) -> Option<Cause> {
    let (is_right, rule, longest) = match is_to_be_label {
        true => (is_label(name), LABEL_RULE, MAX_LABEL),
        false => (is_subdomain(name), SUBDOMAIN_RULE, MAX_SUBDOMAIN),
    };
    let rule = if name.len() > longest { &too_long(longest) } else { rule };
    (!name.is_empty() && !is_right).then(|| Cause::invalid("metadata.name", name, rule))
}

fn too_long(longest: usize) -> String {
    format!("must be no more than {longest} characters")
}

/// Labels that nobody could select by.
fn check_labels(metadata: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in fields(metadata, "labels") {
        let value = value.as_str().unwrap_or_default();
        if !is_label_key(key) {
            causes.push(Cause::invalid("metadata.labels", key.as_str(), KEY_RULE));
        }
        if !is_label_value(value) {
            let rule = if value.len() > MAX_LABEL { &too_long(MAX_LABEL) } else { VALUE_RULE };
            causes.push(Cause::invalid("metadata.labels", value, rule));
        }
    }
}

fn check_annotations(metadata: &Value, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for (key, value) in fields(metadata, "annotations") {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        if !is_label_key(&key.to_ascii_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", key.as_str(), KEY_RULE));
        }
    }
    if bytes > MAX_ANNOTATIONS {
        causes.push(Cause::too_long("metadata.annotations", MAX_ANNOTATIONS));
    }
}

fn fields<'a>(metadata: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    metadata[name].as_object().into_iter().flatten()
}

fn list<'a>(metadata: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    metadata[name].as_array().into_iter().flatten()
}
