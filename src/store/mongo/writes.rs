//! Writing. Each may be cut off anywhere and comes again: what is there already is passed over, and what was not reached is
//! done.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use mongodb::bson::{Bson, Document, doc};
use uuid::Uuid;

use super::{
    ATTEMPTS, Act, DEAD_LETTERS, EVENTS, EXECUTIONS, Mongo, RECEIPTS, RESULTS,
    bodies::INLINE_BYTES,
    documents,
    fault::{self, Fault},
    together::SMALL_BYTES,
};
use crate::store::{
    Appended, Arrival, Attempt, DeadLetter, Outcome, Stored,
    projection::{self, Projection},
};

/// Large executions that are written at the same time.
const LARGE_AT_ONCE: usize = 8;
/// Times that one of the executions may have been changed by others meanwhile; each time, somebody came through.
const PATIENCE: usize = 100;

/// An execution that is to be written.
struct Fold {
    id: String,
    /// Of the document that it was folded from; without one it is new.
    revision: Option<i64>,
    after: Document,
    old_body: Option<Bson>,
}

impl Fold {
    /// What it was folded from.
    fn before(&self) -> Document {
        doc! { "_id": &self.id, "revision": self.revision }
    }

    fn statement(&self) -> Document {
        doc! { "q": self.before(), "u": &self.after }
    }

    /// Small, and of no files.
    fn is_small(&self) -> bool {
        let is_small = |body: &Bson| body.as_str().is_some_and(|body| body.len() <= SMALL_BYTES);
        self.after.get("body").is_some_and(is_small) && self.old_body.as_ref().is_some_and(is_small)
    }
}

impl Mongo {
    pub(super) async fn append_all(&self, arrivals: Vec<Arrival>) -> Act<Vec<Appended>> {
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        let appended = self.insert_events(&arrivals).await?;
        self.fold_all(&arrivals).await?;
        self.raise_attempts(&documents::highest(arrivals.iter().filter_map(projection::attempt))).await?;
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
        let inserted = self.insert_many(EVENTS, documents.iter()).await?;
        for ((place, document), _) in places.into_iter().zip(&documents).zip(inserted).filter(|(_, is_new)| !is_new) {
            appended[place] = Appended::Known;
            self.drop_body(document.get("body").unwrap_or(&Bson::Null)).await;
        }
        Ok(appended)
    }

    /// Folds each arrival into its execution. Where another writer was first, it is folded into what that one left.
    async fn fold_all(&self, arrivals: &[Arrival]) -> Act<()> {
        let mut open = BTreeMap::<&str, Vec<&Arrival>>::new();
        for arrival in arrivals {
            open.entry(&arrival.execution_id).or_default().push(arrival);
        }
        for _ in 0..PATIENCE {
            let known = self.executions_of(open.keys().copied()).await?;
            let mut folds = Vec::new();
            for (id, arrivals) in &open {
                folds.extend(self.fold(known.get(*id), id, arrivals).await?);
            }
            let lost = self.write_folds(folds).await?;
            open.retain(|id, _| lost.contains(*id));
            if open.is_empty() {
                return Ok(());
            }
        }
        let one = open.into_keys().next().unwrap_or_default();
        Err(Fault::Contended(one.to_owned()))
    }

    /// None if there is nothing new in them.
    async fn fold(&self, known: Option<&Document>, id: &str, arrivals: &[&Arrival]) -> Act<Option<Fold>> {
        let mut projection = match known {
            Some(document) => self.read_projection(document).await?,
            None => Projection::new(id, arrivals[0].at),
        };
        let mut is_changed = false;
        for arrival in arrivals {
            is_changed |= projection.take(arrival);
        }
        if !is_changed {
            return Ok(None);
        }
        let revision =
            known.map(|document| document.get_i64("revision").map_err(|error| error.to_string())).transpose();
        let revision = Self::read(EXECUTIONS, revision)?;
        let json = serde_json::to_vec(&projection.execution).map_err(|error| error.to_string());
        let body = self.put_body(&format!("execution {id}"), &Self::read(EXECUTIONS, json)?).await?;
        let after = documents::execution(&projection, revision.unwrap_or_default() + 1, body);
        let old_body = known.and_then(|document| document.get("body")).cloned();
        Ok(Some(Fold { id: id.to_owned(), revision, after, old_body }))
    }

    /// The executions that may not be written, for another writer was first with one of them.
    async fn write_folds(&self, folds: Vec<Fold>) -> Act<BTreeSet<String>> {
        let (changed, new): (Vec<_>, Vec<_>) = folds.into_iter().partition(|fold| fold.revision.is_some());
        let (small, large): (Vec<_>, Vec<_>) = changed.into_iter().partition(Fold::is_small);
        let mut lost = BTreeSet::new();
        for (fold, is_ours) in new.iter().zip(self.insert_many(EXECUTIONS, new.iter().map(|fold| &fold.after)).await?) {
            lost.extend(self.settle(fold, is_ours).await);
        }
        let replaced: Vec<_> = large.iter().map(|fold| self.replace(fold)).collect();
        let replaced: Vec<_> = stream::iter(replaced).buffered(LARGE_AT_ONCE).collect().await;
        for replaced in replaced {
            lost.extend(replaced?);
        }
        let statements: Vec<_> = small.iter().map(Fold::statement).collect();
        // Nobody says which: those that are ours have nothing new the next time.
        if self.update_many(EXECUTIONS, &statements).await? < small.len() {
            lost.extend(small.into_iter().map(|fold| fold.id));
        }
        Ok(lost)
    }

    /// Its id if another writer was first.
    async fn replace(&self, fold: &Fold) -> Act<Option<String>> {
        let executions = self.collection(EXECUTIONS);
        let replaced = self.within(executions.replace_one(fold.before(), &fold.after)).await?;
        Ok(self.settle(fold, replaced.matched_count > 0).await)
    }

    /// Drops the body that no document names now. Its id if another writer was first.
    async fn settle(&self, fold: &Fold, is_ours: bool) -> Option<String> {
        let unused = if is_ours { fold.old_body.as_ref() } else { fold.after.get("body") };
        self.drop_body(unused.unwrap_or(&Bson::Null)).await;
        (!is_ours).then(|| fold.id.clone())
    }

    /// False if it was there already, under its `_id` or another unique index.
    async fn insert(&self, collection: &str, document: Document) -> Act<bool> {
        match self.within(self.collection(collection).insert_one(document)).await {
            Ok(_) => Ok(true),
            Err(Fault::Driver(error)) if fault::is_duplicate(&error) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Inserts what is new, and updates what is lower; what is there and not lower stays.
    async fn raise_attempts(&self, attempts: &[Attempt]) -> Act<()> {
        let documents: Vec<_> = attempts.iter().map(documents::attempt).collect();
        let inserted = self.insert_many(ATTEMPTS, documents.iter()).await?;
        let known = attempts.iter().zip(documents).zip(inserted).filter(|(_, is_new)| !is_new);
        let raises = known.map(|((attempt, document), _)| {
            let lower = doc! {
                "execution_id": &attempt.execution_id,
                "attempt": documents::number(attempt.attempt.into()),
                "rank": { "$lt": i32::from(attempt.status.rank()) },
            };
            doc! { "q": lower, "u": { "$set": document } }
        });
        self.update_many(ATTEMPTS, &raises.collect::<Vec<_>>()).await?;
        Ok(())
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
