//! What the roles tell an operator.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use podherald_core::{event::Terminal, pod::Labels};
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

/// The label of a pod that names its language.
const LANGUAGE: &str = "language";
/// Languages that are counted by name. Labels are anybody's to write, and each name is kept for good.
const LANGUAGES: usize = 32;
const NO_LANGUAGE: &str = "unknown";
const ANOTHER_LANGUAGE: &str = "other";

/// One way to end, in one language.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfEnd {
    status: &'static str,
    language: String,
}

/// One language.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLanguage {
    language: String,
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
    results: Family<OfEnd, Counter>,
    failed: Counter,
    errors: Family<OfError, Counter>,
    duration: Family<OfLanguage, Histogram>,
    peak_memory: Family<OfLanguage, Histogram>,
    peak_memory_to_limit: Family<OfLanguage, Histogram>,
    stored: Histogram,
    languages: Arc<Mutex<BTreeSet<String>>>,
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
            duration: Family::new_with_constructor(|| {
                Histogram::new([0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 1800.0, 7200.0])
            }),
            peak_memory: Family::new_with_constructor(|| {
                Histogram::new((20..=36).step_by(2).map(|power| f64::from(power).exp2()))
            }),
            peak_memory_to_limit: Family::new_with_constructor(|| {
                Histogram::new([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0])
            }),
            stored: Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0]),
            languages: Arc::default(),
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
        results.register(
            "stored",
            "Results stored for the first time, by how the attempt ended and its label `language`",
            self.results.clone(),
        );
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
        results.register(
            "peak_memory_to_limit_ratio",
            "The same as a share of the container's memory limit, where it has one",
            self.peak_memory_to_limit.clone(),
        );
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

    pub(super) fn stored(&self, status: &'static str, labels: &Labels, terminal: &Terminal) {
        let language = self.language(labels.get(LANGUAGE).map(String::as_str));
        self.results.get_or_create(&OfEnd { status, language: language.clone() }).inc();
        if let Some(error_type) = terminal.error_type {
            let error_type = serde_json::to_value(error_type).ok();
            let error_type = error_type.and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
            self.errors.get_or_create(&OfError { error_type }).inc();
        }
        let Some(usage) = &terminal.resource_usage else { return };
        let of_language = OfLanguage { language };
        if let Some(seconds) = usage.execution_time_wall_seconds {
            self.duration.get_or_create(&of_language).observe(seconds);
        }
        #[expect(clippy::cast_precision_loss, reason = "of a bucket of a histogram")]
        let (peak, limit) = (usage.peak_memory_kb.map(|kib| kib as f64), usage.memory_limit_kb.map(|kib| kib as f64));
        if let Some(peak) = peak {
            self.peak_memory.get_or_create(&of_language).observe(peak * 1024.0);
        }
        if let Some((peak, limit)) = peak.zip(limit.filter(|limit| *limit > 0.0)) {
            self.peak_memory_to_limit.get_or_create(&of_language).observe(peak / limit);
        }
    }

    /// The name under which it is counted.
    fn language(&self, named: Option<&str>) -> String {
        let Some(named) = named.filter(|named| !named.is_empty()) else { return NO_LANGUAGE.to_owned() };
        let mut known = self.languages.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < LANGUAGES {
            known.insert(named.to_owned());
        }
        if known.contains(named) { named } else { ANOTHER_LANGUAGE }.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use podherald_core::event::ResourceUsage;
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn languages_are_counted_by_name_as_long_as_they_are_few() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let usage = ResourceUsage { execution_time_wall_seconds: Some(1.0), ..ResourceUsage::default() };
        let terminal = Terminal { resource_usage: Some(usage), ..Terminal::default() };
        metrics.stored("completed", &Labels::default(), &terminal);
        for language in (0..100).map(|n| format!("language-{n}")).chain(["language-0".to_owned()]) {
            metrics.stored("completed", &[(LANGUAGE.to_owned(), language)].into_iter().collect(), &terminal);
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "podherald_results_stored_total{status=\"completed\",language=\"unknown\"} 1",
            "podherald_results_stored_total{status=\"completed\",language=\"language-0\"} 2",
            "podherald_results_stored_total{status=\"completed\",language=\"other\"} 68",
            "podherald_results_duration_seconds_count{language=\"language-31\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert_eq!(text.matches("results_stored_total").count(), LANGUAGES + 2);
    }
}
