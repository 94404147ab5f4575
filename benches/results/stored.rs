//! Results stored a second: by the role, as many at a time as it does, beside plain inserts of as many bytes by the driver alone, with the same promise
//! (a majority and its journals; one synced transaction each).

use std::{path::Path, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use jiff::Timestamp;
use mongodb::{
    Client,
    bson::{Document, doc},
    options::{Acknowledgment, ClientOptions, WriteConcern},
};
use podherald::{
    clock::SystemClock,
    config::MongoUri,
    inbox::{Message, Place},
    publisher::{Publisher, Rejection},
    sink::Fault,
    store::{
        Store,
        mongo::{Mongo, Options, Uri},
        sqlite::Sqlite,
    },
    worker::{Work, metrics::Metrics, result_processor::ResultProcessor},
};
use podherald_core::{
    about::About,
    event::{Draft, Event},
    execution::Status,
};
use rusqlite::Connection;
use tokio::{task::spawn_blocking, time::Instant};

use crate::{Sizes, common::process::median, end};

/// Events at work at a time, as in the role.
const CONCURRENCY: usize = 64;

/// Takes all at once: what is measured ends with the store.
struct Nobody;

impl Publisher for Nobody {
    fn publish(&self, _: Vec<Draft>) -> BoxFuture<'_, Result<Vec<Rejection>, Fault>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

pub(crate) async fn measure(sizes: &Sizes, mongo: Option<&String>) {
    for (bytes, count) in sizes.results {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&dir.path().join("store.db")).await.unwrap());
        let alone = async |_| insert_rows(dir.path(), bytes, count).await;
        let open = async |_| store.clone();
        let by_role = async |store, round| process(&store, round, bytes, count).await;
        compare(&format!("{} KiB, embedded", bytes >> 10), sizes.rounds, count, alone, open, by_role).await;
    }
    let Some(uri) = mongo else { return };
    for (bytes, count) in sizes.results {
        // What a server does that grows slow with what it has is not asked here.
        let database = |round| format!("bench_{bytes}_{round}");
        let alone = async |round| insert_documents(uri, &format!("{}_alone", database(round)), bytes, count).await;
        let open = async |round| migrated(uri, database(round)).await;
        let by_role = async |store, round| process(&store, round, bytes, count).await;
        compare(&format!("{} KiB, MongoDB", bytes >> 10), sizes.rounds, count, alone, open, by_role).await;
    }
}

/// Prints the medians of pairs.
pub(crate) async fn compare(
    name: &str,
    rounds: usize,
    count: usize,
    alone: impl AsyncFn(usize),
    open: impl AsyncFn(usize) -> Arc<dyn Store>,
    by_role: impl AsyncFn(Arc<dyn Store>, usize),
) {
    let mut rates = [const { Vec::new() }; 3];
    for round in 0..rounds {
        let store = open(round).await;
        let (alone, by_role) = (rate(count, alone(round)).await, rate(count, by_role(store, round)).await);
        for (rates, rate) in rates.iter_mut().zip([by_role, alone, by_role / alone]) {
            rates.push(rate);
        }
    }
    let [by_role, alone, ratio] = rates.map(median);
    println!("| {name} | {by_role:.0} | {alone:.0} | {ratio:.2} |");
}

async fn rate(count: usize, work: impl Future<Output = ()>) -> f64 {
    let began = Instant::now();
    work.await;
    count as f64 / began.elapsed().as_secs_f64()
}

async fn process(store: &Arc<dyn Store>, round: usize, bytes: usize, count: usize) {
    let processor = ResultProcessor {
        store: store.clone(),
        publisher: Arc::new(Nobody),
        metrics: Metrics::default(),
        clock: Arc::new(SystemClock),
    };
    let processed = stream::iter(0..count).for_each_concurrent(CONCURRENCY, |n| {
        let id = format!("bench-{bytes}-{round}-{n}");
        let message = message(&end(&id, Timestamp::UNIX_EPOCH, Status::Completed, bytes), n as u64);
        let processor = &processor;
        async move { processor.process(&message).await.unwrap() }
    });
    processed.await;
}

pub(crate) fn message(event: &Event, offset: u64) -> Message {
    Message {
        event_id: event.event_id,
        event_type: event.payload.event_type().into(),
        execution_id: (&*event.execution_id).into(),
        about: About::default(),
        bytes: event.to_bytes().into(),
        tries: 1,
        place: Place { topic: "execution_events".into(), partition: 0 },
        offset,
    }
}

pub(crate) async fn migrated(uri: &str, database: String) -> Arc<dyn Store> {
    let options =
        Options { uri: Uri::Fixed(MongoUri::parse(uri).unwrap()), database, timeout: Duration::from_secs(30) };
    let store = Mongo::new(options, Arc::new(SystemClock)).await.unwrap();
    store.migrate().await.unwrap();
    Arc::new(store)
}

pub(crate) async fn insert_documents(uri: &str, database: &str, bytes: usize, count: usize) {
    let mut options = ClientOptions::parse(uri).await.unwrap();
    options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build());
    let documents = Client::with_options(options).unwrap().database(database).collection::<Document>("documents");
    let documents = &documents;
    let inserted = stream::iter(0..count).for_each_concurrent(CONCURRENCY, |_| async move {
        documents.insert_one(doc! { "stdout": "x".repeat(bytes) }).await.unwrap();
    });
    inserted.await;
}

/// SQLite writes one after the other, whoever asks.
pub(crate) async fn insert_rows(dir: &Path, bytes: usize, count: usize) {
    let path = dir.join("alone.db");
    let inserted = spawn_blocking(move || {
        let db = Connection::open(path).unwrap();
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
        db.pragma_update(None, "synchronous", "FULL").unwrap();
        db.execute_batch("CREATE TABLE IF NOT EXISTS alone (stdout BLOB)").unwrap();
        let mut insert = db.prepare("INSERT INTO alone VALUES (?1)").unwrap();
        for _ in 0..count {
            insert.execute(["x".repeat(bytes)]).unwrap();
        }
    });
    inserted.await.unwrap();
}
