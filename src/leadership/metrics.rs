//! What leading tells an operator.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// 1 while this process leads.
    pub leading: Gauge,
    /// The Lease was won or lost.
    pub changes: Counter,
    /// Looks at the Lease, or renewals, that failed.
    pub failures: Counter,
    /// Events of another monitor that were taken over.
    pub adopted: Counter,
    /// Messages of another monitor that cannot be read as events.
    pub unreadable: Counter,
}

impl Metrics {
    /// Puts all of them under `podherald_leadership_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("podherald_leadership");
        registry.register("leading", "1 while this process leads", self.leading.clone());
        registry.register("changes", "Times the Lease was won or lost", self.changes.clone());
        registry.register("failures", "Failed looks at the Lease or renewals", self.failures.clone());
        registry.register("adopted_events", "Events of another monitor that were taken over", self.adopted.clone());
        registry.register(
            "unreadable_messages",
            "Messages of another monitor that cannot be read as events",
            self.unreadable.clone(),
        );
    }
}
