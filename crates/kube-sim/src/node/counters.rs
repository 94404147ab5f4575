//! What a node counts.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// What a node has dropped or left so far. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<Tally>);

#[derive(Debug, Default)]
struct Tally {
    rotated_logs: AtomicU64,
    rotated_log_bytes: AtomicU64,
    left_processes: AtomicU64,
    held_outputs: AtomicU64,
    refused_events: AtomicU64,
}

impl Counters {
    /// Times that a full log was begun anew.
    pub fn rotated_logs(&self) -> u64 {
        self.0.rotated_logs.load(Ordering::Relaxed)
    }

    /// Bytes of log files that nobody can read any more for that.
    pub fn rotated_log_bytes(&self) -> u64 {
        self.0.rotated_log_bytes.load(Ordering::Relaxed)
    }

    /// Processes that could not be killed with their container.
    pub fn left_processes(&self) -> u64 {
        self.0.left_processes.load(Ordering::Relaxed)
    }

    /// Outputs that were read no further since somebody held them open after their container's end.
    pub fn held_outputs(&self) -> u64 {
        self.0.held_outputs.load(Ordering::Relaxed)
    }

    /// Events that the cluster did not take.
    pub fn refused_events(&self) -> u64 {
        self.0.refused_events.load(Ordering::Relaxed)
    }

    pub(super) fn count_rotation(&self, bytes: u64) {
        self.0.rotated_logs.fetch_add(1, Ordering::Relaxed);
        self.0.rotated_log_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_left(&self, processes: usize) {
        self.0.left_processes.fetch_add(processes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_held_output(&self) {
        self.0.held_outputs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_refused_event(&self) {
        self.0.refused_events.fetch_add(1, Ordering::Relaxed);
    }
}
