//! `/executions/{id}/events` and `/events`: what happened, as a page of the past or as a stream.

use std::sync::Arc;

use axum::{
    Json,
    extract::{self, Path, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::HeaderMap;
use podherald_core::event::Event;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Error, Problem, State, cursor, lines,
    negotiate::{self, Media},
    query::{MAX_LIMIT, Parameters},
    resume::{self, ManyPlace, OnePlace},
    stream::{self, Content, Filter, Many, One},
};
use crate::journal::{EventQuery, Record};

const OFFERS: [Media; 3] = [Media::Json, Media::EventStream, Media::JsonLines];
/// Records read at a time.
const CHUNK: usize = 100;
/// Records looked at for one page: behind a narrow filter a page may be short and still have a `next`.
const MAX_LOOKED_AT: usize = 5_000;
/// Bytes of events from which on a page is full.
const MAX_BYTES: usize = 4 << 20;

/// Events, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct EventPage<'a> {
    /// The same bytes as the `data` of the stream.
    #[schema(value_type = Vec<Event>)]
    items: Vec<&'a RawValue>,
    /// Give it as `after` for the next page, which may also be short; null at the end.
    next: Option<String>,
}

/// What happened to one execution: a page of events, with `Accept: text/event-stream` the live stream, or with
/// `application/x-ndjson` all past events, a line each.
///
/// The stream begins with `snapshot`; events are unnamed frames, each with an `id` to resume from by `Last-Event-ID`;
/// `heartbeat` comes after 15 s of silence, `reset` says that the history of the given id is gone, `end` closes the
/// stream once the latest attempt has ended. A request with the id of an `end` is answered 204. An execution that nobody
/// has seen yet is waited for.
///
/// While the program runs, `output` frames carry its log as the API gives it, standard output and error in one:
/// `{attempt, run, offset, next, text}`, with `base64` in place of `text` for bytes that are no UTF-8, and `missing`, a reason,
/// for bytes that are not to be had. Offsets count the bytes of one log, a `run`. The container's next start, another pod of a
/// Job, and a log that is followed again are further runs, with greater numbers, each from its first byte. Whoever resumes
/// from an id gets the rest of that run, or another run, and what was stored of another log only after `missing`. What `::progress 42 text` lines say comes as `execution_progress`.
#[utoipa::path(
    get, path = "/executions/{id}/events", tag = "events",
    params(
        ("id" = String, Path, description = "The execution's id"),
        ("after" = Option<String>, Query, description = "Page: `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Page: items, 1 to 500, default 50"),
        ("output" = Option<bool>, Query, description = "Stream: `false` leaves the output frames out"),
        ("last_event_id" = Option<String>, Query, description = "Stream: resume after this id; 0 is the beginning"),
        ("Last-Event-ID" = Option<String>, Header, description = "Stream: the same, and outranks the parameter"),
    ),
    responses(
        (status = 200, content((EventPage<'static> = "application/json"), (String = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 204, description = "The stream has ended and the caller has all of it"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Page of an unknown execution", body = Problem,
         content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The cursor is of a history that is gone", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "Stream: `http.max_streams` are open already, or the server stops", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_one(
    extract::State(state): extract::State<Arc<State>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    mut parameters: Parameters,
) -> Result<Response, Error> {
    let Path(id) = path.map_err(|_| Error::NoRoute)?;
    let media = negotiate::choose(&headers, &OFFERS)?;
    if media == Media::EventStream {
        let place = resume::read(&headers, &mut parameters, OnePlace::parse)?.unwrap_or_default();
        let content = if parameters.flag("output")?.unwrap_or(true) { Content::Both } else { Content::Events };
        parameters.finish()?;
        if place.ended {
            return Ok(stream::nothing_more());
        }
        let seat = state.seats.take()?;
        state.recall(&id).await?;
        return Ok(stream::response(One::open(state, id, place, content).await?, seat));
    }
    state.recall(&id).await?;
    if state.journal.execution(id.clone()).await?.is_none() {
        return Err(Error::NoExecution(id));
    }
    answer(state, Scope::One(id), media, parameters).await
}

/// What happens to many executions: a page of events, with `Accept: text/event-stream` the live stream, or with
/// `application/x-ndjson` all past events that are kept here, a line each.
///
/// All filters must admit an event. `status` admits the executions of the snapshot that are in one of these, and then
/// the events that bring one of these about: `status=failed` is told of every failure and of nothing else. The stream is
/// as that of one execution, but never ends, and without an id it begins with the present; its heartbeats carry ids.
#[utoipa::path(
    get, path = "/events", tag = "events",
    params(
        ("execution" = Option<Vec<String>>, Query, description = "Only of these executions; repeated"),
        ("status" = Option<String>, Query, description = "Only events that bring about one of these; repeated or joined by commas"),
        ("namespace" = Option<String>, Query, description = "Only of this namespace"),
        ("label" = Option<Vec<String>>, Query, description = "Only with this label, as key=value; repeated: with all"),
        ("after" = Option<String>, Query, description = "Page: `next` of the page before"),
        ("limit" = Option<u32>, Query, description = "Page: items, 1 to 500, default 50"),
        ("last_event_id" = Option<String>, Query, description = "Stream: resume after this id; 0 is the beginning"),
        ("Last-Event-ID" = Option<String>, Header, description = "Stream: the same, and outranks the parameter"),
    ),
    responses(
        (status = 200, content((EventPage<'static> = "application/json"), (String = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 406, body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The cursor is of a history that is gone", body = Problem,
         content_type = "application/problem+json"),
        (status = 503, description = "Stream: `http.max_streams` are open already, or the server stops", body = Problem,
         content_type = "application/problem+json"),
    )
)]
pub(super) async fn of_many(
    extract::State(state): extract::State<Arc<State>>,
    headers: HeaderMap,
    mut parameters: Parameters,
) -> Result<Response, Error> {
    let filter = Filter {
        executions: parameters.all("execution"),
        statuses: parameters.statuses()?,
        namespace: parameters.word("namespace")?,
        labels: parameters.labels()?,
    };
    let media = negotiate::choose(&headers, &OFFERS)?;
    if media == Media::EventStream {
        let place = resume::read(&headers, &mut parameters, ManyPlace::parse)?;
        parameters.finish()?;
        let seat = state.seats.take()?;
        return Ok(stream::response(Many::open(state, filter, place).await?, seat));
    }
    answer(state, Scope::Many(filter), media, parameters).await
}

/// Whose events.
#[derive(Debug, Clone)]
enum Scope {
    One(String),
    Many(Filter),
}

/// A page, or all pages as lines.
async fn answer(state: Arc<State>, scope: Scope, media: Media, mut parameters: Parameters) -> Result<Response, Error> {
    let after = read_after(&state, &mut parameters)?;
    if media == Media::JsonLines {
        parameters.finish()?;
        let seat = state.seats.take()?;
        return Ok(lines::response(state.clone(), after, seat, move |state, after| {
            let scope = scope.clone();
            async move {
                let page = read(&state, &scope, after, MAX_LIMIT).await?;
                let line = |record: &Arc<Record>| Bytes::from([&*record.bytes, b"\n"].concat());
                Ok((page.records.iter().map(line).collect(), (page.has_more == Some(true)).then_some(page.last)))
            }
        }));
    }
    let limit = parameters.limit()?;
    parameters.finish()?;
    read(&state, &scope, after, limit).await?.into_response()
}

async fn read(state: &State, scope: &Scope, after: Option<cursor::Events>, limit: usize) -> Result<Page, Error> {
    let mut page = Page::new(state, after, limit);
    while page.wants_more() {
        match scope {
            Scope::One(id) => {
                let records = state.journal.execution_events(id.clone(), page.last.position, page.chunk()).await?;
                page.add(records, |_| true);
            }
            Scope::Many(filter) => {
                let query = EventQuery { after: page.last.position, limit: page.chunk() };
                let records = state.journal.events(query).await?;
                let floor = state.journal.floor();
                if floor > page.last.floor && floor > page.last.position {
                    return Err(Error::Gone);
                }
                page.add(records, |record| filter.admits(record));
            }
        }
    }
    Ok(page)
}

/// The page's start.
fn read_after(state: &State, parameters: &mut Parameters) -> Result<Option<cursor::Events>, Error> {
    let after = parameters.after(cursor::Events::decode)?;
    match after {
        Some(after) if after.epoch != state.journal.epoch() => Err(Error::Gone),
        after => Ok(after),
    }
}

/// A page as it fills up.
struct Page {
    records: Vec<Arc<Record>>,
    limit: usize,
    last: cursor::Events,
    bytes: usize,
    looked_at: usize,
    /// Whether there is another page; unknown until a read shows it.
    has_more: Option<bool>,
}

impl Page {
    fn new(state: &State, after: Option<cursor::Events>, limit: usize) -> Self {
        let beginning =
            || cursor::Events { epoch: state.journal.epoch().to_owned(), position: 0, floor: state.journal.floor() };
        let last = after.unwrap_or_else(beginning);
        Self { records: Vec::new(), limit, last, bytes: 0, looked_at: 0, has_more: None }
    }

    fn wants_more(&self) -> bool {
        self.has_more.is_none()
    }

    fn is_full(&self) -> bool {
        self.records.len() == self.limit || self.bytes >= MAX_BYTES || self.looked_at >= MAX_LOOKED_AT
    }

    /// At first one more than fits, which is all there is to do unless a filter drops some.
    fn chunk(&self) -> usize {
        if self.looked_at == 0 { CHUNK.min(self.limit + 1) } else { CHUNK }
    }

    fn add(&mut self, records: Vec<Arc<Record>>, admits: impl Fn(&Record) -> bool) {
        let is_last = records.len() < self.chunk();
        for record in records {
            if self.is_full() {
                self.has_more = Some(true);
                return;
            }
            self.looked_at += 1;
            self.last.position = record.position;
            if admits(&record) {
                self.bytes += record.bytes.len();
                self.records.push(record);
            }
        }
        if is_last {
            self.has_more = Some(false);
        }
    }

    fn into_response(self) -> Result<Response, Error> {
        let items: Result<Vec<&RawValue>, _> =
            self.records.iter().map(|record| serde_json::from_slice(&record.bytes)).collect();
        let items = items.map_err(|error| {
            tracing::error!(%error, "an event in the journal is not JSON");
            Error::Unreadable
        })?;
        let next = (self.has_more == Some(true)).then(|| self.last.encode());
        Ok(Json(EventPage { items, next }).into_response())
    }
}
