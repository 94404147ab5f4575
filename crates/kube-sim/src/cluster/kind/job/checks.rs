//! What is wrong with a Job, in the API server's words and order.

use serde_json::{Value, json};

use super::super::{
    super::{Cause, text},
    pod,
};

const AT_LEAST_NONE: [&str; 7] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
];
const MODES: [&str; 2] = ["NonIndexed", "Indexed"];
const POLICIES: [&str; 2] = ["OnFailure", "Never"];
const IMMUTABLE: [&str; 6] =
    ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
/// What says where pods go: it may still change before the first one is made.
const SCHEDULING: [(&str, &[&str]); 3] = [
    ("/metadata", &["labels", "annotations"]),
    ("/spec", &["nodeSelector", "tolerations", "schedulingGates"]),
    ("/spec/affinity", &["nodeAffinity"]),
];

pub(super) fn check(job: &Value) -> Vec<Cause> {
    let spec = &job["spec"];
    let number = |field: &str| spec[field].as_i64();
    let mut causes = Vec::new();
    for field in AT_LEAST_NONE {
        if let Some(number) = number(field).filter(|number| *number < 0) {
            causes.push(Cause::invalid(format!("spec.{field}"), number, "must be greater than or equal to 0"));
        }
    }
    let mode = text(spec, "/completionMode");
    if !MODES.contains(&mode) {
        causes.push(Cause::unsupported("spec.completionMode", mode, &MODES));
    }
    if mode == "Indexed" && number("completions").is_none() {
        causes.push(Cause::required("spec.completions", "when completion mode is Indexed"));
    }
    causes.extend(pod::check_spec(&spec["template"]["spec"], "spec.template.spec"));
    let field = "spec.template.spec.restartPolicy";
    match text(spec, "/template/spec/restartPolicy") {
        // One that is not given is Always by now.
        "" | "Always" => causes.push(Cause::required(field, "valid values: \"OnFailure\", \"Never\"")),
        policy if !POLICIES.contains(&policy) => causes.push(Cause::unsupported(field, policy, &POLICIES)),
        _ => {}
    }
    causes
}

pub(super) fn check_update(old: &Value, new: &Value) -> Vec<Cause> {
    let (before, after) = (&old["spec"], &new["spec"]);
    let mut causes = Vec::new();
    let mut immutable = |field: &str, is_kept: bool| {
        if !is_kept {
            causes.push(Cause::invalid(format!("spec.{field}"), after[field].clone(), "field is immutable"));
        }
    };
    let is_kept = |field: &str| before.get(field) == after.get(field);
    // An indexed Job may grow and shrink.
    immutable("completions", is_kept("completions") || before["completionMode"] == "Indexed");
    let may_move = before["suspend"] == true && old["status"].get("startTime").is_none();
    let template = |spec: &Value| match may_move {
        true => without_scheduling(&spec["template"]),
        false => spec["template"].clone(),
    };
    immutable("template", template(before) == template(after));
    for field in IMMUTABLE {
        immutable(field, is_kept(field));
    }
    causes
}

fn without_scheduling(template: &Value) -> Value {
    let mut rest = template.clone();
    for (section, fields) in SCHEDULING {
        let Some(section) = rest.pointer_mut(section).and_then(Value::as_object_mut) else { continue };
        for field in fields {
            section.remove(*field);
        }
    }
    // A section with nothing but that is the same as none.
    for section in ["/spec", ""] {
        let Some(section) = rest.pointer_mut(section).and_then(Value::as_object_mut) else { continue };
        section.retain(|_, value| *value != json!({}));
    }
    rest
}
