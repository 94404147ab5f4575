#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init, clippy::needless_pass_by_value)]

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

const LIMITS: Limits = Limits { inline_bytes: 200, max_report_bytes: 256, max_bytes: 1 << 20 };
const SUMMARY: &str = "exit_code=4\ncpu_jiffies=100\nclk_tck=100\npeak_memory_kb=1024\nwall_seconds=0.5\n";

fn scan_by(step: usize, limits: Limits, log: &[u8], end: LogEnd, message: Option<&str>) -> Scan {
    let mut scanner = Scanner::new(limits);
    for chunk in log.chunks(step.max(1)) {
        scanner.push(chunk);
    }
    assert_eq!(scanner.total(), log.len() as u64);
    scanner.finish(end, message)
}

/// Scans in chunks of every small size and as a whole, and asserts that it makes no difference.
fn scan(log: impl AsRef<[u8]>, end: LogEnd, message: Option<&str>) -> Scan {
    let log = log.as_ref();
    let whole = scan_by(log.len(), LIMITS, log, end.clone(), message);
    for step in 1..=log.len().min(70) {
        assert_eq!(scan_by(step, LIMITS, log, end.clone(), message), whole, "chunks of {step}");
    }
    whole
}

fn complete(log: impl AsRef<[u8]>) -> Scan {
    scan(log, LogEnd::Complete, None)
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn report(exit_code: i32, stdout: &str) -> String {
    format!(
        r#"{{"exit_code":{exit_code},"resource_usage":{{"peak_memory_kb":9216}},"stdout":{stdout:?},"stderr":"e"}}"#
    )
}

fn metrics(exit_code: i32) -> String {
    format!(r#"{{"exit_code":{exit_code},"resource_usage":{{"peak_memory_kb":9216}}}}"#)
}

/// Standard output's text, standard error's, the exit code.
fn told(scan: &Scan) -> (&str, Option<&str>, Option<i32>) {
    let collected = &scan.collected;
    (&collected.stdout.text, collected.stderr.as_ref().map(|stderr| stderr.text.as_str()), collected.exit_code)
}

#[test]
fn plain_text_is_all_standard_output() {
    for log in ["", "hello\nworld\n", "no final newline", "a\r\nb\r\n", "a\0b\x1b[31m\r50%\r100%", "{\n}\n", "  \n\t{"]
    {
        let scan = complete(log);
        assert_eq!(told(&scan), (log, None, None));
        let stdout = &scan.collected.stdout;
        assert!(stdout.whole);
        assert_eq!(stdout.summary.verdict, Verdict::Complete);
        assert_eq!(stdout.summary.bytes_total, Some(log.len() as u64));
        assert_eq!(stdout.summary.bytes_kept, log.len() as u64);
        assert_eq!(stdout.summary.sha256, Some(sha256(log.as_bytes())));
        assert_eq!((&scan.stdout, &scan.stderr), (&Source::Log, &Source::Nothing));
        assert_eq!(scan.collected.notes, [""; 0]);
    }
}

#[test]
fn the_last_valid_report_wins_wherever_it_stands() {
    let (yes, no) = (report(7, "TRUE"), report(0, "FAKE"));
    let cut = &no[..no.len() - 3];
    for log in [
        yes.clone(),
        format!("{yes}\n"),
        format!("{yes}\r\n"),
        format!("junk\n{yes}"),
        format!("junk\n{yes}\nmore junk\n"),
        format!("{no}\n{yes}\n"),
        format!("{no}\n{}\n{yes}", metrics(1)),
        format!("{yes}\n{cut}"),
        format!("{yes}\n[{no}]\n"),
        format!("{yes}\n{{\"nested\":{no}}}\n"),
        format!("{yes}\n{no} trailing\n"),
        format!("{yes}\nleading {no}\n"),
        format!("{cut}\n{yes}\n\n\n"),
        format!("\u{feff}{yes}"),
        format!("  \t{yes}  \n"),
        format!("{}\n{yes}", "{".repeat(200)),
    ] {
        let scan = complete(&log);
        assert_eq!(told(&scan), ("TRUE", Some("e"), Some(7)), "{log}");
        assert_eq!(scan.collected.resource_usage.as_ref().unwrap().peak_memory_kb, Some(9216));
        assert_eq!(scan.stdout, Source::Text("TRUE".to_owned()));
        assert_eq!(scan.stderr, Source::Text("e".to_owned()));
        let summary = &scan.collected.stdout.summary;
        assert_eq!((summary.bytes_total, summary.bytes_kept), (Some(4), 4));
        assert_eq!(summary.sha256, Some(sha256(b"TRUE")));
    }
}

#[test]
fn a_report_after_bytes_that_are_no_utf_8_is_found() {
    let log = [b"\xff\xfe\0bin\xe9\x80\n".as_slice(), report(0, "after").as_bytes()].concat();
    assert_eq!(told(&complete(log)), ("after", Some("e"), Some(0)));
}

#[test]
fn bytes_that_are_no_utf_8_are_shown_lossily_and_are_not_whole() {
    let scan = complete(b"a\xffb\n");
    assert_eq!(scan.collected.stdout.text, "a\u{fffd}b\n");
    assert!(!scan.collected.stdout.whole);
    assert_eq!(scan.collected.stdout.summary.sha256, Some(sha256(b"a\xffb\n")));
}

#[test]
fn a_report_without_stdout_leaves_the_rest_of_the_log() {
    let line = metrics(5);
    for (before, after) in [("out\n", ""), ("", ""), ("a\n", "b\n"), ("", "late"), ("{}\n", "{\"x\":1}\n")] {
        let log = format!("{before}{line}\n{after}");
        let scan = complete(&log);
        let rest = format!("{before}{after}");
        assert_eq!(told(&scan), (rest.as_str(), None, Some(5)));
        assert_eq!(scan.collected.stdout.summary.sha256, Some(sha256(rest.as_bytes())));
        let (start, end) = (before.len() as u64, log.len() as u64);
        assert_eq!(scan.stdout, Source::Parts(vec![0..start, end - after.len() as u64..end]));
    }
    let scan = complete(format!("{}\nx\n{}", metrics(1), metrics(2)));
    assert_eq!(told(&scan), (format!("{}\nx\n", metrics(1)).as_str(), None, Some(2)), "only the last one is a report");
    let scan = complete("out\n{\"exit_code\":1,\"stderr\":\"err\"}");
    assert_eq!(told(&scan), ("out\n", Some("err"), Some(1)));
}

#[test]
fn a_line_too_long_to_be_tried_is_text_and_noted() {
    let long = report(0, &"x".repeat(300));
    let scan = complete(format!("{long}\nmore"));
    assert_eq!(scan.collected.exit_code, None);
    assert_eq!(scan.collected.notes, ["report_too_large"]);
    assert_eq!(scan.collected.stdout.summary.sha256, Some(sha256(format!("{long}\nmore").as_bytes())));
    assert_eq!(scan.collected.stdout.summary.verdict, Verdict::Complete);

    let scan = complete(format!("{long}\n{}", report(1, "TRUE")));
    assert_eq!((told(&scan).0, scan.collected.notes.len()), ("TRUE", 0), "a later report makes up for it");
    let scan = complete(format!("{}\n{long}", report(1, "TRUE")));
    assert_eq!((told(&scan).0, scan.collected.notes.as_slice()), ("TRUE", ["report_too_large".to_owned()].as_slice()));
    let blank = " ".repeat(300);
    let scan = complete(format!("{blank}{}", report(1, "x")));
    assert_eq!(scan.collected.exit_code, None, "white space counts too");

    let exact = report(2, &"x".repeat(256 - report(2, "").len()));
    assert_eq!(exact.len(), 256);
    assert_eq!(complete(format!("{exact}\n")).collected.exit_code, Some(2));
    assert_eq!(complete(format!("{exact} \n")).collected.notes, ["report_too_large"]);
}

#[test]
fn text_outside_a_report_is_told_by_the_log_alone() {
    for (log, told) in [
        (report(0, "x"), true),
        (format!("{}\n", report(0, "x")), true),
        (format!("{}\n ", report(0, "x")), false),
        (format!("text\n{}", report(0, "x")), false),
        (format!("text\n{}\ntext", metrics(0)), true),
        ("STDOUT 1\nxSTDERR 0\n".to_owned(), true),
        ("plain".to_owned(), false),
    ] {
        assert_eq!(complete(&log).told, told, "{log}");
    }
}

#[test]
fn frames_are_two_streams() {
    let log = "STDOUT 11\nhello worldSTDERR 12\nsome warning";
    let scan = scan(log, LogEnd::Complete, Some(SUMMARY));
    assert_eq!(told(&scan), ("hello world", Some("some warning"), Some(4)));
    assert_eq!(scan.collected.resource_usage.as_ref().unwrap().execution_time_wall_seconds, Some(0.5));
    assert_eq!((&scan.stdout, &scan.stderr), (&Source::Parts(vec![10..21]), &Source::Parts(vec![31..43])));
    assert_eq!(scan.collected.stdout.summary.sha256, Some(sha256(b"hello world")));
    let without = complete(log);
    assert_eq!(told(&without), ("hello world", Some("some warning"), None));
    let decoy = report(9, "FAKE");
    let log = format!("STDOUT {}\n{decoy}\nSTDERR 0\n", decoy.len() + 1);
    assert_eq!(told(&complete(&log)), (format!("{decoy}\n").as_str(), Some(""), None), "a report within is output");
}

#[test]
fn cut_frames_are_frames_only_where_a_summary_vouches_for_them() {
    let log = "STDOUT 5\nhelloSTDERR 9\nbro";
    for end in [LogEnd::Complete, LogEnd::BrokeOff] {
        let cut = scan(log, end.clone(), Some(SUMMARY));
        assert_eq!(told(&cut), ("hello", Some("bro"), Some(4)));
        assert_eq!(cut.collected.stdout.summary.verdict, Verdict::Complete);
        let stderr = &cut.collected.stderr.as_ref().unwrap().summary;
        assert_eq!((stderr.verdict, stderr.bytes_total, stderr.bytes_kept), (Verdict::Partial, Some(9), 3));
        assert_eq!(stderr.sha256, None);

        let cut = scan("STDOUT 5\nhelloSTD", end.clone(), Some(SUMMARY));
        assert_eq!(told(&cut), ("hello", Some(""), Some(4)));
        assert_eq!(cut.collected.stderr.as_ref().unwrap().summary.verdict, Verdict::Lost);
    }
    assert_eq!(told(&complete(log)), (log, None, None));
    let broken = scan("STDOUT 5\nhelloSTDERR 3\nerr plus", LogEnd::Complete, Some(SUMMARY));
    assert_eq!(told(&broken), ("STDOUT 5\nhelloSTDERR 3\nerr plus", None, Some(4)), "the summary stands by itself");
}

#[test]
fn the_log_apis_own_sentence_is_no_output_if_it_stands_alone() {
    let sentence = "unable to retrieve container logs for containerd://0123abcd";
    for log in [sentence.to_owned(), format!("{sentence}\n"), format!("{sentence}\r\n")] {
        let scan = complete(&log);
        assert!(scan.is_lost());
        assert_eq!(told(&scan), ("", None, None));
        assert_eq!(scan.collected.stdout.summary, StreamSummary::default());
        assert_eq!(scan.stdout, Source::Nothing);
        assert_eq!(scan.collected.notes, ["log_lost: the kubelet could not retrieve the log", "report_unread"]);
    }
    for log in [
        format!("x{sentence}"),
        format!("{sentence}\nmore"),
        format!("{sentence}\n\n"),
        format!("before\n{sentence}\n"),
        "unable to retrieve container logs for me".to_owned(),
        "unable to retrieve container logs for my cat at containerd://x".to_owned(),
    ] {
        assert_eq!(told(&complete(&log)), (log.as_str(), None, None));
    }
}

#[test]
fn verdicts_say_how_complete_the_log_is() {
    let verdict = |scan: &Scan| scan.collected.stdout.summary.verdict;
    let cut = scan("half a li", LogEnd::BrokeOff, None);
    assert_eq!((told(&cut).0, verdict(&cut)), ("half a li", Verdict::Partial));
    assert_eq!(cut.collected.notes, ["report_unread"]);
    let summary = &cut.collected.stdout.summary;
    assert_eq!((summary.bytes_total, summary.bytes_kept, &summary.sha256), (None, 9, &None));

    let anew = scan("the rest\n", LogEnd::BegunAnew, None);
    assert_eq!((told(&anew).0, verdict(&anew)), ("the rest\n", Verdict::Partial));
    assert_eq!(anew.collected.notes, ["log_begun_anew", "report_unread"]);
    assert_eq!(anew.collected.stdout.summary.bytes_total, None);

    let cut = scan(format!("{}\nhalf", report(3, "x")), LogEnd::BrokeOff, None);
    assert_eq!((told(&cut), verdict(&cut)), (("x", Some("e"), Some(3)), Verdict::Complete), "a report is a report");
    assert_eq!(cut.collected.notes, [""; 0]);
    let cut = scan(format!("x\n{}\nhalf", metrics(3)), LogEnd::BrokeOff, None);
    assert_eq!((told(&cut), verdict(&cut)), (("x\nhalf", None, Some(3)), Verdict::Partial));

    let lost = scan("", LogEnd::Lost("forbidden".to_owned()), None);
    assert_eq!((told(&lost), verdict(&lost)), (("", None, None), Verdict::Lost));
    assert_eq!(lost.collected.notes, ["log_lost: forbidden", "report_unread"]);
    let lost = scan("", LogEnd::Lost("gone".to_owned()), Some(SUMMARY));
    assert_eq!((told(&lost).2, lost.collected.notes.len()), (Some(4), 1), "the summary came with the status");

    let none = scan("", LogEnd::None, None);
    assert_eq!((told(&none), verdict(&none)), (("", None, None), Verdict::Complete));
    assert_eq!(none.collected.stdout.summary.bytes_total, Some(0));
    assert_eq!(none.collected.notes, [""; 0]);
}

#[test]
fn what_is_over_the_limit_is_truncated_and_reports_are_not() {
    let limits = Limits { inline_bytes: 8, max_bytes: 20, ..LIMITS };
    let scan = |log: &str, message| scan_by(7, limits, log.as_bytes(), LogEnd::Complete, message);
    let fits = scan(&"x".repeat(20), None);
    assert_eq!(fits.collected.stdout.summary.verdict, Verdict::Complete);
    let over = scan("abcdefghijklmnopqrstu", None);
    let summary = over.collected.stdout.summary.clone();
    assert_eq!((summary.verdict, summary.bytes_total, summary.bytes_kept), (Verdict::Truncated, Some(21), 20));
    assert_eq!(summary.sha256, Some(sha256(b"abcdefghijklmnopqrstu")));
    assert_eq!(over.collected.stdout.text, "abcd\n[... 13 bytes left out ...]\nrstu");

    let reported = scan(&format!("{}\n{}", "x".repeat(500), report(0, "a longer text than the limits")), None);
    let summary = &reported.collected.stdout.summary;
    assert_eq!((summary.verdict, summary.bytes_kept), (Verdict::Complete, 29));

    // 0..10 and 27..37 of 37 bytes are kept: of stdout (9..20) one, of stderr (30..37) all seven.
    let framed = scan("STDOUT 11\nabcdefghijkSTDERR 6\nfghijk", None);
    assert_eq!(framed.collected.stdout.summary.verdict, Verdict::Truncated);
    assert_eq!(framed.collected.stdout.summary.bytes_kept, 0);
    assert_eq!(framed.collected.stderr.unwrap().summary.verdict, Verdict::Complete);
}

#[test]
fn without_a_store_only_the_inline_text_is_kept() {
    let limits = Limits { inline_bytes: 8, ..LIMITS };
    let whole = scan_by(9, limits, b"12345678", LogEnd::Complete, None).into_inline_only();
    assert_eq!((whole.stdout.summary.verdict, whole.stdout.summary.bytes_kept), (Verdict::Complete, 8));
    let cut = scan_by(9, limits, b"123456789", LogEnd::Complete, None).into_inline_only();
    assert_eq!((cut.stdout.summary.verdict, cut.stdout.summary.bytes_kept), (Verdict::Truncated, 8));
    assert_eq!(cut.stdout.summary.bytes_total, Some(9));
}

#[test]
fn kept_parts_are_a_head_and_a_tail_that_do_not_overlap() {
    assert_eq!(kept_parts(0, 10), [0..0, 0..0]);
    assert_eq!(kept_parts(4, 10), [0..4, 4..4]);
    assert_eq!(kept_parts(10, 10), [0..5, 5..10]);
    assert_eq!(kept_parts(100, 11), [0..5, 94..100]);
    assert_eq!(within(&(3..97), &kept_parts(100, 11)), [3..5, 94..97]);
    assert_eq!(within(&(7..9), &kept_parts(100, 11)), [7..7, 94..94]);
}

#[test]
fn memory_is_bounded_whatever_the_log_is() {
    let bound = |scanner: &Scanner| {
        let held = scanner.held.capacity() + scanner.lead.capacity();
        assert!(held <= 2 * LIMITS.max_report_bytes + 2 * LEAD_MAX, "{held} bytes held");
    };
    for filler in [&b"x"[..], b"{", b" ", b"{\"a\":1}\n", b"\n", b"STDOUT 9999999\n", b"\xef\xbb\xbf"] {
        let mut scanner = Scanner::new(LIMITS);
        for _ in 0..20_000 {
            scanner.push(filler);
            bound(&scanner);
        }
        let scan = scanner.finish(LogEnd::Complete, None);
        assert!(scan.collected.stdout.text.len() < 4 * LIMITS.inline_bytes);
    }
}

/// A log of pieces that matter, in any order.
fn any_log() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"text".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"  {".to_vec()),
        Just(b"{\"a\":".to_vec()),
        Just(b"}\n".to_vec()),
        Just(b"\xef\xbb\xbf".to_vec()),
        Just("€😀".as_bytes().to_vec()),
        Just(b"STDOUT 3\nabcSTDERR 2\nde".to_vec()),
        Just(b"unable to retrieve container logs for cri://x".to_vec()),
        (0..9i32).prop_map(|code| report(code, "out").into_bytes()),
        (0..9i32).prop_map(|code| metrics(code).into_bytes()),
        prop::collection::vec(any::<u8>(), 0..40),
        (0..400usize).prop_map(|n| vec![b'y'; n]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// What a reader with all the memory in the world makes of lines.
fn naive_report(log: &[u8]) -> Option<Report> {
    log.split(|byte| *byte == b'\n')
        .filter(|line| line.len() <= LIMITS.max_report_bytes)
        .filter_map(Report::parse)
        .next_back()
}

proptest! {
    #[test]
    fn the_cut_into_chunks_makes_no_difference(log in any_log(), cuts in prop::collection::vec(1usize..60, 1..40)) {
        let whole = scan_by(log.len(), LIMITS, &log, LogEnd::Complete, Some(SUMMARY));
        let mut scanner = Scanner::new(LIMITS);
        let mut rest = log.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            scanner.push(chunk);
            rest = after;
        }
        prop_assert_eq!(scanner.finish(LogEnd::Complete, Some(SUMMARY)), whole);
    }

    #[test]
    fn any_bytes_give_what_a_naive_reader_finds(log in any_log(), step in 1usize..300) {
        let scan = scan_by(step, LIMITS, &log, LogEnd::Complete, None);
        let is_frames = scan.collected.stderr.is_some() && matches!(scan.stderr, Source::Parts(_));
        if scan.is_lost() || is_frames {
            return Ok(());
        }
        let report = naive_report(&log);
        prop_assert_eq!(scan.collected.exit_code, report.as_ref().and_then(|report| report.exit_code));
        let stdout: Vec<u8> = match &scan.stdout {
            Source::Text(text) => text.clone().into_bytes(),
            Source::Log => log,
            Source::Parts(parts) => parts
                .iter()
                .flat_map(|part| &log[usize::try_from(part.start).unwrap()..usize::try_from(part.end).unwrap()])
                .copied()
                .collect(),
            Source::Nothing => Vec::new(),
        };
        if let Some(text) = report.as_ref().and_then(|report| report.stdout.as_ref()) {
            prop_assert_eq!(text.as_bytes(), stdout.as_slice());
        }
        let summary = &scan.collected.stdout.summary;
        prop_assert_eq!(summary.bytes_total, Some(stdout.len() as u64));
        prop_assert_eq!(summary.sha256.clone(), Some(sha256(&stdout)));
        if scan.collected.stdout.whole {
            prop_assert_eq!(scan.collected.stdout.text.as_bytes(), stdout.as_slice());
        }
    }

    #[test]
    fn a_report_is_found_anywhere(before in any_log(), after in "[a-z \n]{0,80}", step in 1usize..300) {
        let mut log = before;
        log.extend(format!("\n{}\n{after}", report(42, "here")).bytes());
        let scan = scan_by(step, LIMITS, &log, LogEnd::Complete, None);
        prop_assert_eq!(scan.collected.exit_code, Some(42));
        prop_assert_eq!(scan.collected.stdout.text, "here");
    }
}
