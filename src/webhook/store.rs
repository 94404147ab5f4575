//! What is kept of endpoints over restarts: whether they are disabled, what is to be left out,
//! and the log of deliveries.
//!
//! A file of its own, `webhooks.db`, so that attempts neither wait for the journal's commits nor fill it up. Rows of the log
//! are not synced to disk one by one: a loss of power may take the newest.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use tokio::task::spawn_blocking;
use utoipa::ToSchema;

/// Of one endpoint, in the log.
const KEPT: u32 = 1000;
const FORMAT: i64 = 1;
const TABLES: &str = "
    CREATE TABLE endpoints (
        name TEXT PRIMARY KEY,
        failing_since INTEGER,
        disabled_at INTEGER,
        reason TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        endpoint TEXT NOT NULL,
        event_id TEXT NOT NULL,
        event_type TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        at INTEGER NOT NULL,
        duration_ms INTEGER NOT NULL,
        status INTEGER,
        error TEXT,
        redelivery INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX deliveries_of_endpoint ON deliveries (endpoint, id);
    CREATE INDEX deliveries_of_event ON deliveries (endpoint, event_id);
    PRAGMA user_version = 1;
";

/// Came later; who does not know it does without.
const SKIPS: &str = "
    CREATE TABLE IF NOT EXISTS skips (
        endpoint TEXT NOT NULL,
        position INTEGER NOT NULL,
        event_id TEXT NOT NULL,
        PRIMARY KEY (endpoint, position)
    ) STRICT, WITHOUT ROWID;
";

/// Why it could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} holds what is known of webhooks and cannot be used: {reason}; if it is damaged, move it away to begin a new one"
)]
pub struct Error {
    path: PathBuf,
    reason: String,
}

/// How an endpoint stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// It has acknowledged nothing since, though it should have.
    pub(super) failing_since: Option<Timestamp>,
    pub(super) disabled: Option<Disabled>,
}

/// Why nothing is sent to an endpoint any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Disabled {
    /// Since when.
    #[serde(with = "podherald_core::time")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// One attempt to deliver one event, or the wish to leave it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Delivery {
    /// Rising; `after` of the next page.
    pub id: u64,
    /// `event_id` of the event; `webhook-id` of the request.
    pub event_id: String,
    /// `event_type` of the event.
    pub event_type: String,
    /// `execution_id` of the event; of a gap, its `source`.
    pub execution_id: String,
    /// Where the event is in the journal.
    #[serde(skip)]
    pub(super) position: u64,
    /// Of this event at this endpoint, counted from 1 as far as the log reaches back.
    pub attempt: u32,
    /// When it began.
    #[serde(with = "podherald_core::time")]
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The HTTP status; null if there was no answer.
    pub status: Option<u16>,
    /// What was wrong, with the beginning of the answer; null if nothing was.
    pub error: Option<String>,
    /// Somebody asked for it over the API.
    pub redelivery: bool,
}

/// The file. Clones share it.
#[derive(Clone)]
pub(super) struct Store {
    path: Arc<Path>,
    db: Arc<Mutex<Connection>>,
}

impl Store {
    pub(super) async fn open(path: PathBuf) -> Result<Self, Error> {
        let path: Arc<Path> = path.into();
        let file = path.clone();
        let db = blocking(&path, move || open(&file)).await?;
        Ok(Self { path, db: Arc::new(Mutex::new(db)) })
    }

    pub(super) async fn standing(&self, endpoint: &str) -> Result<Standing, Error> {
        let endpoint = endpoint.to_owned();
        self.with(move |db| {
            let sql = "SELECT failing_since, disabled_at, reason FROM endpoints WHERE name = ?1";
            Ok(db.query_row(sql, [endpoint], standing).optional()?.unwrap_or_default())
        })
        .await
    }

    /// Keeps how it stands; that is asked once nobody else writes.
    pub(super) async fn stands(
        &self,
        endpoint: &str,
        standing: impl FnOnce() -> Standing + Send + 'static,
    ) -> Result<(), Error> {
        let endpoint = endpoint.to_owned();
        self.with(move |db| {
            let standing = standing();
            let since = standing.failing_since.map(Timestamp::as_microsecond);
            let at = standing.disabled.as_ref().map(|disabled| disabled.at.as_microsecond());
            let reason = standing.disabled.map(|disabled| disabled.reason);
            let sql = "INSERT OR REPLACE INTO endpoints VALUES (?1, ?2, ?3, ?4)";
            db.execute(sql, params![endpoint, since, at, reason]).map(drop)
        })
        .await
    }

    /// Events that are to be left out, by position.
    pub(super) async fn skipped(&self, endpoint: &str) -> Result<BTreeMap<u64, String>, Error> {
        let endpoint = endpoint.to_owned();
        self.with(move |db| {
            let mut found = db.prepare("SELECT position, event_id FROM skips WHERE endpoint = ?1")?;
            found.query_map([endpoint], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .await
    }

    pub(super) async fn skip(&self, endpoint: &str, position: u64, event_id: &str) -> Result<(), Error> {
        let (endpoint, event_id) = (endpoint.to_owned(), event_id.to_owned());
        self.with(move |db| {
            let sql = "INSERT OR REPLACE INTO skips VALUES (?1, ?2, ?3)";
            db.execute(sql, params![endpoint, position, event_id]).map(drop)
        })
        .await
    }

    /// Those before this position.
    pub(super) async fn forget_skips(&self, endpoint: &str, before: u64) -> Result<(), Error> {
        let endpoint = endpoint.to_owned();
        self.with(move |db| {
            let sql = "DELETE FROM skips WHERE endpoint = ?1 AND position < ?2";
            db.execute(sql, params![endpoint, before]).map(drop)
        })
        .await
    }

    /// Adds an attempt, whose `id` and number are given here, and takes the oldest away.
    pub(super) async fn add(&self, endpoint: &str, delivery: Delivery) -> Result<Delivery, Error> {
        let endpoint = endpoint.to_owned();
        self.with(move |db| {
            let tx = db.transaction()?;
            let added = tx
                .prepare_cached(
                    "INSERT INTO deliveries (endpoint, event_id, event_type, execution_id, position, attempt, at,
                        duration_ms, status, error, redelivery)
                     SELECT ?1, ?2, ?3, ?4, ?5, coalesce(max(attempt), 0) + 1, ?6, ?7, ?8, ?9, ?10
                     FROM deliveries WHERE endpoint = ?1 AND event_id = ?2
                     RETURNING *",
                )?
                .query_row(
                    params![
                        endpoint,
                        delivery.event_id,
                        delivery.event_type,
                        delivery.execution_id,
                        delivery.position,
                        delivery.at.as_microsecond(),
                        delivery.duration_ms,
                        delivery.status,
                        delivery.error,
                        delivery.redelivery,
                    ],
                    self::delivery,
                )?;
            tx.prepare_cached(
                "DELETE FROM deliveries WHERE endpoint = ?1 AND id <= (
                    SELECT id FROM deliveries WHERE endpoint = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![endpoint, KEPT])?;
            tx.commit()?;
            Ok(added)
        })
        .await
    }

    /// Attempts before this one, newest first.
    pub(super) async fn deliveries(
        &self,
        endpoint: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Delivery>, Error> {
        let endpoint = endpoint.to_owned();
        let bound = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let (before, limit) = (bound(before.unwrap_or(u64::MAX)), bound(limit as u64));
        self.with(move |db| {
            let sql = "SELECT * FROM deliveries WHERE endpoint = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
            db.prepare_cached(sql)?.query_map(params![endpoint, before, limit], self::delivery)?.collect()
        })
        .await
    }

    /// The last attempt of an event.
    pub(super) async fn last(&self, endpoint: &str, event_id: &str) -> Result<Option<Delivery>, Error> {
        let (endpoint, event_id) = (endpoint.to_owned(), event_id.to_owned());
        self.with(move |db| {
            let sql = "SELECT * FROM deliveries WHERE endpoint = ?1 AND event_id = ?2 ORDER BY id DESC LIMIT 1";
            db.query_row(sql, [endpoint, event_id], self::delivery).optional()
        })
        .await
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let db = self.db.clone();
        blocking(&self.path, move || work(&mut db.lock().unwrap_or_else(PoisonError::into_inner))).await
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let failed = |reason: String| Error { path: path.to_owned(), reason };
    match spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut db = Connection::open(path)?;
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    let tx = db.transaction()?;
    let format: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format == 0 {
        tx.execute_batch(TABLES)?;
    } else if format != FORMAT {
        // A later podherald's, or another program's.
        return Err(rusqlite::Error::InvalidParameterName(format!("its format is {format}, not {FORMAT}")));
    }
    tx.execute_batch(SKIPS)?;
    tx.commit()?;
    Ok(db)
}

fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|micros| Timestamp::from_microsecond(micros).unwrap_or_default()))
}

fn standing(row: &Row<'_>) -> rusqlite::Result<Standing> {
    let disabled = match time(row, "disabled_at")? {
        Some(at) => Some(Disabled { at, reason: row.get::<_, Option<String>>("reason")?.unwrap_or_default() }),
        None => None,
    };
    Ok(Standing { failing_since: time(row, "failing_since")?, disabled })
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get("id")?,
        event_id: row.get("event_id")?,
        event_type: row.get("event_type")?,
        execution_id: row.get("execution_id")?,
        position: row.get("position")?,
        attempt: row.get("attempt")?,
        at: time(row, "at")?.unwrap_or_default(),
        duration_ms: row.get("duration_ms")?,
        status: row.get("status")?,
        error: row.get("error")?,
        redelivery: row.get("redelivery")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn the_log_is_bounded_for_each_endpoint_and_is_there_after_a_restart() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("webhooks.db");
        let store = Store::open(path.clone()).await.unwrap();
        let delivery = Delivery {
            id: 0,
            event_id: "e".to_owned(),
            event_type: "pod_deleted".to_owned(),
            execution_id: "x".to_owned(),
            position: 7,
            attempt: 0,
            at: Timestamp::UNIX_EPOCH,
            duration_ms: 3,
            status: Some(500),
            error: Some("no".to_owned()),
            redelivery: false,
        };
        store.add("other", delivery.clone()).await.unwrap();
        for _ in 0..KEPT + 3 {
            store.add("one", delivery.clone()).await.unwrap();
        }
        drop(store);
        let store = Store::open(path).await.unwrap();
        let all = store.deliveries("one", None, 5000).await.unwrap();
        assert_eq!((all.len(), all[0].attempt, all[0].position), (KEPT as usize, KEPT + 3, 7));
        let page = store.deliveries("one", Some(all[4].id), 2).await.unwrap();
        assert_eq!(page, all[5..7]);
        assert_eq!(store.last("one", "e").await.unwrap().as_ref(), all.first());
        assert_eq!(store.deliveries("other", None, 9).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_file_that_is_something_else_is_named() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("webhooks.db");
        std::fs::write(&path, "no database at all".repeat(100)).unwrap();
        let said = Store::open(path.clone()).await.err().unwrap().to_string();
        assert!(said.contains("webhooks.db") && said.contains("move it away"), "{said}");
    }
}
