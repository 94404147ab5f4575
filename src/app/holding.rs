//! What holds pods, wired.

use tokio::sync::mpsc;

use super::Parts;
use crate::{
    leadership::Leads,
    monitor::hold::{Hint, Holder, Means, Metrics, Options, QUEUE},
    supervisor::Phase,
};

impl Parts<'_> {
    /// Starts it, and gives the monitor its ends.
    pub(super) fn start_holder(
        &mut self,
        client: &kube::Client,
        leads: &Leads,
    ) -> (mpsc::Sender<Hint>, mpsc::Receiver<String>, Metrics) {
        let metrics = Metrics::default();
        metrics.register(self.registry);
        let (hints, heard) = mpsc::channel(QUEUE);
        let (overdue, told) = mpsc::channel(QUEUE);
        let settings = &self.config.monitor;
        let options =
            Options { is_wanted: settings.hold, ceiling: settings.hold_ceiling, interval: settings.reconcile_interval };
        let (journal, clock) = (self.journal.clone(), self.clock.clone());
        let means = Means {
            client: client.clone(),
            journal,
            clock,
            leads: leads.clone(),
            hints: heard,
            overdue,
            metrics: metrics.clone(),
        };
        let holder = Holder::new(options, means);
        self.supervisor.spawn("holder", Phase::Drain, |stop| async move {
            holder.run(stop).await;
            Ok(())
        });
        (hints, told, metrics)
    }
}
