//! Takes away what is too old or too much: executions from the journal, and their output with them.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    jitter,
    journal::{self, Journal},
    output_store::OutputStore,
};

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(60);
/// Executions taken in one commit.
const BATCH: usize = 100;

/// The janitor.
pub struct Retention {
    /// What is tidied.
    pub journal: Arc<dyn Journal>,
    /// Where the output is.
    pub outputs: OutputStore,
    /// Tells the age.
    pub clock: Arc<dyn Clock>,
    /// `journal.retention`.
    pub age: Duration,
}

impl Retention {
    /// Tidies up until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        // Some time after the start, and not in step with others.
        let first = jitter::part_of(INTERVAL, 0.5..=1.0);
        let mut ticks = interval_at(Instant::now() + first, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.round(&stop).await {
                tracing::error!(%error, "retention failed, trying again in a minute");
            }
        }
    }

    async fn round(&self, stop: &CancellationToken) -> journal::Result<()> {
        while !stop.is_cancelled() {
            let retention = journal::Retention { age: self.age, now: self.clock.now(), batch: BATCH };
            let pruned = self.journal.prune(retention).await?;
            if pruned.executions.is_empty() {
                return Ok(());
            }
            for execution_id in &pruned.executions {
                if let Err(error) = self.outputs.remove(execution_id).await {
                    tracing::warn!(%error, execution_id, "cannot remove the output of an execution that is gone");
                }
            }
        }
        Ok(())
    }
}
