//! `coordination.k8s.io/v1` Lease.

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::Value;

use super::{super::text, AGE, Cause, Column, NAME, PLAIN, Resource, typed};

pub(super) const RESOURCE: Resource = Resource {
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    group: "coordination.k8s.io",
    columns: &[
        NAME,
        Column {
            name: "Holder",
            sort: "string",
            priority: 0,
            cell: |lease, _| text(lease, "/spec/holderIdentity").into(),
        },
        AGE,
    ],
    creates_on_update: true,
    needs_version: true,
    fit: typed::fit::<Lease>,
    check,
    ..PLAIN
};

fn check(lease: &Value) -> Vec<Cause> {
    let least = [
        ("leaseDurationSeconds", 1, "must be greater than 0"),
        ("leaseTransitions", 0, "must be greater than or equal to 0"),
    ];
    let wrong = least.into_iter().filter_map(|(field, least, rule)| {
        let value = lease["spec"][field].as_i64().filter(|value| *value < least)?;
        Some(Cause::invalid(format!("spec.{field}"), value, rule))
    });
    wrong.collect()
}
