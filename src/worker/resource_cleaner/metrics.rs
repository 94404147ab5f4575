//! What the cleaner tells an operator.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::plan::{Cause, Kind, Reason};

/// Objects of one kind, by why they go or stay.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Of {
    kind: &'static str,
    reason: &'static str,
}

/// Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    deleted: Family<Of, Counter>,
    planned: Family<Of, Counter>,
    kept: Family<Of, Gauge>,
    pub(super) conflicts: Counter,
    pub(super) failures: Counter,
    pub(super) sweeps: Counter,
}

impl Metrics {
    /// Puts all of them under `podherald_cleaner_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("podherald_cleaner");
        registry.register("deleted", "Objects that were deleted, by why", self.deleted.clone());
        registry.register("planned", "Times that cleaner.dry_run kept an object from it", self.planned.clone());
        registry.register("kept", "Marked objects that the last sweep left, by why", self.kept.clone());
        registry.register("conflicts", "Objects left alone because another had their name", self.conflicts.clone());
        registry.register("failures", "Objects that could not be deleted when it was time", self.failures.clone());
        registry.register("sweeps", "Sweeps that came to their end", self.sweeps.clone());
    }

    pub(super) fn deleted(&self, kind: Kind, cause: Cause) {
        self.deleted.get_or_create(&Of { kind: kind.as_str(), reason: cause.as_str() }).inc();
    }

    pub(super) fn planned(&self, kind: Kind, cause: Cause) {
        self.planned.get_or_create(&Of { kind: kind.as_str(), reason: cause.as_str() }).inc();
    }

    /// Of a whole sweep.
    pub(super) fn kept(&self, counts: &std::collections::HashMap<(&'static str, Reason), i64>) {
        self.kept.clear();
        for ((kind, reason), count) in counts {
            self.kept.get_or_create(&Of { kind, reason: reason.as_str() }).set(*count);
        }
    }
}
