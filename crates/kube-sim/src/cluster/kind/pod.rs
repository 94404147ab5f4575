//! `v1` Pod.

mod checks;
mod columns;
mod quantities;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

pub(super) use self::{checks::check_spec, quantities::read as read_quantities};
use super::{
    super::json::{default, section},
    super::text,
    PLAIN, Resource, typed,
};

const GRACE: i64 = 30;

pub(super) const RESOURCE: Resource = Resource {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    has_status: true,
    counts_generations: true,
    returns_deleted: true,
    fields: &[
        ("spec.nodeName", "/spec/nodeName"),
        ("spec.restartPolicy", "/spec/restartPolicy"),
        ("spec.schedulerName", "/spec/schedulerName"),
        ("spec.serviceAccountName", "/spec/serviceAccountName"),
        ("spec.hostNetwork", "/spec/hostNetwork"),
        ("status.phase", "/status/phase"),
        ("status.podIP", "/status/podIP"),
        ("status.nominatedNodeName", "/status/nominatedNodeName"),
    ],
    columns: columns::COLUMNS,
    fit: |pod| {
        if let Some(spec) = pod.get_mut("spec") {
            quantities::read(spec, "spec")?;
        }
        typed::fit::<Pod>(pod)
    },
    complete,
    begin: |pod| {
        let class = quality(pod);
        pod["status"] = json!({"phase": "Pending", "qosClass": class});
    },
    check: checks::check,
    validate_update: checks::check_update,
    grace,
    ..PLAIN
};

/// Fills in a pod, or a template of one.
pub(super) fn complete(pod: &mut Value) {
    let spec = section(pod, "spec");
    for (name, value) in [
        ("restartPolicy", "Always".into()),
        ("terminationGracePeriodSeconds", GRACE.into()),
        ("dnsPolicy", "ClusterFirst".into()),
        ("schedulerName", "default-scheduler".into()),
        ("securityContext", json!({})),
        ("enableServiceLinks", true.into()),
    ] {
        default(spec, name, value);
    }
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|grace| grace < 0) {
        spec.insert("terminationGracePeriodSeconds".to_owned(), 1.into());
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
            let is_moving =
                image.rsplit('/').next().is_none_or(|name| !name.contains([':', '@']) || name.ends_with(":latest"));
            default(container, "imagePullPolicy", if is_moving { "Always" } else { "IfNotPresent" });
            default(container, "resources", json!({}));
            default(container, "terminationMessagePath", "/dev/termination-log");
            default(container, "terminationMessagePolicy", "File");
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(source) = volume.get_mut("configMap").and_then(Value::as_object_mut) {
            default(source, "defaultMode", 0o644);
        }
    }
}

/// `qosClass`: whether what the containers may use is what they are promised.
fn quality(pod: &Value) -> &'static str {
    let containers = || {
        let lists = ["/spec/containers", "/spec/initContainers"];
        lists.into_iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten()
    };
    let amount = |container: &Value, side: &str, what: &str| container["resources"][side].get(what).cloned();
    let names = ["cpu", "memory"];
    let asks = |container: &Value| {
        names.iter().any(|what| ["limits", "requests"].iter().any(|side| amount(container, side, what).is_some()))
    };
    let is_promised = |container: &Value| {
        names.iter().all(|what| {
            let limit = amount(container, "limits", what);
            limit.is_some() && amount(container, "requests", what).is_none_or(|asked| Some(asked) == limit)
        })
    };
    if !containers().any(asks) {
        "BestEffort"
    } else if containers().all(is_promised) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Nobody has to be waited for where nothing runs.
fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    if text(pod, "/spec/nodeName").is_empty() || matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return 0;
    }
    let own = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(GRACE);
    match asked.unwrap_or(own) {
        ..0 => 1,
        seconds => seconds,
    }
}
