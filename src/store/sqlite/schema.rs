//! The file: its tables, how a connection to it is made, and what is refused.
//!
//! `user_version` is the schema's number. Each step of [`MIGRATIONS`] leads to the next in a transaction of its own; a step
//! that was published is never changed. Times are microseconds.

use std::{fs::OpenOptions, path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::store::{Error, Result};

/// `application_id`: "phst".
const APPLICATION: i64 = 0x7068_7374;
/// Two processes that open one file at the same time, `podherald migrate` for instance, wait for each other.
const BUSY: Duration = Duration::from_secs(5);

/// Leading from schema 0, which is an empty file, to 1, and so on.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE events (
        event_id BLOB PRIMARY KEY,
        execution_id TEXT NOT NULL,
        at INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        event_type TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE INDEX events_by_execution ON events (execution_id, at, seq, event_id);

    CREATE TABLE executions (
        execution_id TEXT PRIMARY KEY,
        first_seen INTEGER NOT NULL,
        namespace TEXT,
        user_id TEXT,
        status TEXT NOT NULL,
        ended_by BLOB,
        watermarks TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX executions_newest ON executions (first_seen, execution_id);
    CREATE INDEX executions_by_status ON executions (status, first_seen, execution_id);
    CREATE INDEX executions_by_namespace ON executions (namespace, first_seen, execution_id);
    CREATE INDEX executions_by_user ON executions (user_id, first_seen, execution_id);

    CREATE TABLE attempts (
        execution_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        status TEXT NOT NULL,
        rank INTEGER NOT NULL,
        ended_at INTEGER,
        ended_by BLOB,
        PRIMARY KEY (execution_id, attempt)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE execution_results (
        execution_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        event_id BLOB NOT NULL,
        status TEXT NOT NULL,
        ended_at INTEGER NOT NULL,
        terminal TEXT NOT NULL,
        stdout BLOB NOT NULL,
        stderr BLOB NOT NULL,
        PRIMARY KEY (execution_id, attempt)
    ) STRICT;

    CREATE TABLE receipts (
        role TEXT NOT NULL,
        event_id BLOB NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (role, event_id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE dead_letters (
        id TEXT PRIMARY KEY,
        role TEXT NOT NULL,
        at INTEGER NOT NULL,
        topic TEXT NOT NULL,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        reason TEXT NOT NULL,
        tries INTEGER NOT NULL,
        key BLOB,
        headers TEXT NOT NULL,
        payload BLOB
    ) STRICT;
    CREATE INDEX dead_letters_newest ON dead_letters (at, id);
    CREATE INDEX dead_letters_by_role ON dead_letters (role, at, id);
"];

/// The newest schema that this program knows, and the one it writes.
pub const SCHEMA: i64 = MIGRATIONS.len() as i64;

/// A failure before it is known what was being done, and to which file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// SQLite's own.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A row that this program did not write like this.
    #[error("a row cannot be read: {0}")]
    Row(String),
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Row(error.to_string())
    }
}

impl Fault {
    /// The error that the caller sees.
    pub(super) fn explain(self, path: &Path, doing: &'static str) -> Error {
        let code = match &self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            Self::Row(_) => Some(ErrorCode::DatabaseCorrupt),
        };
        match code {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => corrupt(path, &self),
            Some(ErrorCode::DiskFull) => {
                let reason = format!("{}: the disk is full; a larger one makes room", path.display());
                Error::Unavailable { doing, reason }
            }
            _ => Error::Unavailable { doing, reason: format!("{}: {self}", path.display()) },
        }
    }
}

fn corrupt(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Corrupt { place: path.display().to_string(), reason: reason.to_string() }
}

/// Opens the store for writing, and makes it where there is none. A file that is not a store is left alone.
pub(super) fn open(path: &Path) -> Result<Connection> {
    // SQLite only says that it cannot open the file; the system says why.
    OpenOptions::new().read(true).append(true).create(true).open(path).map_err(|error| Error::Unavailable {
        doing: "open its file",
        reason: format!("{}: {error}; data_dir must be a directory that podherald may write to", path.display()),
    })?;
    let explain = |fault: Fault| fault.explain(path, "open");
    let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(explain)?;
    recognise(&db, path)?;
    set_up(&db).map_err(explain)?;
    migrate(&mut db).map_err(|fault| fault.explain(path, "bring up to date"))?;
    Ok(db)
}

/// A connection that writes, to a store that was opened before.
pub(super) fn open_writer(path: &Path) -> std::result::Result<Connection, Fault> {
    let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    set_up(&db)?;
    Ok(db)
}

/// A connection that only reads.
pub(super) fn open_reader(path: &Path) -> std::result::Result<Connection, Fault> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect(path: &Path, access: OpenFlags) -> std::result::Result<Connection, Fault> {
    let db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY)?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}

fn number(db: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    db.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
}

fn recognise(db: &Connection, path: &Path) -> Result<()> {
    let explain = |error: rusqlite::Error| Fault::from(error).explain(path, "open");
    let tables = "SELECT count(*) FROM sqlite_schema";
    let is_empty = db.query_row(tables, [], |row| row.get::<_, i64>(0)).map_err(explain)? == 0;
    if !is_empty && number(db, "application_id").map_err(explain)? != APPLICATION {
        return Err(corrupt(path, &"it is a database of another program"));
    }
    match number(db, "user_version").map_err(explain)? {
        found if found > SCHEMA => Err(Error::Newer { place: path.display().to_string(), found, known: SCHEMA }),
        _ => Ok(()),
    }
}

fn set_up(db: &Connection) -> std::result::Result<(), Fault> {
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))?;
    Ok(())
}

fn migrate(db: &mut Connection) -> std::result::Result<(), Fault> {
    for (from, step) in (0..).zip(MIGRATIONS) {
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Asked within the transaction: another process may just have done it.
        if number(&tx, "user_version")? == from {
            tx.execute_batch(step)?;
            tx.pragma_update(None, "application_id", APPLICATION)?;
            tx.pragma_update(None, "user_version", from + 1)?;
            tracing::info!(from, to = from + 1, "the store has been brought up to date");
        }
        tx.commit()?;
    }
    Ok(())
}
