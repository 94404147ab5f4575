//! What another podherald has published to Kafka, read back into this one's journal.
//!
//! Only what bears the same Lease counts: other clusters may share the topics. What an attempt of a transaction left behind is not
//! read (`read_committed`). Of one execution, events come in by two topics; those that come in together are put in their writer's order.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use podherald_core::{event::Event, gap::Gap, told::Told};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::Metrics;
use crate::{
    clock::Clock,
    journal::{Adopted, Journal, Place},
    sink::{Fault, kafka::Options},
    topics::{Beginning, Found, PUBLISHED, Topics, last_of_each},
};

/// Clocks differ, and an event is older than what it was published for.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);
/// Taken over at once, at most.
const BATCH: usize = 512;
/// A first message waits so long for those that belong before it.
const LINGER: Duration = Duration::from_millis(200);

/// How far to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// To what is there now.
    End,
    /// And on, as it comes.
    Forever,
}

/// See the module.
pub struct Predecessor {
    /// Of the Kafka.
    pub options: Options,
    /// Where it goes.
    pub journal: Arc<dyn Journal>,
    /// To the monitor, which must not tell the same.
    pub told: mpsc::Sender<Told>,
    /// What is counted.
    pub metrics: Metrics,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// The uids of the Lease, which may have been made anew: what was published for one before is still of it.
    pub leases: Mutex<BTreeSet<String>>,
}

/// What was read and is not in the journal yet.
#[derive(Default)]
struct Batch {
    events: Vec<Adopted>,
    places: Vec<Place>,
    since: Option<Instant>,
}

impl Predecessor {
    /// Reads on from where it was left; the first time from before `oldest`, when the oldest thing that is there was made.
    pub(super) async fn read(&self, lease: &str, oldest: Timestamp, until: Until) -> Result<(), Fault> {
        let mut places = self.journal.places().await.map_err(|error| Fault(error.to_string()))?;
        let mut oldest = oldest;
        let leases = {
            let mut known = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
            if known.insert(lease.to_owned()) && known.len() > 1 {
                // Made anew. What was published for it before that was noticed was left out.
                places.clear();
                oldest = self.clock.now();
            }
            known.clone()
        };
        let from = oldest.saturating_sub(MARGIN).unwrap_or(Timestamp::MIN).as_millisecond();
        let mut topics = Topics::open(&self.options, &PUBLISHED, &places, Beginning::Time(from)).await?;
        self.work(&leases, until, &mut topics).await
    }

    async fn work(&self, leases: &BTreeSet<String>, until: Until, topics: &mut Topics) -> Result<(), Fault> {
        let mut batch = Batch::default();
        loop {
            let is_at_end = topics.is_at_end();
            let is_due = batch.since.is_some_and(|since| since.elapsed() >= LINGER);
            if batch.places.len() >= BATCH || is_due || (is_at_end && !batch.places.is_empty()) {
                self.adopt(std::mem::take(&mut batch)).await?;
            }
            if is_at_end && batch.places.is_empty() && until == Until::End {
                return Ok(());
            }
            let due = batch.since.map(|since| since + LINGER);
            tokio::select! {
                found = topics.next() => if let Some(found) = found? {
                    self.take(found, leases, &mut batch);
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn take(&self, found: Found, leases: &BTreeSet<String>, batch: &mut Batch) {
        batch.since.get_or_insert_with(Instant::now);
        let Found { place, lease, about, bytes } = found;
        if leases.iter().any(|known| lease.as_deref() == Some(known.as_bytes())) {
            match serde_json::from_slice::<Event>(&bytes) {
                // Its own too: it may have died before it noted that they are there.
                Ok(event) => batch.events.push(Adopted { event, bytes, about, in_order: false, recalled: false }),
                // What the other one's journal had lost, nobody can read back.
                Err(_) if Gap::is_in(&bytes) => {}
                Err(error) => {
                    self.metrics.unreadable.inc();
                    let Place { topic, partition, next } = &place;
                    tracing::error!(topic, partition, next, %error, "an event of another podherald cannot be read; it is left out");
                }
            }
        }
        batch.places.push(place);
    }

    async fn adopt(&self, Batch { mut events, places, .. }: Batch) -> Result<(), Fault> {
        let order = |adopted: &Adopted| {
            let Event { execution_id, source, seq, .. } = &adopted.event;
            (execution_id.clone(), source.clone(), *seq)
        };
        events.sort_by_cached_key(order);
        let told: Vec<Told> = events.iter().map(|adopted| Told::of(&adopted.event)).collect();
        self.journal.adopt(events, last_of_each(places)).await.map_err(|error| Fault(error.to_string()))?;
        self.metrics.adopted.inc_by(told.len() as u64);
        for told in told {
            // Without a monitor nobody would tell it again.
            let _ = self.told.send(told).await;
        }
        Ok(())
    }
}
