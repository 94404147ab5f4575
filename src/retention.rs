//! Takes away what is too old or too much: executions from the journal, and their output with them.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{
    blob::Blobs,
    clock::Clock,
    jitter,
    journal::{self, Journal},
    output_store::{self, OutputStore, Unremoved},
};

/// How often to look.
const INTERVAL: Duration = Duration::from_secs(60);
/// Executions taken in one commit.
const BATCH: usize = 100;
/// Executions whose blobs cannot be removed; then the store is left alone for a while.
const FAILURES: u32 = 3;

/// The janitor.
pub struct Retention {
    /// What is tidied.
    pub journal: Arc<dyn Journal>,
    /// Where the output is.
    pub outputs: OutputStore,
    /// Where it is besides.
    pub blobs: Option<Blobs>,
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
            if let Err(error) = self.remove_blobs(&stop).await {
                tracing::warn!(%error, "blobs of executions that are gone stay, trying again in a minute");
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
                let left = self.outputs.leave_blobs(execution_id).await;
                let removed = match left {
                    Ok(()) => self.outputs.remove(execution_id).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = removed {
                    tracing::warn!(%error, execution_id, "cannot remove the output of an execution that is gone");
                }
            }
        }
        Ok(())
    }

    /// Only what is in the lists: in the store there may be others' objects.
    async fn remove_blobs(&self, stop: &CancellationToken) -> output_store::Result<()> {
        let lists = self.outputs.unremoved_blobs().await?;
        let Some(blobs) = &self.blobs else {
            if !lists.is_empty() {
                let executions = lists.len();
                tracing::warn!(executions, "blobs of executions that are gone stay until blob.url is set again");
            }
            return Ok(());
        };
        let mut failures = 0;
        for list in lists {
            let unremoved = self.outputs.read_unremoved(list).await?;
            match stop.run_until_cancelled(remove_all(blobs, &unremoved)).await {
                Some(true) => self.outputs.forget_blobs(unremoved).await?,
                Some(false) => failures += 1,
                None => return Ok(()),
            }
            // Others would wait as long.
            if failures == FAILURES {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// True if there is nothing left to be done.
async fn remove_all(blobs: &Blobs, unremoved: &Unremoved) -> bool {
    for uri in &unremoved.uris {
        match blobs.remove(uri).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(uri, "a blob of an execution that is gone stays: it is not below blob.url"),
            Err(fault) => {
                tracing::warn!(uri, %fault, "a blob of an execution that is gone cannot be removed, trying again in a minute");
                return false;
            }
        }
    }
    true
}
