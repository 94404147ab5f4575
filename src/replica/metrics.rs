//! What a reader of other processes' events tells an operator.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Events that were taken over.
    pub adopted: Counter,
    /// Messages that cannot be read as events.
    pub unreadable: Counter,
    /// Events that wait for what their source had said before.
    pub waiting: Gauge,
    /// Those that were taken over without it.
    pub out_of_order: Counter,
    /// Executions that were fetched from the store.
    pub recalled: Counter,
    /// Tries to read the topics, or the store, that failed.
    pub failures: Counter,
}

impl Metrics {
    /// Puts all of them under `podherald_replica_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("podherald_replica");
        registry.register("events", "Events of other processes that were taken over", self.adopted.clone());
        registry.register("unreadable_messages", "Messages that cannot be read as events", self.unreadable.clone());
        registry.register("waiting_events", "Events that wait for what comes before them", self.waiting.clone());
        registry.register(
            "out_of_order_events",
            "Events that were shown although what comes before them had not come",
            self.out_of_order.clone(),
        );
        registry.register("recalled_executions", "Executions fetched from the store", self.recalled.clone());
        registry.register("failures", "Failed tries to read the topics or the store", self.failures.clone());
    }
}
