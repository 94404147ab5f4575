//! How far each sink has come.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use uuid::Uuid;

use super::{dead_letters, fault::Fault, reader::Read, schema};
use crate::journal::{Cursor, DeadLetter, Subscription};

/// Takes these sinks up, and lets all others go. What is so already is not written: a start must not need room on a full
/// disk.
pub(super) fn subscribe(db: &mut Connection, sinks: &[Subscription]) -> Result<Vec<Cursor>, Fault> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let present = schema::head(&tx)?;
    let mut cursors = Vec::with_capacity(sinks.len());
    let names = serde_json::to_string(&sinks.iter().map(|of| of.sink).collect::<Vec<_>>())?;
    let gone = "UPDATE cursors SET required = 0 WHERE required = 1 AND sink NOT IN (SELECT value FROM json_each(?1))";
    tx.execute(gone, [names])?;
    for Subscription { sink, required } in sinks {
        tx.execute(
            "INSERT INTO cursors (sink, position, required, missed) VALUES (?1, ?2, ?3, 0)
             ON CONFLICT DO UPDATE SET required = excluded.required WHERE required <> excluded.required",
            params![sink, present, required],
        )?;
        let cursor = "SELECT position, missed FROM cursors WHERE sink = ?1";
        cursors.push(tx.query_row(cursor, [sink], |row| Ok(Cursor { position: row.get(0)?, missed: row.get(1)? }))?);
    }
    tx.commit()?;
    Ok(cursors)
}

/// Room beyond `max_bytes` for dead letters: in a full journal only a cursor that moves on lets retention make room, and it moves
/// only with its letters.
const RESERVE_BYTES: u64 = 16 << 20;

/// Moves one, without a wait for the disk: after a loss of power a sink is given again what it had, which it may be at any
/// time. The next append waits for both.
pub(super) fn advance(
    db: &mut Connection,
    max_bytes: u64,
    sink: &str,
    cursor: Cursor,
    dead_letters: &[DeadLetter],
) -> Result<(), Fault> {
    db.pragma_update(None, "synchronous", "NORMAL")?;
    if !dead_letters.is_empty() {
        schema::limit(db, max_bytes.saturating_add(RESERVE_BYTES))?;
    }
    let moved = move_with(db, sink, cursor, dead_letters);
    if !dead_letters.is_empty() {
        schema::limit(db, max_bytes)?;
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    moved
}

fn move_with(db: &mut Connection, sink: &str, cursor: Cursor, letters: &[DeadLetter]) -> Result<(), Fault> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let moved = tx
        .prepare_cached("UPDATE cursors SET position = max(position, ?2), missed = max(missed, ?3) WHERE sink = ?1")?
        .execute(params![sink, cursor.position, cursor.missed])?;
    if moved == 0 {
        return Err(Fault::Refused(format!("no sink {sink} has subscribed")));
    }
    for letter in letters {
        dead_letters::keep(&tx, sink, letter)?;
    }
    Ok(tx.commit()?)
}

/// Retention may take what lies at or below; none if it need not look.
pub(super) fn hold(db: &Connection) -> Result<Option<u64>, Fault> {
    let mut select = db.prepare_cached("SELECT min(position) FROM cursors WHERE required = 1")?;
    Ok(select.query_row([], |row| row.get(0))?)
}

/// See [`crate::journal::Journal::carried`].
pub(super) fn carried(db: &Connection, events: &[(String, Uuid)]) -> Read<Vec<bool>> {
    let least: Option<u64> =
        db.query_row("SELECT min(position) FROM cursors WHERE required = 1", [], |row| row.get(0))?;
    let mut select = db.prepare_cached(
        "SELECT position FROM events WHERE event_id = ?2 AND execution = (SELECT key FROM executions WHERE execution_id = ?1)",
    )?;
    let mut carried = Vec::with_capacity(events.len());
    for (execution, id) in events {
        let position: Option<u64> = select.query_row(params![execution, id.as_bytes()], |row| row.get(0)).optional()?;
        carried.push(position.zip(least).is_none_or(|(position, least)| position <= least));
    }
    Ok(carried)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_sink_that_is_as_it_was_is_taken_up_without_a_write() {
        let dir = TempDir::new().unwrap();
        let mut db = schema::open(&dir.path().join("journal.db"), 1 << 20).unwrap().db;
        let sinks = [Subscription { sink: "one", required: true }, Subscription { sink: "other", required: false }];
        let cursors = subscribe(&mut db, &sinks).unwrap();
        let written = db.total_changes();
        assert_eq!(subscribe(&mut db, &sinks).unwrap(), cursors);
        assert_eq!(db.total_changes(), written);
        assert_eq!(hold(&db).unwrap(), Some(0));
        subscribe(&mut db, &sinks[1..]).unwrap();
        assert_eq!(hold(&db).unwrap(), None);
    }
}
