//! Takes away what is too old or too much.
//!
//! Only executions go of which every attempt has ended, oldest end first. Their events and projection go at once. A pod's
//! record stays until the monitor is done with the pod, and its execution's row with it: otherwise the next list would
//! bring the events of a pod that still exists a second time, and count them from 1 again. Such an execution is
//! `forgotten`: nobody is shown it, but a new attempt takes it up where its numbers ended.
//!
//! An execution with an event that a required sink has not had stays, however much there is. An optional sink is passed: it
//! finds the hole in the positions. Dead letters go by their own age.

use rusqlite::{Connection, OptionalExtension, params};

use super::{cursors, dead_letters, fault::Fault, schema};

/// Above this share of `journal.max_bytes` the oldest ended executions go whatever their age, ...
const TOO_MUCH: (u64, u64) = (9, 10);
/// ... until less than this share is in use.
const ENOUGH: (u64, u64) = (8, 10);

/// Remembers between batches that there is too much.
#[derive(Debug, Default)]
pub(super) struct Pressure(bool);

impl Pressure {
    /// True if age does not protect what has ended.
    pub(super) fn is_on(&mut self, used_bytes: u64, max_bytes: u64) -> bool {
        let (share, limit) = if self.0 { ENOUGH } else { TOO_MUCH };
        self.0 = used_bytes > max_bytes / limit * share;
        self.0
    }
}

/// What one batch took.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) executions: Vec<String>,
    pub(super) events: usize,
    /// Records of pods, of these executions and of forgotten ones.
    pub(super) pods: usize,
    pub(super) dead_letters: usize,
    /// The newest position among the events, 0 if there was none.
    pub(super) last_position: u64,
}

/// Takes at most `batch` executions whose last end lies before this, in microseconds.
pub(super) fn take(db: &Connection, before: i64, batch: usize) -> Result<Taken, Fault> {
    let batch = i64::try_from(batch).unwrap_or(i64::MAX);
    let mut taken = Taken::default();
    for (key, id) in rows(db, CANDIDATES, params![batch, before, cursors::hold(db)?])? {
        let last: Option<u64> = db
            .prepare_cached("SELECT max(position) FROM events WHERE execution = ?1 AND told <> ?2")?
            .query_row([key, schema::RECALLED], |row| row.get(0))?;
        taken.last_position = taken.last_position.max(last.unwrap_or(0));
        taken.events += db.prepare_cached("DELETE FROM events WHERE execution = ?1")?.execute([key])?;
        db.prepare_cached("DELETE FROM outputs WHERE key = ?1")?.execute([key])?;
        if is_tracked(db, &id)? {
            db.prepare_cached("UPDATE evidence SET settled = 1 WHERE execution_id = ?1")?.execute([&id])?;
            db.prepare_cached("UPDATE executions SET ended = 0, forgotten = 1 WHERE key = ?1")?.execute([key])?;
        } else {
            taken.pods += erase(db, key, &id)?;
        }
        taken.executions.push(id);
    }
    for (key, id) in rows(db, DONE_WITH, params![batch])? {
        taken.pods += erase(db, key, &id)?;
    }
    taken.pods += db.prepare_cached(STRAY)?.execute([batch])?;
    taken.dead_letters = dead_letters::take(db, before, batch)?;
    if taken.last_position > 0 {
        db.prepare_cached("UPDATE meta SET value = max(value, ?1) WHERE name = 'floor'")?
            .execute([taken.last_position])?;
    }
    Ok(taken)
}

/// An attempt has ended if one of its pods' records says so, or an event of it does.
const CANDIDATES: &str = "
    SELECT key, execution_id FROM executions AS x
    WHERE ended = 1 AND last_end < ?2 AND NOT EXISTS (
        SELECT 1 FROM evidence AS p WHERE p.execution_id = x.execution_id AND p.settled = 0 AND NOT EXISTS (
            SELECT 1 FROM events AS e
            WHERE e.execution = x.key AND e.attempt = p.attempt AND e.terminal = 1))
    AND (?3 IS NULL OR NOT EXISTS (SELECT 1 FROM events AS e WHERE e.execution = x.key AND e.position > ?3))
    ORDER BY last_end LIMIT ?1";

/// Forgotten executions whose last pod the monitor is done with.
const DONE_WITH: &str = "
    SELECT key, execution_id FROM executions AS x
    WHERE forgotten = 1 AND NOT EXISTS (
        SELECT 1 FROM evidence AS p WHERE p.execution_id = x.execution_id AND p.closed = 0 AND p.conflict = 0)
    ORDER BY key LIMIT ?1";

/// Pods that claimed an execution which is no more.
const STRAY: &str = "
    DELETE FROM evidence WHERE id IN (
        SELECT id FROM evidence AS p WHERE conflict = 1 AND closed = 1 AND NOT EXISTS (
            SELECT 1 FROM executions AS x WHERE x.execution_id = p.execution_id)
        LIMIT ?1)";

fn rows(db: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<(i64, String)>, Fault> {
    let mut select = db.prepare_cached(sql)?;
    let rows = select.query_map(params, |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn is_tracked(db: &Connection, execution_id: &str) -> Result<bool, Fault> {
    let sql = "SELECT 1 FROM evidence WHERE execution_id = ?1 AND closed = 0 AND conflict = 0";
    Ok(db.prepare_cached(sql)?.query_row([execution_id], |_| Ok(())).optional()?.is_some())
}

fn erase(db: &Connection, key: i64, execution_id: &str) -> Result<usize, Fault> {
    db.prepare_cached("DELETE FROM executions WHERE key = ?1")?.execute([key])?;
    let sql = "DELETE FROM evidence WHERE execution_id = ?1 AND closed = 1";
    Ok(db.prepare_cached(sql)?.execute([execution_id])?)
}

#[cfg(test)]
mod tests {
    use super::Pressure;

    #[test]
    fn pressure_begins_above_nine_tenths_and_ends_below_eight() {
        let mut pressure = Pressure::default();
        let seen = [89, 90, 91, 85, 81, 80, 85, 91].map(|used| pressure.is_on(used, 100));
        assert_eq!(seen, [false, false, true, true, true, false, false, true]);
    }
}
