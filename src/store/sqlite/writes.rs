//! What each write does to the tables, within a transaction.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use super::{Act, reads, schema::Fault};
use crate::store::{Appended, Arrival, Attempt, DeadLetter, Outcome, Stored, projection};

pub(super) fn append(db: &Connection, arrivals: &[Arrival]) -> Act<Vec<Appended>> {
    arrivals.iter().map(|arrival| append_one(db, arrival)).collect()
}

fn append_one(db: &Connection, arrival: &Arrival) -> Act<Appended> {
    let is_new =
        db.prepare_cached(
            "INSERT INTO events (event_id, execution_id, at, seq, event_type, topic, partition, offset, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            arrival.event_id.as_bytes(),
            arrival.execution_id,
            arrival.at.as_microsecond(),
            arrival.seq,
            arrival.event_type,
            &*arrival.place.topic,
            arrival.place.partition,
            arrival.offset,
            &*arrival.bytes,
        ])? > 0;
    let known = reads::projection(db, &arrival.execution_id)?;
    let mut projection = known.unwrap_or_else(|| projection::Projection::new(&arrival.execution_id, arrival.at));
    if projection.take(arrival) {
        write_projection(db, &projection)?;
    }
    if let Some(attempt) = projection::attempt(arrival) {
        write_attempt(db, &attempt)?;
    }
    Ok(if is_new { Appended::New } else { Appended::Known })
}

fn write_projection(db: &Connection, projection: &projection::Projection) -> Act<()> {
    let execution = &projection.execution;
    db.prepare_cached(
        "INSERT INTO executions (execution_id, first_seen, namespace, user_id, status, ended_by, watermarks, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET namespace = excluded.namespace, user_id = excluded.user_id, status = excluded.status,
             ended_by = excluded.ended_by, watermarks = excluded.watermarks, body = excluded.body",
    )?
    .execute(params![
        execution.execution_id,
        projection.first_seen.as_microsecond(),
        projection.namespace,
        execution.user_id,
        execution.status.as_str(),
        projection.ended_by.as_ref().map(Uuid::as_bytes),
        serde_json::to_string(&reads::listed_watermarks(&projection.watermarks))?,
        serde_json::to_string(execution)?,
    ])?;
    Ok(())
}

fn write_attempt(db: &Connection, attempt: &Attempt) -> Act<()> {
    db.prepare_cached(
        "INSERT INTO attempts (execution_id, attempt, status, rank, ended_at, ended_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET status = excluded.status, rank = excluded.rank, ended_at = excluded.ended_at,
             ended_by = excluded.ended_by WHERE excluded.rank > rank",
    )?
    .execute(params![
        attempt.execution_id,
        attempt.attempt,
        attempt.status.as_str(),
        attempt.status.rank(),
        attempt.ended_at.map(Timestamp::as_microsecond),
        attempt.ended_by.as_ref().map(Uuid::as_bytes),
    ])?;
    Ok(())
}
pub(super) fn put_result(db: &Connection, outcome: &Outcome) -> Act<Stored> {
    let kept: Option<[u8; 16]> = db
        .prepare_cached("SELECT event_id FROM execution_results WHERE execution_id = ?1 AND attempt = ?2")?
        .query_row(params![outcome.execution_id, outcome.attempt], |row| row.get(0))
        .optional()?;
    if let Some(event_id) = kept.map(Uuid::from_bytes) {
        return Ok(if event_id == outcome.event_id { Stored::Again } else { Stored::Other { event_id } });
    }
    db.prepare_cached(
        "INSERT INTO execution_results (execution_id, attempt, event_id, status, ended_at, terminal, stdout, stderr)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        outcome.execution_id,
        outcome.attempt,
        outcome.event_id.as_bytes(),
        outcome.status.as_str(),
        outcome.ended_at.as_microsecond(),
        serde_json::to_string(&outcome.terminal)?,
        &*outcome.stdout,
        &*outcome.stderr,
    ])?;
    Ok(Stored::First)
}

pub(super) fn finish(db: &Connection, role: &str, event_id: Uuid, at: Timestamp) -> Act<bool> {
    let mut insert =
        db.prepare_cached("INSERT INTO receipts (role, event_id, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?;
    Ok(insert.execute(params![role, event_id.as_bytes(), at.as_microsecond()])? > 0)
}

pub(super) fn bury(db: &Connection, letter: &DeadLetter) -> Act<()> {
    let incoming = &letter.incoming;
    let header = |(name, value): &(String, Option<bytes::Bytes>)| {
        (name.clone(), value.as_ref().map(|value| BASE64_STANDARD.encode(value)))
    };
    let headers: Vec<_> = incoming.headers.iter().map(header).collect();
    db.prepare_cached(
        "INSERT INTO dead_letters (id, role, at, topic, partition, offset, reason, tries, key, headers, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING",
    )?
    .execute(params![
        letter.id(),
        letter.role,
        letter.at.as_microsecond(),
        &*incoming.place.topic,
        incoming.place.partition,
        incoming.offset,
        letter.reason,
        letter.tries,
        incoming.key.as_deref(),
        serde_json::to_string(&headers)?,
        incoming.payload.as_deref(),
    ])
    .map_err(Fault::from)?;
    Ok(())
}
