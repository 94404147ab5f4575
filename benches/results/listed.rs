//! Pages of 50 executions, of the embedded store and of the journal (which a monitor's `GET /executions` reads), among ever more of them:
//! what a page costs must not grow.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use podherald::{
    inbox::Place,
    journal::{self, Change, Journal},
    store::{Arrival, Cursor, ExecutionQuery, Store, sqlite::Sqlite},
};
use podherald_core::{
    about::About,
    event::{Draft, Event},
    evidence::Evidence,
    execution::Status,
    pod::Labels,
};
use serde_json::json;
use tokio::time::Instant;

use crate::{Sizes, common::process::median, end};

/// Appended in one transaction.
const BATCH: usize = 1_000;
const PAGE: usize = 50;
const TIMES: usize = 21;

pub(crate) async fn measure(sizes: &Sizes) {
    of_the_store(sizes).await;
    of_the_journal(sizes).await;
}

async fn of_the_store(sizes: &Sizes) {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&dir.path().join("store.db")).await.unwrap();
    let mut filled = 0;
    for among in sizes.lists {
        for first in (filled..*among).step_by(BATCH) {
            store.append((first..(first + BATCH).min(*among)).map(arrival).collect()).await.unwrap();
        }
        filled = *among;
        for (name, query) in lists(*among) {
            let page = async || store.executions(query.clone()).await.unwrap().len();
            println!(
                "| {among} | store: {name} | {:.2} | {} |",
                wait(page).await,
                store.steps(query.clone()).await.unwrap()
            );
        }
    }
}

async fn of_the_journal(sizes: &Sizes) {
    let dir = tempfile::tempdir().unwrap();
    let options =
        journal::Options { path: dir.path().join("journal.db"), max_bytes: 64 << 30, ..journal::Options::default() };
    let journal = journal::Sqlite::open(options).await.unwrap();
    let mut filled = 0;
    for among in sizes.lists {
        for first in (filled..*among).step_by(BATCH) {
            journal.append((first..(first + BATCH).min(*among)).map(change).collect()).await.unwrap();
        }
        filled = *among;
        for (name, query) in lists(*among) {
            let ExecutionQuery { statuses, namespace, labels, user_id, limit, after } = query;
            let before = after.map(|_| *among as u64 / 2);
            let ids = Vec::new();
            let query = journal::ExecutionQuery { statuses, namespace, labels, user_id, ids, before, limit };
            let page = async || journal.executions(query.clone()).await.unwrap().len();
            println!("| {among} | journal: {name} | {:.2} | |", wait(page).await);
        }
    }
    journal.close().await;
}

/// The median in milliseconds.
async fn wait(page: impl AsyncFn() -> usize) -> f64 {
    let mut waits = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        assert_ne!(page().await, 0);
        waits.push(began.elapsed().as_secs_f64() * 1e3);
    }
    median(waits)
}

fn lists(among: usize) -> Vec<(&'static str, ExecutionQuery)> {
    let first = ExecutionQuery { limit: PAGE, ..ExecutionQuery::default() };
    let middle = Cursor { at: at(among / 2), execution_id: id(among / 2) };
    let label = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    vec![
        ("first page", first.clone()),
        ("page in the middle", ExecutionQuery { after: Some(middle), ..first.clone() }),
        ("status, 1 in 10", ExecutionQuery { statuses: vec![Status::Failed], ..first.clone() }),
        ("namespace, 1 in 20", ExecutionQuery { namespace: Some("lab-7".to_owned()), ..first.clone() }),
        ("user, 1 in 100", ExecutionQuery { user_id: Some("user-7".to_owned()), ..first.clone() }),
        ("label, 1 in 4", ExecutionQuery { labels: label("team", "team-3"), ..first.clone() }),
        ("label, 1 in 100", ExecutionQuery { labels: label("batch", "batch-7"), ..first }),
    ]
}

fn id(n: usize) -> String {
    format!("e-{n:07}")
}

fn at(n: usize) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(n as i64)
}

fn ending(n: usize) -> Event {
    let status = if n.is_multiple_of(10) { Status::Failed } else { Status::Completed };
    let mut event = end(&id(n), at(n), status, 100);
    event.metadata.user_id = Some(format!("user-{}", n % 100));
    event
}

fn labels(n: usize) -> Labels {
    [("batch", n % 100), ("team", n % 4)]
        .map(|(name, n)| (name.to_owned(), format!("{name}-{n}")))
        .into_iter()
        .collect()
}

fn namespace(n: usize) -> String {
    format!("lab-{}", n % 20)
}

fn arrival(n: usize) -> Arrival {
    let about = About { namespace: Some(namespace(n)), labels: labels(n), pod_uid: None };
    let place = Place { topic: "execution_events".into(), partition: 0 };
    Arrival::read(place, n as u64, about, ending(n).to_bytes().into()).unwrap()
}

fn change(n: usize) -> Change {
    let labels: Labels = labels(n).into_iter().chain([("user-id".to_owned(), format!("user-{}", n % 100))]).collect();
    let evidence: Evidence = serde_json::from_value(json!({
        "uid": id(n), "namespace": namespace(n), "name": id(n), "execution_id": id(n), "attempt_key": id(n), "attempt": 1,
        "labels": labels, "created": at(n), "first_seen": at(n), "last_seen": at(n), "restart_policy": "Never",
        "phase": "Succeeded", "state": "terminated", "restart_count": 0, "emitted": {}
    }))
    .unwrap();
    let Event { event_id, execution_id, attempt, timestamp, synthesized, metadata, payload, .. } = ending(n);
    let draft = Draft { event_id, execution_id, attempt, timestamp, synthesized, metadata, payload };
    Change { evidence: Arc::new(evidence), events: [draft].into() }
}
