//! What the journal counts.

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The journal's own numbers; clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(super) events: Counter,
    pub(super) group_size: Histogram,
    pub(super) commit_seconds: Histogram,
    pub(super) regrouped: Counter,
    pub(super) failures: Counter,
    pub(super) pruned: Counter,
    pub(super) pruned_dead_letters: Counter,
    pub(super) used_bytes: Gauge,
    pub(super) queued: Gauge,
    pub(super) wal_pages: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            events: Counter::default(),
            group_size: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            commit_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            regrouped: Counter::default(),
            failures: Counter::default(),
            pruned: Counter::default(),
            pruned_dead_letters: Counter::default(),
            used_bytes: Gauge::default(),
            queued: Gauge::default(),
            wal_pages: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes them part of `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("podherald_journal");
        registry.register("events", "Events made durable", self.events.clone());
        registry.register("commit_appends", "Appends that shared a commit", self.group_size.clone());
        registry.register_with_unit(
            "commit_duration",
            "Time from the begin of a transaction until it was on disk",
            Unit::Seconds,
            self.commit_seconds.clone(),
        );
        registry.register(
            "regrouped_commits",
            "Commits that failed and were tried append by append",
            self.regrouped.clone(),
        );
        registry.register("append_failures", "Appends that failed", self.failures.clone());
        registry.register("pruned_executions", "Executions that retention took", self.pruned.clone());
        registry.register("pruned_dead_letters", "Dead letters that retention took", self.pruned_dead_letters.clone());
        registry.register_with_unit("used", "Bytes of the file in use", Unit::Bytes, self.used_bytes.clone());
        registry.register("queued_appends", "Appends waiting for the writer", self.queued.clone());
        registry.register("wal_pages", "Pages in the write-ahead log", self.wal_pages.clone());
    }
}
