//! What stays behind when an execution goes, and why.

use std::time::Duration;

use tempfile::TempDir;

use super::open_in;
use crate::journal::{
    EventQuery, ExecutionQuery, Journal, Known, PodQuery, Retention,
    fixture::{Pod, at},
};

async fn prune(journal: &dyn Journal) -> Vec<String> {
    let retention = Retention { age: Duration::from_secs(10), now: at(1000), batch: 10 };
    journal.prune(retention).await.unwrap().executions
}

async fn known(journal: &dyn Journal, uid: &str) -> Known {
    journal.known(vec![(uid.to_owned(), "e".to_owned())]).await.unwrap().remove(0)
}

#[tokio::test]
async fn the_evidence_of_a_pod_that_is_still_there_outlives_its_execution() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let mut pod = Pod::new("e", "u", 1);
    let life = vec![pod.schedule(at(1)), pod.start(at(2)), pod.end(at(3), 0, "")];
    journal.append(life.clone()).await.unwrap();
    assert_eq!(prune(&*journal).await, ["e"]);
    assert_eq!(journal.execution("e".into()).await.unwrap(), None);
    assert!(journal.executions(ExecutionQuery { limit: 9, ..ExecutionQuery::default() }).await.unwrap().is_empty());
    assert_eq!(known(&*journal, "u").await.evidence, Some(pod.evidence.clone()));
    assert_eq!(known(&*journal, "new").await.claim.unwrap().attempts["key-u"], 1);
    assert_eq!(journal.open_evidence().await.unwrap(), [pod.evidence.clone()]);
    assert_eq!(journal.pods(PodQuery { limit: 9, ..PodQuery::default() }).await.unwrap().len(), 1);

    // A relist brings the pod again, and at last it goes: no event of it comes back.
    journal.append(life).await.unwrap();
    journal.append(vec![pod.go(at(2000))]).await.unwrap();
    assert_eq!(journal.events(EventQuery { after: 0, limit: 9 }).await.unwrap(), []);
    assert_eq!(journal.execution("e".into()).await.unwrap(), None);
    assert_eq!(prune(&*journal).await, [""; 0], "it was reported when it went");
    assert_eq!(known(&*journal, "u").await, Known::default(), "and now nothing is left");
    journal.close().await;
}

#[tokio::test]
async fn a_new_attempt_takes_a_forgotten_execution_up_where_its_numbers_ended() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    let mut first = Pod::new("e", "u1", 1);
    journal.append(vec![first.schedule(at(1)), first.end(at(2), 1, "first")]).await.unwrap();
    assert_eq!(prune(&*journal).await, ["e"]);
    let mut second = Pod::new("e", "u2", 2);
    journal.append(vec![second.schedule(at(2000))]).await.unwrap();
    let records = journal.execution_events("e".into(), 0, 10).await.unwrap();
    assert_eq!(records.iter().map(|record| (record.position, record.seq)).collect::<Vec<_>>(), [(3, 3)]);
    let execution = journal.execution("e".into()).await.unwrap().unwrap();
    assert_eq!((execution.attempt, execution.attempts, execution.stdout), (2, 2, None));
    // The first attempt was settled when it was taken: it holds nothing back.
    journal.append(vec![second.end(at(2001), 0, "")]).await.unwrap();
    let later = Retention { age: Duration::from_secs(10), now: at(3000), batch: 10 };
    assert_eq!(journal.prune(later).await.unwrap().executions, ["e"]);
    journal.close().await;
}

#[tokio::test]
async fn the_record_of_a_conflicting_pod_goes_when_the_pod_and_the_execution_have_gone() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    journal.append(Pod::new("e", "u1", 1).life(0)).await.unwrap();
    let mut thief = Pod::new("e", "u2", 1).in_namespace("other").conflicting();
    journal.append(vec![thief.seen(at(1))]).await.unwrap();
    assert_eq!(prune(&*journal).await, ["e"]);
    assert!(known(&*journal, "u2").await.evidence.is_some());
    journal.append(vec![thief.go(at(2))]).await.unwrap();
    assert_eq!(prune(&*journal).await, [""; 0]);
    assert_eq!(known(&*journal, "u2").await, Known::default());
    journal.close().await;
}

#[tokio::test]
async fn oldest_ends_go_first_batch_by_batch() {
    let dir = TempDir::new().unwrap();
    let journal = open_in(&dir).await;
    for (id, second) in [("c", 30), ("a", 10), ("b", 20)] {
        journal.append(Pod::new(id, id, 1).life(second)).await.unwrap();
    }
    let two = Retention { age: Duration::ZERO, now: at(1000), batch: 2 };
    assert_eq!(journal.prune(two).await.unwrap().executions, ["a", "b"]);
    assert_eq!(journal.prune(two).await.unwrap().executions, ["c"]);
    journal.close().await;
}
