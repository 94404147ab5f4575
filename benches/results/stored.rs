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
use podherald_core::{about::About, event::Draft, execution::Status};
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
        let (mut by_role, mut alone, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..sizes.rounds {
            alone.push(rate(count, insert_rows(dir.path(), bytes, count)).await);
            by_role.push(rate(count, process(&store, round, bytes, count)).await);
            ratios.push(by_role[round] / alone[round]);
        }
        row("embedded", bytes, [by_role, alone, ratios]);
    }
    let Some(uri) = mongo else { return };
    for (bytes, count) in sizes.results {
        let (mut by_role, mut alone, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..sizes.rounds {
            // What a server does that grows slow with what it has is not asked here.
            let database = format!("bench_{bytes}_{round}");
            let store = migrated(uri, database.clone()).await;
            alone.push(rate(count, insert_documents(uri, &format!("{database}_alone"), bytes, count)).await);
            by_role.push(rate(count, process(&store, round, bytes, count)).await);
            ratios.push(by_role[round] / alone[round]);
        }
        row("MongoDB", bytes, [by_role, alone, ratios]);
    }
}

fn row(place: &str, bytes: usize, [by_role, alone, ratios]: [Vec<f64>; 3]) {
    let (by_role, alone, ratio) = (median(by_role), median(alone), median(ratios));
    println!("| {} KiB, {place} | {by_role:.0} | {alone:.0} | {ratio:.2} |", bytes >> 10);
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
        let (id, offset) = (format!("bench-{bytes}-{round}-{n}"), n as u64);
        let event = end(&id, Timestamp::UNIX_EPOCH, Status::Completed, bytes);
        let message = Message {
            event_id: event.event_id,
            event_type: event.payload.event_type().into(),
            execution_id: id.into(),
            about: About::default(),
            bytes: event.to_bytes().into(),
            tries: 1,
            place: Place { topic: "execution_events".into(), partition: 0 },
            offset,
        };
        let processor = &processor;
        async move { processor.process(&message).await.unwrap() }
    });
    processed.await;
}

async fn migrated(uri: &str, database: String) -> Arc<dyn Store> {
    let options =
        Options { uri: Uri::Fixed(MongoUri::parse(uri).unwrap()), database, timeout: Duration::from_secs(30) };
    let store = Mongo::new(options, Arc::new(SystemClock)).await.unwrap();
    store.migrate().await.unwrap();
    Arc::new(store)
}

async fn insert_documents(uri: &str, database: &str, bytes: usize, count: usize) {
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
async fn insert_rows(dir: &Path, bytes: usize, count: usize) {
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
