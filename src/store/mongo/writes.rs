//! Writing. Each may be cut off anywhere and comes again: what is there already is passed over, and what was not reached is
//! done.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use mongodb::bson::{Bson, Document, doc};
use uuid::Uuid;

use super::{
    ATTEMPTS, Act, DEAD_LETTERS, EVENTS, EXECUTIONS, Mongo, RECEIPTS, RESULTS,
    bodies::INLINE_BYTES,
    documents,
    fault::{self, Fault},
};
use crate::store::{
    Appended, Arrival, Attempt, DeadLetter, Outcome, Stored,
    projection::{self, Projection},
};

/// Executions and attempts that are written at the same time.
const TOGETHER: usize = 8;
/// Times that an execution may have been changed by others meanwhile; each time, somebody came through.
const PATIENCE: usize = 100;

impl Mongo {
    pub(super) async fn append_all(&self, arrivals: Vec<Arrival>) -> Act<Vec<Appended>> {
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        let appended = self.insert_events(&arrivals).await?;
        let mut executions = BTreeMap::<&str, Vec<&Arrival>>::new();
        for arrival in &arrivals {
            executions.entry(&arrival.execution_id).or_default().push(arrival);
        }
        let mut folds = Vec::with_capacity(executions.len());
        for (id, of_it) in &executions {
            folds.push(self.fold(id, of_it));
        }
        stream::iter(folds).buffer_unordered(TOGETHER).try_collect::<Vec<()>>().await?;
        let attempts = documents::highest(arrivals.iter().filter_map(projection::attempt));
        let mut raises = Vec::with_capacity(attempts.len());
        for attempt in &attempts {
            raises.push(self.raise_attempt(attempt));
        }
        stream::iter(raises).buffer_unordered(TOGETHER).try_collect::<Vec<()>>().await?;
        Ok(appended)
    }

    async fn insert_events(&self, arrivals: &[Arrival]) -> Act<Vec<Appended>> {
        let events = self.collection(EVENTS);
        let mut appended = vec![Appended::New; arrivals.len()];
        let (mut places, mut documents) = (Vec::new(), Vec::new());
        for (place, arrival) in arrivals.iter().enumerate() {
            let is_long = arrival.bytes.len() > super::bodies::INLINE_BYTES;
            // A file is not worth being sent for nothing.
            if is_long
                && self.within(events.find_one(doc! { "_id": documents::uuid(arrival.event_id) })).await?.is_some()
            {
                appended[place] = Appended::Known;
                continue;
            }
            let body = self.put_body(&format!("event {}", arrival.event_id), &arrival.bytes).await?;
            places.push(place);
            documents.push(documents::event(arrival, body));
        }
        if documents.is_empty() {
            return Ok(appended);
        }
        let Err(fault) = self.within(events.insert_many(&documents).ordered(false)).await else { return Ok(appended) };
        let duplicates = match &fault {
            Fault::Driver(error) => fault::duplicates(error),
            _ => None,
        };
        for duplicate in duplicates.ok_or(fault)? {
            appended[places[duplicate]] = Appended::Known;
            self.drop_body(documents[duplicate].get("body").unwrap_or(&Bson::Null)).await;
        }
        Ok(appended)
    }

    /// Folds these arrivals into their execution, unless another writer was first: then into what that one left.
    async fn fold(&self, id: &str, arrivals: &[&Arrival]) -> Act<()> {
        let executions = self.collection(EXECUTIONS);
        for _ in 0..PATIENCE {
            let (mut projection, before) = match self.projection(id).await? {
                Some((projection, document)) => (projection, Some(document)),
                None => (Projection::new(id, arrivals[0].at), None),
            };
            let mut is_changed = false;
            for arrival in arrivals {
                is_changed |= projection.take(arrival);
            }
            if !is_changed {
                return Ok(());
            }
            let json = serde_json::to_vec(&projection.execution);
            let json = Self::read(EXECUTIONS, json.map_err(|error| error.to_string()))?;
            let body = self.put_body(&format!("execution {id}"), &json).await?;
            let is_ours = match &before {
                None => self.insert(EXECUTIONS, documents::execution(&projection, 1, body.clone())).await?,
                Some(before) => {
                    let revision = before.get_i64("revision").map_err(|error| error.to_string());
                    let revision = Self::read(EXECUTIONS, revision)?;
                    let after = documents::execution(&projection, revision + 1, body.clone());
                    let replace = executions.replace_one(doc! { "_id": id, "revision": revision }, &after);
                    self.within(replace).await?.matched_count > 0
                }
            };
            if is_ours {
                if let Some(old) = before.as_ref().and_then(|before| before.get("body")) {
                    self.drop_body(old).await;
                }
                return Ok(());
            }
            self.drop_body(&body).await;
        }
        Err(Fault::Contended(id.to_owned()))
    }

    /// False if it was there already, under its `_id` or another unique index.
    async fn insert(&self, collection: &str, document: Document) -> Act<bool> {
        match self.within(self.collection(collection).insert_one(document)).await {
            Ok(_) => Ok(true),
            Err(Fault::Driver(error)) if fault::is_duplicate(&error) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn raise_attempt(&self, attempt: &Attempt) -> Act<()> {
        let filter = doc! {
            "execution_id": &attempt.execution_id,
            "attempt": documents::number(attempt.attempt.into()),
            "rank": { "$lt": i32::from(attempt.status.rank()) },
        };
        self.upsert(ATTEMPTS, filter, doc! { "$set": documents::attempt(attempt) }).await
    }

    /// Updates what is lower, or inserts; what is not lower is in the way of the insert, and stays. Two that insert at the
    /// same time: the one that was second compares again.
    async fn upsert(&self, collection: &str, filter: Document, update: Document) -> Act<()> {
        let collection = self.collection(collection);
        match self.within(collection.update_one(filter.clone(), update.clone()).upsert(true)).await {
            Err(Fault::Driver(error)) if fault::is_duplicate(&error) => {
                self.within(collection.update_one(filter, update)).await?;
                Ok(())
            }
            result => result.map(|_| ()),
        }
    }

    pub(super) async fn insert_result(&self, outcome: Outcome) -> Act<Stored> {
        let terminal = serde_json::to_vec(&outcome.terminal).map_err(|error| error.to_string());
        let terminal = Self::read(RESULTS, terminal)?;
        let parts = [("terminal", &*terminal), ("stdout", &*outcome.stdout), ("stderr", &*outcome.stderr)];
        // The unique index decides. It is asked first only where files would be sent for nothing.
        if parts.iter().any(|(_, bytes)| bytes.len() > INLINE_BYTES)
            && let Some(stored) = self.known_result(&outcome).await?
        {
            return Ok(stored);
        }
        let name = format!("result {}/{}", outcome.execution_id, outcome.attempt);
        let mut document = doc! {
            "execution_id": &outcome.execution_id,
            "attempt": documents::number(outcome.attempt.into()),
            "event_id": documents::uuid(outcome.event_id),
            "status": outcome.status.as_str(),
            "ended_at": outcome.ended_at.as_microsecond(),
        };
        for (part, bytes) in parts {
            document.insert(part, self.put_body(&format!("{part} of {name}"), bytes).await?);
        }
        if self.insert(RESULTS, document.clone()).await? {
            return Ok(Stored::First);
        }
        for (part, _) in parts {
            self.drop_body(document.get(part).unwrap_or(&Bson::Null)).await;
        }
        let missing = || Fault::Document { collection: RESULTS, reason: format!("{name} was there and is gone") };
        self.known_result(&outcome).await?.ok_or_else(missing)
    }

    async fn known_result(&self, outcome: &Outcome) -> Act<Option<Stored>> {
        let Some(known) = self.find_result(&outcome.execution_id, Some(outcome.attempt)).await? else {
            return Ok(None);
        };
        let event_id = Self::read(RESULTS, documents::id(&known, "event_id"))?;
        Ok(Some(if event_id == outcome.event_id { Stored::Again } else { Stored::Other { event_id } }))
    }

    pub(super) async fn insert_receipt(&self, role: &str, event_id: Uuid, at: Timestamp) -> Act<bool> {
        let at = mongodb::bson::DateTime::from_millis(at.as_millisecond());
        self.insert(RECEIPTS, doc! { "role": role, "event_id": documents::uuid(event_id), "at": at }).await
    }

    pub(super) async fn insert_letter(&self, letter: DeadLetter) -> Act<()> {
        let mut document = documents::dead_letter(&letter);
        let payload = match &letter.incoming.payload {
            Some(payload) => self.put_body(&format!("dead letter {}", letter.id()), payload).await?,
            None => Bson::Null,
        };
        document.insert("payload", payload.clone());
        if !self.insert(DEAD_LETTERS, document).await? {
            self.drop_body(&payload).await;
        }
        Ok(())
    }
}
