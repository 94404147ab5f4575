//! Appends that share a commit, and a writer that is no more.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tempfile::TempDir;
use tokio::{
    task::coop::unconstrained,
    time::{Instant, sleep, timeout},
};

use super::open_in;
use crate::journal::{
    Change, Error, EventQuery, Journal as _, Next, Result, Retention, Sqlite,
    fixture::{Pod, at},
};

/// A number of `/metrics`.
fn count(journal: &Sqlite, name: &str) -> u64 {
    let mut registry = Registry::default();
    journal.metrics().register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("podherald_journal_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Appends that all wait before the writer sees the first, in order.
fn queue_up(journal: &Sqlite, appends: Vec<Vec<Change>>) -> Vec<BoxFuture<'_, Result<()>>> {
    let queue_up = |changes| {
        // Each is queued at its first poll.
        let mut append = journal.append(changes);
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(unconstrained(&mut append)).poll(&mut context).is_pending());
        append
    };
    appends.into_iter().map(queue_up).collect()
}

fn scheduled(n: usize) -> Change {
    Pod::new(&format!("e{n}"), &format!("u{n}"), 1).schedule(at(1))
}

#[tokio::test]
async fn appends_that_wait_together_share_commits_and_keep_their_order() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let mut follower = journal.follow_all();
    let waiting = queue_up(&journal, (0..700).map(|n| vec![scheduled(n)]).collect());
    let answers = join_all(waiting).await;
    assert!(answers.iter().all(Result::is_ok));
    for n in 0..700_usize {
        let Some(Next::Record(record)) = follower.try_next() else { panic!("a record") };
        assert_eq!((&*record.execution_id, record.position), (&*format!("e{n}"), n as u64 + 1));
    }
    assert!(count(&journal, "commit_appends_count") <= 4);
    assert_eq!(count(&journal, "events_total"), 700);
    journal.close().await;
}

#[tokio::test]
async fn a_lone_append_does_not_wait_for_others() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    for n in 0..3 {
        journal.append(vec![scheduled(n)]).await.unwrap();
    }
    assert_eq!(count(&journal, "commit_appends_count"), 3);
    journal.close().await;
}

#[tokio::test]
async fn a_bad_append_fails_alone() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let mut bad = scheduled(1);
    Arc::make_mut(&mut bad.events)[0].execution_id = "another".to_owned();
    let appends = vec![vec![scheduled(0)], vec![scheduled(1), bad], vec![scheduled(2)]];
    let answers = join_all(queue_up(&journal, appends)).await;
    assert_eq!(answers.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert!(answers[1].as_ref().unwrap_err().to_string().contains("belongs to execution another"));
    assert_eq!(count(&journal, "regrouped_commits_total"), 1);
    assert_eq!(count(&journal, "append_failures_total"), 1);
    assert_eq!(journal.execution("e1".into()).await.unwrap(), None, "an append is whole or not at all");
    let records = journal.events(EventQuery { after: 0, limit: 10 }).await.unwrap();
    assert_eq!(records.iter().map(|record| record.position).collect::<Vec<_>>(), [1, 2]);
    journal.close().await;
}

/// The same execution in the failed group and after: what the writer remembered of the rollback must be gone.
#[tokio::test]
async fn a_rollback_leaves_nothing_in_the_writers_memory() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let mut pod = Pod::new("e", "u", 1);
    journal.append(vec![pod.seen(at(0))]).await.unwrap();
    let (scheduled, mut stray) = (pod.schedule(at(1)), pod.start(at(2)));
    Arc::make_mut(&mut stray.events)[1].execution_id = "another".to_owned();
    journal.append(vec![scheduled.clone(), stray]).await.unwrap_err();
    assert_eq!(journal.execution("e".into()).await.unwrap().unwrap().as_of.0, BTreeMap::new());
    journal.append(vec![scheduled]).await.unwrap();
    let records = journal.execution_events("e".into(), 0, 10).await.unwrap();
    assert_eq!(records.iter().map(|record| (record.position, record.seq)).collect::<Vec<_>>(), [(1, 1)]);
    journal.close().await;
}

#[tokio::test]
async fn a_slow_follower_is_told_and_finds_the_rest_in_the_journal() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let mut follower = journal.follow("e");
    for n in 0..100 {
        journal.append(vec![Pod::new("e", &format!("u{n}"), 1).schedule(at(n))]).await.unwrap();
    }
    assert!(matches!(follower.next().await, Next::Lagged));
    let read = journal.execution_events("e".into(), 0, 1000).await.unwrap();
    assert_eq!(read.len(), 100);
    let Some(Next::Record(heard)) = follower.try_next() else { panic!("a record") };
    assert!(read.contains(&heard));
    journal.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_lets_no_paused_clock_jump() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let started = Instant::now();
    for n in 0..50 {
        tokio::select! {
            done = journal.append(vec![scheduled(n)]) => done.unwrap(),
            () = sleep(Duration::from_millis(1)) => panic!("the clock overtook append {n}"),
        }
        assert!(journal.execution(format!("e{n}")).await.unwrap().is_some());
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    journal.close().await;
}

#[tokio::test]
async fn without_its_writer_the_journal_is_closed_and_says_so() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let mut follower = journal.follow_all();
    journal.append(vec![scheduled(0)]).await.unwrap();
    journal.writer.lock().await.abort_all();
    journal.ended().await;
    // What was in the writer's hands is still finished.
    let refused = async { while journal.append(vec![scheduled(1)]).await.is_ok() {} };
    timeout(Duration::from_secs(10), refused).await.unwrap();
    assert!(matches!(journal.append(vec![scheduled(1)]).await, Err(Error::Closed)));
    let retention = Retention { age: Duration::ZERO, now: at(9), batch: 1 };
    assert!(matches!(journal.prune(retention).await, Err(Error::Closed)));
    assert!(matches!(follower.next().await, Next::Record(_)));
    assert!(matches!(follower.next().await, Next::Closed));
    assert!(!journal.health().writable);
    journal.close().await;
}

#[tokio::test]
async fn closing_finishes_what_was_accepted() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let waiting = queue_up(&journal, (0..300).map(|n| vec![scheduled(n)]).collect());
    journal.close().await;
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    let again = open_in(&dir).await;
    assert_eq!(*again.head().borrow(), 300);
    assert!(
        !dir.path().join("journal.db-wal").metadata().is_ok_and(|wal| wal.len() > 0),
        "one file is the whole journal"
    );
    again.close().await;
}

/// An append that nobody polls on may hold a place in the queue for ever.
#[tokio::test]
async fn closing_waits_for_no_append_that_was_never_handed_over() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let place = journal.queue.reserve().await.unwrap();
    timeout(Duration::from_secs(10), journal.close()).await.unwrap();
    drop(place);
}
