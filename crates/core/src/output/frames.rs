//! Frames: `STDOUT <n>\n<n bytes>STDERR <m>\n<m bytes>`, and the summary that comes with them.

use std::ops::Range;

use super::{
    inline::Capture,
    report::{count, measure, parse_exit_code},
};
use crate::event::ResourceUsage;

/// A termination message of lines `exit_code= cpu_jiffies= clk_tck= peak_memory_kb= wall_seconds=`: what an image that
/// prints frames says about its program.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The program's own code.
    pub exit_code: i32,
    /// What it used.
    pub resource_usage: ResourceUsage,
}

impl Summary {
    /// Reads a termination message; `None` if it is a message for people.
    pub fn parse(message: &str) -> Option<Self> {
        let mut exit_code = None;
        let mut others = 0;
        let mut usage = ResourceUsage { source: Some("report".to_owned()), ..ResourceUsage::default() };
        for line in message.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (key, value) = line.split_once('=')?;
            let value = value.trim();
            match key.trim_end() {
                "exit_code" => {
                    exit_code = Some(parse_exit_code(value)?);
                    continue;
                }
                "cpu_jiffies" => usage.cpu_time_jiffies = count(value),
                "clk_tck" => usage.clk_tck_hertz = count(value),
                "peak_memory_kb" => usage.peak_memory_kb = count(value),
                "wall_seconds" => usage.execution_time_wall_seconds = measure(value),
                _ => continue,
            }
            others += 1;
        }
        // A lone `exit_code=1` may well be what a person wrote.
        (others > 0).then_some(Self { exit_code: exit_code?, resource_usage: usage })
    }
}

/// A log that has been frames so far.
#[derive(Debug)]
pub(super) struct Frames {
    position: u64,
    expect: Expect,
    pub(super) stdout: Frame,
    pub(super) stderr: Frame,
}

/// One frame: its stream, and where in the log it is.
#[derive(Debug)]
pub(super) struct Frame {
    /// As its header declares it; none before the header was read.
    pub(super) declared: Option<Range<u64>>,
    pub(super) capture: Capture,
}

impl Frame {
    pub(super) fn is_complete(&self) -> bool {
        self.declared.as_ref().is_some_and(|range| range.end - range.start == self.capture.total())
    }

    /// The bytes of the log that were read of it.
    pub(super) fn range(&self) -> Range<u64> {
        let start = self.declared.as_ref().map_or(0, |range| range.start);
        start..start + self.capture.total()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Expect {
    Header(Stream, Vec<u8>),
    Body(Stream),
    /// Nothing more, or one line's end.
    End(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// `STDOUT `, twenty digits, a newline.
const LONGEST_HEADER: usize = 28;

impl Frames {
    pub(super) fn new(inline_bytes: usize) -> Self {
        let frame = || Frame { declared: None, capture: Capture::new(inline_bytes) };
        Self { position: 0, expect: Expect::Header(Stream::Stdout, Vec::new()), stdout: frame(), stderr: frame() }
    }

    /// Takes the next bytes of the log; `None` as soon as they are not frames.
    #[must_use]
    pub(super) fn push(mut self, mut bytes: &[u8]) -> Option<Self> {
        while !bytes.is_empty() {
            let taken = match &mut self.expect {
                Expect::Header(stream, header) => {
                    let newline = bytes.iter().take(LONGEST_HEADER).position(|byte| *byte == b'\n');
                    let taken = newline.map_or(bytes.len().min(LONGEST_HEADER), |at| at + 1);
                    header.extend_from_slice(&bytes[..taken]);
                    let (stream, start) = (*stream, self.position + taken as u64);
                    if newline.is_some() {
                        let end = start.checked_add(declared_length(stream, header)?)?;
                        self.frame(stream).declared = Some(start..end);
                        self.expect = Expect::Body(stream);
                    } else if header.len() >= LONGEST_HEADER || !may_be_header(stream, header) {
                        return None;
                    }
                    taken
                }
                Expect::Body(stream) => {
                    let stream = *stream;
                    let position = self.position;
                    let frame = self.frame(stream);
                    let end = frame.declared.as_ref().map_or(position, |range| range.end);
                    let taken = usize::try_from(end - position).map_or(bytes.len(), |left| left.min(bytes.len()));
                    frame.capture.push(&bytes[..taken]);
                    taken
                }
                Expect::End(rest) => {
                    rest.extend_from_slice(&bytes[..bytes.len().min(3)]);
                    if !matches!(rest.as_slice(), b"\n" | b"\r" | b"\r\n") {
                        return None;
                    }
                    bytes.len()
                }
            };
            self.position += taken as u64;
            bytes = &bytes[taken..];
            self.leave_full_frame();
        }
        Some(self)
    }

    /// True if the log was frames to its end.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.expect, Expect::End(_))
    }

    /// True if at least the first header was there.
    pub(super) fn has_begun(&self) -> bool {
        self.stdout.declared.is_some()
    }

    fn frame(&mut self, stream: Stream) -> &mut Frame {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn leave_full_frame(&mut self) {
        if self.expect == Expect::Body(Stream::Stdout) && self.stdout.is_complete() {
            self.expect = Expect::Header(Stream::Stderr, Vec::new());
        }
        if self.expect == Expect::Body(Stream::Stderr) && self.stderr.is_complete() {
            self.expect = Expect::End(Vec::new());
        }
    }
}

fn name(stream: Stream) -> &'static [u8] {
    match stream {
        Stream::Stdout => b"STDOUT ",
        Stream::Stderr => b"STDERR ",
    }
}

fn may_be_header(stream: Stream, begun: &[u8]) -> bool {
    let name = name(stream);
    if begun.len() <= name.len() {
        name.starts_with(begun)
    } else {
        begun.starts_with(name) && begun[name.len()..].iter().all(u8::is_ascii_digit)
    }
}

fn declared_length(stream: Stream, header: &[u8]) -> Option<u64> {
    let digits = header.strip_prefix(name(stream))?.strip_suffix(b"\n")?;
    digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_summary_is_told_from_a_message_for_people() {
        let summary =
            Summary::parse("exit_code=3\ncpu_jiffies=100\nclk_tck=100\npeak_memory_kb=1024\nwall_seconds=0.5\n")
                .unwrap();
        assert_eq!(summary.exit_code, 3);
        let usage = summary.resource_usage;
        assert_eq!(
            (usage.cpu_time_jiffies, usage.clk_tck_hertz, usage.peak_memory_kb),
            (Some(100), Some(100), Some(1024))
        );
        assert_eq!(usage.execution_time_wall_seconds, Some(0.5));
        for (message, is_summary) in [
            ("exit_code=0\r\nwall_seconds=\r\n", true),
            ("exit_code=0\nwall_seconds=abc\nnew_key=1", true),
            ("exit_code=0", false),
            ("wall_seconds=1\ncpu_jiffies=2", false),
            ("boom", false),
            ("", false),
            ("exit_code=zero\nwall_seconds=1", false),
            ("exit_code=0\nwall_seconds=1\nTraceback", false),
        ] {
            assert_eq!(Summary::parse(message).is_some(), is_summary, "{message:?}");
        }
    }

    #[test]
    fn what_is_and_what_is_not_frames() {
        for (log, complete) in [
            ("STDOUT 5\nhelloSTDERR 3\nerr", Some(true)),
            ("STDOUT 5\nhelloSTDERR 3\nerr\n", Some(true)),
            ("STDOUT 5\nhelloSTDERR 3\nerr\r\n", Some(true)),
            ("STDOUT 0\nSTDERR 0\n", Some(true)),
            ("STDOUT 9\nSTDERR 0\nSTDERR 0\n", Some(true)),
            ("STDOUT 5\nhelloSTDERR 3\ner", Some(false)),
            ("STDOUT 5\nhelloSTD", Some(false)),
            ("STDOUT 5", Some(false)),
            ("", Some(false)),
            ("STDOUT 5\nhelloSTDERR 3\nerr\n\n", None),
            ("STDOUT 5\nhelloSTDERR 3\nerrmore", None),
            ("STDOUT 5\nhello\nSTDERR 3\nerr", None),
            ("STDOUT 99999999999999999999999999", None),
            ("STDOUT 99999999999999999999\n", None),
            ("STDOUT 18446744073709551615\n", None),
            ("STDOUT -5\nhello", None),
            ("STDOUT 5 \nhello", None),
            ("STDOUT \n", None),
            ("stdout 5\nhello", None),
            ("\nSTDOUT 0\nSTDERR 0\n", None),
        ] {
            for step in 1..=log.len().max(1) {
                let frames = log.as_bytes().chunks(step).try_fold(Frames::new(16), Frames::push);
                assert_eq!(frames.map(|frames| frames.is_complete()), complete, "{log:?} by {step}");
            }
        }
    }
}
