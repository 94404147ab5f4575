//! Lines by which a running program tells how far it is: `::progress 42 text`.

/// What such a line says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// From 0 to 100.
    pub percentage: Option<f64>,
    /// The rest of the line, cut short.
    pub message: Option<String>,
}

/// A progress line in a log.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgressLine {
    /// Of the line's first byte in the log.
    pub offset: u64,
    /// What it says.
    pub progress: Progress,
}

const MARK: &[u8] = b"::progress";
/// Longer lines are no progress lines.
const MAX_LINE: usize = 1024;
/// A message is cut to so many characters.
const MAX_MESSAGE: usize = 200;

/// Finds progress lines in a log that comes in pieces.
#[derive(Debug, Default)]
pub struct ProgressScanner {
    /// The line so far; empty once it is known to be none.
    line: Vec<u8>,
    /// Of the line's first byte.
    begun_at: u64,
    offset: u64,
    is_other: bool,
}

impl ProgressScanner {
    /// Takes the next piece; gives the last whole progress line in it, which outdates those before.
    pub fn push(&mut self, mut piece: &[u8]) -> Option<ProgressLine> {
        let mut latest = None;
        while !piece.is_empty() {
            let end = piece.iter().position(|byte| *byte == b'\n');
            let (part, rest) = piece.split_at(end.map_or(piece.len(), |end| end + 1));
            self.take(part);
            if end.is_some() {
                latest = self.finish_line().or(latest);
            }
            piece = rest;
        }
        latest
    }

    fn take(&mut self, part: &[u8]) {
        self.offset += part.len() as u64;
        if self.is_other {
            return;
        }
        self.line.extend_from_slice(&part[..part.len().min(MAX_LINE + 1 - self.line.len().min(MAX_LINE))]);
        let compared = self.line.len().min(MARK.len());
        if self.line.len() > MAX_LINE || self.line[..compared] != MARK[..compared] {
            self.is_other = true;
            self.line.clear();
        }
    }

    fn finish_line(&mut self) -> Option<ProgressLine> {
        let line = std::mem::take(&mut self.line);
        let offset = std::mem::replace(&mut self.begun_at, self.offset);
        self.is_other = false;
        let progress = parse(std::str::from_utf8(&line).ok()?)?;
        Some(ProgressLine { offset, progress })
    }
}

/// Reads one line; none if it is no progress line, or says nothing.
fn parse(line: &str) -> Option<Progress> {
    let rest = line.trim_end().strip_prefix("::progress")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    let rest = rest.trim_start();
    let (first, after) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    let number: Option<f64> = first.strip_suffix('%').unwrap_or(first).parse().ok();
    let percentage = number.filter(|number| (0.0..=100.0).contains(number));
    let message = if percentage.is_some() { after.trim_start() } else { rest };
    let message: String = message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
    let progress = Progress { percentage, message: Some(message).filter(|message| !message.is_empty()) };
    (progress != Progress::default()).then_some(progress)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn says(percentage: Option<f64>, message: Option<&str>) -> Option<Progress> {
        Some(Progress { percentage, message: message.map(str::to_owned) })
    }

    #[test]
    fn a_progress_line_is_a_number_a_text_or_both() {
        for (line, expected) in [
            ("::progress 42 half way", says(Some(42.0), Some("half way"))),
            ("::progress 42", says(Some(42.0), None)),
            ("::progress 12.5% of it\r", says(Some(12.5), Some("of it"))),
            ("::progress loading", says(None, Some("loading"))),
            ("::progress 0", says(Some(0.0), None)),
            // What is no percentage is part of the text.
            ("::progress 101 dalmatians", says(None, Some("101 dalmatians"))),
            ("::progress -1", says(None, Some("-1"))),
            ("::progress NaN", says(None, Some("NaN"))),
            ("::progress", None),
            ("::progress   ", None),
            ("::progressive 3", None),
            ("x ::progress 3", None),
        ] {
            assert_eq!(parse(line), expected, "{line:?}");
        }
    }

    #[test]
    fn only_whole_lines_of_bounded_length_count_and_the_last_one_wins() {
        let mut scanner = ProgressScanner::default();
        let long = format!("::progress 1 {}\n", "x".repeat(MAX_LINE));
        assert_eq!(scanner.push(long.as_bytes()), None);
        let at = long.len() as u64;
        let found = scanner.push(b"::progress 2\nother\n::progress 3\n::progress 4").unwrap();
        assert_eq!((found.offset, found.progress), (at + 19, says(Some(3.0), None).unwrap()));
        assert_eq!(scanner.push(b"2").map(|line| line.progress), None);
        assert_eq!(scanner.push(b"\n").map(|line| line.progress), says(Some(42.0), None));
    }

    proptest! {
        #[test]
        fn however_a_log_is_cut_the_same_lines_are_found(
            lines in prop::collection::vec(prop_oneof!["::progress [0-9]{1,3}( [a-z]{0,9})?", "[ -~]{0,40}"], 0..20),
            cut in 1_usize..9,
        ) {
            let log = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let mut whole = ProgressScanner::default();
            let mut pieces = ProgressScanner::default();
            let last = log.as_bytes().chunks(cut).filter_map(|piece| pieces.push(piece)).last();
            prop_assert_eq!(last, whole.push(log.as_bytes()));
        }
    }
}
