//! What happened before this process read along: fetched from the store when somebody asks for it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    about::About,
    event::{Event, Payload},
    execution::{Execution, PodSummary},
    pod::Labels,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::Metrics;
use crate::{
    clock::Clock,
    journal::{self, Adopted, Journal},
    store::{self, Cursor, EventQuery, ExecutionQuery, Found, Listed, Store},
};

/// Events asked for at a time.
const PAGE: usize = 500;
/// Written at a time.
const CHUNK: usize = 256;
/// Executions fetched at a time: of each a page is held in memory, ...
const TURNS: usize = 16;
/// ... and so many events that wait for others before them.
const MOST_EARLY: usize = 4 * PAGE;
/// So long one waits for its turn, and for each answer of the store.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of so many executions it is remembered that they were fetched; then all of them are forgotten.
const REMEMBERED: usize = 1 << 16;
/// What a source had said before something so old does not come any more.
const SETTLED: SignedDuration = SignedDuration::from_secs(60);

/// Why the past cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The journal cannot be read or written.
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

/// The past of a process that watches nothing itself.
pub struct Past {
    store: Arc<dyn Store>,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// Whose past was fetched since the start.
    fetched: Mutex<HashSet<String>>,
    turns: Semaphore,
    /// Of whom a part may have been taken in.
    begun: Mutex<HashSet<Arc<str>>>,
    unfinished: Mutex<HashSet<Arc<str>>>,
}

impl Past {
    /// The past as this store has it.
    pub fn new(store: Arc<dyn Store>, journal: Arc<dyn Journal>, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self {
            store,
            journal,
            clock,
            metrics,
            fetched: Mutex::default(),
            turns: Semaphore::new(TURNS),
            begun: Mutex::default(),
            unfinished: Mutex::default(),
        }
    }

    /// Sees to it that the journal has all that is known of this execution, if anything is.
    ///
    /// # Errors
    /// There is nothing of it in the journal, and the store cannot be read; or the journal cannot.
    pub async fn recall(&self, execution_id: &str) -> Result<(), Error> {
        if self.is_known(execution_id).await? && self.is_fetched(execution_id) {
            return Ok(());
        }
        let turn = self.turn().await;
        // Others may have asked for the same meanwhile.
        let is_known = self.is_known(execution_id).await?;
        if is_known && self.is_fetched(execution_id) {
            return Ok(());
        }
        let fetched = match turn {
            Ok(_turn) => self.fetch_now(execution_id).await,
            Err(busy) => Err(busy),
        };
        match fetched {
            Err(Error::Store(error)) if is_known && !self.begun().contains(execution_id) => {
                self.metrics.failures.inc();
                tracing::warn!(execution_id, %error, "what happened before cannot be fetched; what is known is shown");
                Ok(())
            }
            fetched => fetched,
        }
    }

    async fn is_known(&self, execution_id: &str) -> journal::Result<bool> {
        Ok(self.journal.execution(execution_id.to_owned()).await?.is_some())
    }

    fn is_fetched(&self, execution_id: &str) -> bool {
        self.fetched().contains(execution_id)
    }

    /// Those of which the store had more than could be taken in yet.
    pub(super) fn unfinished(&self) -> Vec<Arc<str>> {
        let unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        self.begun().iter().chain(&*unfinished).cloned().collect()
    }

    fn begun(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches all that the store has of this execution.
    pub(super) async fn fetch(&self, execution_id: &str) -> Result<(), Error> {
        let _turn = self.turn().await?;
        self.fetch_now(execution_id).await
    }

    async fn fetch_now(&self, execution_id: &str) -> Result<(), Error> {
        let Some(found) = within(self.store.execution(execution_id.to_owned())).await? else {
            self.begun().remove(execution_id);
            return Ok(());
        };
        // What is missing of a source may be on its way, unless all of it is old.
        let since = self.clock.now().saturating_sub(SETTLED).unwrap_or_default();
        let mut query = EventQuery { execution_id: execution_id.to_owned(), after: None, limit: PAGE };
        let (mut early, mut is_settled) = (Vec::new(), true);
        loop {
            let page = within(self.store.events(query.clone())).await?;
            let is_last = page.len() < PAGE;
            if !is_last {
                // Whatever breaks this off: what is there then is not all that there was.
                self.begun().insert(execution_id.into());
            }
            query.after = page.last().map(|last| last.cursor);
            let events: Vec<_> = page.into_iter().filter_map(|stored| self.read(stored.bytes, &found, since)).collect();
            is_settled &= events.iter().all(|adopted| adopted.event.timestamp <= since);
            early.extend(self.adopt(events).await?);
            if is_last {
                break;
            }
            if early.len() > MOST_EARLY {
                if !is_settled {
                    // What is missing may come yet: it is asked for again from the beginning.
                    return Ok(());
                }
                early = self.adopt_as_it_is(early).await?;
            }
        }
        let early = if is_settled { self.adopt_as_it_is(early).await? } else { self.adopt(early).await? };
        self.begun().remove(execution_id);
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        if !early.is_empty() {
            unfinished.insert(execution_id.into());
            return Ok(());
        }
        unfinished.remove(execution_id);
        drop(unfinished);
        self.metrics.recalled.inc();
        let mut fetched = self.fetched();
        if fetched.len() >= REMEMBERED {
            fetched.clear();
        }
        fetched.insert(execution_id.to_owned());
        Ok(())
    }

    /// Takes over what comes in the order of its source, and gives back the rest.
    async fn adopt(&self, mut events: Vec<Adopted>) -> Result<Vec<Adopted>, Error> {
        events.sort_by(|a, b| (&a.event.source, a.event.seq).cmp(&(&b.event.source, b.event.seq)));
        let mut early = HashSet::new();
        for chunk in events.chunks(CHUNK) {
            early.extend(self.journal.adopt(chunk.to_vec(), Vec::new()).await?);
        }
        events.retain(|adopted| early.contains(&adopted.event.event_id));
        Ok(events)
    }

    /// Whatever is missing before them: it does not come any more.
    async fn adopt_as_it_is(&self, mut events: Vec<Adopted>) -> Result<Vec<Adopted>, Error> {
        events.iter_mut().for_each(|adopted| adopted.in_order = false);
        self.adopt(events).await
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, Error> {
        let turn = timeout(PATIENCE, self.turns.acquire()).await.ok().and_then(Result::ok);
        turn.ok_or_else(|| away("it is slow, and others have asked before".to_owned()).into())
    }

    /// None of a type that is not of this catalogue.
    fn read(&self, bytes: Bytes, found: &Found, since: Timestamp) -> Option<Adopted> {
        match serde_json::from_slice::<Event>(&bytes) {
            Ok(event) => {
                // What has happened just now is news, though the store was faster with it than the topic.
                let recalled = event.timestamp <= since;
                Some(Adopted { about: about(&event, found), event, bytes, in_order: true, recalled })
            }
            Err(error) => {
                self.metrics.unreadable.inc();
                tracing::warn!(%error, "an event of the store cannot be read; it is left out");
                None
            }
        }
    }

    fn fetched(&self) -> MutexGuard<'_, HashSet<String>> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page of all executions that there ever were, newest first, none older than what this process knows of it. Those that
    /// have come just now, and are not in the store yet, stand on the first page.
    ///
    /// # Errors
    /// The store or the journal cannot be read.
    pub async fn executions(&self, query: ExecutionQuery) -> Result<Page, Error> {
        let limit = query.limit;
        let mut items = self.store.executions(ExecutionQuery { limit: limit + 1, ..query.clone() }).await?;
        let has_more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| has_more).map(|last| last.cursor.clone());
        self.renew(&mut items).await?;
        items.retain(|listed| query.statuses.is_empty() || query.statuses.contains(&listed.execution.status));
        if query.after.is_none() {
            self.add_new(&query, last.as_ref(), &mut items).await?;
        }
        let is_cut = items.len() > limit;
        items.truncate(limit);
        let next = if is_cut { items.last().map(|last| last.cursor.clone()) } else { last };
        Ok(Page { items, next })
    }

    /// Says of these what is known here, where that is more.
    async fn renew(&self, items: &mut [Listed]) -> Result<(), journal::Error> {
        if items.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = items.iter().map(|listed| listed.cursor.execution_id.clone()).collect();
        let query = journal::ExecutionQuery { limit: ids.len(), ids, ..journal::ExecutionQuery::default() };
        let known = self.journal.executions(query).await?;
        let mut known: BTreeMap<_, _> =
            known.into_iter().map(|listed| (listed.execution.execution_id.clone(), listed.execution)).collect();
        for listed in items {
            if let Some(execution) = known.remove(&listed.cursor.execution_id) {
                listed.execution = newer(execution, std::mem::take(&mut listed.execution));
            }
        }
        Ok(())
    }

    /// Adds those that are asked for, belong before `last`, and are not in the store yet, or not as what they are by now.
    async fn add_new(
        &self,
        query: &ExecutionQuery,
        last: Option<&Cursor>,
        items: &mut Vec<Listed>,
    ) -> Result<(), journal::Error> {
        let ExecutionQuery { statuses, namespace, labels, user_id, limit, .. } = query.clone();
        let query = journal::ExecutionQuery {
            statuses,
            namespace,
            labels,
            user_id,
            limit,
            ..journal::ExecutionQuery::default()
        };
        for journal::Listed { execution, .. } in self.journal.executions(query).await? {
            let Some(at) = execution.times.created else { continue };
            let is_here = items.iter().any(|listed| listed.cursor.execution_id == execution.execution_id);
            if !is_here && last.is_none_or(|last| at >= last.at) {
                items.push(Listed { cursor: Cursor { at, execution_id: execution.execution_id.clone() }, execution });
            }
        }
        items.sort_by_cached_key(|listed| Reverse((listed.cursor.at, listed.cursor.execution_id.clone())));
        Ok(())
    }
}

async fn within<T>(answer: impl Future<Output = store::Result<T>>) -> store::Result<T> {
    let late = |_| away(format!("it has not answered within {PATIENCE:?}"));
    timeout(PATIENCE, answer).await.map_err(late)?
}

fn away(reason: String) -> store::Error {
    store::Error::Unavailable { doing: "tell what happened before", reason }
}

/// Executions, newest first.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// At most as many as were asked for.
    pub items: Vec<Listed>,
    /// Where the next page begins; none after the last.
    pub next: Option<Cursor>,
}

/// That of the two which has more of what was said of it.
fn newer(known: Execution, stored: Execution) -> Execution {
    if known.as_of.covers_all(&stored.as_of) || known.status.rank() > stored.status.rank() { known } else { stored }
}

/// As well as the store knows it: events do not say it, and it is not kept with each.
fn about(event: &Event, Found { execution, namespace, .. }: &Found) -> About {
    let labels: Labels = execution.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let pod_name = match &event.payload {
        Payload::PodScheduled { pod_name, .. }
        | Payload::PodRunning { pod_name, .. }
        | Payload::PodTerminated { pod_name, .. }
        | Payload::PodDeleted { pod_name, .. } => Some(pod_name),
        _ => None,
    };
    let is_it = |pod: &&PodSummary| Some(&pod.name) == pod_name && pod.attempt == event.attempt;
    let pod_uid = execution.pods.iter().find(is_it).map(|pod| pod.uid.clone());
    About { namespace: namespace.clone(), labels, pod_uid }
}

#[cfg(test)]
mod tests;
