//! What running programs print, for those who watch them.
//!
//! Readers say which execution they watch ([`LiveOutputs::watch`]); the monitor follows the logs of those that somebody
//! watches and puts what comes into a file of bounded size, from which every reader takes at its own pace. Nobody waits for
//! anybody: a reader that is slow finds a hole that is named, not one that is silent.
//!
//! Whatever is followed is a run of its own, with a number that only grows: an offset in one run says nothing about another.
//! A log that is followed again goes on under its number only where its beginning is known to be the same: it may have been
//! begun anew meanwhile (T66). What an earlier process followed is another run.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::watch;

use crate::output_store::{Growing, OutputStore, Piece, Result};

/// Runs of which it is remembered whose logs they are; of older ones it is not known any more.
const REMEMBERED: usize = 4096;

/// Whose logs are followed while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nobody's.
    Never,
    /// Of those that somebody watches.
    Watched,
    /// Everybody's.
    All,
}

/// What bounds the following of logs.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// `logs.follow`.
    pub policy: Policy,
    /// Logs followed at once: each costs the API server and the kubelet a connection (T77).
    pub max_follows: usize,
    /// Bytes kept of each.
    pub max_bytes: u64,
    /// The number of the first run: greater than any that an earlier process gave.
    pub first_run: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { policy: Policy::Watched, max_follows: 64, max_bytes: 16 << 20, first_run: 0 }
    }
}

/// What following counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    follows: Gauge,
    refused: Counter,
    bytes: Counter,
    missing: Counter,
}

impl Metrics {
    /// Registers everything under `podherald_live_`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("podherald_live");
        registry.register("follows", "Logs that are followed", self.follows.clone());
        registry.register("follows_refused", "Logs not followed, beyond logs.max_follows", self.refused.clone());
        registry.register("bytes", "Bytes of followed logs", self.bytes.clone());
        registry.register("missing_bytes", "Bytes that a reader came too late for", self.missing.clone());
    }
}

/// All live outputs; a clone is the same ones.
#[derive(Clone)]
pub struct LiveOutputs(Arc<Inner>);

struct Inner {
    options: Options,
    store: OutputStore,
    metrics: Metrics,
    entries: Mutex<HashMap<Arc<str>, Entry>>,
    runs: Mutex<Runs>,
    /// Rung when somebody begins to watch.
    bell: watch::Sender<()>,
}

struct Entry {
    readers: usize,
    /// Told of whatever is new.
    shown: watch::Sender<Shown>,
    /// There is a tap that fills it, and there is never a second one.
    is_tapped: bool,
}

/// The numbers of all runs, and whose logs the last ones are.
struct Runs {
    next: u32,
    logs: BTreeMap<u32, Log>,
}

/// The log of one start of a pod's container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `metadata.uid` of the pod.
    pub uid: Arc<str>,
    /// `restartCount` of the container; none if nobody knows.
    pub restarts: Option<u32>,
}

impl Runs {
    fn begin(&mut self, log: Log) -> u32 {
        let run = self.next;
        self.next = run.saturating_add(1);
        self.logs.insert(run, log);
        if self.logs.len() > REMEMBERED {
            self.logs.pop_first();
        }
        run
    }

    /// The last run of this pod, and whose log it is.
    fn last_of(&self, uid: &str) -> Option<(u32, &Log)> {
        self.logs.iter().rev().find(|(_, log)| &*log.uid == uid).map(|(run, log)| (*run, log))
    }
}

/// What a reader can see of an execution's output right now.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The log that is followed, or was until its end.
    pub feed: Option<Feed>,
    /// Nothing more will come into it.
    pub is_over: bool,
    /// It is not followed, since too many others are.
    pub is_refused: bool,
}

/// One run's log as far as it has come.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Of the execution.
    pub attempt: u32,
    /// Greater than that of any log before.
    pub run: u32,
    growing: Growing,
}

impl Feed {
    /// At most `limit` bytes from `offset` on.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn read(&self, offset: u64, limit: usize) -> Result<Piece> {
        self.growing.read(offset, limit).await
    }
}

impl LiveOutputs {
    /// Nobody watches yet.
    pub fn new(options: Options, store: OutputStore, metrics: Metrics) -> Self {
        let runs = Mutex::new(Runs { next: options.first_run, logs: BTreeMap::new() });
        let bell = watch::Sender::new(());
        Self(Arc::new(Inner { options, store, metrics, entries: Mutex::default(), runs, bell }))
    }

    /// Watches an execution, known or not, until dropped.
    pub fn watch(&self, execution_id: &str) -> Watching {
        let execution_id: Arc<str> = execution_id.into();
        let mut entries = self.entries();
        let entry = entries.entry(execution_id.clone()).or_insert_with(Entry::new);
        entry.readers += 1;
        let shown = entry.shown.subscribe();
        drop(entries);
        self.0.bell.send_replace(());
        Watching { outputs: self.clone(), execution_id, shown }
    }

    /// Rings when somebody begins to watch.
    pub fn bell(&self) -> watch::Receiver<()> {
        self.0.bell.subscribe()
    }

    /// Executions that somebody watches and nobody follows.
    pub fn wanted(&self) -> Vec<Arc<str>> {
        if self.0.options.policy == Policy::Never {
            return Vec::new();
        }
        let is_wanted = |entry: &Entry| entry.readers > 0 && !entry.is_tapped;
        self.entries().iter().filter(|(_, entry)| is_wanted(entry)).map(|(id, _)| id.clone()).collect()
    }

    /// True if a log of this execution should be followed, and none is.
    pub fn wants(&self, execution_id: &str) -> bool {
        let is_tapped = self.entries().get(execution_id).is_some_and(|entry| entry.is_tapped);
        self.is_of_use(execution_id) && !is_tapped
    }

    fn is_of_use(&self, execution_id: &str) -> bool {
        match self.0.options.policy {
            Policy::Never => false,
            Policy::All => true,
            Policy::Watched => self.entries().get(execution_id).is_some_and(|entry| entry.readers > 0),
        }
    }

    /// True if this run is as far as anybody knows the last of that log. False for a run of an earlier process.
    pub fn is_of(&self, run: u32, log: &Log) -> bool {
        self.runs().last_of(&log.uid).is_some_and(|known| log.restarts.is_some() && known == (run, log))
    }

    /// The place to put an attempt's log into, which shows nothing before [`Tap::begin`] or [`Tap::go_on`]. None if another log
    /// of the execution is followed; or if too many are, which is told to who watches.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn tap(&self, execution_id: &str, attempt: u32, uid: &str) -> Result<Option<Tap>> {
        let execution_id: Arc<str> = execution_id.into();
        {
            let mut entries = self.entries();
            let follows = entries.values().filter(|entry| entry.is_tapped).count();
            let entry = entries.entry(execution_id.clone()).or_insert_with(Entry::new);
            if entry.is_tapped {
                return Ok(None);
            }
            if follows >= self.0.options.max_follows {
                // It is tried again whenever a place comes free.
                if entry.shown.send_if_modified(|shown| !std::mem::replace(&mut shown.is_refused, true)) {
                    self.0.metrics.refused.inc();
                    tracing::info!(%execution_id, "not followed: logs.max_follows are already");
                }
                let is_idle = entry.is_idle();
                if is_idle {
                    entries.remove(&execution_id);
                }
                return Ok(None);
            }
            entry.is_tapped = true;
        }
        self.0.metrics.follows.inc();
        let mut tap = Tap { outputs: self.clone(), execution_id, attempt, uid: uid.into(), growing: None };
        tap.growing = Some(self.0.store.growing(self.0.options.max_bytes).await?);
        Ok(Some(tap))
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new() -> Self {
        Self { readers: 0, shown: watch::Sender::default(), is_tapped: false }
    }

    fn is_idle(&self) -> bool {
        self.readers == 0 && !self.is_tapped
    }
}

/// Somebody watches, until this is dropped.
pub struct Watching {
    outputs: LiveOutputs,
    execution_id: Arc<str>,
    shown: watch::Receiver<Shown>,
}

impl Watching {
    /// What there is; [`Watching::changed`] waits for more than this.
    pub fn look(&mut self) -> Shown {
        self.shown.borrow_and_update().clone()
    }

    /// Waits until there is something that was not looked at.
    pub async fn changed(&mut self) {
        if self.shown.changed().await.is_err() {
            // The entry stays as long as somebody watches.
            std::future::pending::<()>().await;
        }
    }

    /// Counts what this reader came too late for.
    pub fn missed(&self, bytes: u64) {
        self.outputs.0.metrics.missing.inc_by(bytes);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut entries = self.outputs.entries();
        let Some(entry) = entries.get_mut(&self.execution_id) else { return };
        entry.readers -= 1;
        if entry.is_idle() {
            entries.remove(&self.execution_id);
        }
    }
}

/// Where the follower of one log puts what comes. What was put in can be read until nobody watches any more.
pub struct Tap {
    outputs: LiveOutputs,
    execution_id: Arc<str>,
    attempt: u32,
    uid: Arc<str>,
    growing: Option<Growing>,
}

impl Tap {
    /// What was put in so far is shown as a log that nobody has seen, of the pod's container after so many restarts.
    pub fn begin(&self, restarts: Option<u32>) {
        let run = self.outputs.runs().begin(Log { uid: self.uid.clone(), restarts });
        self.show_as(run);
    }

    /// The same as the log that was followed last of this pod, from its first byte.
    pub fn go_on(&self, restarts: u32) {
        let log = Log { uid: self.uid.clone(), restarts: Some(restarts) };
        let last = self.outputs.runs().last_of(&self.uid).filter(|(_, known)| **known == log).map(|(run, _)| run);
        match last {
            Some(run) => self.show_as(run),
            None => self.begin(Some(restarts)),
        }
    }

    /// From here on it is another log: of the container's next start, or begun anew under our eyes (T66).
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn begin_anew(&mut self, restarts: Option<u32>) -> Result<()> {
        self.growing = Some(self.outputs.0.store.growing(self.outputs.0.options.max_bytes).await?);
        self.begin(restarts);
        Ok(())
    }

    fn show_as(&self, run: u32) {
        let feed = self.growing.clone().map(|growing| Feed { attempt: self.attempt, run, growing });
        self.show(|shown| *shown = Shown { feed, is_over: false, is_refused: false });
    }

    /// Adds to the log.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn append(&self, bytes: Bytes) -> Result<()> {
        self.outputs.0.metrics.bytes.inc_by(bytes.len() as u64);
        if let Some(growing) = &self.growing {
            growing.append(bytes).await?;
        }
        self.show(|_| ());
        Ok(())
    }

    /// True if it is still of use to somebody.
    pub fn is_wanted(&self) -> bool {
        self.outputs.is_of_use(&self.execution_id)
    }

    fn show(&self, change: impl FnOnce(&mut Shown)) {
        if let Some(entry) = self.outputs.entries().get(&self.execution_id) {
            entry.shown.send_modify(change);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.outputs.0.metrics.follows.dec();
        self.show(|shown| shown.is_over = true);
        let mut entries = self.outputs.entries();
        let Some(entry) = entries.get_mut(&self.execution_id) else { return };
        entry.is_tapped = false;
        if entry.is_idle() {
            entries.remove(&self.execution_id);
        }
    }
}
