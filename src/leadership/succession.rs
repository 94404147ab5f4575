//! From one leader to the next.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Leads, Metrics, Predecessor, elector::Signs, predecessor::Until};
use crate::{
    jitter,
    sink::{Fault, kafka::Kafka},
    wording::Said,
};

/// Until the next try, after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// A new leader whose Kafka is away reads logs nevertheless after this: they may be gone later.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub struct Succession {
    signs: Signs,
    /// Told by the monitor: when the oldest thing that is there was made.
    listed: watch::Receiver<Option<Timestamp>>,
    predecessor: Predecessor,
    metrics: Metrics,
    /// Logs are read, events told, and carried to all sinks but Kafka.
    telling: watch::Sender<bool>,
    /// They are carried to Kafka, too.
    publishing: watch::Sender<bool>,
}

impl Succession {
    /// One that follows for the time being.
    pub fn new(
        signs: Signs,
        listed: watch::Receiver<Option<Timestamp>>,
        predecessor: Predecessor,
        metrics: Metrics,
    ) -> Self {
        let (telling, publishing) = (watch::Sender::new(false), watch::Sender::new(false));
        Self { signs, listed, predecessor, metrics, telling, publishing }
    }

    /// For the monitor, and all sinks but Kafka.
    pub fn telling(&self) -> Leads {
        Leads::new(self.signs.held.subscribe(), self.telling.subscribe())
    }

    /// For the relay to Kafka.
    pub fn publishing(&self) -> Leads {
        Leads::new(self.signs.held.subscribe(), self.publishing.subscribe())
    }

    /// Works until `stop`.
    pub async fn run(self, kafka: Arc<Kafka>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work(&kafka) => {}
        }
    }

    async fn work(&self, kafka: &Kafka) {
        loop {
            let mut held = self.signs.held.subscribe();
            tokio::select! {
                biased;
                _ = held.wait_for(Option::is_some) => {}
                () = self.persist(None) => {}
            }
            let since = Instant::now();
            tokio::select! {
                biased;
                _ = held.wait_for(Option::is_none) => {}
                () = self.lead(kafka, since) => {}
            }
            self.telling.send_replace(false);
            self.publishing.send_replace(false);
            self.metrics.leading.set(0);
            tracing::info!("following another podherald");
        }
    }

    /// Never returns: it is given up when the Lease is lost.
    async fn lead(&self, kafka: &Kafka, since: Instant) {
        let impatience = async {
            sleep(PATIENCE).await;
            tracing::warn!(
                "what the last leader has published cannot be read; logs are read nevertheless, before they are gone"
            );
            self.telling.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.persist(Some(kafka)) => {}
            () = impatience => {}
        }
        self.telling.send_replace(true);
        self.publishing.send_replace(true);
        self.metrics.leading.set(1);
        let took_ms = since.elapsed().as_millis();
        tracing::info!(took_ms, "all that the last leader has published is known: leading");
        std::future::pending::<()>().await;
    }

    /// Reads what others publish, or takes over from them, however often that takes.
    async fn persist(&self, taken_over: Option<&Kafka>) {
        let mut said = Said::default();
        loop {
            let done = match taken_over {
                Some(kafka) => self.take_over(kafka).await,
                None => self.read(Until::Forever).await,
            };
            let Err(Fault(error)) = done else {
                if taken_over.is_some() {
                    return;
                }
                continue;
            };
            if said.is_news(&error) {
                tracing::warn!(error, "what other podheralds have published cannot be read; trying again until it can");
            }
            sleep(jitter::part_of(PAUSE, 0.5..=1.0)).await;
        }
    }

    async fn take_over(&self, kafka: &Kafka) -> Result<(), Fault> {
        // First nobody else can publish any more; only then is there an end to read to.
        kafka.take_over().await?;
        self.read(Until::End).await
    }

    async fn read(&self, until: Until) -> Result<(), Fault> {
        let (mut uid, mut listed) = (self.signs.uid.subscribe(), self.listed.clone());
        let gone = || Fault("the process ends".to_owned());
        let lease = uid.wait_for(Option::is_some).await.map_err(|_| gone())?.clone().unwrap_or_default();
        let oldest = listed.wait_for(Option::is_some).await.map_err(|_| gone())?.unwrap_or_default();
        tokio::select! {
            read = self.predecessor.read(&lease, oldest, until) => read,
            _ = uid.wait_for(|now| now.as_ref() != Some(&lease)) => Err(Fault("the Lease has been made anew".to_owned())),
        }
    }
}
