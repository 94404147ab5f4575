//! `batch/v1` Job: kept and watched. There is no controller: whoever makes one also makes its pods and writes its status.

mod checks;

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use super::{
    super::json::{default, section},
    AGE, Column, NAME, PLAIN, Resource, pod, typed,
};

pub(super) const RESOURCE: Resource = Resource {
    kind: "Job",
    plural: "jobs",
    singular: "job",
    group: "batch",
    has_status: true,
    counts_generations: true,
    fields: &[("status.successful", "/status/succeeded")],
    columns: &[
        NAME,
        Column { name: "Status", sort: "string", priority: 0, cell: |job, _| status(job).into() },
        Column { name: "Completions", sort: "string", priority: 0, cell: |job, _| completions(job).into() },
        AGE,
    ],
    caveat: Some("the embedded cluster has no Job controller: nothing makes the pods of this Job or ends it"),
    fit: |job| {
        if let Some(spec) = job.pointer_mut("/spec/template/spec") {
            pod::read_quantities(spec, "spec.template.spec")?;
        }
        typed::fit::<Job>(job)
    },
    complete,
    begin: |job| job["status"] = json!({}),
    check: checks::check,
    validate_update: checks::check_update,
    ..PLAIN
};

fn complete(job: &mut Value) {
    let spec = section(job, "spec");
    // With a number of pods at once and none of completions, one pod's success is all pods'.
    if !spec.contains_key("parallelism") {
        default(spec, "completions", 1);
    }
    for (name, value) in [
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("template", json!({})),
    ] {
        default(spec, name, value);
    }
    pod::complete(&mut job["spec"]["template"]);
}

fn status(job: &Value) -> &'static str {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let is = |kind: &str| conditions.clone().any(|found| found["type"] == kind && found["status"] == "True");
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if job["spec"]["suspend"] == true {
        "Suspended"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let number = |pointer| job.pointer(pointer).and_then(Value::as_i64);
    let succeeded = number("/status/succeeded").unwrap_or_default();
    match (number("/spec/completions"), number("/spec/parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, Some(parallelism @ 2..)) => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}
