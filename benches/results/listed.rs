//! Pages of 50 of the embedded store's executions, among ever more of them: what a page costs must not grow.

use jiff::{SignedDuration, Timestamp};
use podherald::{
    inbox::Place,
    store::{Arrival, Cursor, ExecutionQuery, Store, sqlite::Sqlite},
};
use podherald_core::{about::About, execution::Status};
use tokio::time::Instant;

use crate::{Sizes, common::process::median, end};

/// Appended in one transaction.
const BATCH: usize = 1_000;
const PAGE: usize = 50;
const TIMES: usize = 21;

pub(crate) async fn measure(sizes: &Sizes) {
    let dir = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&dir.path().join("store.db")).await.unwrap();
    let mut filled = 0;
    for among in sizes.lists {
        for first in (filled..*among).step_by(BATCH) {
            store.append((first..(first + BATCH).min(*among)).map(arrival).collect()).await.unwrap();
        }
        filled = *among;
        for (name, query) in lists(*among) {
            let mut waits = Vec::new();
            for _ in 0..TIMES {
                let began = Instant::now();
                assert!(!store.executions(query.clone()).await.unwrap().is_empty(), "{name}");
                waits.push(began.elapsed().as_secs_f64() * 1e3);
            }
            println!("| {among} | {name} | {:.2} | {} |", median(waits), store.steps(query).await.unwrap());
        }
    }
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

fn arrival(n: usize) -> Arrival {
    let status = if n.is_multiple_of(10) { Status::Failed } else { Status::Completed };
    let mut event = end(&id(n), at(n), status, 100);
    event.metadata.user_id = Some(format!("user-{}", n % 100));
    let labels = [("batch", n % 100), ("team", n % 4)].map(|(name, n)| (name.to_owned(), format!("{name}-{n}")));
    let about =
        About { namespace: Some(format!("lab-{}", n % 20)), labels: labels.into_iter().collect(), pod_uid: None };
    let place = Place { topic: "execution_events".into(), partition: 0 };
    Arrival::read(place, n as u64, about, event.to_bytes().into()).unwrap()
}
