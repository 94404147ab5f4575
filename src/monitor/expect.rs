//! Attempts that the store knows as open and this monitor may not know at all.

use std::collections::BTreeMap;

use podherald_core::evidence::Evidence;
use tokio::time::Instant;

use super::{Error, Monitor, step::Outcome};
use crate::journal::Known;

impl Monitor {
    /// Takes up those of which nothing is known here. Whether their pods are still there is asked at once.
    pub(super) async fn expect(&mut self, expected: Vec<Evidence>, outcome: &mut Outcome) -> Result<(), Error> {
        let unknown = expected.iter().filter(|evidence| !self.index.contains(&evidence.uid));
        let keys: BTreeMap<_, _> = unknown.map(|it| (it.uid.clone(), it.execution_id.clone())).collect();
        let mut known = self.known(keys).await?;
        for evidence in expected {
            let Some(known) = known.remove(&evidence.uid) else { continue };
            if !is_news(&evidence, &known) {
                continue;
            }
            let (uid, execution_id, attempt) = (evidence.uid.clone(), &evidence.execution_id, evidence.attempt);
            tracing::info!(
                execution_id,
                attempt,
                uid,
                "the store knows it as open, and here it is not known: looking for its pod"
            );
            self.metrics.expected.inc();
            self.index.insert(evidence, Instant::now()).strayed = true;
            outcome.changes.add(&uid, Vec::new());
            outcome.resolve.push(uid);
        }
        Ok(())
    }
}

/// False if its pod is known, or that attempt as another pod's, or the execution as another namespace's.
fn is_news(evidence: &Evidence, known: &Known) -> bool {
    let Some(claim) = &known.claim else { return known.evidence.is_none() };
    let is_taken = claim.attempts.values().any(|attempt| *attempt >= evidence.attempt);
    known.evidence.is_none() && !is_taken && claim.namespace == evidence.namespace
}
