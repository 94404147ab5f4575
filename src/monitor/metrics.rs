//! What the monitor counts.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::watcher::Freshness;

/// Label of a malformed field: a path from a fixed list, never a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FieldLabel {
    field: &'static str,
}

/// Label of a look for what is not heard of: what was found of its node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NodeLabel {
    node: &'static str,
}

/// The monitor's counters; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Complete lists taken by the watches.
    pub lists: Counter,
    /// Failed requests and `ERROR` frames of the watches.
    pub watch_failures: Counter,
    /// Watches started anew because they were silent or kept a bad version.
    pub watch_rebuilds: Counter,
    /// Looks at pods.
    pub observations: Counter,
    /// Fields that could not be read.
    pub malformed: Family<FieldLabel, Counter>,
    /// Frames without an identity, dropped.
    pub unidentified: Counter,
    /// Pods without an execution id, ignored.
    pub ignored: Counter,
    /// Pods that claim another namespace's execution.
    pub conflicts: Counter,
    /// Appends that failed and were tried again.
    pub append_retries: Counter,
    /// Reconciliations that listed everything.
    pub reconciles: Counter,
    /// Reconciliations that failed.
    pub reconcile_failures: Counter,
    /// Facts that a reconciliation brought and the watch had not.
    pub repairs: Counter,
    /// GETs that decided whether a pod is gone.
    pub resolutions: Counter,
    /// Such requests that failed and are tried again.
    pub resolution_failures: Counter,
    /// Looks for pods of which nothing was heard that should have been, by what was found of their node.
    pub unheard_looks: Family<NodeLabel, Counter>,
    /// Pods given up because nothing was heard of them.
    pub unheard_ends: Family<NodeLabel, Counter>,
    /// Attempts that the store knew as open and the journal did not.
    pub expected: Counter,
    /// Looks and answers older than what was known by then.
    pub outdated: Counter,
    /// Jobs whose pods are held back until it is known whether the Job is tracked.
    pub held: Gauge,
    /// Looks at held pods that were dropped for being too many.
    pub held_dropped: Counter,
    /// Pods and Jobs in the index.
    pub tracked: Gauge,
    /// Attempts whose output is being read.
    pub collecting: Gauge,
    /// Sightings waiting for the monitor.
    pub queued: Gauge,
    /// From a program's end, by its node's clock, to the durable event.
    pub told_seconds: Delay,
}

/// Seconds, from well below one to an hour.
#[derive(Debug, Clone)]
pub struct Delay(pub Histogram);

impl Default for Delay {
    fn default() -> Self {
        Self(Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0]))
    }
}

impl Metrics {
    /// Registers everything under `podherald_monitor_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("podherald_monitor");
        registry.register(
            "expected_attempts",
            "Attempts that the store knew as open and the journal did not",
            self.expected.clone(),
        );
        registry.register("lists", "Complete lists taken by the watches", self.lists.clone());
        registry.register("watch_failures", "Failed watch and list requests", self.watch_failures.clone());
        registry.register("watch_rebuilds", "Watches started anew", self.watch_rebuilds.clone());
        registry.register("observations", "Looks at pods and Jobs", self.observations.clone());
        registry.register("malformed_fields", "Fields of pods and Jobs that could not be read", self.malformed.clone());
        registry.register("unidentified_frames", "Frames without name, namespace or uid", self.unidentified.clone());
        registry.register("ignored_pods", "Pods and Jobs without an execution id", self.ignored.clone());
        registry.register(
            "conflicting_pods",
            "Pods and Jobs that claim another namespace's execution",
            self.conflicts.clone(),
        );
        registry.register("unknown_jobs", "Jobs of pods that are held back, not yet known", self.held.clone());
        registry.register("held_dropped", "Looks at held pods, too many to keep", self.held_dropped.clone());
        registry.register("append_retries", "Journal appends tried again", self.append_retries.clone());
        registry.register("reconciles", "Complete reconciliations", self.reconciles.clone());
        registry.register("reconcile_failures", "Reconciliations that failed", self.reconcile_failures.clone());
        registry.register("repairs", "Facts that only a reconciliation brought", self.repairs.clone());
        registry.register(
            "resolutions",
            "GETs and lists that decided whether a pod or Job is gone",
            self.resolutions.clone(),
        );
        registry.register("resolution_failures", "Such GETs that failed", self.resolution_failures.clone());
        registry.register(
            "unheard_looks",
            "Looks for pods of which nothing was heard that should have been, by what was found of their node",
            self.unheard_looks.clone(),
        );
        registry.register(
            "unheard_ends",
            "Pods that ended because nothing was heard of them, by what was found of their node",
            self.unheard_ends.clone(),
        );
        registry.register("outdated", "Looks and answers older than what was known by then", self.outdated.clone());
        registry.register("tracked_pods", "Pods and Jobs in the index", self.tracked.clone());
        registry.register("collecting", "Attempts whose output is being read", self.collecting.clone());
        registry.register(
            "told_seconds",
            "From a program's end, by its node's clock in whole seconds, to the durable event",
            self.told_seconds.0.clone(),
        );
        registry.register("queued_sightings", "Sightings waiting for the monitor", self.queued.clone());
    }

    /// Counts a look for a pod that is not heard of.
    pub fn count_unheard(&self, node: &'static str, has_ended: bool) {
        self.unheard_looks.get_or_create(&NodeLabel { node }).inc();
        if has_ended {
            self.unheard_ends.get_or_create(&NodeLabel { node }).inc();
        }
    }

    /// Counts the unreadable fields of one frame.
    pub fn count_malformed(&self, fields: &[&'static str]) {
        for field in fields {
            self.malformed.get_or_create(&FieldLabel { field }).inc();
        }
    }
}

/// The largest staleness of all watches, taken when asked.
#[derive(Debug)]
pub struct Staleness(pub Vec<Freshness>);

impl Collector for Staleness {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let seconds = self.0.iter().map(|watch| watch.staleness().as_secs_f64()).fold(0.0, f64::max);
        let gauge = ConstGauge::new(seconds);
        let metric = encoder.encode_descriptor(
            "podherald_monitor_watch_staleness_seconds",
            "Time since the most silent watch gave a sign of life",
            None,
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}
