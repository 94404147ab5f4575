//! At its start a monitor asks the store which attempts have not ended: one whose pod was born and gone while its own records were lost is found
//! by nothing else.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use podherald_core::{evidence::Evidence, expected::expected, mapper::Policy};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    jitter,
    sink::{Fault, kafka::Options},
    store::{self, ExecutionQuery, Store},
    topics::{Beginning, Found, PUBLISHED, Topics},
    wording::Said,
    worker::event_store,
};

/// Executions asked for at a time.
const PAGE: usize = 200;
/// Between two looks at how far the store has come.
const LOOK: Duration = Duration::from_secs(1);
/// Until the next try, after a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// See the module. It is a task of the supervisor's: [`Expected::run`].
pub struct Expected {
    /// Who may know more.
    pub store: Arc<dyn Store>,
    /// By which the store hears of events, unless it reads this process's own journal.
    pub kafka: Option<Options>,
    /// For the records.
    pub policy: Policy,
    /// Namespaces that are watched; empty: all.
    pub namespaces: Vec<String>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Some once the monitor has complete lists: what is there it knows by then.
    pub listed: watch::Receiver<Option<Timestamp>>,
    /// To the monitor, which knows what is no news.
    pub out: mpsc::Sender<Evidence>,
}

impl Expected {
    /// Asks once, however often that takes.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.ask()).await;
        stop.cancelled().await;
    }

    async fn ask(&mut self) {
        if self.listed.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut said = Said::default();
        loop {
            let asked = match self.until_stored().await {
                Ok(()) => self.pages().await.map_err(|error| error.to_string()),
                Err(Fault(error)) => Err(error),
            };
            match asked {
                Ok(count) => return tracing::info!(count, "the store has been asked for attempts that have not ended"),
                Err(error) if said.is_news(&error) => tracing::warn!(
                    error,
                    "the store cannot be asked for attempts that have not ended; trying again until it can"
                ),
                Err(_) => {}
            }
            sleep(jitter::part_of(PAUSE, 0.5..=1.0)).await;
        }
    }

    /// Waits until the store has what was published before this start: what it lacks would be taken for open.
    async fn until_stored(&self) -> Result<(), Fault> {
        let Some(options) = &self.kafka else { return Ok(()) };
        let mut ends: Option<BTreeMap<(String, i32), i64>> = None;
        loop {
            let mut topics = Topics::open(options, &PUBLISHED, &[], Beginning::Group(event_store::GROUP)).await?;
            let (opened, mut read, mut is_behind) = (Instant::now(), BTreeMap::new(), false);
            while topics.read_up_to() <= opened {
                let Some(Found { place, .. }) = topics.next().await? else { continue };
                let partition = (place.topic, place.partition);
                is_behind |=
                    ends.as_ref().is_none_or(|ends| ends.get(&partition).is_some_and(|end| place.next <= *end));
                read.insert(partition, place.next);
            }
            if !is_behind {
                return Ok(());
            }
            ends.get_or_insert(read);
            sleep(LOOK).await;
        }
    }

    /// Gives all of them. How many there were.
    async fn pages(&self) -> store::Result<usize> {
        let (mut after, mut count) = (None, 0);
        loop {
            let page = self.store.executions(ExecutionQuery::open(after, PAGE)).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|last| last.cursor.clone());
            for listed in page {
                let evidence = expected(&listed.execution, &self.policy, self.clock.now());
                if let Some(evidence) = evidence.filter(|evidence| self.is_watched(&evidence.namespace)) {
                    count += 1;
                    // Without a monitor nobody expects anything.
                    let _ = self.out.send(evidence).await;
                }
            }
            if is_last {
                return Ok(count);
            }
        }
    }

    fn is_watched(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|watched| watched == namespace)
    }
}
