//! One watch: kube's watcher with raw events, kept alive.
//!
//! kube's watcher resumes after EOF and relists after an `ERROR` 410 by itself. What it does not get over is replaced
//! here: a watch that the server refuses to start from its version for ever, and one that says nothing any more.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Client,
    runtime::watcher::{self, Event, watcher},
};
use podherald_core::{evidence::Evidence, told::Told};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{backoff::Backoff, wording};

use super::{
    api::{Activity, attentive},
    listing::Listing,
    metrics::Metrics,
    wire::{self, Facts, Object},
};

/// Objects a page: fewer cost round trips, more cost memory.
pub const PAGE_SIZE: u32 = 500;

/// What a watch of pods or of Jobs saw.
#[derive(Debug)]
pub enum Sighting<K = wire::Pod> {
    /// An object was added or changed, or stands in a list.
    Seen {
        /// Which watch.
        watch: usize,
        /// Its state.
        object: K,
        /// The reconciler saw it: what is new in it, the watch has missed.
        is_check: bool,
    },
    /// All objects of a complete list have been seen.
    Listed {
        /// Which watch.
        watch: usize,
        /// When the list was asked for; what came later need not be in it.
        asked_at: Instant,
        /// The reconciler asked; else the watch did, at its start or because it could not go on.
        is_check: bool,
        /// Uids of the objects.
        uids: HashSet<String>,
    },
    /// An object left the watch: deleted, or its labels changed (T15).
    Left {
        /// Its last state.
        object: K,
    },
}

impl<K> Sighting<K> {
    /// What was seen.
    pub fn object(&self) -> Option<&K> {
        match self {
            Self::Seen { object, .. } | Self::Left { object } => Some(object),
            Self::Listed { .. } => None,
        }
    }
}

/// Where those who see something send it.
#[derive(Debug, Clone)]
pub struct Intake {
    /// Of pods.
    pub pods: mpsc::Sender<Sighting>,
    /// Of Jobs.
    pub jobs: mpsc::Sender<Sighting<wire::Job>>,
}

/// Where it is received.
#[derive(Debug)]
pub struct Inbox {
    /// Of pods.
    pub pods: mpsc::Receiver<Sighting>,
    /// Of Jobs.
    pub jobs: mpsc::Receiver<Sighting<wire::Job>>,
    /// What another monitor has told.
    pub told: mpsc::Receiver<Told>,
    /// Pods that were held for as long as may be, by uid.
    pub overdue: mpsc::Receiver<String>,
    /// Attempts that may be open, and unknown here.
    pub expected: mpsc::Receiver<Evidence>,
}

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// One namespace; none: all.
    pub namespace: Option<String>,
    /// A label selector.
    pub selector: String,
}

impl Scope {
    /// The objects of the scope.
    pub fn api<F: Facts>(&self, client: Client) -> Api<Object<F>> {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }
}

/// How a watch is doing; shared with `/readyz` and `/metrics`.
#[derive(Debug, Clone)]
pub struct Freshness {
    activity: Activity,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    synced: bool,
    failure: Option<Failure>,
}

/// The last failure of a watch.
#[derive(Debug)]
struct Failure {
    why: String,
    /// The watch may not be, or not by whom podherald is.
    is_refusal: bool,
    at: Instant,
}

impl Freshness {
    fn new() -> Self {
        Self { activity: Activity::begin(), state: Arc::default() }
    }

    /// Time since the last sign of life.
    pub fn staleness(&self) -> Duration {
        self.activity.last().elapsed()
    }

    /// What is wrong with the watch, if anything is.
    pub fn problem(&self, stale_after: Duration) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A quiet watch that works again says so by its answer only.
        let failure = state.failure.as_ref().filter(|failure| self.activity.last() <= failure.at);
        let staleness = self.staleness();
        let problem = match failure {
            Some(Failure { why, is_refusal: true, .. }) => return Some(why.clone()),
            _ if !state.synced => "the first list is not complete yet".to_owned(),
            _ if staleness > stale_after => format!("no sign of life from the watch for {} s", staleness.as_secs()),
            _ => return None,
        };
        Some(failure.map_or(problem.clone(), |failure| format!("{problem}: {}", failure.why)))
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// One watch of the monitor.
pub struct Watch {
    /// Its number: bit of the pods that it knows.
    pub id: usize,
    /// What it watches.
    pub scope: Scope,
    /// `kube.watch_timeout`: the server ends each watch call after it.
    pub timeout: Duration,
    /// Silence after which the watch counts as dead.
    pub stale_after: Duration,
    freshness: Freshness,
    metrics: Metrics,
}

impl Watch {
    /// A watch that has not begun.
    pub fn new(id: usize, scope: Scope, timeout: Duration, stale_after: Duration, metrics: Metrics) -> Self {
        Self { id, scope, timeout, stale_after, freshness: Freshness::new(), metrics }
    }

    /// How it is doing, now and later.
    pub fn freshness(&self) -> Freshness {
        self.freshness.clone()
    }

    /// Watches until cancelled, or until nobody takes what it sees.
    pub async fn run<F: Facts>(self, base: Client, out: mpsc::Sender<Sighting<Object<F>>>, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(30));
        while !stop.is_cancelled() {
            tokio::select! {
                () = self.watch_once(&base, &out, &mut backoff) => self.metrics.watch_rebuilds.inc(),
                () = stop.cancelled() => return,
                () = out.closed() => return,
            };
        }
    }

    /// Drives one watcher until it has to be replaced.
    async fn watch_once<F: Facts>(
        &self,
        base: &Client,
        out: &mpsc::Sender<Sighting<Object<F>>>,
        backoff: &mut Backoff,
    ) {
        let api = self.scope.api::<F>(attentive(base, self.freshness.activity.clone()));
        let seconds = u32::try_from(self.timeout.as_secs()).unwrap_or(60).max(1);
        let config = watcher::Config::default().labels(&self.scope.selector).timeout(seconds).page_size(PAGE_SIZE);
        let mut events = pin!(watcher(api, config));
        let mut listing = Listing::begin();
        // While the loop makes the watch wait, the API server's silence says nothing.
        let mut listening_since = Instant::now();
        loop {
            let dead_at = self.freshness.activity.last().max(listening_since) + self.stale_after;
            let event = tokio::select! {
                // What has come counts before the clock: back-pressure is not silence.
                biased;
                event = events.next() => event,
                () = sleep_until(dead_at) => {
                    if self.freshness.activity.last().max(listening_since) + self.stale_after > Instant::now() {
                        continue;
                    }
                    tracing::warn!(watch = self.id, selector = %self.scope.selector, "watch is silent, starting it anew");
                    return;
                }
            };
            let sighting = match event {
                Some(Ok(event)) => match event {
                    // Announced before the list is asked for: no success yet.
                    Event::Init => {
                        listing = Listing::begin();
                        listening_since = listing.asked_at;
                        continue;
                    }
                    Event::InitApply(object) => {
                        listing.add(object);
                        continue;
                    }
                    Event::InitDone => {
                        self.metrics.lists.inc();
                        // It proves little: the watch after it may still be refused, over and over.
                        backoff.ease();
                        if !std::mem::replace(&mut listing, Listing::begin()).pass_on(self.id, false, out).await {
                            return;
                        }
                        listening_since = Instant::now();
                        self.freshness.update(|state| state.synced = true);
                        continue;
                    }
                    Event::Apply(object) => Sighting::Seen { watch: self.id, object, is_check: false },
                    Event::Delete(object) => Sighting::Left { object },
                },
                Some(Err(error)) => {
                    self.metrics.watch_failures.inc();
                    self.note::<F>(&error);
                    let pause = backoff.pause();
                    tracing::info!(watch = self.id, error = %wording::of(&error), pause_ms = pause.as_millis(), "watch failed, trying again");
                    sleep(pause).await;
                    if keeps_a_bad_version(&error) {
                        return;
                    }
                    continue;
                }
                None => return,
            };
            backoff.reset();
            if out.send(sighting).await.is_err() {
                return;
            }
            listening_since = Instant::now();
        }
    }

    /// A refusal is not "no pods" (T17): it shows at once, not only when the watch has gone stale.
    fn note<F: Facts>(&self, error: &watcher::Error) {
        let kind = F::PLURAL;
        let refusal = status_of(error).and_then(|status| {
            let remedy = match (status.code, kind) {
                (401, _) => "; the kubeconfig, token and certificates are read anew until they are accepted",
                (403, "jobs") => {
                    "; grant the role in deploy/, or set kube.jobs = false to follow each pod of a Job by itself"
                }
                (403, _) => "",
                _ => return None,
            };
            let (selector, code, message) = (&self.scope.selector, status.code, &status.message);
            Some(format!("the API server refuses the watch of {kind} `{selector}` ({code}): {message}{remedy}"))
        });
        let failure = Failure {
            is_refusal: refusal.is_some(),
            why: refusal.unwrap_or_else(|| wording::of(error)),
            at: Instant::now(),
        };
        self.freshness.update(|state| state.failure = Some(failure));
    }
}

fn status_of(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// kube's watcher asks again from the same version for ever after these (T5, T18).
fn keeps_a_bad_version(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else { return false };
    status.code == 410 || status.message.to_ascii_lowercase().contains("too large resource version")
}
