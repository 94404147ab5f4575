//! What an append does to the tables, within a transaction of the writer's.
//!
//! The writer is the only one who changes executions, so it keeps the recent ones at hand instead of reading them again.
//! A [`Turn`] takes those that it changes out of the cache, and only its commit puts them back: after a rollback they are
//! read from the file.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    mem,
    sync::Arc,
};

use bytes::Bytes;
use podherald_core::{
    about::About,
    event::{Draft, Event},
    evidence::Evidence,
    execution::{Execution, Status},
};
use rusqlite::{
    Connection, OptionalExtension, ToSql, params,
    types::{ToSqlOutput, ValueRef},
};
use serde::Serialize;
use uuid::Uuid;

use super::{fault::Fault, schema};
use crate::journal::{Adopted, Change, Frames, Record};

/// Executions kept at hand, at least; at most twice as many.
const RECENT: usize = 2048;

/// The writer's memory between transactions.
pub(super) struct Ledger {
    epoch: String,
    /// `service_name` to `source`.
    sources: HashMap<String, Arc<str>>,
    recent: Recent<Arc<str>, Box<Projection>>,
}

/// What one transaction has changed so far.
#[derive(Default)]
pub(super) struct Turn {
    open: HashMap<Arc<str>, Box<Projection>>,
    /// Ids in the order of first touch: the order of first sight of the new ones.
    order: Vec<Arc<str>>,
    /// New events, in order.
    pub(super) records: Vec<Arc<Record>>,
    /// Executions whose evidence changed without an event.
    pub(super) changed: HashSet<Arc<str>>,
}

/// An execution and what the file says of it. Large, and moved from map to map: hence boxed there.
struct Projection {
    key: i64,
    written: Columns,
    now: Columns,
    /// Without its output.
    execution: Execution,
    output: Output,
    /// Not before it has a pod.
    has_namespace: bool,
}

/// The pod that an event is shown with.
struct Whose {
    /// [`schema::NO_POD`] before there is one.
    pod: i64,
    about: Arc<About>,
}

/// A numbered event on its way into the file.
struct Entry<'a> {
    event: &'a Event,
    source: Arc<str>,
    bytes: Bytes,
    told: i64,
}

/// The columns beside the projection's body.
#[derive(Clone, PartialEq, Default)]
struct Columns {
    status: Status,
    user_id: Option<String>,
    /// Latest end of any attempt, in microseconds.
    last_end: Option<i64>,
    /// Retention took it; what is left keeps its numbers while one of its pods is still there.
    forgotten: bool,
}

/// What this turn does to the inline output.
enum Output {
    Kept,
    Dropped,
    New { stdout: String, stderr: String },
}

/// JSON as a text, without looking at it again.
struct Json<'a>(&'a [u8]);

impl ToSql for Json<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

impl Ledger {
    pub(super) fn new(epoch: &str) -> Self {
        Self { epoch: epoch.to_owned(), sources: HashMap::new(), recent: Recent::new(RECENT) }
    }

    /// Makes one change. After an error the transaction must not be committed.
    pub(super) fn apply(&mut self, db: &Connection, turn: &mut Turn, change: &Change) -> Result<(), Fault> {
        let evidence = &*change.evidence;
        validate(change)?;
        let (pod, is_changed) = upsert_evidence(db, evidence)?;
        if evidence.conflict || (!is_changed && change.events.is_empty()) {
            return Ok(());
        }
        let id = self.open(db, turn, &evidence.execution_id, &evidence.namespace)?;
        let projection = turn.open.get_mut(&id).expect("the line before opened it");
        if !projection.takes(evidence.attempt) {
            return Ok(());
        }
        projection.settle_in(db, &evidence.namespace)?;
        let attempt = projection.execution.attempt;
        projection.execution.witness(evidence);
        let before = turn.records.len();
        let mut whose = None;
        for draft in &*change.events {
            if is_known(db, projection.key, draft)? {
                continue;
            }
            let whose = whose.get_or_insert_with(|| Whose { pod, about: Arc::new(about(evidence)) });
            let source = source(&mut self.sources, &self.epoch, &draft.metadata.service_name);
            turn.records.push(projection.add(db, draft, source, &id, whose)?);
        }
        projection.take_output(attempt);
        if is_changed && turn.records.len() == before {
            turn.changed.insert(id);
        }
        Ok(())
    }

    /// Adds an event of a role that watches no pods. After an error the transaction must not be committed.
    pub(super) fn tell(&mut self, db: &Connection, turn: &mut Turn, draft: &Draft) -> Result<(), Fault> {
        let id = self.open(db, turn, &draft.execution_id, "")?;
        let projection = turn.open.get_mut(&id).expect("the line before opened it");
        if !projection.takes(draft.attempt) || is_known(db, projection.key, draft)? {
            return Ok(());
        }
        let whose = whose(db, &draft.execution_id, draft.attempt)?;
        let attempt = projection.execution.attempt;
        let source = source(&mut self.sources, &self.epoch, &draft.metadata.service_name);
        turn.records.push(projection.add(db, draft, source, &id, &whose)?);
        projection.take_output(attempt);
        Ok(())
    }

    /// Takes over an event that another monitor has published; false if it is too early for that. After an error the transaction
    /// must not be committed.
    pub(super) fn adopt(&mut self, db: &Connection, turn: &mut Turn, adopted: &Adopted) -> Result<bool, Fault> {
        let event = &adopted.event;
        if adopted.in_order && !self.follows(db, turn, event)? {
            return Ok(false);
        }
        let id = self.open(db, turn, &event.execution_id, "")?;
        let projection = turn.open.get_mut(&id).expect("the line before opened it");
        if !projection.takes(event.attempt) || is_known_as_told(db, projection.key, event.event_id)? {
            return Ok(true);
        }
        let mut whose = whose(db, &event.execution_id, event.attempt)?;
        let attempt = projection.execution.attempt;
        if whose.pod == schema::NO_POD {
            whose.about = Arc::new(adopted.about.clone());
            if let Some(namespace) = &adopted.about.namespace {
                projection.settle_in(db, namespace)?;
            }
        }
        let source = event.source.as_str().into();
        let told = if adopted.recalled { schema::RECALLED } else { schema::TOLD };
        let entry = Entry { event, source, bytes: adopted.bytes.clone(), told };
        turn.records.push(projection.enter(db, entry, &id, &whose)?);
        if whose.pod == schema::NO_POD {
            projection.execution.learn(&adopted.about, event);
        }
        projection.take_output(attempt);
        Ok(true)
    }

    /// True if all that its source said before of the execution is here.
    fn follows(&mut self, db: &Connection, turn: &mut Turn, event: &Event) -> Result<bool, Fault> {
        let Some(before) = event.seq.checked_sub(1).filter(|before| *before > 0) else { return Ok(true) };
        // Opening one that is not known would make it known.
        let sql = "SELECT 1 FROM executions WHERE execution_id = ?1";
        if !turn.open.contains_key(&*event.execution_id) && !db.prepare_cached(sql)?.exists([&event.execution_id])? {
            return Ok(false);
        }
        let id = self.open(db, turn, &event.execution_id, "")?;
        Ok(turn.open[&id].execution.as_of.covers(&event.source, before))
    }

    /// Writes every execution of the turn, once.
    pub(super) fn finish(&mut self, db: &Connection, turn: &mut Turn) -> Result<(), Fault> {
        for id in &turn.order {
            let projection = turn.open.get_mut(id).expect("the order names what is open");
            projection.now.status = projection.execution.status;
            projection.now.user_id.clone_from(&projection.execution.user_id);
            projection.write(db)?;
        }
        Ok(())
    }

    /// Takes back what the turn had, now that it is durable.
    pub(super) fn keep(&mut self, turn: &mut Turn) {
        for (id, projection) in turn.open.drain() {
            self.recent.insert(id, projection);
        }
    }

    /// Forgets what is at hand: somebody else changes the tables.
    pub(super) fn clear(&mut self) {
        self.recent = Recent::new(RECENT);
    }

    fn open(
        &mut self,
        db: &Connection,
        turn: &mut Turn,
        execution_id: &str,
        namespace: &str,
    ) -> Result<Arc<str>, Fault> {
        if let Some((id, _)) = turn.open.get_key_value(execution_id) {
            return Ok(id.clone());
        }
        let (id, projection) = match self.recent.remove(execution_id) {
            Some(found) => found,
            None => (execution_id.into(), Box::new(Projection::load(db, execution_id, namespace)?)),
        };
        turn.order.push(id.clone());
        turn.open.insert(id.clone(), projection);
        Ok(id)
    }
}

impl Projection {
    /// As the file has it; where it has none, its row is made, for events need its key.
    fn load(db: &Connection, id: &str, namespace: &str) -> Result<Self, Fault> {
        let mut select = db.prepare_cached(
            "SELECT key, user_id, last_end, forgotten, body, namespace <> '' FROM executions WHERE execution_id = ?1",
        )?;
        let mut rows = select.query([id])?;
        let Some(row) = rows.next()? else {
            let columns = Columns::default();
            db.prepare_cached(
                "INSERT INTO executions (execution_id, namespace, status, ended, forgotten, body)
                 VALUES (?1, ?2, ?3, 0, 0, '{}')",
            )?
            .execute(params![id, namespace, columns.status.as_str()])?;
            return Ok(Self {
                key: db.last_insert_rowid(),
                written: columns.clone(),
                now: columns,
                execution: Execution::new(id),
                output: Output::Kept,
                has_namespace: !namespace.is_empty(),
            });
        };
        let execution: Execution = serde_json::from_slice(row.get_ref(4)?.as_bytes().map_err(rusqlite::Error::from)?)?;
        let written =
            Columns { status: execution.status, user_id: row.get(1)?, last_end: row.get(2)?, forgotten: row.get(3)? };
        let (key, has_namespace) = (row.get(0)?, row.get(5)?);
        Ok(Self { key, now: written.clone(), written, execution, output: Output::Kept, has_namespace })
    }

    /// False for what retention took: only a new attempt takes that up again.
    fn takes(&mut self, attempt: u32) -> bool {
        if self.now.forgotten && attempt <= self.execution.attempt {
            return false;
        }
        self.now.forgotten = false;
        true
    }

    /// An execution that a role told of before it had a pod gets its namespace from the first.
    fn settle_in(&mut self, db: &Connection, namespace: &str) -> Result<(), Fault> {
        if !self.has_namespace {
            db.prepare_cached("UPDATE executions SET namespace = ?2 WHERE key = ?1")?
                .execute(params![self.key, namespace])?;
            self.has_namespace = true;
        }
        Ok(())
    }

    /// Numbers an event that is not known yet, and writes it.
    fn add(
        &mut self,
        db: &Connection,
        draft: &Draft,
        source: Arc<str>,
        id: &Arc<str>,
        whose: &Whose,
    ) -> Result<Arc<Record>, Fault> {
        let seq = self.execution.as_of.0.get(&*source).copied().unwrap_or(0) + 1;
        let event = draft.clone().number(&source, seq);
        let bytes = Bytes::from(event.to_bytes());
        self.enter(db, Entry { event: &event, source, bytes, told: schema::UNTOLD }, id, whose)
    }

    /// Writes an event that is not known yet.
    fn enter(
        &mut self,
        db: &Connection,
        Entry { event, source, bytes, told }: Entry<'_>,
        id: &Arc<str>,
        whose: &Whose,
    ) -> Result<Arc<Record>, Fault> {
        self.execution.apply(event);
        let status = Status::after(&event.payload);
        if status.is_some_and(Status::is_terminal) {
            self.now.last_end = self.now.last_end.max(Some(event.timestamp.as_microsecond()));
        }
        let mut record = Record {
            position: 0,
            execution_id: id.clone(),
            about: whose.about.clone(),
            event_type: event.payload.event_type(),
            attempt: event.attempt,
            source,
            seq: event.seq,
            status,
            told: told != schema::UNTOLD,
            recalled: told == schema::RECALLED,
            version: Arc::new(self.execution.as_of.clone()),
            bytes,
            frames: Frames::default(),
        };
        record.position = insert_event(db, event.event_id, (self.key, whose.pod, told), &record)?;
        Ok(Arc::new(record))
    }

    /// The output goes to its own table, and the memory is not filled with it.
    fn take_output(&mut self, previous_attempt: u32) {
        if self.execution.attempt > previous_attempt {
            self.output = Output::Dropped;
        }
        if let (Some(stdout), Some(stderr)) = (self.execution.stdout.take(), self.execution.stderr.take()) {
            self.output = Output::New { stdout, stderr };
        }
    }

    fn write(&mut self, db: &Connection) -> Result<(), Fault> {
        let body = json(&self.execution);
        let (body, columns) = (Json(&body), &self.now);
        let ended = columns.status.is_terminal() && !columns.forgotten;
        if self.written == self.now {
            // What stays out of the statement costs no index.
            db.prepare_cached("UPDATE executions SET body = ?2 WHERE key = ?1")?.execute(params![self.key, body])?;
        } else {
            db.prepare_cached(
                "UPDATE executions SET user_id = ?2, status = ?3, last_end = ?4, ended = ?5, forgotten = ?6, body = ?7
                 WHERE key = ?1",
            )?
            .execute(params![
                self.key,
                columns.user_id,
                columns.status.as_str(),
                columns.last_end,
                ended,
                columns.forgotten,
                body
            ])?;
            self.written = self.now.clone();
        }
        match mem::replace(&mut self.output, Output::Kept) {
            Output::New { stdout, stderr } => {
                db.prepare_cached("INSERT OR REPLACE INTO outputs (key, stdout, stderr) VALUES (?1, ?2, ?3)")?
                    .execute(params![self.key, stdout, stderr])?;
            }
            Output::Dropped => {
                db.prepare_cached("DELETE FROM outputs WHERE key = ?1")?.execute([self.key])?;
            }
            Output::Kept => {}
        }
        Ok(())
    }
}

/// Most records fit, and those that do not cost a copy.
const USUAL_BYTES: usize = 2048;

fn json(record: &impl Serialize) -> Vec<u8> {
    let mut json = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut json, record).expect("a record holds only strings, numbers and booleans");
    json
}

/// A change that is wrong in itself must not reach the tables, where it could not be told from damage.
fn validate(change: &Change) -> Result<(), Fault> {
    let evidence = &change.evidence;
    if evidence.conflict && !change.events.is_empty() {
        return Err(Fault::Refused(format!(
            "pod {} claims another namespace's execution {}: it has no events",
            evidence.uid, evidence.execution_id
        )));
    }
    match change.events.iter().find(|draft| draft.execution_id != evidence.execution_id) {
        Some(stray) => Err(Fault::Refused(format!(
            "event {} belongs to execution {}, its pod {} to {}",
            stray.event_id, stray.execution_id, evidence.uid, evidence.execution_id
        ))),
        None => Ok(()),
    }
}

/// The row's id, and whether the record says anything new. Execution and name of a uid never change; another monitor may
/// have counted its attempt first.
fn upsert_evidence(db: &Connection, evidence: &Evidence) -> Result<(i64, bool), Fault> {
    let body = json(evidence);
    let body = Json(&body);
    let settled = evidence.terminal.is_some() || evidence.conflict;
    let (gone, closed) = (evidence.gone.is_some(), evidence.is_closed());
    let known: Option<(i64, bool, bool)> = db
        .prepare_cached(
            "SELECT id, body = ?2, (settled, gone, closed, attempt) = (settled OR ?3, ?4, ?5, ?6) FROM evidence
             WHERE uid = ?1",
        )?
        .query_row(params![evidence.uid, body, settled, gone, closed, evidence.attempt], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    match known {
        Some((id, true, _)) => Ok((id, false)),
        // What stays out of the statement costs no index.
        Some((id, false, true)) => {
            db.prepare_cached("UPDATE evidence SET body = ?2 WHERE id = ?1")?.execute(params![id, body])?;
            Ok((id, true))
        }
        Some((id, false, false)) => {
            db.prepare_cached(
                "UPDATE evidence SET settled = settled OR ?2, gone = ?3, closed = ?4, body = ?5, attempt = ?6 WHERE id = ?1",
            )?
            .execute(params![id, settled, gone, closed, body, evidence.attempt])?;
            Ok((id, true))
        }
        None => {
            let labels = serde_json::to_vec(&evidence.labels).expect("labels are strings");
            db.prepare_cached(
                "INSERT INTO evidence (uid, execution_id, namespace, name, attempt_key, attempt, conflict, settled, gone,
                     closed, labels, body, is_pod) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(params![
                evidence.uid,
                evidence.execution_id,
                evidence.namespace,
                evidence.name,
                evidence.attempt_key,
                evidence.attempt,
                evidence.conflict,
                settled,
                gone,
                closed,
                Json(&labels),
                body,
                evidence.subject.job().is_none()
            ])?;
            Ok((db.last_insert_rowid(), true))
        }
    }
}

fn about(evidence: &Evidence) -> About {
    About {
        namespace: Some(evidence.namespace.clone()),
        labels: evidence.labels.clone(),
        pod_uid: evidence.subject.job().is_none().then(|| evidence.uid.clone()),
    }
}

/// The latest pod of the event's attempt, or of the execution.
fn whose(db: &Connection, execution_id: &str, attempt: u32) -> Result<Whose, Fault> {
    let latest = "SELECT id, namespace, labels, uid, is_pod FROM evidence WHERE execution_id = ?1 AND conflict = 0
        ORDER BY attempt = ?2 DESC, id DESC LIMIT 1";
    let found = db
        .prepare_cached(latest)?
        .query_row(params![execution_id, attempt], |row| {
            let uid = row.get::<_, bool>(4)?.then(|| row.get(3)).transpose()?;
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?, uid))
        })
        .optional()?;
    let Some((pod, namespace, labels, pod_uid)) = found else {
        return Ok(Whose { pod: schema::NO_POD, about: Arc::default() });
    };
    let about = About { namespace: Some(namespace), labels: serde_json::from_str(&labels)?, pod_uid };
    Ok(Whose { pod, about: Arc::new(about) })
}

/// Asked before, since an insert that is ignored would still use up a position.
fn is_known(db: &Connection, execution: i64, draft: &Draft) -> Result<bool, Fault> {
    let sql = "SELECT 1 FROM events WHERE execution = ?1 AND event_id = ?2";
    Ok(db.prepare_cached(sql)?.exists(params![execution, draft.event_id.as_bytes()])?)
}

/// The same, and if so it is noted that another has told it.
fn is_known_as_told(db: &Connection, execution: i64, event_id: Uuid) -> Result<bool, Fault> {
    let sql = "UPDATE events SET told = max(told, 1) WHERE execution = ?1 AND event_id = ?2";
    Ok(db.prepare_cached(sql)?.execute(params![execution, event_id.as_bytes()])? > 0)
}

fn insert_event(
    db: &Connection,
    event_id: Uuid,
    (execution, pod, told): (i64, i64, i64),
    record: &Record,
) -> Result<u64, Fault> {
    let version = serde_json::to_vec(&*record.version).expect("a version vector holds only strings and numbers");
    let about = (pod == schema::NO_POD && *record.about != About::default()).then(|| json(&*record.about));
    db.prepare_cached(
        "INSERT INTO events (event_id, execution, pod, event_type, attempt, source, seq, status, terminal, version,
             body, told, about) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        event_id.as_bytes(),
        execution,
        pod,
        record.event_type,
        record.attempt,
        record.source,
        record.seq,
        record.status.map(Status::as_str),
        record.status.is_some_and(Status::is_terminal),
        Json(&version),
        Json(&record.bytes),
        told,
        about.as_deref().map(Json)
    ])?;
    Ok(u64::try_from(db.last_insert_rowid()).expect("positions are counted from 1"))
}

fn source(known: &mut HashMap<String, Arc<str>>, epoch: &str, service_name: &str) -> Arc<str> {
    if let Some(source) = known.get(service_name) {
        return source.clone();
    }
    let source: Arc<str> = format!("{service_name}:{epoch}").into();
    known.insert(service_name.to_owned(), source.clone());
    source
}

/// A bounded map that forgets roughly what was used least recently: when the young half is full, it becomes the old one.
struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    fn new(half: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half }
    }

    fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<(K, V)>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.young.remove_entry(key).or_else(|| self.old.remove_entry(key))
    }

    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}
