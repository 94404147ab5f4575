//! What the roles tell an operator.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podherald_core::event::Terminal;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

/// One role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRole {
    role: &'static str,
}

/// One way to end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStatus {
    status: &'static str,
}

/// One kind of error.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfError {
    error_type: String,
}

/// Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    retries: Family<OfRole, Counter>,
    results: Family<OfStatus, Counter>,
    failed: Counter,
    errors: Family<OfError, Counter>,
    duration: Histogram,
    peak_memory: Histogram,
    stored: Histogram,
    /// Why a role waits, while it does.
    trouble: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            retries: Family::default(),
            results: Family::default(),
            failed: Counter::default(),
            errors: Family::default(),
            duration: Histogram::new([0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0]),
            peak_memory: Histogram::new((20..=36).step_by(2).map(|power| f64::from(power).exp2())),
            stored: Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0]),
            trouble: Arc::default(),
        }
    }
}

impl Metrics {
    /// Puts all of them under `podherald_worker_*` and `podherald_results_*`.
    pub fn register(&self, registry: &mut Registry) {
        let workers = registry.sub_registry_with_prefix("podherald_worker");
        workers.register("retries", "Tries that failed since what the role needs was away", self.retries.clone());
        let results = registry.sub_registry_with_prefix("podherald_results");
        results.register("stored", "Results stored for the first time, by how the attempt ended", self.results.clone());
        results.register(
            "failed",
            "Results that cannot be kept, whose events are in the dead letters",
            self.failed.clone(),
        );
        results.register("errors", "Of those, that ended with an error, by its type", self.errors.clone());
        results.register("duration_seconds", "How long programs ran, by their own report", self.duration.clone());
        results.register(
            "stored_seconds",
            "From a program's end, by its node's clock in whole seconds, to result_stored",
            self.stored.clone(),
        );
        results.register("peak_memory_bytes", "The most memory that they had", self.peak_memory.clone());
    }

    /// What a role waits for, if it does.
    pub fn trouble(&self, role: &str) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).get(role).cloned()
    }

    pub(super) fn done(&self, role: &'static str) {
        if self.trouble.lock().unwrap_or_else(PoisonError::into_inner).remove(role).is_some() {
            tracing::info!(role, "the role goes on");
        }
    }

    pub(super) fn waits(&self, role: &'static str, reason: &str) {
        self.retries.get_or_create(&OfRole { role }).inc();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.insert(role, reason.to_owned()).as_deref() != Some(reason) {
            tracing::warn!(role, reason, "the role waits, and tries again until it can go on");
        }
    }

    pub(super) fn told(&self, since: Duration) {
        self.stored.observe(since.as_secs_f64());
    }

    pub(super) fn failed(&self) {
        self.failed.inc();
    }

    pub(super) fn stored(&self, status: &'static str, terminal: &Terminal) {
        self.results.get_or_create(&OfStatus { status }).inc();
        if let Some(error_type) = terminal.error_type {
            let error_type = serde_json::to_value(error_type).ok();
            let error_type = error_type.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
            self.errors.get_or_create(&OfError { error_type }).inc();
        }
        let usage = terminal.resource_usage.as_ref();
        if let Some(seconds) = usage.and_then(|usage| usage.execution_time_wall_seconds) {
            self.duration.observe(seconds);
        }
        if let Some(kib) = usage.and_then(|usage| usage.peak_memory_kb) {
            #[expect(clippy::cast_precision_loss, reason = "of a bucket of a histogram")]
            self.peak_memory.observe(kib as f64 * 1024.0);
        }
    }
}
