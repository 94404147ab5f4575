#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]

use podherald_core::{
    event::Verdict,
    output::{Collected, Limits, LogEnd, Scanner},
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const LIMITS: Limits = Limits { inline_bytes: 16, max_report_bytes: 1 << 20, max_bytes: 1 << 20 };

struct Fixture {
    _data: TempDir,
    path: PathBuf,
    store: OutputStore,
}

fn fixture() -> Fixture {
    let data = tempfile::tempdir().unwrap();
    let store = OutputStore::open(data.path()).unwrap();
    Fixture { path: data.path().join("output"), _data: data, store }
}

impl Fixture {
    async fn collect(&self, attempt: u32, limits: Limits, log: &[u8], step: usize) -> (Collected, Result<()>) {
        let mut writer = self.store.writer(limits.max_bytes);
        let mut scanner = Scanner::new(limits);
        for chunk in log.chunks(step) {
            scanner.push(chunk);
            writer.write(chunk).await.unwrap();
        }
        writer.finish("e1", attempt, scanner.finish(LogEnd::Complete, None)).await
    }

    async fn collect_of_pod(&self, pod: &str, in_full: bool, log: &[u8]) {
        let mut writer = self.store.writer(LIMITS.max_bytes).of_pod(Some(pod.to_owned())).in_full(in_full);
        let mut scanner = Scanner::new(LIMITS);
        scanner.push(log);
        writer.write(log).await.unwrap();
        writer.finish("e1", 1, scanner.finish(LogEnd::Complete, None)).await.1.unwrap();
    }

    async fn read_of_pod(&self, pod: &str) -> Option<Vec<u8>> {
        let reader = self.store.reader_of_pod("e1", 1, pod, Stream::Raw).await.unwrap()?;
        Some(reader.read(0, usize::MAX).await.unwrap().to_vec())
    }

    async fn read(&self, attempt: u32, stream: Stream) -> Option<Vec<u8>> {
        let reader = self.store.reader("e1", attempt, stream).await.unwrap()?;
        Some(reader.read(0, usize::MAX).await.unwrap().to_vec())
    }

    /// The names of all files, under the directory of the execution.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut to_visit = vec![self.path.clone()];
        while let Some(directory) = to_visit.pop() {
            for entry in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap()) {
                if entry.file_type().unwrap().is_dir() {
                    to_visit.push(entry.path());
                } else {
                    let path = entry.path();
                    let parts: Vec<_> = path.iter().rev().take(2).map(|part| part.to_string_lossy()).collect();
                    found.push(format!("{}/{}", parts[1], parts[0]));
                }
            }
        }
        found.sort();
        found
    }
}

#[tokio::test]
async fn what_the_event_holds_byte_for_byte_needs_no_file() {
    let fixture = fixture();
    for log in ["", "hello", "sixteen bytes...", "a\0b"] {
        let (collected, stored) = fixture.collect(1, LIMITS, log.as_bytes(), 5).await;
        stored.unwrap();
        assert_eq!((collected.stdout.text.as_str(), collected.stdout.whole), (log, true));
        assert_eq!(fixture.files(), [""; 0]);
        assert_eq!(fixture.read(1, Stream::Stdout).await, None);
        assert_eq!(fixture.read(1, Stream::Raw).await, None);
    }
}

#[tokio::test]
async fn bytes_that_are_no_utf_8_come_back_as_they_were() {
    let fixture = fixture();
    fixture.collect(1, LIMITS, b"a\xff\0b", 2).await.1.unwrap();
    assert_eq!(fixture.files(), ["1/stdout"]);
    assert_eq!(fixture.read(1, Stream::Stdout).await.unwrap(), b"a\xff\0b");
    assert_eq!(fixture.read(1, Stream::Raw).await.unwrap(), b"a\xff\0b", "the log is standard output");
    assert_eq!(fixture.read(1, Stream::Stderr).await, None);
    assert_eq!(fixture.read(2, Stream::Stdout).await, None);
}

#[tokio::test]
async fn a_report_keeps_the_log_around_it() {
    let fixture = fixture();
    let long = "x".repeat(40);
    let log = format!("before\n{{\"exit_code\":1,\"stdout\":\"short\",\"stderr\":\"{long}\"}}\n");
    let (collected, stored) = fixture.collect(1, LIMITS, log.as_bytes(), 7).await;
    stored.unwrap();
    assert_eq!(collected.exit_code, Some(1));
    assert_eq!(fixture.files(), ["1/raw", "1/stderr"]);
    assert_eq!(fixture.read(1, Stream::Raw).await.unwrap(), log.as_bytes());
    assert_eq!(fixture.read(1, Stream::Stderr).await.unwrap(), long.as_bytes());
    assert_eq!(fixture.read(1, Stream::Stdout).await, None, "not the log in its place");
}

#[tokio::test]
async fn a_report_without_stdout_is_cut_out_of_the_log() {
    let fixture = fixture();
    let line = r#"{"exit_code":1,"resource_usage":{"peak_memory_kb":1}}"#;
    let log = format!("before, and it is long\n{line}\nafter\n");
    fixture.collect(1, LIMITS, log.as_bytes(), 9).await.1.unwrap();
    assert_eq!(fixture.read(1, Stream::Stdout).await.unwrap(), b"before, and it is long\nafter\n");
    assert_eq!(fixture.read(1, Stream::Raw).await.unwrap(), log.as_bytes());
}

#[tokio::test]
async fn frames_are_cut_out_of_the_log_wherever_it_is_held() {
    let fixture = fixture();
    for length in [100, 600_000] {
        let (out, err) = ("o".repeat(length), "e".repeat(length / 2));
        let log = format!("STDOUT {length}\n{out}STDERR {}\n{err}", length / 2);
        let (collected, stored) = fixture.collect(1, LIMITS, log.as_bytes(), 50_000).await;
        stored.unwrap();
        assert_eq!(collected.stdout.summary.verdict, Verdict::Complete);
        assert_eq!(fixture.files(), ["1/raw", "1/stderr", "1/stdout"]);
        assert_eq!(fixture.read(1, Stream::Stdout).await.unwrap(), out.as_bytes());
        assert_eq!(fixture.read(1, Stream::Stderr).await.unwrap(), err.as_bytes());
        assert_eq!(fixture.read(1, Stream::Raw).await.unwrap(), log.as_bytes());
    }
}

#[tokio::test]
async fn a_large_log_keeps_its_first_and_its_last_half_of_the_limit() {
    let fixture = fixture();
    let log: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_be_bytes).collect();
    for max_bytes in [1_000_001, 1_000] {
        let limits = Limits { max_bytes, ..LIMITS };
        let (collected, stored) = fixture.collect(1, limits, &log, 70_001).await;
        stored.unwrap();
        let summary = &collected.stdout.summary;
        assert_eq!((summary.verdict, summary.bytes_kept), (Verdict::Truncated, max_bytes));
        let half = usize::try_from(max_bytes / 2).unwrap();
        let tail = usize::try_from(max_bytes).unwrap() - half;
        let kept = fixture.read(1, Stream::Stdout).await.unwrap();
        assert!(kept == [&log[..half], &log[log.len() - tail..]].concat());
    }
}

#[tokio::test]
async fn collecting_again_replaces_what_was_there() {
    let fixture = fixture();
    let report = r#"{"exit_code":1,"stdout":"a text of more than sixteen bytes","stderr":"\u0001"}"#;
    fixture.collect(1, LIMITS, report.as_bytes(), 100).await.1.unwrap();
    assert_eq!(fixture.files(), ["1/raw", "1/stdout"]);
    fixture.collect(2, LIMITS, b"another attempt, and a long one", 100).await.1.unwrap();
    fixture.collect(1, LIMITS, b"just a log, and a long one", 100).await.1.unwrap();
    assert_eq!(fixture.files(), ["1/stdout", "2/stdout"]);
    assert_eq!(fixture.read(1, Stream::Stdout).await.unwrap(), b"just a log, and a long one");
    fixture.collect(1, LIMITS, b"short", 100).await.1.unwrap();
    assert_eq!(fixture.files(), ["2/stdout"], "what the event holds is not shadowed by an old file");
}

#[tokio::test]
async fn an_unfinished_log_leaves_nothing_and_a_crash_only_until_the_next_start() {
    let fixture = fixture();
    let mut writer = fixture.store.writer(1 << 20);
    writer.write(&vec![b'x'; 600_000]).await.unwrap();
    assert_eq!(fixture.files().len(), 1);
    drop(writer);
    assert_eq!(fixture.files(), [""; 0]);

    fs::write(fixture.path.join("unfinished/7"), "left by a crash").unwrap();
    fixture.collect(1, LIMITS, b"finished, and a long one", 100).await.1.unwrap();
    OutputStore::open(fixture.path.parent().unwrap()).unwrap();
    assert_eq!(fixture.files(), ["1/stdout"]);
}

#[tokio::test]
async fn removing_an_execution_removes_all_its_attempts_and_nothing_else() {
    let fixture = fixture();
    for attempt in [1, 2] {
        fixture.collect(attempt, LIMITS, b"something long enough", 100).await.1.unwrap();
    }
    let reader = fixture.store.reader("e1", 1, Stream::Stdout).await.unwrap().unwrap();
    fixture.store.remove("e2").await.unwrap();
    assert_eq!(fixture.files().len(), 2);
    fixture.store.remove("e1").await.unwrap();
    fixture.store.remove("e1").await.unwrap();
    assert_eq!(fixture.files(), [""; 0]);
    assert_eq!(reader.read(10, 4).await.unwrap(), "long", "who has begun to read goes on");
}

#[tokio::test]
async fn pods_that_are_kept_stay_beside_the_one_that_is_adopted_until_the_execution_is_removed() {
    let fixture = fixture();
    for (pod, in_full, log) in
        [("a", true, "short"), ("b", true, "last"), ("c", false, "of no index, and too long for the event")]
    {
        fixture.collect_of_pod(pod, in_full, log.as_bytes()).await;
    }
    // A crash may come after any of it, so it is done again, whatever is left of what was adopted.
    for _ in 0..2 {
        let missing = fixture.store.adopt("e1", 1, Some("b"), &["a", "b", "gone"]).await.unwrap();
        assert_eq!(missing, ["gone"]);
        assert_eq!(fixture.read(1, Stream::Stdout).await.unwrap(), b"last");
        assert_eq!(fixture.read_of_pod("a").await.unwrap(), b"short");
        assert_eq!(fixture.read_of_pod("b").await.unwrap(), b"last");
        assert_eq!(fixture.read_of_pod("c").await, None);
        fs::remove_file(fixture.store.attempt("e1", 1).join("stdout")).unwrap();
    }
    fixture.store.remove("e1").await.unwrap();
    assert_eq!(fixture.files(), [""; 0]);
    assert_eq!(fixture.read_of_pod("a").await, None);
}

#[tokio::test]
async fn an_execution_id_is_no_path() {
    let fixture = fixture();
    assert!(fixture.store.attempt("../../etc", 1).starts_with(&fixture.path));
    assert_eq!(fixture.store.execution("..").parent(), Some(fixture.path.as_path()));
}

#[tokio::test]
async fn a_range_is_read_within_the_bounds() {
    let fixture = fixture();
    fixture.collect(1, LIMITS, b"0123456789abcdefghij", 100).await.1.unwrap();
    let reader = fixture.store.reader("e1", 1, Stream::Stdout).await.unwrap().unwrap();
    assert_eq!(reader.length(), 20);
    for (offset, limit, expected) in [
        (0, 3, "012"),
        (18, 9, "ij"),
        (20, 1, ""),
        (u64::MAX, 1, ""),
        (5, 0, ""),
        (0, usize::MAX, "0123456789abcdefghij"),
    ] {
        assert_eq!(reader.read(offset, limit).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn without_a_disk_the_event_says_no_more_than_it_holds() {
    let fixture = fixture();
    let directory = fixture.store.execution("e1");
    fs::write(&directory, "in the way").unwrap();
    let (collected, stored) = fixture.collect(1, LIMITS, b"0123456789abcdefghij", 100).await;
    let message = stored.unwrap_err().to_string();
    assert!(message.starts_with("could not ") && message.contains(directory.to_str().unwrap()), "{message}");
    let summary = &collected.stdout.summary;
    assert_eq!((summary.verdict, summary.bytes_kept, summary.bytes_total), (Verdict::Truncated, 16, Some(20)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_spool_gives_what_a_slice_gives(
        log in prop::collection::vec(any::<u8>(), 0..300), max_bytes in 0u64..200, step in 1usize..90,
        start in 0u64..300, length in 0u64..300,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = spool::Spool::create(directory.path().join("0"), max_bytes).unwrap();
        for chunk in log.chunks(step) {
            spool.write(chunk).unwrap();
        }
        let part = start.min(log.len() as u64)..(start + length).min(log.len() as u64);
        let (spooled, held) = (spool::Log::File(spool), spool::Log::Memory(log.clone()));
        for parts in [vec![part], vec![0..log.len() as u64]] {
            let (mut from_file, mut from_memory) = (Vec::new(), Vec::new());
            spooled.copy_parts(&parts, max_bytes, &mut from_file).unwrap();
            held.copy_parts(&parts, max_bytes, &mut from_memory).unwrap();
            prop_assert_eq!(&from_file, &from_memory);
        }
        let path = directory.path().join("all");
        spooled.copy_all(max_bytes, &path).unwrap();
        let kept = podherald_core::output::kept_parts(log.len() as u64, max_bytes);
        let expected: Vec<u8> = kept
            .iter()
            .flat_map(|range| &log[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()])
            .copied()
            .collect();
        prop_assert_eq!(fs::read(&path).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_line_that_a_crash_has_cut_takes_no_other_with_it() {
    let Fixture { store, path, .. } = fixture();
    store.note_blob("e", "s3://b/one").await.unwrap();
    let execution = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path().join("blobs"));
    let list = execution.into_iter().find(|path| path.exists()).unwrap();
    let cut = [std::fs::read_to_string(&list).unwrap(), "\ns3://b/tw".to_owned()].concat();
    std::fs::write(&list, cut).unwrap();
    store.note_blob("e", "s3://b/three").await.unwrap();
    store.leave_blobs("e").await.unwrap();
    let lists = store.unremoved_blobs().await.unwrap();
    let unremoved = store.read_unremoved(lists[0].clone()).await.unwrap();
    assert!(["s3://b/one", "s3://b/three"].iter().all(|uri| unremoved.uris.contains(*uri)), "{unremoved:?}");
}
