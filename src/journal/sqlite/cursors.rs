//! How far each sink has come.

use rusqlite::{Connection, TransactionBehavior, params};

use super::{fault::Fault, schema};
use crate::journal::{Cursor, Subscription};

/// Takes these sinks up, and lets all others go.
pub(super) fn subscribe(db: &mut Connection, sinks: &[Subscription]) -> Result<Vec<Cursor>, Fault> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("UPDATE cursors SET required = 0", [])?;
    let present = schema::head(&tx)?;
    let mut cursors = Vec::with_capacity(sinks.len());
    for Subscription { sink, required } in sinks {
        let cursor = tx
            .prepare_cached(
                "INSERT INTO cursors (sink, position, required, missed) VALUES (?1, ?2, ?3, 0)
                 ON CONFLICT DO UPDATE SET required = excluded.required RETURNING position, missed",
            )?
            .query_row(params![sink, present, required], |row| {
                Ok(Cursor { position: row.get(0)?, missed: row.get(1)? })
            })?;
        cursors.push(cursor);
    }
    tx.commit()?;
    Ok(cursors)
}

/// Moves one, without a wait for the disk: after a loss of power a sink is given again what it had, which it may be at any
/// time. The next append waits for both.
pub(super) fn advance(db: &Connection, sink: &str, cursor: Cursor) -> Result<(), Fault> {
    db.pragma_update(None, "synchronous", "NORMAL")?;
    let moved = db
        .prepare_cached("UPDATE cursors SET position = max(position, ?2), missed = max(missed, ?3) WHERE sink = ?1")
        .and_then(|mut update| update.execute(params![sink, cursor.position, cursor.missed]));
    db.pragma_update(None, "synchronous", "FULL")?;
    if moved? == 0 {
        return Err(Fault::Refused(format!("no sink {sink} has subscribed")));
    }
    Ok(())
}

/// Retention may take what lies at or below; none if it need not look.
pub(super) fn hold(db: &Connection) -> Result<Option<u64>, Fault> {
    let mut select = db.prepare_cached("SELECT min(position) FROM cursors WHERE required = 1")?;
    Ok(select.query_row([], |row| row.get(0))?)
}
