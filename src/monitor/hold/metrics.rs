//! What the holder counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use super::patch::Done;

/// Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Finalizers put on.
    pub held: Counter,
    /// Finalizers taken off.
    pub released: Counter,
    /// Patches whose test failed, so that the pod was read again.
    pub retries: Counter,
    /// Requests that failed, and are made again.
    pub failures: Counter,
    /// What was left to the next sweep, for there was too much.
    pub dropped: Counter,
    /// Pods let go though nobody has proven to have their end.
    pub result_unproven: Counter,
    /// Pods at work, or waiting for a sink.
    pub pending: Gauge,
}

impl Metrics {
    /// Registers everything under `podherald_hold_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("podherald_hold");
        registry.register("held", "Finalizers put on pods", self.held.clone());
        registry.register("released", "Finalizers taken off pods", self.released.clone());
        registry.register("retries", "Patches that somebody was faster than", self.retries.clone());
        registry.register("failures", "Requests about held pods that failed", self.failures.clone());
        registry.register("dropped", "Held pods left to the next sweep", self.dropped.clone());
        registry.register(
            "result_unproven",
            "Pods let go after monitor.hold_ceiling, without proof that their end was taken over",
            self.result_unproven.clone(),
        );
        registry.register("pending", "Pods to be held or let go", self.pending.clone());
    }

    pub(super) fn count(&self, done: Done) {
        match done {
            Done::Held => self.held.inc(),
            Done::Released => self.released.inc(),
            Done::Nothing | Done::Gone => 0,
        };
    }
}
