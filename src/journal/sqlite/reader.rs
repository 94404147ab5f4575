//! Reading: a few connections of their own, each used by one caller at a time, off the runtime's threads.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use podherald_core::{
    about::About,
    event::{EVENT_TYPES, Event},
    evidence::Evidence,
    execution::{Execution, Status},
    told::Told,
};
use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql, named_params, params, types::ValueRef};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IntoDeserializer, value},
};
use tokio::sync::Semaphore;

use super::{fault::Fault, schema};
use crate::journal::{
    Audit, Bounds, Claim, Error, ExecutionQuery, Frames, Known, Listed, Place, PodQuery, Record, Result,
};

/// Reads at the same time; the rest waits.
const CONNECTIONS: usize = 4;

pub(super) type Read<T> = std::result::Result<T, Fault>;

/// The connections that read.
pub(super) struct Readers {
    path: PathBuf,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            idle: Mutex::new(Vec::with_capacity(CONNECTIONS)),
        }
    }

    /// Runs `read` on a connection in one transaction, so that all it reads belongs together.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        doing: &'static str,
        read: impl FnOnce(&Connection) -> Read<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let readers = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Given back only after the connection.
            let _permit = permit;
            readers.read_now(read).map_err(|fault| fault.explain(&readers.path, doing))
        });
        done.await.unwrap_or_else(|error| Err(Error::Io { doing, reason: error.to_string() }))
    }

    fn read_now<T>(&self, read: impl FnOnce(&Connection) -> Read<T>) -> Read<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let db = match idle {
            Some(db) => db,
            None => schema::open_reader(&self.path)?,
        };
        let tx = db.unchecked_transaction()?;
        let result = read(&tx);
        drop(tx);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
        result
    }
}

pub(super) fn known(db: &Connection, pods: &[(String, String)]) -> Read<Vec<Known>> {
    let one = |(uid, execution_id): &(String, String)| {
        Ok(Known {
            evidence: bodies(db, "SELECT body FROM evidence WHERE uid = ?1", [uid])?.pop(),
            claim: claim(db, execution_id)?,
            told: told(db, execution_id)?,
        })
    };
    pods.iter().map(one).collect()
}

fn claim(db: &Connection, execution_id: &str) -> Read<Option<Claim>> {
    let mut select = db.prepare_cached(
        "SELECT namespace, attempt_key, attempt FROM evidence WHERE execution_id = ?1 AND conflict = 0 ORDER BY id",
    )?;
    let mut rows = select.query([execution_id])?;
    let mut claim: Option<Claim> = None;
    while let Some(row) = rows.next()? {
        let claim = match &mut claim {
            Some(claim) => claim,
            None => claim.insert(Claim { namespace: row.get(0)?, ..Claim::default() }),
        };
        claim.attempts.insert(row.get(1)?, row.get(2)?);
    }
    Ok(claim)
}

fn told(db: &Connection, execution_id: &str) -> Read<Vec<Told>> {
    let sql = "SELECT events.body FROM executions JOIN events ON execution = key
        WHERE execution_id = ?1 AND told = 1 ORDER BY position";
    let events: Vec<Event> = bodies(db, sql, [execution_id])?;
    Ok(events.iter().map(Told::of).collect())
}

/// Looks at no event behind the first that nobody has told, and into none.
pub(super) fn told_after(db: &Connection, position: u64) -> Read<Option<u64>> {
    let untold = "SELECT position FROM events WHERE position > ?1 AND told = 0 ORDER BY position LIMIT 1";
    let untold: Option<i64> = db.prepare_cached(untold)?.query_row([bound(position)], |row| row.get(0)).optional()?;
    let last = "SELECT position FROM events WHERE position > ?1 AND position < ?2 ORDER BY position DESC LIMIT 1";
    let bounds = params![bound(position), untold.unwrap_or(i64::MAX)];
    Ok(db.prepare_cached(last)?.query_row(bounds, |row| row.get(0)).optional()?)
}

pub(super) fn places(db: &Connection) -> Read<Vec<Place>> {
    let mut select = db.prepare_cached("SELECT topic, partition, next FROM places ORDER BY topic, partition")?;
    let place = |row: &Row<'_>| Ok(Place { topic: row.get(0)?, partition: row.get(1)?, next: row.get(2)? });
    Ok(select.query_map([], place)?.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn open_evidence(db: &Connection) -> Read<Vec<Evidence>> {
    bodies(db, "SELECT body FROM evidence WHERE closed = 0 ORDER BY id", [])
}

pub(super) fn execution(db: &Connection, id: &str) -> Read<Option<Execution>> {
    let row = db
        .prepare_cached(
            "SELECT body, stdout, stderr FROM executions LEFT JOIN outputs USING (key)
             WHERE execution_id = ?1 AND forgotten = 0",
        )?
        .query_row([id], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((body, stdout, stderr)) = row else { return Ok(None) };
    let body: Execution = serde_json::from_str(&body)?;
    Ok(Some(Execution { stdout, stderr, ..body }))
}

/// Newest first. Several statuses are read one by one, each along its index, and merged.
pub(super) fn executions(db: &Connection, query: &ExecutionQuery) -> Read<Vec<Listed>> {
    let mut statuses: Vec<_> = query.statuses.iter().copied().map(Some).collect();
    if statuses.is_empty() {
        statuses.push(None);
    }
    let mut page = Vec::new();
    for status in statuses {
        page.extend(executions_of(db, query, status)?);
    }
    page.sort_unstable_by_key(|(key, _)| std::cmp::Reverse(*key));
    page.dedup_by_key(|(key, _)| *key);
    page.truncate(query.limit);
    let listed = |(key, body): (u64, String)| Ok(Listed { key, execution: serde_json::from_str(&body)? });
    page.into_iter().map(listed).collect()
}

fn executions_of(db: &Connection, query: &ExecutionQuery, status: Option<Status>) -> Read<Vec<(u64, String)>> {
    let status = status.map(Status::as_str);
    let ids = json(&query.ids)?;
    let labels = json(&query.labels)?;
    let (before, limit) = (bound(query.before.unwrap_or(u64::MAX)), bound(query.limit as u64));
    let mut sql = "SELECT key, body FROM executions WHERE forgotten = 0 AND key < :before".to_owned();
    let mut values: Vec<(&str, &dyn ToSql)> = vec![(":before", &before), (":limit", &limit)];
    if status.is_some() {
        sql.push_str(" AND status = :status");
        values.push((":status", &status));
    }
    if query.namespace.is_some() {
        sql.push_str(" AND namespace = :namespace");
        values.push((":namespace", &query.namespace));
    }
    if query.user_id.is_some() {
        sql.push_str(" AND user_id = :user_id");
        values.push((":user_id", &query.user_id));
    }
    if !query.ids.is_empty() {
        sql.push_str(" AND execution_id IN (SELECT value FROM json_each(:ids))");
        values.push((":ids", &ids));
    }
    if !query.labels.is_empty() {
        sql.push_str(
            " AND NOT EXISTS (SELECT 1 FROM json_each(:labels) AS asked WHERE NOT EXISTS (
                SELECT 1 FROM json_each(body, '$.labels') AS has
                WHERE has.key = asked.value ->> 0 AND has.value = asked.value ->> 1))",
        );
        values.push((":labels", &labels));
    }
    sql.push_str(" ORDER BY key DESC LIMIT :limit");
    let mut select = db.prepare_cached(&sql)?;
    let rows = select.query_map(values.as_slice(), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

const RECORD: &str = "SELECT position,
        coalesce(evidence.execution_id, (SELECT execution_id FROM executions WHERE key = execution)), event_type, events.attempt, source, seq, status, version,
        events.body, pod, namespace, labels, told, uid, is_pod, about
    FROM events LEFT JOIN evidence ON evidence.id = events.pod";

pub(super) fn execution_events(db: &Connection, id: &str, after: u64, limit: usize) -> Read<Vec<Arc<Record>>> {
    let sql = format!(
        "{RECORD} WHERE position IN (
            SELECT position FROM executions JOIN events ON execution = key
            WHERE execution_id = ?1 AND position > ?2 ORDER BY position LIMIT ?3)
        ORDER BY position"
    );
    records(db, &sql, params![id, bound(after), bound(limit as u64)])
}

pub(super) fn events(db: &Connection, after: u64, limit: usize) -> Read<Vec<Arc<Record>>> {
    let sql = format!("{RECORD} WHERE position > ?1 ORDER BY position LIMIT ?2");
    records(db, &sql, params![bound(after), bound(limit as u64)])
}

pub(super) fn batch(db: &Connection, after: u64, bounds: Bounds) -> Read<Vec<Arc<Record>>> {
    let sql = format!("{RECORD} WHERE position > ?1 ORDER BY position LIMIT ?2");
    records_within(db, &sql, params![bound(after), bound(bounds.records as u64)], bounds.bytes)
}

fn records(db: &Connection, sql: &str, params: impl Params) -> Read<Vec<Arc<Record>>> {
    records_within(db, sql, params, usize::MAX)
}

/// Stops once there are so many bytes, with the record that made them so many.
fn records_within(db: &Connection, sql: &str, params: impl Params, max_bytes: usize) -> Read<Vec<Arc<Record>>> {
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query(params)?;
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut pods = HashMap::new();
    let mut texts = HashMap::<String, Arc<str>>::new();
    let mut shared = |text: String| texts.entry(text).or_insert_with_key(|text| text.as_str().into()).clone();
    while let Some(row) = rows.next()? {
        let pod: i64 = row.get(9)?;
        let about = match pods.get(&pod) {
            Some(known) => Arc::clone(known),
            None if pod == schema::NO_POD => own_about(row)?,
            None => pods.entry(pod).or_insert(Arc::new(about(row, pod)?)).clone(),
        };
        records.push(Arc::new(Record {
            position: row.get(0)?,
            execution_id: shared(row.get(1)?),
            about,
            event_type: event_type(text(row, 2)?)?,
            attempt: row.get(3)?,
            source: shared(row.get(4)?),
            seq: row.get(5)?,
            status: row.get::<_, Option<String>>(6)?.map(|name| status(&name)).transpose()?,
            told: row.get(12)?,
            recalled: row.get::<_, i64>(12)? == schema::RECALLED,
            version: Arc::new(parse(row, 7)?),
            bytes: Bytes::copy_from_slice(text(row, 8)?.as_bytes()),
            frames: Frames::default(),
        }));
        bytes += records.last().map_or(0, |record| record.bytes.len());
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(records)
}

/// Of an event whose pod was never seen here.
fn own_about(row: &Row<'_>) -> Read<Arc<About>> {
    Ok(match row.get_ref(15)? {
        ValueRef::Null => Arc::default(),
        _ => Arc::new(parse(row, 15)?),
    })
}

fn about(row: &Row<'_>, pod: i64) -> Read<About> {
    let namespace: Option<String> = row.get(10)?;
    let lost = || Fault::Row(format!("an event names pod {pod}, which is lost"));
    let pod_uid = row.get::<_, bool>(14)?.then(|| row.get(13)).transpose()?;
    Ok(About { namespace: Some(namespace.ok_or_else(lost)?), labels: parse(row, 11)?, pod_uid })
}

pub(super) fn pods(db: &Connection, query: &PodQuery) -> Read<Vec<Evidence>> {
    let (namespace, name, uid) = query.after.clone().unwrap_or_default();
    let mut sql = "SELECT body FROM evidence WHERE gone = 0 AND is_pod = 1".to_owned();
    if query.namespace.is_some() {
        sql.push_str(" AND namespace = :only");
    }
    if query.execution_id.is_some() {
        sql.push_str(" AND execution_id = :execution_id");
    }
    sql.push_str(" AND (namespace, name, uid) > (:namespace, :name, :uid) ORDER BY namespace, name, uid LIMIT :limit");
    let limit = bound(query.limit as u64);
    let mut values: Vec<(&str, &dyn ToSql)> =
        named_params! { ":namespace": namespace, ":name": name, ":uid": uid, ":limit": limit }.to_vec();
    if query.namespace.is_some() {
        values.push((":only", &query.namespace));
    }
    if query.execution_id.is_some() {
        values.push((":execution_id", &query.execution_id));
    }
    bodies(db, &sql, values.as_slice())
}

/// An attempt has ended if a record of it says so; it lives as long as one is there.
pub(super) fn audit(db: &Connection, limit: usize) -> Read<Audit> {
    let counts = "SELECT count(*) FILTER (WHERE ended), count(*) FILTER (WHERE NOT ended AND NOT gone),
            count(*) FILTER (WHERE NOT ended AND gone)
        FROM (SELECT max(settled) AS ended, min(gone) AS gone FROM evidence WHERE conflict = 0
            GROUP BY execution_id, attempt)";
    let (ended, live, unaccounted) =
        db.prepare_cached(counts)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let conflicts =
        db.prepare_cached("SELECT count(*) FROM evidence WHERE conflict = 1")?.query_row([], |row| row.get(0))?;
    // Whatever is unaccounted for is not closed.
    let items = "SELECT body FROM evidence AS p WHERE closed = 0 AND gone = 1 AND settled = 0 AND NOT EXISTS (
            SELECT 1 FROM evidence AS other WHERE other.execution_id = p.execution_id AND other.attempt = p.attempt
                AND other.conflict = 0 AND (other.settled = 1 OR other.gone = 0))
        ORDER BY id LIMIT ?1";
    let items = bodies(db, items, [bound(limit as u64)])?;
    Ok(Audit { ended, live, unaccounted, conflicts, items })
}

pub(super) fn pod(db: &Connection, namespace: &str, name: &str) -> Read<Option<Evidence>> {
    let sql = "SELECT body FROM evidence WHERE namespace = ?1 AND name = ?2 AND is_pod = 1
        ORDER BY id DESC LIMIT 1";
    Ok(bodies(db, sql, [namespace, name])?.pop())
}

fn bodies<T: DeserializeOwned>(db: &Connection, sql: &str, params: impl Params) -> Read<Vec<T>> {
    let mut select = db.prepare_cached(sql)?;
    let mut rows = select.query(params)?;
    let mut bodies = Vec::new();
    while let Some(row) = rows.next()? {
        bodies.push(parse(row, 0)?);
    }
    Ok(bodies)
}

fn parse<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Read<T> {
    Ok(serde_json::from_str(text(row, column)?)?)
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> Read<&'a str> {
    Ok(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?)
}

fn event_type(name: &str) -> Read<&'static str> {
    let known = EVENT_TYPES.into_iter().find(|known| *known == name);
    known.ok_or_else(|| Fault::Row(format!("event type {name} is not of this catalogue")))
}

fn status(name: &str) -> Read<Status> {
    Status::deserialize(name.into_deserializer()).map_err(|error: value::Error| Fault::Row(error.to_string()))
}

fn json(value: &impl serde::Serialize) -> Read<String> {
    Ok(serde_json::to_string(value)?)
}

/// SQLite counts in signed numbers; no position, key or limit comes near their end.
fn bound(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
