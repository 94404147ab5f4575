//! Reading page by page.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use podherald_core::execution::Status;
use rusqlite::{Connection, StatementStatus, ToSql};
use uuid::Uuid;

use super::{
    Act,
    reads::{self, PROJECTION, bytes, json, time},
    schema::Fault,
};
use crate::{
    inbox::{Incoming, Place},
    store::{
        Cursor, DeadLetter, DeadLetterQuery, EventCursor, EventQuery, ExecutionQuery, LetterCursor, Listed,
        ListedLetter, StoredEvent, projection::Projection,
    },
};

/// A statement and what is put into it, made of the parts that a query asks for.
#[derive(Default)]
struct Select {
    sql: String,
    values: Vec<Box<dyn ToSql>>,
}

impl Select {
    fn of(sql: String) -> Self {
        Self { sql: sql + " WHERE 1", values: Vec::new() }
    }

    fn only<const N: usize>(&mut self, condition: &str, values: [Box<dyn ToSql>; N]) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
        self.values.extend(values);
    }

    fn end(mut self, order: &str, limit: usize) -> Self {
        self.sql.push_str(&format!(" ORDER BY {order} LIMIT ?"));
        self.values.push(Box::new(i64::try_from(limit).unwrap_or(i64::MAX)));
        self
    }

    fn params(&self) -> Vec<&dyn ToSql> {
        self.values.iter().map(|value| &**value).collect()
    }
}

/// Newest first. Several statuses are read one by one, each along its index, and merged.
pub(super) fn executions(db: &Connection, query: &ExecutionQuery) -> Act<Vec<Listed>> {
    let mut page = Vec::new();
    for status in each_status(query) {
        page.extend(projections(db, &select_executions(query, status)?)?);
    }
    let mut page: Vec<_> = page
        .into_iter()
        .map(|projection| Listed { cursor: projection.cursor(), execution: projection.execution })
        .collect();
    page.sort_by(|a, b| (b.cursor.at, &b.cursor.execution_id).cmp(&(a.cursor.at, &a.cursor.execution_id)));
    page.dedup_by(|a, b| a.cursor == b.cursor);
    page.truncate(query.limit);
    Ok(page)
}

/// Those that are asked for, or none for all at once.
fn each_status(query: &ExecutionQuery) -> Vec<Option<Status>> {
    if query.statuses.is_empty() {
        return vec![None];
    }
    query.statuses.iter().copied().map(Some).collect()
}

/// What a list costs, in steps of SQLite's machine.
pub(super) fn steps(db: &Connection, query: &ExecutionQuery) -> Act<u64> {
    let mut steps = 0;
    for status in each_status(query) {
        let select = select_executions(query, status)?;
        let mut statement = db.prepare(&select.sql)?;
        let mut rows = statement.query(&*select.params())?;
        while rows.next()?.is_some() {}
        drop(rows);
        steps += u64::try_from(statement.get_status(StatementStatus::VmStep)).unwrap_or_default();
    }
    Ok(steps)
}

fn select_executions(query: &ExecutionQuery, status: Option<Status>) -> Act<Select> {
    let mut select = Select::of(format!("SELECT {PROJECTION} FROM executions"));
    if let Some(status) = status {
        select.only("status = ?", [Box::new(status.as_str())]);
    }
    if let Some(namespace) = &query.namespace {
        select.only("namespace = ?", [Box::new(namespace.clone())]);
    }
    if let Some(user_id) = &query.user_id {
        select.only("user_id = ?", [Box::new(user_id.clone())]);
    }
    if !query.labels.is_empty() {
        let has_all = "NOT EXISTS (SELECT 1 FROM json_each(?) AS asked WHERE NOT EXISTS (
            SELECT 1 FROM json_each(body, '$.labels') AS has
            WHERE has.key = asked.value ->> 0 AND has.value = asked.value ->> 1))";
        select.only(has_all, [Box::new(serde_json::to_string(&query.labels)?)]);
    }
    if let Some(Cursor { at, execution_id }) = &query.after {
        let behind = "(first_seen, execution_id) < (?, ?)";
        select.only(behind, [Box::new(at.as_microsecond()), Box::new(execution_id.clone())]);
    }
    Ok(select.end("first_seen DESC, execution_id DESC", query.limit))
}

fn projections(db: &Connection, select: &Select) -> Act<Vec<Projection>> {
    let mut statement = db.prepare_cached(&select.sql)?;
    let mut rows = statement.query(&*select.params())?;
    let mut projections = Vec::new();
    while let Some(row) = rows.next()? {
        projections.push(reads::read_projection(row)?);
    }
    Ok(projections)
}

pub(super) fn events(db: &Connection, query: &EventQuery) -> Act<Vec<StoredEvent>> {
    let select = select_events(query);
    let mut statement = db.prepare_cached(&select.sql)?;
    let mut rows = statement.query(&*select.params())?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        let (at, event_id) = (time(row.get(0)?)?, Uuid::from_bytes(row.get(2)?));
        let cursor = EventCursor { at, seq: row.get(1)?, event_id };
        events.push(StoredEvent { cursor, event_type: row.get(3)?, bytes: bytes(row, 4)? });
    }
    Ok(events)
}

fn select_events(query: &EventQuery) -> Select {
    let mut select = Select::of("SELECT at, seq, event_id, event_type, body FROM events".to_owned());
    select.only("execution_id = ?", [Box::new(query.execution_id.clone())]);
    if let Some(EventCursor { at, seq, event_id }) = query.after {
        let behind = "(at, seq, event_id) > (?, ?, ?)";
        select.only(behind, [Box::new(at.as_microsecond()), Box::new(seq), Box::new(event_id.as_bytes().to_vec())]);
    }
    select.end("at, seq, event_id", query.limit)
}

pub(super) fn dead_letters(db: &Connection, query: &DeadLetterQuery) -> Act<Vec<ListedLetter>> {
    let select = select_letters(query);
    let mut statement = db.prepare_cached(&select.sql)?;
    let mut rows = statement.query(&*select.params())?;
    let mut letters = Vec::new();
    while let Some(row) = rows.next()? {
        let at = time(row.get(2)?)?;
        let incoming = Incoming {
            place: Place { topic: row.get::<_, String>(3)?.into(), partition: row.get(4)? },
            offset: row.get(5)?,
            key: row.get::<_, Option<Vec<u8>>>(8)?.map(Bytes::from),
            headers: headers(json(row, 9)?)?,
            payload: row.get::<_, Option<Vec<u8>>>(10)?.map(Bytes::from),
        };
        letters.push(ListedLetter {
            cursor: LetterCursor { at, id: row.get(0)? },
            letter: DeadLetter { role: row.get(1)?, incoming, reason: row.get(6)?, tries: row.get(7)?, at },
        });
    }
    Ok(letters)
}

fn select_letters(query: &DeadLetterQuery) -> Select {
    let columns = "id, role, at, topic, partition, offset, reason, tries, key, headers, payload";
    let mut select = Select::of(format!("SELECT {columns} FROM dead_letters"));
    if let Some(role) = &query.role {
        select.only("role = ?", [Box::new(role.clone())]);
    }
    if let Some(LetterCursor { at, id }) = &query.after {
        select.only("(at, id) < (?, ?)", [Box::new(at.as_microsecond()), Box::new(id.clone())]);
    }
    select.end("at DESC, id DESC", query.limit)
}

fn headers(listed: Vec<(String, Option<String>)>) -> Act<Vec<(String, Option<Bytes>)>> {
    let header = |(name, value): (String, Option<String>)| {
        let value = value.map(|value| BASE64_STANDARD.decode(value)).transpose();
        Ok((name, value.map_err(|error| Fault::Row(error.to_string()))?.map(Bytes::from)))
    };
    listed.into_iter().map(header).collect()
}

/// How SQLite goes about each kind of list.
#[cfg(test)]
pub(super) fn plans(db: &Connection) -> Act<Vec<String>> {
    let at = jiff::Timestamp::UNIX_EPOCH;
    let page = || ExecutionQuery { limit: 10, ..ExecutionQuery::default() };
    let after = Some(Cursor { at, execution_id: "e".to_owned() });
    let event = EventCursor { at, seq: 1, event_id: Uuid::nil() };
    let letter = Some(LetterCursor { at, id: "x".to_owned() });
    let selects = [
        select_executions(&page(), Some(Status::Failed))?,
        select_executions(&ExecutionQuery { after: after.clone(), ..page() }, None)?,
        select_executions(&ExecutionQuery { namespace: Some("x".to_owned()), after: after.clone(), ..page() }, None)?,
        select_executions(&ExecutionQuery { user_id: Some("x".to_owned()), after, ..page() }, None)?,
        select_events(&EventQuery { execution_id: "e".to_owned(), after: Some(event), limit: 10 }),
        select_letters(&DeadLetterQuery { role: None, after: letter.clone(), limit: 10 }),
        select_letters(&DeadLetterQuery { role: Some("x".to_owned()), after: letter, limit: 10 }),
    ];
    let mut plans = Vec::new();
    for select in selects {
        let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {}", select.sql))?;
        let steps = explain.query_map(&*select.params(), |row| row.get::<_, String>(3))?;
        plans.push(steps.collect::<rusqlite::Result<Vec<_>>>()?.join("; "));
    }
    Ok(plans)
}
