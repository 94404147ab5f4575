//! What the API server fills into a pod, and what it does not take.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    Refusal,
    json::{self, default, text},
    names::{self, LABEL_RULE},
    refusal::Cause,
};

/// Fills in what readers depend on.
pub(super) fn fill_in(pod: &mut Value) {
    let spec = json::section(pod, "spec");
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "serviceAccountName", "default");
    default(spec, "enableServiceLinks", true);
    default(spec, "priority", 0);
    default(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            default(container, "terminationMessagePath", "/dev/termination-log");
            default(container, "terminationMessagePolicy", "File");
            default(container, "resources", json!({}));
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let is_fixed =
                image.rsplit('/').next().is_some_and(|name| name.contains(':') && !name.ends_with(":latest"));
            default(container, "imagePullPolicy", if is_fixed { "IfNotPresent" } else { "Always" });
        }
    }
    pod["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
}

/// Everything that is wrong with a new pod.
pub(super) fn problems(pod: &Value) -> Vec<Cause> {
    let spec = &pod["spec"];
    let mut causes = Vec::new();
    let volumes = volumes(spec, &mut causes);
    let mut seen = BTreeSet::new();
    for (list, is_required) in [("initContainers", false), ("containers", true)] {
        let field = format!("spec.{list}");
        let containers = items(&spec[list]);
        if containers.is_empty() && is_required {
            causes.push(Cause::required(field.clone(), ""));
        }
        for (index, container) in containers.iter().enumerate() {
            container_problems(&format!("{field}[{index}]"), container, &volumes, &mut seen, &mut causes);
        }
    }
    let policy = text(spec, "/restartPolicy");
    if !["Always", "OnFailure", "Never"].contains(&policy) {
        causes.push(Cause::unsupported("spec.restartPolicy", policy, &["Always", "OnFailure", "Never"]));
    }
    if let Some(seconds) = spec["activeDeadlineSeconds"].as_i64()
        && seconds < 1
    {
        let range = "must be between 1 and 2147483647, inclusive";
        causes.push(Cause::invalid("spec.activeDeadlineSeconds", seconds, range));
    }
    if let Some(seconds) = spec["terminationGracePeriodSeconds"].as_i64()
        && seconds < 0
    {
        let rule = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.terminationGracePeriodSeconds", seconds, rule));
    }
    causes
}

fn volumes<'a>(spec: &'a Value, causes: &mut Vec<Cause>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in items(&spec["volumes"]).iter().enumerate() {
        let name = text(volume, "/name");
        let field = format!("spec.volumes[{index}].name");
        if name.is_empty() {
            causes.push(Cause::required(field, ""));
        } else if !names.insert(name) {
            causes.push(Cause::duplicate(field, name));
        }
    }
    names
}

fn container_problems<'a>(
    field: &str,
    container: &'a Value,
    volumes: &BTreeSet<&str>,
    seen: &mut BTreeSet<&'a str>,
    causes: &mut Vec<Cause>,
) {
    let name = text(container, "/name");
    if name.is_empty() {
        causes.push(Cause::required(format!("{field}.name"), ""));
    } else if !names::is_label(name) {
        causes.push(Cause::invalid(format!("{field}.name"), name, LABEL_RULE));
    } else if !seen.insert(name) {
        causes.push(Cause::duplicate(format!("{field}.name"), name));
    }
    if text(container, "/image").is_empty() {
        causes.push(Cause::required(format!("{field}.image"), ""));
    }
    for (index, mount) in items(&container["volumeMounts"]).iter().enumerate() {
        let volume = text(mount, "/name");
        if !volumes.contains(volume) {
            causes.push(Cause::not_found(format!("{field}.volumeMounts[{index}].name"), volume));
        }
        if text(mount, "/mountPath").is_empty() {
            causes.push(Cause::required(format!("{field}.volumeMounts[{index}].mountPath"), ""));
        }
    }
}

/// Of a pod's spec next to nothing can change.
pub(super) fn check_update(old: &Value, new: &Value) -> Result<(), Refusal> {
    let (old_spec, mut new_spec) = (&old["spec"], new["spec"].clone());
    let mut causes = problems(new);
    for name in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"] {
        copy(old_spec, &mut new_spec, name);
    }
    for list in ["initContainers", "containers"] {
        let (old, new) = (items(&old_spec[list]), new_spec[list].as_array_mut());
        for (old, new) in old.iter().zip(new.into_iter().flatten()) {
            copy(old, new, "image");
        }
    }
    if *old_spec != new_spec {
        let rule = "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        causes.push(Cause::forbidden("spec", rule));
    }
    Refusal::if_invalid("", "Pod", text(old, "/metadata/name"), &causes)
}

fn copy(from: &Value, to: &mut Value, name: &str) {
    let Some(fields) = to.as_object_mut() else { return };
    match from.get(name) {
        Some(value) => fields.insert(name.to_owned(), value.clone()),
        None => fields.remove(name),
    };
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}
