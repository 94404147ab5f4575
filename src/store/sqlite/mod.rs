//! The store in one SQLite file, for a podherald that stands alone.
//!
//! One connection writes, a few read; each call is one transaction, off the runtime's threads. The write-ahead log is synced
//! with each commit, so that what was acknowledged survives a loss of power.

mod lists;
mod reads;
mod schema;
mod writes;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use tokio::{sync::Semaphore, task::spawn_blocking};
use uuid::Uuid;

use super::{
    Appended, Arrival, Attempt, DeadLetter, DeadLetterQuery, Error, EventQuery, ExecutionQuery, Found, Listed,
    ListedLetter, Outcome, Result, Store, Stored, StoredEvent,
};
use schema::Fault;

pub use schema::SCHEMA;

/// Reads at the same time; the rest waits.
const READERS: usize = 4;

type Act<T> = std::result::Result<T, Fault>;

/// The store on SQLite.
pub struct Sqlite {
    path: PathBuf,
    writer: Arc<Pool>,
    readers: Arc<Pool>,
}

/// Connections that are each used by one caller at a time.
struct Pool {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    fn new(size: usize, idle: Vec<Connection>) -> Arc<Self> {
        Arc::new(Self { permits: Arc::new(Semaphore::new(size)), idle: Mutex::new(idle) })
    }

    async fn with<T: Send + 'static>(
        self: &Arc<Self>,
        path: &Path,
        doing: &'static str,
        connect: fn(&Path) -> Act<Connection>,
        act: impl FnOnce(&mut Connection) -> Act<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.permits.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let (pool, path) = (self.clone(), path.to_owned());
        let done = spawn_blocking(move || {
            // Given back only after the connection.
            let _permit = permit;
            let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let run = || {
                let mut db = idle.map_or_else(|| connect(&path), Ok)?;
                let result = act(&mut db);
                pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
                result
            };
            run().map_err(|fault: Fault| fault.explain(&path, doing))
        });
        done.await.unwrap_or_else(|error| Err(Error::Unavailable { doing, reason: error.to_string() }))
    }
}

impl Sqlite {
    /// Opens the store, makes one where there is none, and brings an older one up to date. The caller owns the directory.
    ///
    /// # Errors
    /// [`Error::Newer`], [`Error::Corrupt`], and [`Error::Unavailable`] where the file cannot be written.
    pub async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let opened = spawn_blocking({
            let path = path.clone();
            move || schema::open(&path)
        });
        let db = opened
            .await
            .unwrap_or_else(|error| Err(Error::Unavailable { doing: "open", reason: error.to_string() }))?;
        Ok(Self { path, writer: Pool::new(1, vec![db]), readers: Pool::new(READERS, Vec::new()) })
    }

    /// What a list of executions costs, in steps of SQLite's machine: for whoever wonders why one is slow.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn steps(&self, query: ExecutionQuery) -> Result<u64> {
        self.read("explain a list", move |db| lists::steps(db, &query)).await
    }

    /// In one transaction, or not at all.
    fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        act: impl FnOnce(&Connection) -> Act<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        let in_transaction = move |db: &mut Connection| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = act(&tx)?;
            tx.commit()?;
            Ok(result)
        };
        self.writer.with(&self.path, doing, schema::open_writer, in_transaction).boxed()
    }

    /// All of one moment.
    fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        act: impl FnOnce(&Connection) -> Act<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        let in_transaction = move |db: &mut Connection| act(&*db.transaction()?);
        self.readers.with(&self.path, doing, schema::open_reader, in_transaction).boxed()
    }
}

impl Store for Sqlite {
    fn append(&self, arrivals: Vec<Arrival>) -> BoxFuture<'_, Result<Vec<Appended>>> {
        self.write("keep events", move |db| writes::append(db, &arrivals))
    }

    fn put_result(&self, outcome: Outcome) -> BoxFuture<'_, Result<Stored>> {
        self.write("keep a result", move |db| writes::put_result(db, &outcome))
    }

    fn result(&self, execution_id: String, attempt: Option<u32>) -> BoxFuture<'_, Result<Option<Outcome>>> {
        self.read("read a result", move |db| reads::result(db, &execution_id, attempt))
    }

    fn execution(&self, id: String) -> BoxFuture<'_, Result<Option<Found>>> {
        self.read("read an execution", move |db| reads::execution(db, &id))
    }

    fn executions(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<Vec<Listed>>> {
        self.read("list executions", move |db| lists::executions(db, &query))
    }

    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<StoredEvent>>> {
        self.read("read events", move |db| lists::events(db, &query))
    }

    fn attempts(&self, execution_id: String) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        self.read("read attempts", move |db| reads::attempts(db, &execution_id))
    }

    fn finish(&self, role: &'static str, event_id: Uuid, at: Timestamp) -> BoxFuture<'_, Result<bool>> {
        self.write("keep a receipt", move |db| writes::finish(db, role, event_id, at))
    }

    fn is_finished(&self, role: &'static str, event_id: Uuid) -> BoxFuture<'_, Result<bool>> {
        self.read("read a receipt", move |db| reads::is_finished(db, role, event_id))
    }

    fn bury(&self, letter: DeadLetter) -> BoxFuture<'_, Result<()>> {
        self.write("keep a dead letter", move |db| writes::bury(db, &letter))
    }

    fn dead_letters(&self, query: DeadLetterQuery) -> BoxFuture<'_, Result<Vec<ListedLetter>>> {
        self.read("list dead letters", move |db| lists::dead_letters(db, &query))
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.write("write", |_| Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    async fn open() -> (Sqlite, TempDir) {
        let dir = TempDir::new().unwrap();
        (Sqlite::open(&dir.path().join("store.db")).await.unwrap(), dir)
    }

    crate::store::conformance::suite!(open);

    #[tokio::test]
    async fn what_was_acknowledged_is_there_when_the_store_is_opened_again() {
        let (store, dir) = open().await;
        let arrival = crate::store::conformance::Run::new("e", 1).ends(0, "out");
        store.append(vec![arrival.clone()]).await.unwrap();
        let before = store.execution("e".to_owned()).await.unwrap();
        drop(store);
        let store = Sqlite::open(&dir.path().join("store.db")).await.unwrap();
        assert_eq!(store.execution("e".to_owned()).await.unwrap(), before);
        assert_eq!(store.append(vec![arrival]).await.unwrap(), [Appended::Known]);
    }

    #[tokio::test]
    async fn a_file_that_is_no_store_of_this_program_is_refused_and_left_alone() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("store.db");
        let sql = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        fs::write(&path, "no database at all, but a text of some length").unwrap();
        let refusal = async || Sqlite::open(&path).await.err().unwrap().to_string();
        assert!(refusal().await.contains("not a database"), "{}", refusal().await);
        fs::remove_file(&path).unwrap();
        sql("CREATE TABLE other (x)");
        assert!(refusal().await.contains("a database of another program"), "{}", refusal().await);
        sql("DROP TABLE other");
        drop(Sqlite::open(&path).await.unwrap());
        sql("PRAGMA user_version = 99");
        let newer = refusal().await;
        assert!(newer.contains("has schema 99") && newer.contains("start the newer podherald"), "{newer}");
        let absent = Sqlite::open(&dir.path().join("no/store.db")).await.err().unwrap().to_string();
        assert!(absent.contains("data_dir must be a directory that podherald may write to"), "{absent}");
    }

    #[tokio::test]
    async fn every_query_uses_an_index() {
        let (store, _dir) = open().await;
        let plans = store.read("explain", lists::plans).await.unwrap();
        assert!(plans.len() >= 6, "{plans:?}");
        for plan in plans {
            assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }

    #[tokio::test]
    async fn a_page_of_executions_costs_the_same_among_many_as_among_few() {
        let (store, _dir) = open().await;
        let mut costs = Vec::new();
        for among in [0..40, 40..400] {
            let arrivals = among.flat_map(|n| crate::store::conformance::Run::new(&n.to_string(), 1).life());
            store.append(arrivals.collect()).await.unwrap();
            let first = ExecutionQuery { limit: 10, ..ExecutionQuery::default() };
            let after = store.executions(first.clone()).await.unwrap().pop().map(|last| last.cursor);
            let statuses = vec![podherald_core::execution::Status::Completed];
            let second = ExecutionQuery { after, ..first.clone() };
            let filtered = ExecutionQuery { statuses, ..second.clone() };
            let mut of_each = Vec::new();
            for query in [first, second, filtered] {
                of_each.push(store.steps(query).await.unwrap());
            }
            costs.push(of_each);
        }
        assert_eq!(costs[0], costs[1]);
    }
}
