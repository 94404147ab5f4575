//! `Range:` of RFC 9110: one range of bytes; whatever else it may ask for is answered with everything, as the RFC allows.

use std::ops::Range;

use http::{HeaderMap, header};

/// Which bytes of a representation are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of them.
    All,
    /// These; never none.
    Part(Range<u64>),
    /// Some that there are not.
    NotThere,
}

/// What the headers ask of a representation with this length and entity tag.
pub(super) fn asked(headers: &HeaderMap, length: u64, tag: &str) -> Asked {
    let of = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (of(header::RANGE), of(header::IF_RANGE)) {
        (Some(range), None) => parse(range, length).unwrap_or(Asked::All),
        (Some(range), Some(known)) if known == tag => parse(range, length).unwrap_or(Asked::All),
        _ => Asked::All,
    }
}

fn parse(range: &str, length: u64) -> Option<Asked> {
    let (unit, range) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let part = match (first, last) {
        ("", last) => length.saturating_sub(number(last)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..length.min(last.saturating_add(1))
        }
    };
    Some(if part.is_empty() { Asked::NotThere } else { Asked::Part(part) })
}

/// Digits and nothing else; what is too large for a file is larger than any.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_range_is_what_the_rfc_says() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=2-5", Asked::Part(2..6)),
            ("Bytes=2-", Asked::Part(2..10)),
            ("bytes=8-99999999999999999999", Asked::Part(8..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=10-", Asked::NotThere),
            ("bytes=10-12", Asked::NotThere),
            ("bytes=-0", Asked::NotThere),
            ("bytes=5-2", Asked::All),
            ("bytes=0-1,4-5", Asked::All),
            ("bytes=", Asked::All),
            ("bytes=-", Asked::All),
            ("bytes=+1-2", Asked::All),
            ("bytes=a-b", Asked::All),
            ("lines=1-2", Asked::All),
            ("1-2", Asked::All),
        ] {
            let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
            assert_eq!(asked(&headers, 10, "\"a\""), expected, "{range}");
        }
        assert_eq!(parse("bytes=0-", 0), Some(Asked::NotThere));
    }

    #[test]
    fn a_range_of_another_version_is_answered_with_everything() {
        let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=1-2"))]);
        for (known, expected) in [("\"a\"", Asked::Part(1..3)), ("\"b\"", Asked::All), ("W/\"a\"", Asked::All)] {
            headers.insert(header::IF_RANGE, HeaderValue::from_static(known));
            assert_eq!(asked(&headers, 10, "\"a\""), expected, "{known}");
        }
    }
}
