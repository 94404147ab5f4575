//! The independent list: every `monitor.reconcile_interval` everything is listed anew and fed into the same channel, so
//! that a watch that lies by silence is found out (T11, T12).

use std::time::Duration;

use kube::{Api, Client, api::ListParams};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{backoff::Backoff, jitter, wording};

use super::{
    api::{Activity, attentive},
    listing::Listing,
    metrics::Metrics,
    watcher::{Intake, PAGE_SIZE, Scope, Sighting},
    wire::{Facts, Object},
};

/// Lists all scopes, again and again.
pub struct Reconciler {
    /// The scopes of the pods' watches, in their order.
    pub pods: Vec<Scope>,
    /// The scopes of the Jobs' watches, whose numbers follow.
    pub jobs: Vec<Scope>,
    /// Time between two rounds; the first comes after a random part of it.
    pub interval: Duration,
    /// What it counts.
    pub metrics: Metrics,
}

impl Reconciler {
    /// Runs until cancelled, or until nobody takes what it sees.
    pub async fn run(self, base: Client, out: Intake, stop: CancellationToken) {
        let client = attentive(&base, Activity::begin());
        let (pods, jobs) = (&self.pods, &self.jobs);
        // Apart, so that a role that may not read Jobs keeps its pods reconciled.
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.rounds(pods, 0, &client, &out.pods) => {}
            () = self.rounds(jobs, pods.len(), &client, &out.jobs) => {}
        }
    }

    async fn rounds<F: Facts>(
        &self,
        scopes: &[Scope],
        first_watch: usize,
        client: &Client,
        out: &mpsc::Sender<Sighting<Object<F>>>,
    ) {
        // Replicas that start together must not list together.
        let first = jitter::part_of(self.interval, 0.9..=1.0);
        let mut rounds = tokio::time::interval_at(Instant::now() + first, self.interval);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if !self.round(scopes, first_watch, client, out).await {
                return;
            }
            if !scopes.is_empty() {
                self.metrics.reconciles.inc();
            }
        }
    }

    /// False if nobody takes the lists any more.
    async fn round<F: Facts>(
        &self,
        scopes: &[Scope],
        first_watch: usize,
        client: &Client,
        out: &mpsc::Sender<Sighting<Object<F>>>,
    ) -> bool {
        for (number, scope) in scopes.iter().enumerate() {
            let listing = self.list(scope, client).await;
            if !listing.pass_on(first_watch + number, true, out).await {
                return false;
            }
        }
        true
    }

    /// The complete list; tries until there is one.
    async fn list<F: Facts>(&self, scope: &Scope, client: &Client) -> Listing<F> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
        loop {
            let mut listing = Listing::begin();
            match list_all(&scope.api(client.clone()), &scope.selector, |object| listing.add(object)).await {
                Ok(()) => return listing,
                Err(error) => {
                    self.metrics.reconcile_failures.inc();
                    tracing::warn!(selector = %scope.selector, error = %wording::of(&error), kind = F::PLURAL, "reconciliation could not list, trying again");
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }
}

/// All pages of one quorum list (T7, T13), object by object.
pub(super) async fn list_all<F: Facts>(
    api: &Api<Object<F>>,
    selector: &str,
    mut take: impl FnMut(Object<F>),
) -> kube::Result<()> {
    let mut params = ListParams::default().labels(selector).limit(PAGE_SIZE);
    loop {
        let page = api.list(&params).await?;
        page.items.into_iter().for_each(&mut take);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}
