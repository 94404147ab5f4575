//! The roles around the monitor. Each takes events from its [`inbox`](crate::inbox), does what it is there for, publishes what
//! follows, and only then acknowledges. All may come again, so all of it may be done again.

pub mod event_store;
pub mod metrics;
pub mod resource_cleaner;
pub mod result_processor;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    inbox::{Delivery, Message},
};

use metrics::Metrics;

/// Until the next try, after a failure of what a role needs; doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why an event is not done with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What the role needs is away: the event waits until it is back.
    #[error("{0}")]
    Away(String),
    /// It can never be processed.
    #[error("{0}")]
    Unfit(String),
}

/// What a role does with one event.
pub trait Work: Send + Sync + 'static {
    /// Its name: that of its consumer group.
    fn name(&self) -> &'static str;

    /// Does it, all of it: what follows is durable when this returns.
    fn process<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>>;
}

/// A role at work on the events that its inbox gives.
pub struct Worker {
    /// What it does.
    pub work: Arc<dyn Work>,
    /// What is counted.
    pub metrics: Metrics,
    /// Events at work at a time; those of one execution come one after the other.
    pub concurrency: usize,
}

impl Worker {
    /// Works until there is nothing more to come, or until `stop`: what is under way then comes again.
    pub async fn run(self, mut deliveries: mpsc::Receiver<Delivery>, stop: CancellationToken) {
        let mut at_work = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_) = at_work.join_next() => {}
                delivery = deliveries.recv(), if at_work.len() < self.concurrency => match delivery {
                    Some(delivery) => {
                        let (work, metrics) = (self.work.clone(), self.metrics.clone());
                        at_work.spawn(async move { persist(&*work, &metrics, delivery).await });
                    }
                    None => break,
                },
            }
        }
        // Its inbox waits a moment for answers.
        let done = async { while at_work.join_next().await.is_some() {} };
        tokio::select! {
            () = done => {}
            () = stop.cancelled() => {}
        }
        at_work.shutdown().await;
    }
}

/// Does it, however often that takes.
async fn persist(work: &dyn Work, metrics: &Metrics, delivery: Delivery) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        match work.process(&delivery.message).await {
            Ok(()) => {
                metrics.done(work.name());
                return delivery.ack();
            }
            Err(Failure::Unfit(reason)) => return delivery.nack(reason),
            Err(Failure::Away(reason)) => {
                metrics.waits(work.name(), &reason);
                sleep(backoff.pause()).await;
            }
        }
    }
}
