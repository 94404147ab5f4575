//! What may befall the file: full, newer, damaged, out of reach.

use std::{fs, io::Write as _, path::Path, time::Duration};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{open_in, options_in};
use crate::journal::{
    Change, Cursor, DeadLetter, DeadLetterQuery, Error, EventQuery, Journal as _, Options, PodQuery, Retention, Sqlite,
    Subscription,
    fixture::{Pod, at},
};

/// Room for the empty journal and a few executions.
const SMALL: u64 = 256 * 1024;

fn with_output(id: usize) -> Vec<Change> {
    let mut pod = Pod::new(&format!("e{id}"), &format!("u{id}"), 1);
    vec![pod.start(at(0)), pod.end(at(1), 0, &"x".repeat(8000)), pod.go(at(2))]
}

/// Fills the journal; the number of the first execution that did not fit, and what was said of it.
async fn fill(journal: &Sqlite) -> (usize, Error) {
    fill_from(journal, 0).await
}

async fn fill_from(journal: &Sqlite, first: usize) -> (usize, Error) {
    for id in first.. {
        if let Err(error) = journal.append(with_output(id)).await {
            return (id, error);
        }
    }
    unreachable!("a small journal holds only so much")
}

async fn refusal(dir: &TempDir) -> Error {
    let path = dir.path().join("journal.db");
    let before = fs::read(&path).unwrap();
    let error = Sqlite::open(options_in(dir)).await.err().unwrap();
    assert_eq!(fs::read(&path).unwrap(), before, "the file is left as it is");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    error
}

/// A closed journal with something in it.
async fn written() -> TempDir {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    for id in 0..10 {
        journal.append(with_output(id)).await.unwrap();
    }
    journal.close().await;
    dir
}

fn overwrite(path: &Path, offset: usize, bytes: &[u8]) {
    let mut whole = fs::read(path).unwrap();
    whole[offset..offset + bytes.len()].copy_from_slice(bytes);
    fs::File::create(path).unwrap().write_all(&whole).unwrap();
}

#[tokio::test]
async fn a_full_journal_acknowledges_nothing_that_is_not_there() {
    let dir = TempDir::new().unwrap();
    let small = Options { max_bytes: SMALL, ..options_in(&dir) };
    let journal = Sqlite::open(small).await.unwrap();
    let mut follower = journal.follow("e0");
    let (first_refused, error) = fill(&journal).await;
    assert!(first_refused > 2);
    assert!(matches!(&error, Error::Full(text) if text.contains("journal.max_bytes")), "{error}");
    let health = journal.health();
    assert!(!health.writable);
    assert_eq!(health.last_error, Some(error.to_string()));
    assert!(health.used_bytes > SMALL / 10 * 9 && health.used_bytes <= SMALL, "{health:?}");
    let refused = format!("e{first_refused}");
    assert_eq!(journal.execution(refused.clone()).await.unwrap(), None);
    assert_eq!(journal.events(EventQuery { after: 0, limit: 1000 }).await.unwrap().len(), first_refused * 4);
    assert_eq!(std::iter::from_fn(|| follower.try_next()).count(), 4);
    journal.close().await;

    let journal = open_in(&dir).await;
    journal.append(with_output(first_refused)).await.unwrap();
    let records = journal.execution_events(refused, 0, 10).await.unwrap();
    assert_eq!(records.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(records[0].position, first_refused as u64 * 4 + 1, "a refused append uses no position up");
    journal.close().await;
}

#[tokio::test]
async fn retention_makes_room_in_a_full_journal() {
    let dir = TempDir::new().unwrap();
    let journal = Sqlite::open(Options { max_bytes: SMALL, ..options_in(&dir) }).await.unwrap();
    let (first_refused, _) = fill(&journal).await;
    // Nothing is old, but there is too much: the oldest go until less than 80 % is in use.
    let retention = Retention { age: Duration::from_secs(1000), now: at(10), batch: 1 };
    let mut gone = Vec::new();
    loop {
        let pruned = journal.prune(retention).await.unwrap().executions;
        if pruned.is_empty() {
            break;
        }
        gone.extend(pruned);
    }
    let used = journal.health().used_bytes;
    assert!(used <= SMALL / 10 * 8 && used > SMALL / 2, "{used}");
    assert_eq!(gone, (0..gone.len()).map(|id| format!("e{id}")).collect::<Vec<_>>());
    journal.append(with_output(first_refused)).await.unwrap();
    assert!(journal.health().writable);
    journal.close().await;
}

#[tokio::test]
async fn a_journal_from_before_there_were_jobs_is_brought_up_to_date() {
    let dir = written().await;
    let path = dir.path().join("journal.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "ALTER TABLE evidence DROP COLUMN is_pod; DROP TABLE cursors; DROP TABLE dead_letters; DROP TABLE places; ALTER TABLE events DROP COLUMN told; ALTER TABLE events DROP COLUMN about; UPDATE meta SET value = 1 WHERE name = 'format'",
    )
    .unwrap();
    drop(db);
    for id in [10, 11] {
        let journal = open_in(&dir).await;
        let mut pod = Pod::new(&format!("e{id}"), &format!("u{id}"), 1);
        journal.append(vec![pod.start(at(0))]).await.unwrap();
        let pods = journal.pods(PodQuery { limit: 100, ..PodQuery::default() }).await.unwrap();
        assert_eq!(pods.len(), id - 9);
        assert!(journal.execution("e3".to_owned()).await.unwrap().is_some());
        journal.close().await;
    }
}

#[tokio::test]
async fn a_journal_from_before_there_were_sinks_is_brought_up_to_date() {
    let dir = written().await;
    let db = Connection::open(dir.path().join("journal.db")).unwrap();
    db.execute_batch("DROP TABLE cursors; DROP TABLE dead_letters; DROP TABLE places; ALTER TABLE events DROP COLUMN told; ALTER TABLE events DROP COLUMN about; UPDATE meta SET value = 2 WHERE name = 'format'")
        .unwrap();
    drop(db);
    for position in [40, 41] {
        let journal = open_in(&dir).await;
        let cursors = journal.subscribe(vec![Subscription { sink: "one", required: false }]).await.unwrap();
        assert_eq!(cursors, [Cursor { position, missed: 0 }]);
        journal.advance("one", Cursor { position: 41, missed: 0 }, vec![]).await.unwrap();
        journal.close().await;
    }
}

#[tokio::test]
async fn a_cursor_moves_in_a_full_journal_and_does_not_say_that_there_is_room() {
    let dir = TempDir::new().unwrap();
    let journal = Sqlite::open(Options { max_bytes: SMALL, ..options_in(&dir) }).await.unwrap();
    journal.subscribe(vec![Subscription { sink: "one", required: true }]).await.unwrap();
    fill(&journal).await;
    journal.advance("one", Cursor { position: 4, missed: 0 }, vec![]).await.unwrap();
    assert!(!journal.health().writable);
    journal.close().await;
}

/// Or nobody could ever make room again: retention waits for the sink, and the sink for its letter.
#[tokio::test]
async fn a_dead_letter_finds_room_in_a_full_journal_and_events_do_not_take_it() {
    let dir = TempDir::new().unwrap();
    let small = || Options { max_bytes: SMALL, ..options_in(&dir) };
    let mut journal = Sqlite::open(small()).await.unwrap();
    journal.subscribe(vec![Subscription { sink: "one", required: true }]).await.unwrap();
    let mut next = 0;
    for round in 1..=3_u64 {
        next = fill_from(&journal, next).await.0;
        let letter = DeadLetter {
            position: round,
            at: at(1000),
            reason: "it is too large".to_owned(),
            event_id: None,
            execution_id: "e".into(),
            event_type: "pod_running".into(),
            result_unproven: false,
            bytes: "x".repeat(64 * 1024).into(),
        };
        let position = *journal.head().borrow();
        journal.advance("one", Cursor { position, missed: 0 }, vec![letter]).await.unwrap();
        let letters = journal.dead_letters(DeadLetterQuery { limit: 9, ..Default::default() }).await.unwrap();
        assert_eq!(letters.first().map(|listed| listed.letter.position), Some(round));
        // Freed pages are in the middle of a file that is larger than it may be.
        let retention = Retention { age: Duration::ZERO, now: at(10), batch: 1000 };
        journal.prune(retention).await.unwrap();
        journal.close().await;
        journal = Sqlite::open(small()).await.unwrap();
    }
    journal.close().await;
}

#[tokio::test]
async fn how_far_others_have_told_is_known_without_a_look_into_any_event() {
    let dir = written().await;
    let journal = open_in(&dir).await;
    let db = Connection::open(dir.path().join("journal.db")).unwrap();
    db.execute("UPDATE events SET told = position <> 30, body = 'no event', version = 'none'", []).unwrap();
    assert_eq!(journal.told_after(0).await.unwrap(), Some(29));
    assert_eq!(journal.told_after(29).await.unwrap(), None);
    assert_eq!(journal.told_after(30).await.unwrap(), Some(*journal.head().borrow()));
    journal.close().await;
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let dir = written().await;
    let db = Connection::open(dir.path().join("journal.db")).unwrap();
    db.execute("UPDATE meta SET value = 8 WHERE name = 'format'", []).unwrap();
    drop(db);
    let error = refusal(&dir).await;
    assert!(matches!(error, Error::Newer { found: 8, known: 7, .. }), "{error}");
}

#[tokio::test]
async fn a_file_of_another_kind_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("journal.db"), "Dear diary, ".repeat(1000)).unwrap();
    let error = refusal(&dir).await;
    assert!(matches!(&error, Error::Corrupt { reason, .. } if reason.contains("not a database")), "{error}");
    assert!(error.to_string().contains("move it away"), "{error}");
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let dir = TempDir::new().unwrap();
    let db = Connection::open(dir.path().join("journal.db")).unwrap();
    db.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    drop(db);
    let error = refusal(&dir).await;
    assert!(matches!(&error, Error::Corrupt { reason, .. } if reason.contains("another program")), "{error}");
}

#[tokio::test]
async fn a_journal_without_its_format_is_refused() {
    let dir = written().await;
    let db = Connection::open(dir.path().join("journal.db")).unwrap();
    db.execute("DELETE FROM meta WHERE name = 'format'", []).unwrap();
    drop(db);
    assert!(matches!(refusal(&dir).await, Error::Corrupt { .. }));
}

#[tokio::test]
async fn a_page_of_noise_is_found_at_the_start() {
    let dir = written().await;
    overwrite(&dir.path().join("journal.db"), 5 * 4096, &[0xa5; 4096]);
    assert!(matches!(refusal(&dir).await, Error::Corrupt { .. }));
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_refused() {
    let dir = written().await;
    let path = dir.path().join("journal.db");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(refusal(&dir).await, Error::Corrupt { .. }));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_damage_and_not_a_crash() {
    let dir = written().await;
    let db = Connection::open(dir.path().join("journal.db")).unwrap();
    db.execute("UPDATE executions SET body = 'noise' WHERE execution_id = 'e3'", []).unwrap();
    drop(db);
    let journal = open_in(&dir).await;
    let error = journal.execution("e3".into()).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(journal.execution("e4".into()).await.unwrap().is_some());
    journal.close().await;
}

#[tokio::test]
async fn a_place_out_of_reach_is_named_with_the_reason() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, reason) in [
        (dir.path().join("missing/journal.db"), "No such file or directory"),
        (file.join("journal.db"), "Not a directory"),
        (dir.path().to_owned(), "Is a directory"),
    ] {
        let error = Sqlite::open(Options { path: path.clone(), ..Options::default() }).await.err().unwrap();
        let text = error.to_string();
        assert!(matches!(error, Error::Io { .. }), "{text}");
        assert!(text.contains(path.to_str().unwrap()) && text.contains(reason), "{text}");
    }
}

#[tokio::test]
async fn the_epoch_and_the_floor_survive_a_restart() {
    let dir = written().await;
    let journal = open_in(&dir).await;
    let epoch = journal.epoch().to_owned();
    assert_eq!(epoch.parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
    let retention = Retention { age: Duration::ZERO, now: at(10), batch: 100 };
    assert_eq!(journal.prune(retention).await.unwrap().executions.len(), 10);
    assert_eq!(journal.floor(), 40);
    journal.close().await;
    let journal = open_in(&dir).await;
    assert_eq!((journal.epoch(), journal.floor(), *journal.head().borrow()), (&*epoch, 40, 40));
    journal.append(with_output(10)).await.unwrap();
    let records = journal.events(EventQuery { after: 0, limit: 1 }).await.unwrap();
    assert_eq!(records[0].position, 41, "a position is never used again");
    journal.close().await;
}
