//! A store that is opened while the rest of podherald works already: one that is away must keep nobody from watching.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    Appended, Arrival, Attempt, DeadLetter, DeadLetterQuery, Error, EventQuery, ExecutionQuery, Found, Listed,
    ListedLetter, Outcome, Result, Store, Stored, StoredEvent, opening,
};
use crate::{backoff::Backoff, clock::Clock, config::Config};

/// Until the next try.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// See the module. Clones are the same store.
#[derive(Clone, Default)]
pub struct Deferred {
    opened: Arc<OnceLock<Arc<dyn Store>>>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Deferred {
    /// Opens the store that the settings mean, however often that takes.
    pub async fn open(&self, config: Config, data_dir: PathBuf, clock: Arc<dyn Clock>) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            match opening::open(&config, &data_dir, clock.clone()).await {
                Ok(store) => {
                    self.opened.get_or_init(|| store);
                    return tracing::info!("the store is open");
                }
                Err(error) => self.fails(&error.to_string()),
            }
            sleep(backoff.pause()).await;
        }
    }

    fn fails(&self, reason: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_deref() != Some(reason) {
            tracing::warn!(reason, "the store cannot be opened, trying again until it can");
            *trouble = Some(reason.to_owned());
        }
    }

    /// What the store says once it is open; before that, why it is not.
    fn ask<'a, T: Send + 'a>(
        &'a self,
        doing: &'static str,
        question: impl FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        if let Some(store) = self.opened.get() {
            return question(&**store);
        }
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason = trouble.unwrap_or_else(|| "it is being opened".to_owned());
        Box::pin(async move { Err(Error::Unavailable { doing, reason }) })
    }
}

impl Store for Deferred {
    fn append(&self, arrivals: Vec<Arrival>) -> BoxFuture<'_, Result<Vec<Appended>>> {
        self.ask("keep events", |store| store.append(arrivals))
    }

    fn put_result(&self, outcome: Outcome) -> BoxFuture<'_, Result<Stored>> {
        self.ask("keep a result", |store| store.put_result(outcome))
    }

    fn result(&self, execution_id: String, attempt: Option<u32>) -> BoxFuture<'_, Result<Option<Outcome>>> {
        self.ask("read a result", move |store| store.result(execution_id, attempt))
    }

    fn execution(&self, id: String) -> BoxFuture<'_, Result<Option<Found>>> {
        self.ask("read an execution", |store| store.execution(id))
    }

    fn executions(&self, query: ExecutionQuery) -> BoxFuture<'_, Result<Vec<Listed>>> {
        self.ask("list executions", |store| store.executions(query))
    }

    fn events(&self, query: EventQuery) -> BoxFuture<'_, Result<Vec<StoredEvent>>> {
        self.ask("read events", |store| store.events(query))
    }

    fn attempts(&self, execution_id: String) -> BoxFuture<'_, Result<Vec<Attempt>>> {
        self.ask("read attempts", |store| store.attempts(execution_id))
    }

    fn finish(&self, role: &'static str, event_id: Uuid, at: Timestamp) -> BoxFuture<'_, Result<bool>> {
        self.ask("keep a receipt", move |store| store.finish(role, event_id, at))
    }

    fn is_finished(&self, role: &'static str, event_id: Uuid) -> BoxFuture<'_, Result<bool>> {
        self.ask("read a receipt", move |store| store.is_finished(role, event_id))
    }

    fn bury(&self, letter: DeadLetter) -> BoxFuture<'_, Result<()>> {
        self.ask("keep a dead letter", |store| store.bury(letter))
    }

    fn dead_letters(&self, query: DeadLetterQuery) -> BoxFuture<'_, Result<Vec<ListedLetter>>> {
        self.ask("list dead letters", |store| store.dead_letters(query))
    }

    fn check(&self) -> BoxFuture<'_, Result<()>> {
        self.ask("answer", |store| store.check())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn a_store_says_why_it_is_not_open_yet_and_answers_once_it_is() {
        let dir = TempDir::new().unwrap();
        let place = dir.path().join("data");
        let store = Deferred::default();
        let refusal = async || store.check().await.unwrap_err().to_string();
        assert!(refusal().await.contains("it is being opened"));
        let opening = store.open(Config::default(), place.clone(), Arc::new(SystemClock));
        let mending = async {
            while refusal().await.contains("it is being opened") {
                tokio::task::yield_now().await;
            }
            assert!(refusal().await.contains("store.db"), "{}", refusal().await);
            std::fs::create_dir(&place).unwrap();
        };
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(opening, mending) }).await.unwrap();
        store.check().await.unwrap();
    }
}
