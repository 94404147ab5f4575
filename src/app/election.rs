//! What makes one of several podheralds the leader, wired.

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use podherald_core::told::Told;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::Parts;
use crate::{
    config::LeaseName,
    health::Role,
    leadership::{Elector, Leads, Metrics, Office, Predecessor, Signs, Succession},
    relay::Turns,
    sink::kafka::{Fence, Kafka, Options},
    supervisor::{Phase, Supervisor},
};

/// Events of others that may wait for the monitor; then reading waits.
const TOLD: usize = 1024;

/// An election that has not begun.
pub(super) struct Election {
    elector: Elector,
    succession: Succession,
    signs: Signs,
}

/// The monitor's part in it.
pub(super) struct Part {
    pub(super) leads: Leads,
    pub(super) told: mpsc::Receiver<Told>,
    pub(super) listed: watch::Sender<Option<Timestamp>>,
}

impl Part {
    /// Of the only podherald there is.
    pub(super) fn alone() -> Self {
        Self { leads: Leads::always(), told: mpsc::channel(1).1, listed: watch::Sender::new(None) }
    }
}

impl Election {
    /// The election for this Lease, and the monitor's part in it.
    pub(super) fn new(parts: &mut Parts<'_>, lease: &LeaseName, kafka: Options, client: &kube::Client) -> (Self, Part) {
        let Parts { config, journal, clock, readiness, registry, .. } = parts;
        let (journal, clock, readiness) = (Arc::clone(journal), Arc::clone(clock), Arc::clone(readiness));
        let metrics = Metrics::default();
        metrics.register(registry);
        let office = Office {
            namespace: lease.parts().0.to_owned(),
            name: lease.parts().1.to_owned(),
            duration: config.monitor.lease_duration,
            me: format!("podherald:{}", journal.epoch()),
        };
        let elector = Elector::new(client.clone(), office, clock.clone(), readiness.clone(), metrics.clone());
        let signs = elector.signs();
        let trouble = signs.trouble.subscribe();
        let probe = move || trouble.borrow().clone().map_or(Ok(()), Err);
        readiness.register(Role::Monitor, "lease", Arc::new(probe));
        let (told, told_inbox) = mpsc::channel(TOLD);
        let listed = watch::Sender::new(None);
        let predecessor = Predecessor {
            options: kafka,
            journal,
            told,
            metrics: metrics.clone(),
            clock: clock.clone(),
            leases: Mutex::default(),
        };
        let succession = Succession::new(signs.clone(), listed.subscribe(), predecessor, metrics);
        let part = Part { leads: succession.telling(), told: told_inbox, listed };
        (Self { elector, succession, signs }, part)
    }

    /// When the relay to Kafka, or (false) to another sink, carries.
    pub(super) fn turns(&self, is_shared: bool) -> Turns {
        let leads = if is_shared { self.succession.publishing() } else { self.succession.telling() };
        Turns { leads, carried: self.signs.carried.subscribe(), is_shared }
    }

    /// Who may publish.
    pub(super) fn fence(&self) -> Fence {
        let Signs { held, uid, .. } = self.signs.clone();
        Fence::new(move || {
            let is_held = held.borrow().is_some_and(|until| Instant::now() < until);
            uid.borrow().clone().filter(|_| is_held)
        })
    }

    /// Begins it. It ends after everything that the leader does, so that the next leader finds it done.
    pub(super) fn start(self, kafka: Arc<Kafka>, supervisor: &mut Supervisor) {
        let Self { elector, succession, .. } = self;
        supervisor.spawn("succession", Phase::Listener, |stop| async move {
            succession.run(kafka, stop).await;
            Ok(())
        });
        supervisor.spawn("elector", Phase::Listener, |stop| async move {
            elector.run(stop).await;
            Ok(())
        });
    }
}
