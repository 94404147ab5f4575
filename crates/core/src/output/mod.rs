//! What a program printed, read as it streams by.
//!
//! A log can be larger than memory (T78), is bytes rather than text (T72), and may hold a report that only its last line
//! makes. So [`Scanner`] takes chunks of any size and keeps a bounded part of them: digest and length of everything, the
//! first and last bytes for the event, and one line at most that may turn out to be a report. What it finds at the end is
//! a [`Scan`]: the streams as the event tells them, and which bytes of the log they are ([`Source`]), for whoever stored it.
//!
//! Three forms of log are told apart: *frames* (`STDOUT <n>\n...STDERR <m>\n...`) where they are consistent from the first
//! byte to the last, else a log with a *report* (the last line that is a valid one), else *plain text*, which is all
//! standard output because the log API has merged the streams (T71).

mod frames;
mod inline;
mod progress;
mod report;
mod scanner;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::event::{Indexes, ResourceUsage, StreamSummary, Verdict};

pub use frames::Summary;
pub use progress::{Progress, ProgressLine, ProgressScanner};
pub use scanner::{Limits, LogEnd, Scanner};

/// The output of one attempt, as its terminal event will tell it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Collected {
    /// Standard output: the report's or the frames' own, else the whole log.
    pub stdout: Captured,
    /// Standard error, where the log told it apart; `None` means that nothing was read that could be it.
    pub stderr: Option<Captured>,
    /// Exit code by the last valid report, or by the frames' summary.
    pub exit_code: Option<i32>,
    /// Usage by the same.
    pub resource_usage: Option<ResourceUsage>,
    /// The blob that holds the log as it came, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_uri: Option<String>,
    /// Facts worth keeping as evidence: `report_unread`, `report_too_large`, `log_lost: <why>`, ...
    pub notes: Vec<String>,
    /// For an Indexed Job: what its indexes printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexes: Option<Indexes>,
}

/// Note on an output of which the disk has nothing.
const NOT_STORED: &str = "output_not_stored";

impl Collected {
    /// Says that the disk has nothing of it.
    pub fn note_not_stored(&mut self) {
        self.notes.push(NOT_STORED.to_owned());
    }

    /// True unless the disk could not take it.
    pub fn is_stored(&self) -> bool {
        self.notes.iter().all(|note| note != NOT_STORED)
    }

    /// What is known of the output, for whoever finds its bytes on the disk.
    #[must_use]
    pub fn without_text(self) -> Self {
        let cut = |captured: Captured| Captured { text: String::new(), whole: false, ..captured };
        Self { stdout: cut(self.stdout), stderr: self.stderr.map(cut), ..self }
    }
}

/// One stream of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// Inline text: head and tail up to the inline limit, lossily decoded, with a line between them that says how many
    /// bytes were left out.
    pub text: String,
    /// True if `text` is, byte for byte, all that was read of the stream: no file holds more.
    pub whole: bool,
    /// How complete it is.
    pub summary: StreamSummary,
}

/// A finished [`Scanner`]: what to tell, and where in the log it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// What the terminal event will tell.
    pub collected: Collected,
    /// Which bytes are standard output.
    pub stdout: Source,
    /// Which bytes are standard error; [`Source::Nothing`] where `collected.stderr` is `None`.
    pub stderr: Source,
    /// True if the event's fields tell all of the log, so that the log itself adds only how they were spelled.
    pub told: bool,
    /// How many bytes of each stream its inline text stands for.
    inline_bytes: [u64; 2],
}

/// Where the bytes of a stream are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: there are none.
    Nothing,
    /// The whole log.
    Log,
    /// These byte ranges of the log, in order.
    Parts(Vec<Range<u64>>),
    /// Here: the report spelled them as a JSON string.
    Text(String),
}

impl Scan {
    /// True if nothing of the log could be read, be it that the log API answered with a text of its own (T62).
    pub fn is_lost(&self) -> bool {
        self.collected.stdout.summary.verdict == Verdict::Lost
    }

    /// The output of which nothing could be stored but what the event holds itself.
    pub fn into_inline_only(self) -> Collected {
        let mut collected = self.collected;
        for (captured, kept) in
            std::iter::once(&mut collected.stdout).chain(&mut collected.stderr).zip(self.inline_bytes)
        {
            captured.summary.bytes_kept = kept;
            if !captured.whole && captured.summary.verdict == Verdict::Complete {
                captured.summary.verdict = Verdict::Truncated;
            }
        }
        collected
    }
}

/// The parts of a log of `total` bytes that are kept when at most `max` are: its first half and its last half of that,
/// which touch when everything is kept.
pub fn kept_parts(total: u64, max: u64) -> [Range<u64>; 2] {
    let head = total.min(max / 2);
    let tail = (total - head).min(max - max / 2);
    [0..head, total - tail..total]
}

/// The bytes of `part` that lie within `kept`, as two ranges in order.
pub fn within(part: &Range<u64>, kept: &[Range<u64>; 2]) -> [Range<u64>; 2] {
    kept.clone().map(|kept| {
        let start = part.start.max(kept.start);
        start..part.end.min(kept.end).max(start)
    })
}
