//! Holds pods by our finalizer until their end is told, and lets them go.
//!
//! The loop says what it wishes of a pod once that is durable ([`Hint`]); here it is done, and tried again until it is. What a crash, a
//! full queue or a change of the leader leaves undone, a sweep over the journal finds. A pod goes when every required sink is done
//! with its terminal event; one that somebody has deleted goes after `monitor.hold_ceiling` all the same, as `result_unproven`.

pub mod command;
mod metrics;
mod patch;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::SignedDuration;
use kube::Client;
use podherald_core::{
    evidence::Evidence,
    hold::{Hold, Wish, is_overdue, wish},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::api::{Activity, attentive};
use crate::{
    backoff::Backoff,
    clock::Clock,
    journal::{Journal, PodQuery},
    leadership::Leads,
};

use self::patch::Done;
pub use metrics::Metrics;
pub(super) use patch::Target;

/// Hints that may wait; further ones are left to the next sweep.
pub const QUEUE: usize = 1024;
/// Pods that are at work or waited with at a time; further ones are left to the next sweep.
const PENDING: usize = 10_000;
/// Patches at a time.
const CONCURRENCY: usize = 16;
/// Pods of a sweep that are read at a time.
const PAGE: usize = 500;

/// What the loop wishes of a pod.
#[derive(Debug, Clone)]
pub struct Hint {
    pub(super) execution_id: String,
    pub(super) target: Target,
    pub(super) wish: Wish,
}

impl Hint {
    /// What is wished of a pod of which this is known.
    pub(super) fn of(evidence: &Evidence, is_wanted: bool) -> Option<Self> {
        let Evidence { namespace, name, uid, execution_id, .. } = evidence;
        let target = Target { namespace: namespace.clone(), name: name.clone(), uid: uid.clone() };
        Some(Self { execution_id: execution_id.clone(), target, wish: wish(evidence, is_wanted)? })
    }
}

/// What the holder goes by.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `monitor.hold`.
    pub is_wanted: bool,
    /// `monitor.hold_ceiling`.
    pub ceiling: Duration,
    /// Between two sweeps.
    pub interval: Duration,
}

/// What the holder works with.
pub struct Means {
    /// The API server.
    pub client: Client,
    /// What is known of pods, and how far events are carried.
    pub journal: Arc<dyn Journal>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Whether it is the one that patches.
    pub leads: Leads,
    /// What the loop wishes.
    pub hints: mpsc::Receiver<Hint>,
    /// Tells the loop which pods were held for too long, by uid.
    pub overdue: mpsc::Sender<String>,
    /// What it counts.
    pub metrics: Metrics,
}

/// See the module.
pub struct Holder {
    options: Options,
    means: Means,
    /// By uid.
    pending: HashMap<String, Pending>,
    patches: JoinSet<(String, Result<Done, String>)>,
    /// Where the sweep that is under way goes on.
    sweep: Option<After>,
    /// There are or were held pods, whatever the setting.
    has_met: bool,
}

type After = Option<(String, String, String)>;

struct Pending {
    hint: Hint,
    due: Instant,
    backoff: Backoff,
    /// It is being patched.
    is_busy: bool,
}

impl Holder {
    /// One that has nothing to do yet.
    pub fn new(options: Options, means: Means) -> Self {
        let client = attentive(&means.client, Activity::begin());
        let means = Means { client, ..means };
        Self { options, means, pending: HashMap::new(), patches: JoinSet::new(), sweep: None, has_met: false }
    }

    /// Works while it leads, until `stop`. What is undone then is found by the next sweep.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.take_turns() => {}
        }
    }

    async fn take_turns(&mut self) {
        let mut leads = self.means.leads.clone();
        loop {
            leads.until(true).await;
            let mut ends = leads.clone();
            tokio::select! {
                () = ends.until(false) => {}
                () = self.work() => return,
            }
            self.pending.clear();
            self.patches = JoinSet::new();
        }
    }

    /// Returns when nobody wishes anything any more.
    async fn work(&mut self) {
        let mut sweeps = interval(self.options.interval);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hints = Vec::new();
        let mut is_first = true;
        loop {
            let next = self.next_due();
            tokio::select! {
                biased;
                Some(done) = self.patches.join_next() => {
                    // One that panicked takes the holder with it.
                    let (uid, done) = done.expect("a patch does not panic");
                    self.finish(&uid, done);
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => self.turn().await,
                count = self.means.hints.recv_many(&mut hints, QUEUE) => {
                    if count == 0 {
                        return;
                    }
                    hints.drain(..).for_each(|hint| self.take(hint));
                }
                _ = sweeps.tick() => {
                    if self.options.is_wanted || self.has_met || std::mem::take(&mut is_first) {
                        self.sweep = Some(None);
                    }
                }
                () = std::future::ready(()), if self.sweep.is_some() => self.sweep_on().await,
            }
            self.means.metrics.pending.set(i64::try_from(self.pending.len()).unwrap_or(i64::MAX));
        }
    }

    /// When the next pod is to be looked at, if there is room for a patch.
    fn next_due(&self) -> Option<Instant> {
        let idle = self.pending.values().filter(|pending| !pending.is_busy);
        idle.map(|pending| pending.due).min().filter(|_| self.patches.len() < CONCURRENCY)
    }

    fn take(&mut self, hint: Hint) {
        self.has_met |= !matches!(hint.wish, Wish::Hold);
        let uid = hint.target.uid.clone();
        if let Some(pending) = self.pending.get_mut(&uid) {
            // A later wish outranks the earlier; one that is at work is looked at again after.
            pending.hint = hint;
            return;
        }
        if self.pending.len() >= PENDING {
            self.means.metrics.dropped.inc();
            return;
        }
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
        self.pending.insert(uid, Pending { hint, due: Instant::now(), backoff, is_busy: false });
    }

    /// Patches what is due, as far as the sinks are done with it.
    async fn turn(&mut self) {
        let now = Instant::now();
        let room = CONCURRENCY - self.patches.len();
        let due = self.pending.iter().filter(|(_, pending)| !pending.is_busy && pending.due <= now);
        let due: Vec<Hint> = due.take(room).map(|(_, pending)| pending.hint.clone()).collect();
        let events = due.iter().filter_map(|hint| match hint.wish {
            Wish::Release(event) => Some((hint.execution_id.clone(), event)),
            Wish::Hold | Wish::Abandon => None,
        });
        let carried = self.means.journal.carried(events.collect()).await;
        let mut carried = carried.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot tell whether held pods may go, trying again");
            Vec::new()
        });
        carried.reverse();
        for hint in due {
            let may = !matches!(hint.wish, Wish::Release(_)) || carried.pop().unwrap_or(false);
            let Some(pending) = self.pending.get_mut(&hint.target.uid) else { continue };
            if !may {
                pending.due = now + pending.backoff.pause();
                continue;
            }
            pending.is_busy = true;
            let (client, leads, metrics) =
                (self.means.client.clone(), self.means.leads.clone(), self.means.metrics.clone());
            self.patches.spawn(async move {
                let done = patch::fulfil(&client, &leads, &hint.target, hint.wish, &metrics).await;
                (hint.target.uid, done)
            });
        }
    }

    fn finish(&mut self, uid: &str, done: Result<Done, String>) {
        let metrics = &self.means.metrics;
        let Some(pending) = self.pending.get_mut(uid) else { return };
        let Target { namespace, name, .. } = &pending.hint.target;
        match done {
            Ok(done) => {
                metrics.count(done);
                tracing::debug!(namespace, name, ?done, "held pod");
                self.pending.remove(uid);
            }
            Err(error) => {
                metrics.failures.inc();
                let pause = pending.backoff.pause();
                tracing::warn!(namespace, name, error, pause_ms = pause.as_millis(), "{}", patch::TROUBLE);
                pending.is_busy = false;
                pending.due = Instant::now() + pause;
            }
        }
    }

    /// The next page of the pods that are there.
    async fn sweep_on(&mut self) {
        let Some(after) = self.sweep.take() else { return };
        let query = PodQuery { namespace: None, execution_id: None, after, limit: PAGE };
        let page = match self.means.journal.pods(query).await {
            Ok(page) => page,
            Err(error) => return tracing::error!(%error, "held pods cannot be swept now"),
        };
        let (ceiling, now) = (SignedDuration::try_from(self.options.ceiling), self.means.clock.now());
        let ceiling = ceiling.unwrap_or(SignedDuration::MAX);
        for evidence in &page {
            self.has_met |= evidence.hold == Hold::Held;
            if is_overdue(evidence, ceiling, now) && self.means.overdue.try_send(evidence.uid.clone()).is_err() {
                self.means.metrics.dropped.inc();
            }
            if let Some(hint) = Hint::of(evidence, self.options.is_wanted) {
                self.take(hint);
            }
        }
        if page.len() == PAGE {
            self.sweep = page.last().map(|last| Some((last.namespace.clone(), last.name.clone(), last.uid.clone())));
        }
    }
}
