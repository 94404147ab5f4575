//! Reading one thing.

use bytes::Bytes;
use jiff::Timestamp;
use podherald_core::{event::Event, execution::Status};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IntoDeserializer, value},
};
use uuid::Uuid;

use super::{Act, schema::Fault};
use crate::{
    inbox::Place,
    store::{Attempt, Found, Outcome, Watermarks, projection::Projection},
};

/// The columns that [`read_projection`] takes.
pub(super) const PROJECTION: &str = "first_seen, namespace, ended_by, watermarks, body";

pub(super) fn projection(db: &Connection, id: &str) -> Act<Option<Projection>> {
    let sql = format!("SELECT {PROJECTION} FROM executions WHERE execution_id = ?1");
    let mut select = db.prepare_cached(&sql)?;
    let mut rows = select.query([id])?;
    rows.next()?.map(read_projection).transpose()
}

pub(super) fn read_projection(row: &Row<'_>) -> Act<Projection> {
    let listed: Vec<(String, i32, u64)> = json(row, 3)?;
    let watermark = |(topic, partition, next): (String, i32, u64)| (Place { topic: topic.into(), partition }, next);
    Ok(Projection {
        first_seen: time(row.get(0)?)?,
        namespace: row.get(1)?,
        ended_by: row.get::<_, Option<[u8; 16]>>(2)?.map(Uuid::from_bytes),
        watermarks: listed.into_iter().map(watermark).collect(),
        execution: json(row, 4)?,
    })
}

/// As JSON can have it.
pub(super) fn listed_watermarks(watermarks: &Watermarks) -> Vec<(&str, i32, u64)> {
    watermarks.iter().map(|(place, next)| (&*place.topic, place.partition, *next)).collect()
}

pub(super) fn execution(db: &Connection, id: &str) -> Act<Option<Found>> {
    let Some(projection) = projection(db, id)? else { return Ok(None) };
    let ended_by = projection.ended_by.map(|event_id| event(db, event_id)).transpose()?;
    Ok(Some(projection.show(ended_by.as_ref())))
}

fn event(db: &Connection, event_id: Uuid) -> Act<Event> {
    let mut select = db.prepare_cached("SELECT body FROM events WHERE event_id = ?1")?;
    let body: Vec<u8> = select.query_row([event_id.as_bytes()], |row| row.get(0))?;
    Ok(serde_json::from_slice(&body)?)
}

pub(super) fn result(db: &Connection, execution_id: &str, attempt: Option<u32>) -> Act<Option<Outcome>> {
    let mut select = db.prepare_cached(
        "SELECT attempt, event_id, status, ended_at, terminal, stdout, stderr FROM execution_results
         WHERE execution_id = ?1 AND attempt BETWEEN ?2 AND ?3 ORDER BY attempt DESC LIMIT 1",
    )?;
    let (least, most) = attempt.map_or((0, u32::MAX), |attempt| (attempt, attempt));
    let mut rows = select.query(params![execution_id, least, most])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some(Outcome {
        execution_id: execution_id.to_owned(),
        attempt: row.get(0)?,
        event_id: Uuid::from_bytes(row.get(1)?),
        status: status(&row.get::<_, String>(2)?)?,
        ended_at: time(row.get(3)?)?,
        terminal: json(row, 4)?,
        stdout: bytes(row, 5)?,
        stderr: bytes(row, 6)?,
    }))
}

pub(super) fn attempts(db: &Connection, execution_id: &str) -> Act<Vec<Attempt>> {
    let mut select = db.prepare_cached(
        "SELECT attempt, status, ended_at, ended_by FROM attempts WHERE execution_id = ?1 ORDER BY attempt",
    )?;
    let mut rows = select.query([execution_id])?;
    let mut attempts = Vec::new();
    while let Some(row) = rows.next()? {
        attempts.push(Attempt {
            execution_id: execution_id.to_owned(),
            attempt: row.get(0)?,
            status: status(&row.get::<_, String>(1)?)?,
            ended_at: row.get::<_, Option<i64>>(2)?.map(time).transpose()?,
            ended_by: row.get::<_, Option<[u8; 16]>>(3)?.map(Uuid::from_bytes),
        });
    }
    Ok(attempts)
}

pub(super) fn is_finished(db: &Connection, role: &str, event_id: Uuid) -> Act<bool> {
    let mut select = db.prepare_cached("SELECT 1 FROM receipts WHERE role = ?1 AND event_id = ?2")?;
    Ok(select.query_row(params![role, event_id.as_bytes()], |_| Ok(())).optional()?.is_some())
}

pub(super) fn bytes(row: &Row<'_>, column: usize) -> Act<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_bytes().map_err(rusqlite::Error::from)?))
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Act<T> {
    Ok(serde_json::from_str(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?)?)
}

pub(super) fn time(microseconds: i64) -> Act<Timestamp> {
    Timestamp::from_microsecond(microseconds).map_err(|error| Fault::Row(error.to_string()))
}

fn status(name: &str) -> Act<Status> {
    Status::deserialize(name.into_deserializer()).map_err(|error: value::Error| Fault::Row(error.to_string()))
}
