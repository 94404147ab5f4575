//! `batch/v1` Job: kept and watched. There is no controller: whoever makes one also makes its pods and writes its status.

use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use super::{
    super::json::{default, section},
    AGE, Column, NAME, PLAIN, Resource, typed,
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
    fit: typed::fit::<Job>,
    complete: |job| {
        let spec = section(job, "spec");
        for (name, value) in [
            ("completions", json!(1)),
            ("parallelism", json!(1)),
            ("backoffLimit", json!(6)),
            ("completionMode", json!("NonIndexed")),
            ("suspend", json!(false)),
        ] {
            default(spec, name, value);
        }
    },
    begin: |job| job["status"] = json!({}),
    ..PLAIN
};

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
    let number = |pointer| job.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    format!("{}/{}", number("/status/succeeded"), number("/spec/completions"))
}
