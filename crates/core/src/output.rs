//! What a program printed, read as it streams by.

use crate::event::{ResourceUsage, StreamSummary};

/// The output of one attempt, as its terminal event will tell it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    /// Standard output: the report's or the frames' own, else the whole log.
    pub stdout: Captured,
    /// Standard error, where the log told it apart.
    pub stderr: Option<Captured>,
    /// Exit code by the last valid report, or by the frames' summary.
    pub exit_code: Option<i32>,
    /// Usage by the same.
    pub resource_usage: Option<ResourceUsage>,
    /// Facts worth keeping as evidence: `report_unread`, `report_too_large`, `log_lost: <why>`, ...
    pub notes: Vec<String>,
}

/// One stream of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// Inline text: head and tail up to the inline limit, lossily decoded.
    pub text: String,
    /// How complete it is.
    pub summary: StreamSummary,
}

/// True if a termination message is the summary that goes with frames.
pub fn is_frames_summary(message: &str) -> bool {
    let mut lines = message.lines().filter(|line| !line.trim().is_empty()).peekable();
    lines.peek().is_some()
        && lines.all(|line| {
            line.split_once('=').is_some_and(|(key, _)| {
                matches!(key.trim(), "exit_code" | "cpu_jiffies" | "clk_tck" | "peak_memory_kb" | "wall_seconds")
            })
        })
}
