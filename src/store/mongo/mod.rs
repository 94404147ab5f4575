//! The store on a MongoDB, which every process shares.
//!
//! *Constraints.* Two writers of one thing at a time leave it as one after the other would have; a document has at most 16 MiB
//! (T110); an answer that is lost says nothing of the write (T114).
//!
//! *Format.* `documents`, in the collections of `migrations/`; what is long, in files of GridFS (`bodies`).
//!
//! *Operation.* Writes wait for a majority and its journals (T113), reads are of what a majority has. An event, a result or a
//! receipt is an insert, and a duplicate key is success (T116). An attempt is updated where its rank is lower (T112). An
//! execution is read, folded, and replaced where its revision is still the same.

mod bodies;
mod documents;
mod fault;
mod lists;
mod migrate;
mod together;
mod writes;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use jiff::Timestamp;
use mongodb::{
    Client, Collection, Database,
    bson::{Document, doc},
    gridfs::GridFsBucket,
    options::{Acknowledgment, ClientOptions, Hint, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern},
};
use podherald_core::event::Event;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    Appended, Arrival, Attempt, DeadLetter, DeadLetterQuery, Error, EventQuery, ExecutionQuery, Found, Listed,
    ListedLetter, Outcome, Result, Store, Stored, StoredEvent, projection::Projection,
};
use crate::{clock::Clock, config::MongoUri};
use fault::{Fault, Wording};

pub use migrate::{Applied, SCHEMA};

const EVENTS: &str = "events";
const EXECUTIONS: &str = "executions";
const ATTEMPTS: &str = "attempts";
const RESULTS: &str = "execution_results";
const RECEIPTS: &str = "receipts";
const DEAD_LETTERS: &str = "dead_letters";

/// What is done to the database, before anybody is told of it.
type Act<T> = std::result::Result<T, Fault>;

/// Where the URI is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    /// `mongo.uri`.
    Fixed(MongoUri),
    /// `mongo.uri_file`.
    File(PathBuf),
}

/// Which database, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Options {
    /// The servers.
    pub uri: Uri,
    /// `mongo.database`.
    pub database: String,
    /// `mongo.timeout`.
    pub timeout: Duration,
}

/// The store on MongoDB.
pub struct Mongo {
    database: Database,
    files: GridFsBucket,
    timeout: Duration,
    wording: Wording,
    clock: Arc<dyn Clock>,
}

impl Mongo {
    /// A store whose schema nobody has looked at yet: [`Mongo::migrate`] or [`Mongo::check_schema`] comes first. Nothing is
    /// connected before something is asked.
    ///
    /// # Errors
    /// [`Error::Refused`] where the URI, or what it names, is wrong.
    pub async fn new(options: Options, clock: Arc<dyn Clock>) -> Result<Self> {
        let uri = read_uri(options.uri).await?;
        let wording = Wording { database: options.database.clone(), secrets: uri.secrets() };
        let explain = |error: mongodb::error::Error| wording.explain(error.into(), "use its URI");
        let mut client = ClientOptions::parse(uri.expose()).await.map_err(explain)?;
        client.app_name.get_or_insert_with(|| "podherald".to_owned());
        client.connect_timeout = Some(options.timeout);
        // Sooner than the wait for the whole answer: the driver knows better why there is none.
        client.server_selection_timeout = Some(options.timeout / 2);
        client.write_concern =
            Some(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(options.timeout).build());
        client.read_concern = Some(ReadConcern::majority());
        client.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        client.retry_writes = Some(true);
        let database = Client::with_options(client).map_err(explain)?.database(&options.database);
        let files = database.gridfs_bucket(None);
        Ok(Self { database, files, timeout: options.timeout, wording, clock })
    }

    fn collection(&self, name: &str) -> Collection<Document> {
        self.database.collection(name)
    }

    /// One command's answer, or none in time.
    async fn within<T, E>(&self, command: impl IntoFuture<Output = std::result::Result<T, E>>) -> Act<T>
    where
        Fault: From<E>,
    {
        match timeout(self.timeout, command.into_future()).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Fault::Silence(self.timeout)),
        }
    }

    fn told<'a, T: 'a>(
        &'a self,
        doing: &'static str,
        act: impl Future<Output = Act<T>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        async move { act.await.map_err(|fault| self.wording.explain(fault, doing)) }.boxed()
    }

    /// Reads a document, which must be as podherald writes it.
    fn read<T>(collection: &'static str, reading: documents::Reading<T>) -> Act<T> {
        reading.map_err(|reason| Fault::Document { collection, reason })
    }

    /// The documents of these executions, by id, as far as there are any.
    async fn executions_of<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Act<HashMap<String, Document>> {
        let executions = self.collection(EXECUTIONS);
        let find = executions.find(doc! { "_id": { "$in": ids.collect::<Vec<_>>() } });
        let mut cursor = self.within(find).await?;
        let mut found = HashMap::new();
        while let Some(document) = self.within(cursor.try_next()).await? {
            let id = document.get_str("_id").map(str::to_owned).map_err(|error| error.to_string());
            found.insert(Self::read(EXECUTIONS, id)?, document);
        }
        Ok(found)
    }

    async fn read_projection(&self, document: &Document) -> Act<Projection> {
        let body = self.read_body(EXECUTIONS, document.get("body")).await?;
        Self::read(EXECUTIONS, documents::read_execution(document, &body))
    }

    async fn found(&self, id: &str) -> Act<Option<Found>> {
        let executions = self.collection(EXECUTIONS);
        let Some(document) = self.within(executions.find_one(doc! { "_id": id })).await? else { return Ok(None) };
        let projection = self.read_projection(&document).await?;
        let ended_by = match projection.ended_by {
            Some(event_id) => Some(self.event(event_id).await?),
            None => None,
        };
        Ok(Some(projection.show(ended_by.as_ref())))
    }

    async fn event(&self, id: Uuid) -> Act<Event> {
        let events = self.collection(EVENTS);
        let find = events.find_one(doc! { "_id": documents::uuid(id) });
        let missing = || Fault::Document { collection: EVENTS, reason: format!("event {id} is missing") };
        let document = self.within(find).await?.ok_or_else(missing)?;
        let bytes = self.read_body(EVENTS, document.get("body")).await?;
        let event = serde_json::from_slice(&bytes);
        Self::read(EVENTS, event.map_err(|error| format!("event {id}: {error}")))
    }

    async fn find_result(&self, execution_id: &str, attempt: Option<u32>) -> Act<Option<Document>> {
        let mut filter = doc! { "execution_id": execution_id };
        if let Some(attempt) = attempt {
            filter.insert("attempt", documents::number(attempt.into()));
        }
        let results = self.collection(RESULTS);
        let latest = results.find_one(filter).sort(doc! { "attempt": -1 });
        self.within(latest.hint(Hint::Name("by_execution".to_owned()))).await
    }

    async fn read_result(&self, execution_id: &str, attempt: Option<u32>) -> Act<Option<Outcome>> {
        let Some(document) = self.find_result(execution_id, attempt).await? else { return Ok(None) };
        let terminal = self.read_body(RESULTS, document.get("terminal")).await?;
        let terminal = serde_json::from_slice(&terminal).map_err(|error| format!("terminal: {error}"));
        let ended_at = document.get_i64("ended_at").map_err(|error| error.to_string()).and_then(documents::time);
        Ok(Some(Outcome {
            execution_id: execution_id.to_owned(),
            attempt: Self::read(RESULTS, documents::attempt_number(&document))?,
            event_id: Self::read(RESULTS, documents::id(&document, "event_id"))?,
            status: Self::read(RESULTS, documents::status(&document))?,
            ended_at: Self::read(RESULTS, ended_at)?,
            terminal: Self::read(RESULTS, terminal)?,
            stdout: self.read_body(RESULTS, document.get("stdout")).await?,
            stderr: self.read_body(RESULTS, document.get("stderr")).await?,
        }))
    }

    async fn answers(&self) -> Act<()> {
        self.within(self.database.run_command(doc! { "ping": 1 })).await?;
        Ok(())
    }
}

async fn read_uri(uri: Uri) -> Result<MongoUri> {
    let path = match uri {
        Uri::Fixed(uri) => return Ok(uri),
        Uri::File(path) => path,
    };
    let refused = |reason: String| Error::Refused { doing: "use its URI", reason };
    let text = tokio::fs::read_to_string(&path)
        .await
        .map_err(|error| refused(format!("`mongo.uri_file`: {}: {error}", path.display())))?;
    let wrong = || {
        refused(format!("`mongo.uri_file`: {} must hold a connection string such as mongodb://host", path.display()))
    };
    MongoUri::parse(text.trim()).ok_or_else(wrong)
}

impl Store for Mongo {
    fn append(&self, arrivals: Vec<Arrival>) -> BoxFuture<'_, Result<Vec<Appended>>> {
        self.told("keep events", self.append_all(arrivals))
    }

    fn put_result(&self, outcome: Outcome) -> BoxFuture<'_, Result<Stored>> {
        self.told("keep a result", self.insert_result(outcome))
    }

    fn result(&self, execution_id: String, attempt: Option<u32>) -> BoxFuture<'_, Result<Option<Outcome>>> {
        self.told("read a result", async move { self.read_result(&execution_id, attempt).await })
    }

    fn execution(&self, id: String) -> BoxFuture<'_, Result<Option<Found>>> {
        self.told("read an execution", async move { self.found(&id).await })
    }

    fn executions(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<Vec<Listed>>> {
        self.told("list executions", self.list_executions(query))
    }

    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<StoredEvent>>> {
        self.told("read events", self.list_events(query))
    }

    fn attempts(&self, execution_id: String) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        self.told("read attempts", self.list_attempts(execution_id))
    }

    fn finish(&self, role: &'static str, event_id: Uuid, at: Timestamp) -> BoxFuture<'_, Result<bool>> {
        self.told("keep a receipt", self.insert_receipt(role, event_id, at))
    }

    fn is_finished(&self, role: &'static str, event_id: Uuid) -> BoxFuture<'_, Result<bool>> {
        let find = self.collection(RECEIPTS);
        self.told("read a receipt", async move {
            let receipt = find.find_one(doc! { "role": role, "event_id": documents::uuid(event_id) });
            Ok(self.within(receipt).await?.is_some())
        })
    }

    fn bury(&self, letter: DeadLetter) -> BoxFuture<'_, Result<()>> {
        self.told("keep a dead letter", self.insert_letter(letter))
    }

    fn dead_letters(&self, query: DeadLetterQuery) -> BoxFuture<'_, Result<Vec<ListedLetter>>> {
        self.told("list dead letters", self.list_letters(query))
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.told("answer", self.answers())
    }
}
