//! One stream as it goes by: digest, length, first and last bytes.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

/// A stream's running state, in constant memory: the inline limit and a digest.
#[derive(Debug, Clone)]
pub(super) struct Capture {
    total: u64,
    digest: Sha256,
    head: Vec<u8>,
    head_max: usize,
    tail: VecDeque<u8>,
    tail_max: usize,
}

/// What a finished [`Capture`] has to show.
pub(super) struct Inline {
    /// Head and tail, with a marker between them if bytes were left out.
    pub(super) text: String,
    /// How many bytes of the stream `text` stands for.
    pub(super) bytes: u64,
    /// True if `text` is the stream, byte for byte.
    pub(super) whole: bool,
}

impl Capture {
    pub(super) fn new(inline_bytes: usize) -> Self {
        Self {
            total: 0,
            digest: Sha256::new(),
            head: Vec::new(),
            head_max: inline_bytes / 2,
            tail: VecDeque::new(),
            tail_max: inline_bytes - inline_bytes / 2,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.digest.update(bytes);
        let room = (self.head_max - self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.tail_max)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.tail_max);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn sha256(&self) -> String {
        let mut hex = String::with_capacity(64);
        for byte in self.digest.clone().finalize() {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(nibble.into(), 16).expect("four bits make a hex digit"));
            }
        }
        hex
    }

    pub(super) fn inline(mut self) -> Inline {
        let held = (self.head.len() + self.tail.len()) as u64;
        if held == self.total {
            self.head.extend(self.tail);
            let lossy = String::from_utf8_lossy(&self.head);
            let whole = matches!(lossy, std::borrow::Cow::Borrowed(_));
            return Inline { text: lossy.into_owned(), bytes: held, whole };
        }
        let head = without_cut_end(&self.head);
        let tail = without_cut_start(self.tail.make_contiguous());
        let bytes = (head.len() + tail.len()) as u64;
        let mut text = String::from_utf8_lossy(head).into_owned();
        text.push_str(&format!("\n[... {} bytes left out ...]\n", self.total - bytes));
        text.push_str(&String::from_utf8_lossy(tail));
        Inline { text, bytes, whole: false }
    }
}

/// Leaves out a character of which only the beginning is there; invalid bytes stay, for they are the program's own.
fn without_cut_end(bytes: &[u8]) -> &[u8] {
    let longest = bytes.len().min(3);
    for cut in 1..=longest {
        let end = &bytes[bytes.len() - cut..];
        if end[0] & 0xc0 != 0x80 {
            let is_cut = matches!(std::str::from_utf8(end), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none());
            return if is_cut { &bytes[..bytes.len() - cut] } else { bytes };
        }
    }
    bytes
}

/// Leaves out the end of a character that began before; there are at most three such bytes.
fn without_cut_start(bytes: &[u8]) -> &[u8] {
    let cut = bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    &bytes[cut..]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn capture(bytes: &[u8], limit: usize) -> Inline {
        let mut capture = Capture::new(limit);
        capture.push(bytes);
        capture.inline()
    }

    #[test]
    fn a_character_cut_by_a_border_is_left_out_whole() {
        // Borders at 4 and 8 of 13 bytes: both fall within a euro sign (three bytes).
        let shown = capture("ab€€€€".as_bytes(), 8);
        assert_eq!(shown.text, "ab\n[... 9 bytes left out ...]\n€");
        assert_eq!(shown.bytes, 5);
        let shown = capture("abcd€€efgh".as_bytes(), 8);
        assert_eq!(shown.text, "abcd\n[... 6 bytes left out ...]\nefgh");
    }

    #[test]
    fn invalid_bytes_at_a_border_stay_visible() {
        let shown = capture(b"abc\xff........\xffxyz", 8);
        assert_eq!(shown.text, "abc\u{fffd}\n[... 8 bytes left out ...]\n\u{fffd}xyz");
    }

    #[test]
    fn text_up_to_the_limit_is_whole_unless_it_had_to_be_decoded_lossily() {
        assert!(capture(b"12345678", 8).whole);
        assert!(capture(b"", 8).whole);
        assert!(!capture(b"123456789", 8).whole);
        assert!(!capture(b"1234\xff", 8).whole);
        assert!(capture(b"a\0b", 8).whole);
    }

    #[test]
    fn the_digest_is_over_everything() {
        let mut capture = Capture::new(4);
        capture.push(b"hello ");
        capture.push(b"world");
        assert_eq!(capture.sha256(), "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9");
        assert_eq!(capture.total(), 11);
    }

    proptest! {
        #[test]
        fn head_and_tail_are_those_of_the_whole(
            bytes in prop::collection::vec(0x20u8..0x7f, 0..200), limit in 0usize..64, step in 1usize..40,
        ) {
            let mut capture = Capture::new(limit);
            for chunk in bytes.chunks(step) {
                capture.push(chunk);
                prop_assert!(capture.head.len() + capture.tail.len() <= limit);
            }
            let text = String::from_utf8(bytes.clone()).unwrap();
            let naive = if bytes.len() <= limit {
                text
            } else {
                let (head, tail) = (limit / 2, limit - limit / 2);
                let left_out = bytes.len() - limit;
                format!("{}\n[... {left_out} bytes left out ...]\n{}", &text[..head], &text[bytes.len() - tail..])
            };
            prop_assert_eq!(capture.inline().text, naive);
        }
    }
}
