//! The file: its tables, how a connection to it is made, and what is refused.
//!
//! | table | a row is | note |
//! |---|---|---|
//! | `meta` | a fact of the journal | `format`, `epoch`, `floor` |
//! | `evidence` | a pod, or a Job | `id` in the order of first sight; `body` is the record |
//! | `events` | an event | `body` is the one rendering; what is missing is that of its `pod` (0: none was seen; `about` says what is known of it) and its `execution` |
//! | `executions` | an execution | `key` in the order of first sight; `body` is the projection without the output |
//! | `outputs` | the inline output of an execution | apart, so that lists and later changes need not touch it |
//! | `cursors` | how far a sink has come | those that are no longer configured stay, not `required` |
//! | `dead_letters` | an event that a sink could never carry | `at` in microseconds; `body` is the event |
//!
//! Ids of events are as good as random, so an index over all of them would touch a page of its own for every event. An id
//! is derived from its execution's, so it need be looked for only there; and executions of one time are neighbours.

use std::{fs::OpenOptions, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use uuid::Uuid;

use super::fault::Fault;
use crate::journal::{Error, Place, Result};

/// The newest format that this program reads and the one it writes.
const FORMAT: i64 = 7;
/// Formats that are brought up to date when they are opened, each by what leads to the next.
const MIGRATIONS: [(i64, &str); 6] = [
    (1, "ALTER TABLE evidence ADD COLUMN is_pod INTEGER NOT NULL DEFAULT 1"),
    (2, CURSORS),
    (3, DEAD_LETTERS),
    (4, "ALTER TABLE events ADD COLUMN told INTEGER NOT NULL DEFAULT 0"),
    (5, PLACES),
    (6, "ALTER TABLE events ADD COLUMN about TEXT"),
];
/// `pod` of an event that was told before its execution had a pod.
pub(super) const NO_POD: i64 = 0;
/// `told` of an event that is this journal's own, ...
pub(super) const UNTOLD: i64 = 0;
/// ... that another has published, ...
pub(super) const TOLD: i64 = 1;
/// ... and that was fetched long afterwards: the order of positions means nothing to it.
pub(super) const RECALLED: i64 = 2;
/// Up to this size the whole file is checked when it is opened; a larger one would make every start wait.
const CHECKED_BYTES: u64 = 32 << 20;
/// A passive checkpoint holds a lock for moments only; nobody else writes.
const BUSY: Duration = Duration::from_secs(5);

const CURSORS: &str = "
    CREATE TABLE cursors (
        sink TEXT PRIMARY KEY,
        position INTEGER NOT NULL,
        required INTEGER NOT NULL,
        missed INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

const DEAD_LETTERS: &str = "
    CREATE TABLE dead_letters (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        sink TEXT NOT NULL,
        position INTEGER NOT NULL,
        at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        event_id TEXT,
        execution_id TEXT NOT NULL,
        event_type TEXT NOT NULL,
        result_unproven INTEGER NOT NULL,
        body BLOB NOT NULL,
        UNIQUE (sink, position)
    ) STRICT;
";

const PLACES: &str = "
    CREATE TABLE places (
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        next INTEGER NOT NULL,
        PRIMARY KEY (topic, partition)
    ) STRICT, WITHOUT ROWID;
";

const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE evidence (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        uid TEXT NOT NULL UNIQUE,
        execution_id TEXT NOT NULL,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        attempt_key TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        conflict INTEGER NOT NULL,
        settled INTEGER NOT NULL,
        gone INTEGER NOT NULL,
        closed INTEGER NOT NULL,
        labels TEXT NOT NULL,
        body TEXT NOT NULL,
        is_pod INTEGER NOT NULL DEFAULT 1
    ) STRICT;
    CREATE INDEX evidence_by_execution ON evidence (execution_id);
    CREATE INDEX evidence_by_name ON evidence (namespace, name);
    CREATE INDEX evidence_present ON evidence (namespace, name, uid) WHERE gone = 0;
    CREATE INDEX evidence_open ON evidence (id) WHERE closed = 0;
    CREATE INDEX evidence_conflicting ON evidence (execution_id) WHERE conflict = 1;

    CREATE TABLE events (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        event_id BLOB NOT NULL,
        execution INTEGER NOT NULL,
        pod INTEGER NOT NULL,
        event_type TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        source TEXT NOT NULL,
        seq INTEGER NOT NULL,
        status TEXT,
        terminal INTEGER NOT NULL,
        version TEXT NOT NULL,
        body TEXT NOT NULL,
        told INTEGER NOT NULL DEFAULT 0,
        about TEXT
    ) STRICT;
    CREATE UNIQUE INDEX events_by_execution ON events (execution, event_id);

    CREATE TABLE executions (
        key INTEGER PRIMARY KEY AUTOINCREMENT,
        execution_id TEXT NOT NULL UNIQUE,
        namespace TEXT NOT NULL,
        user_id TEXT,
        status TEXT NOT NULL,
        last_end INTEGER,
        ended INTEGER NOT NULL,
        forgotten INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX executions_by_status ON executions (status);
    CREATE INDEX executions_by_namespace ON executions (namespace);
    CREATE INDEX executions_by_user ON executions (user_id) WHERE user_id IS NOT NULL;
    CREATE INDEX executions_ended ON executions (last_end) WHERE ended = 1;
    CREATE INDEX executions_forgotten ON executions (key) WHERE forgotten = 1;

    CREATE TABLE outputs (key INTEGER PRIMARY KEY, stdout TEXT NOT NULL, stderr TEXT NOT NULL) STRICT;
";

/// What a journal says of itself when it is opened.
pub(super) struct Opened {
    /// The writer's connection.
    pub(super) db: Connection,
    /// `meta.epoch`.
    pub(super) epoch: String,
    /// `meta.floor`.
    pub(super) floor: u64,
    /// The newest position ever given.
    pub(super) head: u64,
    /// See [`used_bytes`].
    pub(super) used_bytes: u64,
}

/// Opens the journal for writing, and makes it where there is none. A file that is not a whole journal is left alone.
pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Opened> {
    // SQLite only says that it cannot open the file; the system says why.
    OpenOptions::new().read(true).append(true).create(true).open(path).map_err(|error| Error::Io {
        doing: "open its file",
        reason: format!("{}: {error}; data_dir must be a directory that podherald may write to", path.display()),
    })?;
    let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|fault| fault.explain(path, "open"))?;
    let is_new = recognise(&db, path)?;
    prepare(&mut db, is_new).map_err(|fault| fault.explain(path, "open"))?;
    if !is_new {
        check(&db).map_err(|fault| fault.explain(path, "check"))?;
        migrate(&mut db).map_err(|fault| fault.explain(path, "bring up to date"))?;
    }
    // A new format may need a page of a journal that is full.
    limit(&db, max_bytes).map_err(|error| Fault::from(error).explain(path, "open"))?;
    describe(db).map_err(|fault| fault.explain(path, "open"))
}

/// A connection that only reads.
pub(super) fn open_reader(path: &Path) -> std::result::Result<Connection, Fault> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// A connection that moves the write-ahead log into the file beside the writer.
pub(super) fn open_checkpointer(path: &Path) -> std::result::Result<Connection, Fault> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Bytes of the file that hold something: what retention frees counts as free, though the file does not shrink.
pub(super) fn used_bytes(db: &Connection) -> rusqlite::Result<u64> {
    let pages: u64 = db.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
    let free: u64 = db.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    Ok(pages.saturating_sub(free) * page_size(db)?)
}

fn page_size(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached("PRAGMA page_size")?.query_row([], |row| row.get(0))
}

fn connect(path: &Path, access: OpenFlags) -> std::result::Result<Connection, Fault> {
    let db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

/// True for an empty file.
fn recognise(db: &Connection, path: &Path) -> Result<bool> {
    let explain = |error: rusqlite::Error| Fault::from(error).explain(path, "open");
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(explain)?;
    if tables == 0 {
        return Ok(true);
    }
    let corrupt = |reason: &str| Error::Corrupt { path: path.display().to_string(), reason: reason.to_owned() };
    let has_meta = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'";
    if db.query_row(has_meta, [], |row| row.get::<_, i64>(0)).map_err(explain)? == 0 {
        return Err(corrupt("it is a database of another program"));
    }
    let format: Option<i64> = meta(db, "format").map_err(explain)?;
    match format {
        Some(found) if found == FORMAT || MIGRATIONS.iter().any(|(from, _)| *from == found) => Ok(false),
        Some(found) if found > FORMAT => Err(Error::Newer { path: path.display().to_string(), found, known: FORMAT }),
        _ => Err(corrupt("it does not say which format it has")),
    }
}

fn prepare(db: &mut Connection, is_new: bool) -> std::result::Result<(), Fault> {
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    // The writer decides when: a commit that also has to checkpoint would make its append wait.
    db.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    db.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "cache_size", -32_768)?;
    if is_new {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(TABLES)?;
        tx.execute_batch(CURSORS)?;
        tx.execute_batch(DEAD_LETTERS)?;
        tx.execute_batch(PLACES)?;
        let mut insert = tx.prepare("INSERT INTO meta (name, value) VALUES (?1, ?2)")?;
        insert.execute(params!["format", FORMAT])?;
        insert.execute(params!["epoch", Uuid::now_v7().to_string()])?;
        insert.execute(params!["floor", 0])?;
        drop(insert);
        tx.commit()?;
    }
    Ok(())
}

/// How large the file may grow. One that is larger stays so.
pub(super) fn limit(db: &Connection, max_bytes: u64) -> rusqlite::Result<()> {
    let max_pages = i64::try_from(max_bytes / page_size(db)?).unwrap_or(i64::MAX);
    db.pragma_update_and_check(None, "max_page_count", max_pages, |_| Ok(()))
}

fn migrate(db: &mut Connection) -> std::result::Result<(), Fault> {
    for (from, step) in MIGRATIONS {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if meta::<i64>(&tx, "format")? == Some(from) {
            tx.execute_batch(step)?;
            tx.execute("UPDATE meta SET value = ?1 WHERE name = 'format'", [from + 1])?;
            tracing::info!(from, to = from + 1, "the journal has been brought up to date");
        }
        tx.commit()?;
    }
    Ok(())
}

/// A small file is checked whole. Of a large one the newest rows are read, where a torn write would show; the rest shows
/// when it is read.
fn check(db: &Connection) -> std::result::Result<(), Fault> {
    if used_bytes(db)? <= CHECKED_BYTES {
        let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        return if found == "ok" { Ok(()) } else { Err(Fault::Row(found)) };
    }
    for newest in [
        "SELECT body FROM events ORDER BY position DESC LIMIT 1",
        "SELECT body FROM executions ORDER BY key DESC LIMIT 1",
        "SELECT body FROM evidence ORDER BY id DESC LIMIT 1",
    ] {
        let body: Option<String> = db.query_row(newest, [], |row| row.get(0)).optional()?;
        body.map(|body| serde_json::from_str::<serde::de::IgnoredAny>(&body)).transpose()?;
    }
    Ok(())
}

fn describe(db: Connection) -> std::result::Result<Opened, Fault> {
    let absent = || Fault::Row("meta is incomplete".to_owned());
    let epoch = meta(&db, "epoch")?.ok_or_else(absent)?;
    let floor = meta(&db, "floor")?.ok_or_else(absent)?;
    let head = head(&db)?;
    let used_bytes = used_bytes(&db)?;
    Ok(Opened { db, epoch, floor, head, used_bytes })
}

/// Keeps how far topics of other monitors were read, within a transaction.
pub(super) fn keep_places(db: &Connection, places: &[Place]) -> rusqlite::Result<()> {
    for Place { topic, partition, next } in places {
        db.prepare_cached("INSERT OR REPLACE INTO places (topic, partition, next) VALUES (?1, ?2, ?3)")?
            .execute(params![topic, partition, next])?;
    }
    Ok(())
}

/// The newest position ever given, pruned or not.
pub(super) fn head(db: &Connection) -> rusqlite::Result<u64> {
    let head = db
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'events'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    Ok(head.unwrap_or(0))
}

fn meta<T: rusqlite::types::FromSql>(db: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}
