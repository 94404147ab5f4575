//! `coordination.k8s.io/v1` Lease.

use super::{super::text, AGE, Column, NAME, PLAIN, Resource, Shape};

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
    shape: &[("spec", Shape::Object), ("spec.leaseDurationSeconds", Shape::Integer)],
    ..PLAIN
};
