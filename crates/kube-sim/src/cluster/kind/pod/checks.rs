//! What is wrong with a pod, in the API server's words and order.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::super::{
        Cause, items,
        names::{LABEL_RULE, is_label},
        text,
    },
    quantities,
};
use crate::quantity;

const POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["File", "FallbackToLogsOnError"];
const VARIABLE_RULE: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const DEADLINE_RULE: &str = "must be between 1 and 2147483647, inclusive";
const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
     `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn check(pod: &Value) -> Vec<Cause> {
    check_spec(&pod["spec"], "spec")
}

/// Of a pod, or of a template of one.
pub(in super::super) fn check_spec(spec: &Value, at: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let volumes = check_volumes(spec, at, &mut causes);
    if items(&spec["containers"]).is_empty() {
        causes.push(Cause::required(format!("{at}.containers"), ""));
    }
    let mut names = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        for (index, container) in items(&spec[list]).iter().enumerate() {
            check_container(&format!("{at}.{list}[{index}]"), container, &volumes, &mut names, &mut causes);
        }
    }
    let policy = text(spec, "/restartPolicy");
    if !POLICIES.contains(&policy) {
        causes.push(Cause::unsupported(format!("{at}.restartPolicy"), policy, &POLICIES));
    }
    if let Some(deadline) = spec["activeDeadlineSeconds"].as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&deadline)
    {
        causes.push(Cause::invalid(format!("{at}.activeDeadlineSeconds"), deadline, DEADLINE_RULE));
    }
    causes
}

fn check_volumes<'a>(spec: &'a Value, at: &str, causes: &mut Vec<Cause>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in items(&spec["volumes"]).iter().enumerate() {
        let at = format!("{at}.volumes[{index}]");
        check_name(&format!("{at}.name"), text(volume, "/name"), &mut names, causes);
        if quantity::parse(&volume["emptyDir"]["sizeLimit"]).is_some_and(|size| size < 0.) {
            let detail = "SizeLimit field must be a valid resource quantity";
            causes.push(Cause::forbidden(format!("{at}.emptyDir.sizeLimit"), detail));
        }
        for source in sources(volume).skip(1) {
            causes.push(Cause::forbidden(format!("{at}.{source}"), "may not specify more than 1 volume type"));
        }
        if volume.get("configMap").is_some_and(|map| text(map, "/name").is_empty()) {
            causes.push(Cause::required(format!("{at}.configMap.name"), ""));
        }
    }
    names
}

/// Where a volume's content comes from; the API server looks for an `emptyDir` first.
fn sources(volume: &Value) -> impl Iterator<Item = &str> {
    let mut sources: Vec<&str> = volume
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .filter(|name| *name != "name")
        .collect();
    sources.sort_by_key(|name| *name != "emptyDir");
    sources.into_iter()
}

fn check_container<'a>(
    at: &str,
    container: &'a Value,
    volumes: &BTreeSet<&str>,
    names: &mut BTreeSet<&'a str>,
    causes: &mut Vec<Cause>,
) {
    if text(container, "/image").is_empty() {
        causes.push(Cause::required(format!("{at}.image"), ""));
    }
    for (index, variable) in items(&container["env"]).iter().enumerate() {
        let at = format!("{at}.env[{index}].name");
        match text(variable, "/name") {
            "" => causes.push(Cause::required(at, "")),
            name if !name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') => {
                causes.push(Cause::invalid(at, name, VARIABLE_RULE));
            }
            _ => {}
        }
    }
    let mut paths = BTreeSet::new();
    for (index, mount) in items(&container["volumeMounts"]).iter().enumerate() {
        let at = format!("{at}.volumeMounts[{index}]");
        match text(mount, "/name") {
            "" => causes.push(Cause::required(format!("{at}.name"), "")),
            name if !volumes.contains(name) => causes.push(Cause::not_found(format!("{at}.name"), name)),
            _ => {}
        }
        match text(mount, "/mountPath") {
            "" => causes.push(Cause::required(format!("{at}.mountPath"), "")),
            path if !paths.insert(path) => {
                causes.push(Cause::invalid(format!("{at}.mountPath"), path, "must be unique"));
            }
            _ => {}
        }
    }
    for (field, known) in [("imagePullPolicy", &PULL_POLICIES[..]), ("terminationMessagePolicy", &MESSAGE_POLICIES)] {
        let policy = text(container, &format!("/{field}"));
        if !known.contains(&policy) {
            causes.push(Cause::unsupported(format!("{at}.{field}"), policy, known));
        }
    }
    quantities::check(at, &container["resources"], causes);
    check_name(&format!("{at}.name"), text(container, "/name"), names, causes);
}

fn check_name<'a>(at: &str, name: &'a str, names: &mut BTreeSet<&'a str>, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required(at, ""));
    } else if !is_label(name) {
        causes.push(Cause::invalid(at, name, LABEL_RULE));
    } else if !names.insert(name) {
        causes.push(Cause::duplicate(at, name));
    }
}

pub(super) fn check_update(old: &Value, new: &Value) -> Vec<Cause> {
    let (before, after) = (&old["spec"], &new["spec"]);
    for list in ["containers", "initContainers"] {
        if items(&before[list]).len() != items(&after[list]).len() {
            return vec![Cause::forbidden(format!("spec.{list}"), "pod updates may not add or remove containers")];
        }
    }
    let mut causes = Vec::new();
    if let Some(deadline) = before["activeDeadlineSeconds"].as_i64() {
        let field = "spec.activeDeadlineSeconds";
        match after["activeDeadlineSeconds"].as_i64() {
            Some(later) if later > deadline => {
                causes.push(Cause::invalid(field, later, "must be less than or equal to previous value"));
            }
            None => {
                causes.push(Cause::invalid(field, Value::Null, "must not update from a positive integer to nil value"));
            }
            Some(_) => {}
        }
    }
    // With all that may be changed put back, nothing may be left of the change.
    let mut frozen = after.clone();
    put_back(before, &mut frozen, "activeDeadlineSeconds");
    let tolerations = |spec: &Value| items(&spec["tolerations"]).to_vec();
    let kept = tolerations(after);
    if tolerations(before).iter().all(|toleration| kept.contains(toleration)) {
        put_back(before, &mut frozen, "tolerations");
    }
    for list in ["containers", "initContainers"] {
        let containers = frozen.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, before) in containers.zip(items(&before[list]).iter()) {
            put_back(before, container, "image");
        }
    }
    if frozen != *before {
        causes.push(Cause::forbidden("spec", FROZEN));
    }
    causes
}

fn put_back(before: &Value, after: &mut Value, field: &str) {
    let Some(fields) = after.as_object_mut() else { return };
    match before.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}
