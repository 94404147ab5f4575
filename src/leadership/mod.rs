//! Of several podheralds before one cluster, each with a data directory and a journal of its own, one leads.
//!
//! All watch. Who leads reads logs, tells events and carries them to the sinks. The others follow: they make the same events under the same ids but keep
//! them back, and take over what the leader has published from Kafka, so that they show what it shows. An `elector` holds a `Lease` of
//! the cluster for the leader. Who becomes it first makes sure that its predecessor can publish nothing more, then reads what
//! that one has published to its end (`predecessor`), and only then goes on where that stands (`succession`).

mod elector;
mod lease;
mod metrics;
mod predecessor;
mod succession;

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::watch, time::Instant};

pub use elector::{Elector, Office, Signs};
pub use metrics::Metrics;
pub use predecessor::Predecessor;
pub use succession::Succession;

/// What is said of the sinks' lag in the Lease: an object, seconds by the sink's name.
const LAG_ANNOTATION: &str = "podherald.dev/lag";

/// Far enough not to come.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Whether this process leads, for one of its parts. Clones follow the same.
#[derive(Debug, Clone)]
pub struct Leads {
    /// Until when, if the Lease is held; renewed again and again.
    held: watch::Receiver<Option<Instant>>,
    /// The part may go to work whenever it is.
    ready: watch::Receiver<bool>,
}

impl Leads {
    /// For the only podherald there is.
    pub fn always() -> Self {
        let (_, held) = watch::channel(Some(Instant::now() + FOR_EVER));
        let (_, ready) = watch::channel(true);
        Self { held, ready }
    }

    /// One that does what these say.
    pub fn new(held: watch::Receiver<Option<Instant>>, ready: watch::Receiver<bool>) -> Self {
        Self { held, ready }
    }

    /// True if it may do now what only the leader does. A process that was stopped for a while finds out here.
    pub fn now(&self) -> bool {
        *self.ready.borrow() && self.held.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Returns when the answer is this one.
    pub async fn until(&mut self, leads: bool) {
        while self.now() != leads {
            let held = *self.held.borrow_and_update();
            self.ready.borrow_and_update();
            if self.now() == leads {
                return;
            }
            let end = held.filter(|_| self.now()).unwrap_or_else(|| Instant::now() + FOR_EVER);
            tokio::select! {
                () = changed(&mut self.held) => {}
                () = changed(&mut self.ready) => {}
                () = tokio::time::sleep_until(end) => {}
            }
        }
    }
}

/// One that nobody changes any more stays as it is.
async fn changed<T>(watched: &mut watch::Receiver<T>) {
    if watched.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What the leader has last said of the other sinks than Kafka, by which who follows can tell what need not be carried again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Carried {
    /// It was said after this.
    pub after: Option<Instant>,
    /// How far each sink was behind then.
    pub lag: BTreeMap<String, Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_was_asleep_when_the_lease_ran_out_does_not_lead_though_nobody_has_said_so() {
        let (held, reads) = watch::channel(Some(Instant::now() + Duration::from_secs(10)));
        let (ready, is_ready) = watch::channel(false);
        let mut leads = Leads::new(reads, is_ready);
        assert!(!leads.now());
        ready.send_replace(true);
        leads.until(true).await;
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(!leads.now());
        leads.until(false).await;
        held.send_replace(Some(Instant::now() + Duration::from_secs(10)));
        leads.until(true).await;
        held.send_replace(None);
        leads.until(false).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_renewed_in_time_is_never_lost() {
        let (held, reads) = watch::channel(Some(Instant::now() + Duration::from_secs(10)));
        let (_ready, is_ready) = watch::channel(true);
        let mut leads = Leads::new(reads, is_ready);
        let renewals = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                held.send_replace(Some(Instant::now() + Duration::from_secs(10)));
            }
        };
        let begun = Instant::now();
        tokio::join!(renewals, leads.until(false));
        assert_eq!(begun.elapsed(), Duration::from_secs(5 * 9 + 10));
    }
}
