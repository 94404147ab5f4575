//! A process that watches nothing shows what others tell: it reads all topics into its own journal, so that everything else (event
//! streams, their ids, `?wait=`) is the same as at the monitor.
//!
//! What is older than its journal the store has, and is fetched when somebody asks for it ([`Past`]). So the topics need be read only from where
//! the store has come to. Events of one source go into the journal in their order; those that come early wait (`waiting`) for
//! what is before them, which comes by another partition, or is in the store, or (what the monitor's sink had to leave out) nowhere.

mod metrics;
mod past;
mod waiting;

use std::{
    collections::{BTreeSet, HashSet},
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use podherald_core::{event::Event, gap::Gap, topic::Topic};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    jitter,
    journal::{Adopted, Journal, Place},
    sink::{Fault, kafka::Options},
    topics::{Beginning, Found, Topics, last_of_each},
    wording::Said,
    worker::event_store,
};

pub use metrics::Metrics;
pub use past::{Error, Page, Past};

use waiting::{Early, Waiting};

/// Until the next try, after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Taken over at once, at most.
const BATCH: usize = 512;
/// Those that wait are looked at so often.
const LOOK: Duration = Duration::from_millis(250);
/// What an event waits for may be so much later, once all topics are read up to the event.
const GRACE: Duration = Duration::from_secs(2);
/// Events that wait at most; then the oldest go without what they wait for.
const MAX_WAITING: usize = 10_000;
/// Executions that the store is asked for at a time; most turns are left to who asks.
const FETCHES: usize = 4;

/// See the module. It is a task of the supervisor's: [`Replica::run`].
pub struct Replica {
    options: Options,
    topics: Vec<Topic>,
    journal: Arc<dyn Journal>,
    past: Arc<Past>,
    metrics: Metrics,
    trouble: Trouble,
}

/// Why nothing new comes, while that is so.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// In words.
    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, trouble: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }
}

impl Replica {
    /// A replica of what these topics hold.
    pub fn new(
        options: Options,
        topics: &[Topic],
        journal: Arc<dyn Journal>,
        past: Arc<Past>,
        metrics: Metrics,
    ) -> Self {
        let trouble = Trouble::default();
        trouble.set(Some("the topics have not been read yet".to_owned()));
        Self { options, topics: topics.to_vec(), journal, past, metrics, trouble }
    }

    /// Why nothing new comes.
    pub fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// Reads until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.persist()).await;
    }

    async fn persist(&self) {
        loop {
            // What waited is read again.
            let Err(Fault(error)) = self.follow(&mut Waiting::default()).await;
            self.metrics.failures.inc();
            if self.trouble.set(Some(error.clone())).as_ref() != Some(&error) {
                tracing::warn!(error, "what others publish cannot be read; trying again until it can");
            }
            sleep(jitter::part_of(PAUSE, 0.5..=1.0)).await;
        }
    }

    /// Until something fails.
    async fn follow(&self, waiting: &mut Waiting) -> Result<Infallible, Fault> {
        let places = self.journal.places().await.map_err(fault)?;
        let mut topics =
            Topics::open(&self.options, &self.topics, &places, Beginning::Group(event_store::GROUP)).await?;
        self.journal.adopt(Vec::new(), topics.begun()).await.map_err(fault)?;
        let opened = Instant::now();
        let mut fetches = Fetches::default();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                found = topics.next() => self.take_all(found?, &mut topics, waiting).await?,
                Some((id, fetched)) = fetches.under_way.next() => {
                    if let Some(error) = fetched.as_ref().err() {
                        self.metrics.failures.inc();
                        fetches.failed(error);
                    } else {
                        self.fetched(&id, waiting).await?;
                    }
                }
                _ = look.tick() => {
                    self.look_after(waiting, topics.read_up_to()).await?;
                    fetches.begin(&self.past, waiting);
                }
            }
            if topics.read_up_to() > opened && self.trouble.set(None).is_some() {
                tracing::info!("all that others have published is known");
            }
        }
    }

    /// Takes in what was found, with what else is there already.
    async fn take_all(&self, found: Option<Found>, topics: &mut Topics, waiting: &mut Waiting) -> Result<(), Fault> {
        let (mut events, mut places) = (Vec::new(), Vec::new());
        let mut take = |found: Option<Found>| {
            if let Some(found) = found {
                events.extend(self.read(&found));
                places.push(found.place);
            }
            places.len() < BATCH
        };
        let mut has_room = take(found);
        while has_room && let Some(found) = topics.try_next() {
            has_room = take(found?);
        }
        if places.is_empty() {
            return Ok(());
        }
        let executions: BTreeSet<_> = events.iter().map(|early| early.adopted.event.execution_id.clone()).collect();
        events.extend(executions.iter().flat_map(|id| waiting.take(id)));
        self.adopt(events, waiting).await?;
        // Not before it is known who waits: whoever reads on from there has all that is not in the journal.
        let mut places = last_of_each(places);
        waiting.hold_back(&mut places);
        self.journal.adopt(Vec::new(), places).await.map_err(fault)?;
        Ok(())
    }

    fn read(&self, Found { place, about, bytes, .. }: &Found) -> Option<Early> {
        match serde_json::from_slice::<Event>(bytes) {
            Ok(event) => {
                let adopted =
                    Adopted { event, bytes: bytes.clone(), about: about.clone(), in_order: true, recalled: false };
                Some(Early { adopted, place: place.clone(), since: Instant::now() })
            }
            Err(_) if Gap::is_in(bytes) => None,
            Err(error) => {
                self.metrics.unreadable.inc();
                let Place { topic, partition, next } = place;
                tracing::warn!(topic, partition, next, %error, "a message cannot be read as an event; it is left out");
                None
            }
        }
    }

    /// Takes over what can be; the rest waits.
    async fn adopt(&self, mut events: Vec<Early>, waiting: &mut Waiting) -> Result<(), Fault> {
        let order = |early: &Early| {
            let Event { execution_id, source, seq, .. } = &early.adopted.event;
            (execution_id.clone(), source.clone(), *seq)
        };
        events.sort_by_cached_key(order);
        let adopted: Vec<_> = events.iter().map(|early| early.adopted.clone()).collect();
        let early = self.journal.adopt(adopted, Vec::new()).await.map_err(fault)?;
        self.metrics.adopted.inc_by((events.len() - early.len()) as u64);
        let early: BTreeSet<_> = early.into_iter().collect();
        for event in events.into_iter().filter(|event| early.contains(&event.adopted.event.event_id)) {
            waiting.add(event);
        }
        waiting.tidy();
        self.metrics.waiting.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    async fn fetched(&self, id: &Arc<str>, waiting: &mut Waiting) -> Result<(), Fault> {
        waiting.is_fetched(id);
        let events = waiting.take(id);
        self.adopt(events, waiting).await
    }

    /// Lets go of those that have waited for long enough.
    async fn look_after(&self, waiting: &mut Waiting, read_up_to: Instant) -> Result<(), Fault> {
        let mut old = read_up_to.checked_sub(GRACE).map(|due| waiting.take_older(due)).unwrap_or_default();
        old.extend(waiting.take_above(MAX_WAITING));
        let Some(first) = old.first() else { return Ok(()) };
        let (count, execution_id) = (old.len(), &first.adopted.event.execution_id);
        tracing::warn!(
            count,
            execution_id,
            "events are shown although others of their sources, which were before them, have not come"
        );
        self.metrics.out_of_order.inc_by(count as u64);
        old.iter_mut().for_each(|early| early.adopted.in_order = false);
        self.adopt(old, waiting).await
    }
}

/// Whose past was asked for, and whether the journal has it now.
type Fetch = (Arc<str>, Result<(), String>);

/// Questions to the store, a few at a time.
#[derive(Default)]
struct Fetches {
    under_way: FuturesUnordered<BoxFuture<'static, Fetch>>,
    /// In this round: one that fails must not keep others from their turn.
    tried: HashSet<Arc<str>>,
    rests_until: Option<Instant>,
    said: Said,
}

impl Fetches {
    fn failed(&mut self, error: &str) {
        self.rests_until = Some(Instant::now() + jitter::part_of(PAUSE, 0.5..=1.0));
        if self.said.is_news(error) {
            tracing::warn!(error, "what happened before cannot be fetched; what follows waits for it");
        }
    }

    /// Asks for what those have waited for of whom it was not asked yet.
    fn begin(&mut self, past: &Arc<Past>, waiting: &Waiting) {
        if !self.under_way.is_empty() || self.rests_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let mut wanted: Vec<_> = past.unfinished().into_iter().chain(waiting.not_fetched().cloned()).collect();
        wanted.retain(|id| !self.tried.contains(id));
        if wanted.len() <= FETCHES {
            self.tried.clear();
        }
        for id in wanted.into_iter().take(FETCHES) {
            self.tried.insert(id.clone());
            let past = past.clone();
            let fetch = async move {
                let fetched = past.fetch(&id).await.map_err(|error| error.to_string());
                (id, fetched)
            };
            self.under_way.push(fetch.boxed());
        }
    }
}

fn fault(error: impl std::fmt::Display) -> Fault {
    Fault(error.to_string())
}
