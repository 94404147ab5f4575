//! The scanner: one pass over a log in bounded memory.

use std::ops::Range;

use super::{
    Captured, Collected, Scan, Source,
    frames::{Frame, Frames, Summary},
    inline::{Capture, Inline},
    kept_parts,
    report::Report,
    within,
};
use crate::event::{StreamSummary, Verdict};

/// How much of a log is held, shown and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of each stream that its event holds, half of them from its start and half from its end.
    pub inline_bytes: usize,
    /// Bytes of the longest line that is still tried as a report.
    pub max_report_bytes: usize,
    /// `logs.max_bytes`: bytes of the log that are stored; see [`kept_parts`].
    pub max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { inline_bytes: 64 << 10, max_report_bytes: 4 << 20, max_bytes: 16 << 20 }
    }
}

/// How the reading of a log ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEnd {
    /// With its last byte.
    Complete,
    /// Somewhere before.
    BrokeOff,
    /// With its last byte, but the kubelet had begun the log anew, and what came before is lost (T66).
    BegunAnew,
    /// Nothing could be read, and why.
    Lost(String),
    /// There is no log, because no program ever ran.
    None,
}

/// Reads a log as it streams by. Memory stays below two reports and a few inline texts, however long the log or its lines.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    /// The whole log.
    all: Capture,
    /// The log without the line of `report`, where that says nothing about standard output.
    rest: Option<Capture>,
    /// The log as frames, for as long as it looks like them.
    frames: Option<Frames>,
    /// The last valid report, and which line it is.
    report: Option<(Report, Range<u64>)>,
    /// A line too long to be tried came after it.
    too_large: bool,
    line: Line,
    /// A line that may be a report, not yet in `all`.
    held: Vec<u8>,
    /// The first bytes, for T62.
    lead: Vec<u8>,
}

/// What is known of the line at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Nothing yet.
    Start,
    /// So far it is blank; it is held.
    Blank,
    /// It starts like a report; it is held.
    Candidate,
    /// It is text.
    Text,
}

/// Longer than any text that the log API puts in place of a log.
const LEAD_MAX: usize = 512;

impl Scanner {
    /// A scanner that has seen nothing.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            all: Capture::new(limits.inline_bytes),
            rest: None,
            frames: Some(Frames::new(limits.inline_bytes)),
            report: None,
            too_large: false,
            line: Line::Start,
            held: Vec::new(),
            lead: Vec::new(),
        }
    }

    /// How many bytes it has seen.
    pub fn total(&self) -> u64 {
        self.all.total() + self.held.len() as u64
    }

    /// Takes the next bytes of the log, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.lead.extend(&bytes[..bytes.len().min(LEAD_MAX - self.lead.len())]);
        self.frames = self.frames.take().and_then(|frames| frames.push(bytes));
        // Text is captured in runs as long as they come, not line by line.
        let mut run = 0;
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.line {
                Line::Start => match first_visible(rest) {
                    Some((_, b'{')) | None => {
                        self.capture(&bytes[run..at]);
                        run = at;
                        self.line = Line::Blank;
                    }
                    Some(_) => self.line = Line::Text,
                },
                Line::Blank => match first_visible(rest) {
                    Some((0, b'{')) => self.line = Line::Candidate,
                    Some((blanks, b'{')) => {
                        at += self.hold(&rest[..blanks]);
                        run = at;
                    }
                    Some(_) => {
                        self.release();
                        self.line = Line::Text;
                    }
                    None => {
                        at += self.hold(rest);
                        run = at;
                    }
                },
                Line::Candidate => {
                    at += self.hold(rest);
                    run = at;
                }
                Line::Text => match newline(rest) {
                    Some(end) => {
                        at += end + 1;
                        self.line = Line::Start;
                    }
                    None => at = bytes.len(),
                },
            }
        }
        self.capture(&bytes[run..]);
    }

    /// Ends the scan. `termination_message` is that of the container whose log it is.
    pub fn finish(mut self, end: LogEnd, termination_message: Option<&str>) -> Scan {
        self.judge();
        let begun_anew = end == LogEnd::BegunAnew;
        let summary = termination_message.and_then(Summary::parse);
        let mut scan = match end {
            LogEnd::None => Scan::of_nothing(Verdict::Complete),
            LogEnd::Lost(why) => Scan::lost(&why),
            _ if is_no_log(&self.lead, self.total()) => Scan::lost("the kubelet could not retrieve the log"),
            LogEnd::Complete => self.read(Verdict::Complete, summary.is_some()),
            LogEnd::BrokeOff | LogEnd::BegunAnew => self.read(Verdict::Partial, summary.is_some()),
        };
        let collected = &mut scan.collected;
        if begun_anew {
            collected.notes.push("log_begun_anew".to_owned());
        }
        let has_report = collected.exit_code.is_some() || collected.resource_usage.is_some();
        if let Some(summary) = summary.filter(|_| !has_report) {
            collected.exit_code = Some(summary.exit_code);
            collected.resource_usage = Some(summary.resource_usage);
        } else if !has_report && matches!(collected.stdout.summary.verdict, Verdict::Lost | Verdict::Partial) {
            collected.notes.push("report_unread".to_owned());
        }
        scan
    }

    /// Takes up to the end of the line into `held`, unless that becomes too long to be a report; returns how much.
    fn hold(&mut self, bytes: &[u8]) -> usize {
        let end = newline(bytes);
        let taken = end.map_or(bytes.len(), |end| end + 1);
        let room = self.limits.max_report_bytes - self.held.len().min(self.limits.max_report_bytes);
        if taken - usize::from(end.is_some()) > room {
            self.too_large |= self.line == Line::Candidate;
            self.release();
            self.capture(&bytes[..room]);
            self.line = Line::Text;
            return room;
        }
        self.held.extend_from_slice(&bytes[..taken]);
        if end.is_some() {
            self.judge();
            self.line = Line::Start;
        }
        taken
    }

    /// Decides what the held line is.
    fn judge(&mut self) {
        if let Some(report) = Report::parse(&self.held) {
            let start = self.all.total();
            self.rest = report.stdout.is_none().then(|| self.all.clone());
            self.all.push(&self.held);
            self.held.clear();
            self.report = Some((report, start..self.all.total()));
            self.too_large = false;
        } else {
            self.release();
        }
    }

    /// The held line is text.
    fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.capture(&held);
        self.held = held;
        self.held.clear();
    }

    fn capture(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        self.all.push(text);
        if let Some(rest) = &mut self.rest {
            rest.push(text);
        }
    }

    /// What was read, by the form that the log turned out to have. `verdict` is complete or partial.
    fn read(self, verdict: Verdict, has_summary: bool) -> Scan {
        let total = self.all.total();
        let kept = kept_parts(total, self.limits.max_bytes);
        let mut scan = Scan { told: false, ..Scan::of_nothing(verdict) };
        if let Some(frames) = self.frames.filter(|frames| frames.is_complete() || (has_summary && frames.has_begun())) {
            scan.told = true;
            scan.set_stdout(read_frame(frames.stdout, &kept));
            scan.set_stderr(read_frame(frames.stderr, &kept));
            return scan;
        }
        let Some((report, line)) = self.report else {
            scan.set_stdout(read_parts(self.all, Source::Log, std::slice::from_ref(&(0..total)), &kept, verdict));
            scan.note_too_large(self.too_large);
            return scan;
        };
        scan.collected.exit_code = report.exit_code;
        scan.collected.resource_usage = report.resource_usage;
        scan.note_too_large(self.too_large);
        if let Some(text) = report.stdout {
            scan.told = line == (0..total);
            scan.set_stdout(read_text(text, self.limits.inline_bytes));
        } else if let Some(rest) = self.rest {
            let parts = [0..line.start, line.end..total];
            scan.told = true;
            scan.set_stdout(read_parts(rest, Source::Parts(parts.to_vec()), &parts, &kept, verdict));
        }
        if let Some(text) = report.stderr {
            scan.set_stderr(read_text(text, self.limits.inline_bytes));
        }
        scan
    }
}

type Stream = (Captured, u64, Source);

/// A stream that is so many parts of the log.
fn read_parts(
    capture: Capture,
    source: Source,
    parts: &[Range<u64>],
    kept: &[Range<u64>; 2],
    verdict: Verdict,
) -> Stream {
    let length = |range: &Range<u64>| range.end - range.start;
    let bytes_kept = parts.iter().flat_map(|part| within(part, kept)).map(|range| length(&range)).sum();
    let is_read = verdict == Verdict::Complete;
    let summary = StreamSummary {
        // What was not read to its end has a length and a digest that nobody knows.
        bytes_total: is_read.then(|| capture.total()),
        bytes_kept,
        sha256: is_read.then(|| capture.sha256()),
        verdict: if is_read && bytes_kept < capture.total() { Verdict::Truncated } else { verdict },
        source: None,
        uri: None,
    };
    let Inline { text, bytes, whole } = capture.inline();
    (Captured { text, whole, summary }, bytes, source)
}

fn read_frame(frame: Frame, kept: &[Range<u64>; 2]) -> Stream {
    let Some(declared) = frame.declared.clone() else {
        return (Captured { whole: true, ..Captured::default() }, 0, Source::Nothing);
    };
    let verdict = if frame.is_complete() { Verdict::Complete } else { Verdict::Partial };
    let range = frame.range();
    let (mut captured, bytes, source) =
        read_parts(frame.capture, Source::Parts(vec![range.clone()]), &[range], kept, verdict);
    captured.summary.bytes_total = Some(declared.end - declared.start);
    (captured, bytes, source)
}

/// A stream that is a string of the report: it is complete, whatever became of the log around it.
fn read_text(text: String, inline_bytes: usize) -> Stream {
    let mut capture = Capture::new(inline_bytes);
    capture.push(text.as_bytes());
    let all = [0..capture.total(), 0..0];
    let part = all[0].clone();
    read_parts(capture, Source::Text(text), &[part], &all, Verdict::Complete)
}

impl Scan {
    fn of_nothing(verdict: Verdict) -> Self {
        let mut summary = StreamSummary { verdict, ..StreamSummary::default() };
        if verdict == Verdict::Complete {
            summary.bytes_total = Some(0);
            summary.sha256 = Some(Capture::new(0).sha256());
        }
        Self {
            collected: Collected {
                stdout: Captured { text: String::new(), whole: true, summary },
                ..Collected::default()
            },
            stdout: Source::Nothing,
            stderr: Source::Nothing,
            told: true,
            inline_bytes: [0, 0],
        }
    }

    fn lost(why: &str) -> Self {
        let mut scan = Self::of_nothing(Verdict::Lost);
        scan.collected.notes.push(format!("log_lost: {why}"));
        scan
    }

    fn set_stdout(&mut self, (captured, inline_bytes, source): Stream) {
        self.collected.stdout = captured;
        self.inline_bytes[0] = inline_bytes;
        self.stdout = source;
    }

    fn set_stderr(&mut self, (captured, inline_bytes, source): Stream) {
        self.collected.stderr = Some(captured);
        self.inline_bytes[1] = inline_bytes;
        self.stderr = source;
    }

    fn note_too_large(&mut self, too_large: bool) {
        if too_large {
            self.collected.notes.push("report_too_large".to_owned());
        }
    }
}

/// T62: the log API answers 200 with a sentence of its own, alone on its line.
fn is_no_log(lead: &[u8], total: u64) -> bool {
    if total > LEAD_MAX as u64 {
        return false;
    }
    let Ok(text) = std::str::from_utf8(lead) else { return false };
    let line = text.strip_suffix('\n').unwrap_or(text);
    let Some(container) = line.trim_end_matches('\r').strip_prefix("unable to retrieve container logs for ") else {
        return false;
    };
    container.split_once("://").is_some_and(|(runtime, id)| {
        !runtime.is_empty() && [runtime, id].iter().all(|part| !part.contains(char::is_whitespace))
    })
}

/// The first byte that is neither white space within a line nor part of a byte order mark, and where it is.
fn first_visible(bytes: &[u8]) -> Option<(usize, u8)> {
    bytes.iter().copied().enumerate().find(|(_, byte)| !matches!(byte, b' ' | b'\t' | b'\r' | 0xef | 0xbb | 0xbf))
}

fn newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
