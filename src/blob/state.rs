//! How a store is doing, for `/readyz` and `/metrics`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tokio::time::Instant;

use crate::health::SinkHealth;

use super::wording::Fault;

/// As it is called where sinks are listed.
const NAME: &str = "blob";
/// Outputs on their way at a time.
const MOST: i64 = 1024;
/// The same while the store fails, and most of them wait for nothing.
pub(super) const MOST_IN_TROUBLE: i64 = 64;

/// What is known of a store; a clone knows the same.
#[derive(Debug, Clone)]
pub(super) struct State {
    trouble: Arc<Mutex<Trouble>>,
    waiting: Gauge,
    pub(super) puts: Counter,
    pub(super) bytes: Counter,
    retries: Counter,
    pub(super) given_up: Counter,
    pub(super) removed: Counter,
    pub(super) not_removed: Counter,
    pub(super) seconds: Histogram,
}

#[derive(Debug, Default)]
struct Trouble {
    since: Option<Instant>,
    last: Option<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            trouble: Arc::default(),
            waiting: Gauge::default(),
            puts: Counter::default(),
            bytes: Counter::default(),
            retries: Counter::default(),
            given_up: Counter::default(),
            removed: Counter::default(),
            not_removed: Counter::default(),
            // 1 ms to 33 s: from a directory on the same disk to a deadline.
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        }
    }
}

/// An output on its way; dropped, it is not any more.
pub(super) struct Waiting(Gauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl State {
    /// A place among the outputs that wait, each with its text in memory; none if there are enough.
    pub(super) fn waits(&self) -> Option<Waiting> {
        let most = if self.trouble().since.is_some() { MOST_IN_TROUBLE } else { MOST };
        if self.waiting.inc() >= most {
            self.waiting.dec();
            return None;
        }
        Some(Waiting(self.waiting.clone()))
    }

    /// The last thing that was tried went well.
    pub(super) fn is_well(&self) {
        self.trouble().since = None;
    }

    /// It did not, and is tried again or given up. True if nobody was told that yet.
    pub(super) fn failed(&self, fault: &Fault) -> bool {
        self.retries.inc();
        let mut trouble = self.trouble();
        let is_news = trouble.since.is_none();
        trouble.since.get_or_insert_with(Instant::now);
        trouble.last = Some(fault.to_string());
        is_news
    }

    /// As that of a sink: what it counts are outputs.
    pub(super) fn health(&self) -> SinkHealth {
        let trouble = self.trouble();
        SinkHealth {
            name: NAME,
            required: false,
            failing: trouble.since.is_some(),
            lag_events: u64::try_from(self.waiting.get()).unwrap_or(0),
            lag_seconds: trouble.since.map_or(0.0, |since| since.elapsed().as_secs_f64()),
            delivered: self.puts.get(),
            retries: self.retries.get(),
            rejected: self.given_up.get(),
            last_error: trouble.last.clone(),
            ..SinkHealth::default()
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let blobs = registry.sub_registry_with_prefix("podherald_blob");
        blobs.register("waiting", "Outputs on their way to the blob store", self.waiting.clone());
        blobs.register("puts", "Outputs stored as blobs", self.puts.clone());
        blobs.register("bytes", "Bytes stored as blobs", self.bytes.clone());
        blobs.register("retries", "Tries at the blob store that failed", self.retries.clone());
        blobs.register("given_up", "Outputs that no blob was made of within blob.deadline", self.given_up.clone());
        blobs.register("removed", "Blobs removed with their executions", self.removed.clone());
        blobs.register(
            "not_removed",
            "Blobs of executions that are gone, left where they are",
            self.not_removed.clone(),
        );
        blobs.register("put_seconds", "From the first try until a blob is durable", self.seconds.clone());
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
