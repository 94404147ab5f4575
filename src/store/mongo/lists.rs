//! Reading page by page. Each query names the index that it goes along: none of them reads what it does not give, but for the
//! conditions beside the one that has the index.

use futures::TryStreamExt;
use mongodb::{
    action::Find,
    bson::{Bson, Document, doc},
    options::Hint,
};
use podherald_core::execution::Status;

use super::{ATTEMPTS, Act, DEAD_LETTERS, EVENTS, EXECUTIONS, Mongo, documents};
use crate::store::{
    Attempt, DeadLetterQuery, EventQuery, ExecutionQuery, LetterCursor, Listed, ListedLetter, Result, StoredEvent,
};

/// More than there can be.
const ALL: usize = i32::MAX as usize;

/// A query and the index that it goes along.
#[derive(Debug, Clone, PartialEq)]
struct Plan {
    collection: &'static str,
    filter: Document,
    index: &'static str,
    sort: Document,
    limit: usize,
}

/// The executions of one status, or of any.
fn executions(query: &ExecutionQuery, status: Option<Status>) -> Plan {
    let labels: Vec<_> = query.labels.iter().map(|(name, value)| documents::label(name, value)).collect();
    let mut filter = Document::new();
    let mut index = "newest";
    if let Some(status) = status {
        filter.insert("status", status.as_str());
        index = "by_status";
    }
    if let Some(namespace) = &query.namespace {
        filter.insert("namespace", namespace);
        index = "by_namespace";
    }
    if let Some(user_id) = &query.user_id {
        filter.insert("user_id", user_id);
        index = "by_user";
    }
    if !labels.is_empty() {
        filter.insert("labels", doc! { "$all": labels });
        index = "by_label";
    }
    if let Some(after) = &query.after {
        filter.insert("position", doc! { "$lt": documents::position(after) });
    }
    Plan { collection: EXECUTIONS, filter, index, sort: doc! { "position": -1 }, limit: query.limit }
}

fn events(query: &EventQuery) -> Plan {
    let mut filter = doc! { "execution_id": &query.execution_id };
    if let Some(after) = &query.after {
        filter.insert("position", doc! { "$gt": documents::event_position(after) });
    }
    Plan { collection: EVENTS, filter, index: "by_execution", sort: doc! { "position": 1 }, limit: query.limit }
}

fn attempts(execution_id: &str) -> Plan {
    let filter = doc! { "execution_id": execution_id };
    // Its numbers are few: an attempt is a pod that was made anew.
    Plan { collection: ATTEMPTS, filter, index: "by_execution", sort: doc! { "attempt": 1 }, limit: ALL }
}

fn dead_letters(query: &DeadLetterQuery) -> Plan {
    let mut filter = Document::new();
    let mut index = "newest";
    if let Some(role) = &query.role {
        filter.insert("role", role);
        index = "by_role";
    }
    if let Some(after) = &query.after {
        filter.insert("position", doc! { "$lt": documents::letter_position(after) });
    }
    Plan { collection: DEAD_LETTERS, filter, index, sort: doc! { "position": -1 }, limit: query.limit }
}

/// One of each kind.
fn every_kind() -> Vec<Plan> {
    let page = || ExecutionQuery { limit: 10, ..ExecutionQuery::default() };
    let (name, label) = (|| Some("x".to_owned()), ("team".to_owned(), "blue".to_owned()));
    vec![
        executions(&page(), None),
        executions(&page(), Some(Status::Failed)),
        executions(&ExecutionQuery { namespace: name(), ..page() }, Some(Status::Running)),
        executions(&ExecutionQuery { user_id: name(), ..page() }, Some(Status::Running)),
        executions(&ExecutionQuery { labels: vec![label], user_id: name(), ..page() }, None),
        events(&EventQuery { execution_id: "x".to_owned(), after: None, limit: 10 }),
        attempts("x"),
        dead_letters(&DeadLetterQuery { limit: 10, ..DeadLetterQuery::default() }),
        dead_letters(&DeadLetterQuery { role: name(), after: None, limit: 10 }),
    ]
}

impl Mongo {
    /// All that there are.
    pub(super) async fn all(&self, find: Find<'_, Document>) -> Act<Vec<Document>> {
        let mut cursor = self.within(find).await?;
        let mut documents = Vec::new();
        while let Some(document) = self.within(cursor.try_next()).await? {
            documents.push(document);
        }
        Ok(documents)
    }

    async fn list(&self, plan: Plan) -> Act<Vec<Document>> {
        // To MongoDB, no limit is 0.
        let Ok(limit @ 1..) = i64::try_from(plan.limit) else { return Ok(Vec::new()) };
        let collection = self.collection(plan.collection);
        self.all(collection.find(plan.filter).sort(plan.sort).limit(limit).hint(Hint::Name(plan.index.to_owned())))
            .await
    }

    /// Newest first. Several statuses are read one by one, each along its index, and merged.
    pub(super) async fn list_executions(&self, query: ExecutionQuery) -> Act<Vec<Listed>> {
        let mut statuses: Vec<_> = query.statuses.iter().copied().map(Some).collect();
        if statuses.is_empty() {
            statuses.push(None);
        }
        let mut documents = Vec::new();
        for status in statuses {
            documents.extend(self.list(executions(&query, status)).await?);
        }
        let mut page = Vec::new();
        for document in documents {
            let position = Self::read(EXECUTIONS, documents::text(&document, "position"))?.to_owned();
            page.push((position, document));
        }
        page.sort_by(|(a, _), (b, _)| b.cmp(a));
        page.dedup_by(|(a, _), (b, _)| a == b);
        page.truncate(query.limit);
        let mut listed = Vec::new();
        for (_, document) in page {
            let projection = self.read_projection(&document).await?;
            listed.push(Listed { cursor: projection.cursor(), execution: projection.execution });
        }
        Ok(listed)
    }

    pub(super) async fn list_events(&self, query: EventQuery) -> Act<Vec<StoredEvent>> {
        let mut listed = Vec::new();
        for document in self.list(events(&query)).await? {
            listed.push(StoredEvent {
                cursor: Self::read(EVENTS, documents::read_event_cursor(&document))?,
                event_type: Self::read(EVENTS, documents::text(&document, "event_type"))?.to_owned(),
                bytes: self.read_body(EVENTS, document.get("body")).await?,
            });
        }
        Ok(listed)
    }

    pub(super) async fn list_attempts(&self, execution_id: String) -> Act<Vec<Attempt>> {
        let documents = self.list(attempts(&execution_id)).await?;
        documents.iter().map(|document| Self::read(ATTEMPTS, documents::read_attempt(document))).collect()
    }

    pub(super) async fn list_letters(&self, query: DeadLetterQuery) -> Act<Vec<ListedLetter>> {
        let mut listed = Vec::new();
        for document in self.list(dead_letters(&query)).await? {
            let payload = match document.get("payload") {
                None | Some(Bson::Null) => None,
                body => Some(self.read_body(DEAD_LETTERS, body).await?),
            };
            let letter = Self::read(DEAD_LETTERS, documents::read_dead_letter(&document, payload))?;
            listed.push(ListedLetter { cursor: LetterCursor { at: letter.at, id: letter.id() }, letter });
        }
        Ok(listed)
    }

    /// How the server would go about each kind of list, with the name of the index that it should go along: for whoever wonders
    /// why one is slow.
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::store::Error::Unavailable).
    pub async fn explain(&self) -> Result<Vec<(&'static str, Document)>> {
        let explain = async {
            let mut explained = Vec::new();
            for Plan { collection, filter, index, sort, limit } in every_kind() {
                let limit = documents::number(limit as u64);
                let find = doc! { "find": collection, "filter": filter, "sort": sort, "limit": limit, "hint": index };
                let command = doc! { "explain": find, "verbosity": "queryPlanner" };
                explained.push((index, self.within(self.database.run_command(command)).await?));
            }
            Ok(explained)
        };
        self.told("explain queries", explain).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_query_goes_along_an_index_that_a_migration_makes_and_in_its_order() {
        // Read as the program reads it: in an index the order of the keys counts.
        let file: Document = serde_json::from_str(include_str!("../../../migrations/0001_collections.json")).unwrap();
        let of = |value: &Bson| value.as_document().unwrap().clone();
        let mut used = BTreeSet::new();
        for plan in every_kind() {
            let commands = file.get_array("commands").unwrap().iter().map(of);
            let mut indexes =
                commands.filter(|command| command.get_str("createIndexes").is_ok_and(|name| name == plan.collection));
            let indexes = indexes.next().unwrap();
            let mut indexes = indexes.get_array("indexes").unwrap().iter().map(of);
            let index = indexes.find(|index| index.get_str("name").is_ok_and(|name| name == plan.index)).unwrap();
            let keys: Vec<_> = index.get_document("key").unwrap().keys().cloned().collect();
            let (ordered, fixed) = keys.split_last().unwrap();
            assert_eq!(Some(ordered), plan.sort.keys().next(), "{plan:?}");
            assert!(fixed.iter().all(|key| plan.filter.contains_key(key)), "{plan:?}");
            used.insert((plan.collection, plan.index));
        }
        assert_eq!(used.len(), 9, "{used:?}");
    }
}
