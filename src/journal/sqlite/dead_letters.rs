//! What sinks could never carry.

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, Row, named_params, params};

use super::fault::Fault;
use crate::journal::{DeadLetter, DeadLetterQuery, ListedLetter};

/// Keeps a letter, unless it is kept already.
pub(super) fn keep(db: &Connection, sink: &str, letter: &DeadLetter) -> Result<(), Fault> {
    let sql = "INSERT OR IGNORE INTO dead_letters
        (sink, position, at, reason, event_id, execution_id, event_type, result_unproven, body)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    db.prepare_cached(sql)?.execute(params![
        sink,
        letter.position,
        letter.at.as_microsecond(),
        letter.reason,
        letter.event_id,
        &*letter.execution_id,
        &*letter.event_type,
        letter.result_unproven,
        &letter.bytes[..],
    ])?;
    Ok(())
}

/// A page, newest first.
pub(super) fn list(db: &Connection, query: &DeadLetterQuery) -> Result<Vec<ListedLetter>, Fault> {
    let mut select = db.prepare_cached(
        "SELECT key, sink, position, at, reason, event_id, execution_id, event_type, result_unproven, body
         FROM dead_letters
         WHERE (:sink IS NULL OR sink = :sink) AND (:before IS NULL OR key < :before)
         ORDER BY key DESC LIMIT :limit",
    )?;
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
    let parameters = named_params! { ":sink": query.sink, ":before": query.before, ":limit": limit };
    let mut bytes = 0;
    let mut letters: Vec<ListedLetter> = Vec::new();
    for letter in select.query_map(parameters, listed)? {
        if bytes >= query.max_bytes && !letters.is_empty() {
            break;
        }
        let letter = letter?;
        bytes += letter.letter.bytes.len();
        letters.push(letter);
    }
    Ok(letters)
}

fn listed(row: &Row<'_>) -> rusqlite::Result<ListedLetter> {
    let letter = DeadLetter {
        position: row.get(2)?,
        at: Timestamp::from_microsecond(row.get(3)?).unwrap_or_default(),
        reason: row.get(4)?,
        event_id: row.get(5)?,
        execution_id: row.get::<_, String>(6)?.into(),
        event_type: row.get::<_, String>(7)?.into(),
        result_unproven: row.get(8)?,
        bytes: Bytes::from(row.get::<_, Vec<u8>>(9)?),
    };
    Ok(ListedLetter { key: row.get(0)?, sink: row.get(1)?, letter })
}

/// Takes at most `batch` that are from before this, in microseconds, oldest first.
pub(super) fn take(db: &Connection, before: i64, batch: i64) -> Result<usize, Fault> {
    let sql = "DELETE FROM dead_letters WHERE key IN (
        SELECT key FROM dead_letters WHERE at < ?1 ORDER BY key LIMIT ?2)";
    Ok(db.prepare_cached(sql)?.execute([before, batch])?)
}
