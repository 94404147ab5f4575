//! The JSON report: one whole line that says how the program ended.
//!
//! `{"exit_code":D,"resource_usage":{...},"stdout":"...","stderr":"..."}`, written by many hands: keys are missing or
//! extra, numbers are strings or floats, strings hold lone surrogates. What is certain is asked for, the rest forgiven.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::event::ResourceUsage;

/// A valid report.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    pub(super) exit_code: Option<i32>,
    pub(super) resource_usage: Option<ResourceUsage>,
    pub(super) stdout: Option<String>,
    pub(super) stderr: Option<String>,
}

impl Report {
    /// Reads a line, or says that it is only text.
    ///
    /// It is a report if it has an integral `exit_code` and one more part of its right type, or a `resource_usage` with
    /// at least one known metric. A null is a missing key; an `exit_code` or a stream of another type makes it text.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
        if !(line.starts_with(b"{") && line.ends_with(b"}")) {
            return None;
        }
        // Bytes that are no UTF-8 can only be inside strings, where they are shown lossily like everywhere else.
        let line = String::from_utf8_lossy(line);
        let mut report = Self { exit_code: None, resource_usage: None, stdout: None, stderr: None };
        let mut metrics = 0;
        for (key, value) in entries(&line)? {
            match key.as_str() {
                "exit_code" => report.exit_code = optional(value, exit_code)?,
                "stdout" => report.stdout = optional(value, string)?,
                "stderr" => report.stderr = optional(value, string)?,
                "resource_usage" => {
                    (report.resource_usage, metrics) =
                        entries(value.get()).map_or((None, 0), |usage| read_usage(&usage));
                }
                _ => {}
            }
        }
        let has_part = report.stdout.is_some() || report.stderr.is_some() || report.resource_usage.is_some();
        (metrics > 0 || (report.exit_code.is_some() && has_part)).then_some(report)
    }
}

/// The members of a JSON object, in order; `None` if it is something else.
fn entries(json: &str) -> Option<Vec<(String, &RawValue)>> {
    struct Members<'a>(Vec<(String, &'a RawValue)>);

    impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Collect;
            impl<'de> Visitor<'de> for Collect {
                type Value = Vec<(String, &'de RawValue)>;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut members = Vec::new();
                    while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                        // Of a line of any other kind nothing is kept: it may have a great many keys.
                        if let Some(key) = string(key).filter(|key| KNOWN.contains(&key.as_str())) {
                            members.push((key, value));
                        }
                    }
                    Ok(members)
                }
            }
            deserializer.deserialize_map(Collect).map(Members)
        }
    }

    serde_json::from_str::<Members<'_>>(json).ok().map(|members| members.0)
}

const KNOWN: [&str; 10] = [
    "exit_code",
    "stdout",
    "stderr",
    "resource_usage",
    "execution_time_wall_seconds",
    "cpu_time_jiffies",
    "clk_tck_hertz",
    "peak_memory_kb",
    "cpu_time_seconds",
    "oom_kills",
];

/// A member that may be null; the outer `None` says that it has a wrong type.
#[expect(clippy::option_option, reason = "absent and wrong are different answers")]
fn optional<T>(value: &RawValue, read: impl FnOnce(&RawValue) -> Option<T>) -> Option<Option<T>> {
    if value.get() == "null" { Some(None) } else { read(value).map(Some) }
}

/// A JSON string. A lone surrogate (Python writes them for bytes that it could not decode) becomes one U+FFFD.
fn string(value: &RawValue) -> Option<String> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = String;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(decode(bytes))
        }
    }

    let json = value.get();
    if !json.starts_with('"') {
        return None;
    }
    // As bytes, because a lone surrogate is an error when a string is asked for.
    serde_json::Deserializer::from_str(json).deserialize_bytes(Bytes).ok()
}

/// UTF-8 in which a surrogate may stand as three bytes of its own.
fn decode(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    loop {
        match std::str::from_utf8(bytes) {
            Ok(rest) => {
                text.push_str(rest);
                return text;
            }
            Err(e) => {
                let (valid, rest) = bytes.split_at(e.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                text.push(char::REPLACEMENT_CHARACTER);
                let is_surrogate = matches!(rest, [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..]);
                bytes = &rest[if is_surrogate { 3 } else { e.error_len().unwrap_or(rest.len()) }..];
            }
        }
    }
}

fn exit_code(value: &RawValue) -> Option<i32> {
    number(value).and_then(|text| parse_exit_code(&text))
}

/// An exit code: an integer, also one written as a float.
pub(super) fn parse_exit_code(text: &str) -> Option<i32> {
    i32::try_from(integer(text).filter(|_| !has_fraction(text))?).ok()
}

/// The text of a JSON number, or of a number in a JSON string.
fn number(value: &RawValue) -> Option<String> {
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Some(json.to_owned()),
        Some(b'"') => string(value).map(|text| text.trim().to_owned()),
        _ => None,
    }
}

fn has_fraction(text: &str) -> bool {
    text.parse::<f64>().is_ok_and(|n| n.fract() != 0.0)
}

/// A number as a whole one, rounded; none if there is none in 64 bits.
fn integer(text: &str) -> Option<i64> {
    if let Ok(n) = text.parse() {
        return Some(n);
    }
    let n = text.parse::<f64>().ok()?.round();
    // 2^53: beyond it a float no longer says which integer was meant.
    #[expect(clippy::cast_possible_truncation, reason = "checked to be within 53 bits")]
    (n.abs() <= 9_007_199_254_740_992.0).then_some(n as i64)
}

/// A metric that counts: never negative.
pub(super) fn count(text: &str) -> Option<i64> {
    integer(text).filter(|n| *n >= 0)
}

/// A metric that measures: never negative, never infinite.
pub(super) fn measure(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0)
}

/// The usage, and how many of its metrics are known and right.
fn read_usage(members: &[(String, &RawValue)]) -> (Option<ResourceUsage>, usize) {
    let mut usage = ResourceUsage { source: Some("report".to_owned()), ..ResourceUsage::default() };
    for (key, value) in members {
        let text = number(value);
        let (counted, measured) = (text.as_deref().and_then(count), text.as_deref().and_then(measure));
        match key.as_str() {
            "execution_time_wall_seconds" => usage.execution_time_wall_seconds = measured,
            "cpu_time_jiffies" => usage.cpu_time_jiffies = counted,
            "clk_tck_hertz" => usage.clk_tck_hertz = counted,
            "peak_memory_kb" => usage.peak_memory_kb = counted,
            "cpu_time_seconds" => usage.cpu_time_seconds = measured,
            "oom_kills" => usage.oom_kills = counted,
            _ => {}
        }
    }
    let measured = [usage.execution_time_wall_seconds, usage.cpu_time_seconds];
    let counted = [usage.cpu_time_jiffies, usage.clk_tck_hertz, usage.peak_memory_kb, usage.oom_kills];
    let known = measured.iter().flatten().count() + counted.iter().flatten().count();
    (Some(usage), known)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(line: &str) -> Option<Report> {
        Report::parse(line.as_bytes())
    }

    #[test]
    fn a_full_report_is_read() {
        let report = parse(
            r#"{"exit_code":3,"resource_usage":{"execution_time_wall_seconds":0.25,"cpu_time_jiffies":3,
            "clk_tck_hertz":100,"peak_memory_kb":9216},"stdout":"out\n","stderr":"\u00e9\u0000"}"#,
        )
        .unwrap();
        assert_eq!(report.exit_code, Some(3));
        assert_eq!(report.stdout.as_deref(), Some("out\n"));
        assert_eq!(report.stderr.as_deref(), Some("é\0"));
        let usage = report.resource_usage.unwrap();
        assert_eq!(usage.execution_time_wall_seconds, Some(0.25));
        assert_eq!(
            (usage.cpu_time_jiffies, usage.clk_tck_hertz, usage.peak_memory_kb),
            (Some(3), Some(100), Some(9216))
        );
        assert_eq!(usage.source.as_deref(), Some("report"));
    }

    #[test]
    fn what_is_forgiven() {
        for (line, exit_code) in [
            (r#"{"exit_code":0,"stdout":""}"#, Some(0)),
            (r#"{"exit_code":0,"stderr":"e"}"#, Some(0)),
            (r#"{"exit_code":0,"resource_usage":{}}"#, Some(0)),
            (r#"{"exit_code":2.0,"stdout":"x","resource_usage":null}"#, Some(2)),
            (r#"{"exit_code":"7","stdout":"x","stderr":null,"extra":[{"a":1}]}"#, Some(7)),
            (r#"{"exit_code":" -9 ","stdout":"x","resource_usage":[]}"#, Some(-9)),
            (r#"{"exit_code":1e0,"stdout":"x"}"#, Some(1)),
            (r#"{"exit_code":null,"resource_usage":{"peak_memory_kb":"12"}}"#, None),
            (r#"{"resource_usage":{"execution_time_wall_seconds":1}}"#, None),
            ("\u{feff}  {\"exit_code\":4,\"stdout\":\"x\"} \r\n", Some(4)),
            (r#"{"exit\u005fcode":5,"stdout":"x"}"#, Some(5)),
            (r#"{"exit_code":1,"stdout":"first","exit_code":6}"#, Some(6)),
            (r#"{"\ud800":1,"exit_code":8,"stdout":"x"}"#, Some(8)),
        ] {
            assert_eq!(parse(line).unwrap_or_else(|| panic!("text: {line}")).exit_code, exit_code, "{line}");
        }
    }

    #[test]
    fn what_is_only_text() {
        for line in [
            "",
            "{}",
            "[]",
            r#"{"exit_code":0}"#,
            r#"{"exit_code":0,"resource_usage":null}"#,
            r#"{"stdout":"x","stderr":"y"}"#,
            r#"{"exit_code":1.5,"stdout":"x"}"#,
            r#"{"exit_code":"one","stdout":"x"}"#,
            r#"{"exit_code":true,"stdout":"x"}"#,
            r#"{"exit_code":2147483648,"stdout":"x"}"#,
            r#"{"exit_code":1e300,"stdout":"x"}"#,
            r#"{"exit_code":"inf","stdout":"x"}"#,
            r#"{"exit_code":0,"stdout":5}"#,
            r#"{"exit_code":0,"stdout":"x","stderr":["y"]}"#,
            r#"{"exit_code":null,"stdout":"x"}"#,
            r#"{"resource_usage":{"peak_memory_kb":"much","unknown":1}}"#,
            r#"{"report":{"exit_code":0,"stdout":"x"}}"#,
            r#"[{"exit_code":0,"stdout":"x"}]"#,
            r#"{"exit_code":0,"stdout":"x""#,
            r#"{"exit_code":0,"stdout":"x}"#,
            r#"{"exit_code":0,"stdout":"x"} and more"#,
            r#"{"exit_code":0,"stdout":"x"}}"#,
            r#"see {"exit_code":0,"stdout":"x"}"#,
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_wrong_metric_is_unknown_and_spoils_nothing() {
        let line = r#"{"exit_code":0,"stdout":"","resource_usage":{"execution_time_wall_seconds":"0.5","cpu_time_jiffies":
            "many","clk_tck_hertz":100.0,"peak_memory_kb":-1,"cpu_time_seconds":1e999,"oom_kills":{}}}"#;
        let usage = parse(line).unwrap().resource_usage.unwrap();
        assert_eq!(usage.execution_time_wall_seconds, Some(0.5));
        assert_eq!(usage.clk_tck_hertz, Some(100));
        assert_eq!(
            (usage.cpu_time_jiffies, usage.peak_memory_kb, usage.cpu_time_seconds, usage.oom_kills),
            (None, None, None, None)
        );
    }

    #[test]
    fn surrogates_pair_up_and_lone_ones_become_one_replacement_character() {
        let report =
            parse(r#"{"exit_code":0,"stdout":"\ud83d\ude00 a\udcffb \ud800","stderr":"\udc00\udc01"}"#).unwrap();
        assert_eq!(report.stdout.as_deref(), Some("😀 a\u{fffd}b \u{fffd}"));
        assert_eq!(report.stderr.as_deref(), Some("\u{fffd}\u{fffd}"));
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_shown_lossily() {
        let report = Report::parse(b"{\"exit_code\":0,\"stdout\":\"a\xffb\"}").unwrap();
        assert_eq!(report.stdout.as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn nesting_without_end_does_not_overflow_the_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse(&deep), None);
        let deep = format!("{{\"exit_code\":1,\"stdout\":\"x\",\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse(&deep).unwrap().exit_code, Some(1));
    }
}
