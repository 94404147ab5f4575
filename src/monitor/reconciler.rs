//! The independent list: every `monitor.reconcile_interval` everything is listed anew and fed into the same channel, so
//! that a watch that lies by silence is found out (T11, T12).

use std::{pin::pin, time::Duration};

use kube::{Client, api::ListParams};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{jitter, wording};

use super::{
    api::{Activity, Backoff, attentive},
    metrics::Metrics,
    watcher::{PAGE_SIZE, Scope, Sighting},
    wire,
};

/// Lists all scopes, again and again.
pub struct Reconciler {
    /// The scopes of the watches, in their order.
    pub scopes: Vec<Scope>,
    /// Time between two rounds; the first comes after a random part of it.
    pub interval: Duration,
    /// What it counts.
    pub metrics: Metrics,
}

impl Reconciler {
    /// Runs until cancelled, or until nobody takes what it sees.
    pub async fn run(self, base: Client, out: mpsc::Sender<Sighting>, stop: CancellationToken) {
        let work = pin!(self.rounds(base, out));
        stop.run_until_cancelled(work).await;
    }

    async fn rounds(&self, base: Client, out: mpsc::Sender<Sighting>) {
        let client = attentive(&base, Activity::begin());
        // Replicas that start together must not list together.
        let first = jitter::part_of(self.interval, 0.9..=1.0);
        let mut rounds = tokio::time::interval_at(Instant::now() + first, self.interval);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            for (watch, scope) in self.scopes.iter().enumerate() {
                let asked_at = Instant::now();
                let pods = self.list(scope, &client).await;
                if out.send(Sighting::Listed { watch, asked_at, by_watch: false, pods }).await.is_err() {
                    return;
                }
            }
            self.metrics.reconciles.inc();
        }
    }

    /// The complete list; tries until there is one.
    async fn list(&self, scope: &Scope, client: &Client) -> Vec<wire::Pod> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        loop {
            match list_all(scope, client).await {
                Ok(pods) => return pods,
                Err(error) => {
                    self.metrics.reconcile_failures.inc();
                    tracing::warn!(selector = %scope.selector, error = %wording::of(&error), "reconciliation could not list the pods, trying again");
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }
}

/// All pages of one quorum list (T7, T13).
async fn list_all(scope: &Scope, client: &Client) -> kube::Result<Vec<wire::Pod>> {
    let api = scope.api(client.clone());
    let mut pods = Vec::new();
    let mut params = ListParams::default().labels(&scope.selector).limit(PAGE_SIZE);
    loop {
        let page = api.list(&params).await?;
        pods.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(pods),
        }
    }
}
