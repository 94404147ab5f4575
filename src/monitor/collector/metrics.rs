//! What collecting tells an operator.

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::reading::Kind;

type ByReason = Family<Vec<(&'static str, &'static str)>, Counter>;

/// Counters of the collector; a clone counts the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    retries: ByReason,
    lost: ByReason,
    pub(super) partial: Counter,
    pub(super) truncated: Counter,
    pub(super) not_stored: Counter,
    pub(super) not_discarded: Counter,
    pub(super) no_blob: Counter,
    pub(super) indexes_left_out: Counter,
    pub(super) seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            retries: ByReason::default(),
            lost: ByReason::default(),
            partial: Counter::default(),
            truncated: Counter::default(),
            not_stored: Counter::default(),
            not_discarded: Counter::default(),
            no_blob: Counter::default(),
            indexes_left_out: Counter::default(),
            // 0.5 ms to 33 s: from a small log at hand to one that never came.
            seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 17)),
        }
    }
}

impl Metrics {
    /// Makes them known under `podherald_logs_...`.
    pub fn register(&self, registry: &mut Registry) {
        let logs = registry.sub_registry_with_prefix("podherald_logs");
        logs.register("retries", "Reads of a log that were tried again, by reason", self.retries.clone());
        logs.register("lost", "Logs of which nothing could be read, by reason", self.lost.clone());
        logs.register("partial", "Logs of which a part could not be read", self.partial.clone());
        logs.register("truncated", "Outputs larger than logs.max_bytes", self.truncated.clone());
        logs.register("not_stored", "Outputs that could not be written to the disk", self.not_stored.clone());
        logs.register("no_blob", "Outputs that no blob was made of, for the disk has failed", self.no_blob.clone());
        logs.register("not_discarded", "Outputs that do not matter any more and stay", self.not_discarded.clone());
        logs.register(
            "indexes_left_out",
            "Completed indexes of Jobs beyond logs.max_indexes, whose output is not kept",
            self.indexes_left_out.clone(),
        );
        logs.register("collect_seconds", "From the decision to the durable output", self.seconds.clone());
    }

    pub(super) fn retry(&self, kind: Kind) {
        self.retries.get_or_create(&vec![("reason", kind.as_str())]).inc();
    }

    pub(super) fn lost(&self, kind: Kind) {
        self.lost.get_or_create(&vec![("reason", kind.as_str())]).inc();
    }
}

#[cfg(test)]
impl Metrics {
    /// The text of `/metrics`.
    pub(super) fn text(&self) -> String {
        let mut registry = Registry::default();
        self.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes everything");
        text
    }
}
