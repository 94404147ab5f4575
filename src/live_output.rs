//! What running programs print, for those who watch them.
//!
//! Readers say which execution they watch ([`LiveOutputs::watch`]); the monitor follows the logs of those that somebody
//! watches and puts what comes into a file of bounded size, from which every reader takes at its own pace. Nobody waits for
//! anybody: a reader that is slow finds a hole that is named, not one that is silent.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::watch;

use crate::output_store::{Growing, OutputStore, Piece, Result};

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
}

impl Default for Options {
    fn default() -> Self {
        Self { policy: Policy::Watched, max_follows: 64, max_bytes: 16 << 20 }
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
    /// Rung when somebody begins to watch.
    bell: watch::Sender<()>,
}

struct Entry {
    readers: usize,
    /// Told of whatever is new.
    shown: watch::Sender<Shown>,
    /// Number of the tap that fills it.
    tap: Option<u64>,
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
    /// Counted by the container's restarts, and by each time that its log was begun anew.
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
        Self(Arc::new(Inner { options, store, metrics, entries: Mutex::default(), bell: watch::Sender::new(()) }))
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
        let is_wanted = |entry: &Entry| entry.readers > 0 && entry.tap.is_none();
        self.entries().iter().filter(|(_, entry)| is_wanted(entry)).map(|(id, _)| id.clone()).collect()
    }

    /// True if this execution's log should be followed.
    pub fn wants(&self, execution_id: &str) -> bool {
        match self.0.options.policy {
            Policy::Never => false,
            Policy::All => true,
            Policy::Watched => self.entries().get(execution_id).is_some_and(|entry| entry.readers > 0),
        }
    }

    /// The place to put an attempt's log into; none if too many are followed, which is told to who watches.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn tap(&self, execution_id: &str, attempt: u32, run: u32) -> Result<Option<Tap>> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let execution_id: Arc<str> = execution_id.into();
        {
            let mut entries = self.entries();
            let follows = entries.values().filter(|entry| entry.tap.is_some()).count();
            let entry = entries.entry(execution_id.clone()).or_insert_with(Entry::new);
            if follows >= self.0.options.max_follows {
                self.0.metrics.refused.inc();
                entry.shown.send_modify(|shown| shown.is_refused = true);
                let is_idle = entry.is_idle();
                if is_idle {
                    entries.remove(&execution_id);
                }
                return Ok(None);
            }
            entry.tap = Some(number);
        }
        self.0.metrics.follows.inc();
        let mut tap = Tap { outputs: self.clone(), execution_id, number, attempt, run, growing: None };
        tap.begin(run).await?;
        Ok(Some(tap))
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new() -> Self {
        Self { readers: 0, shown: watch::Sender::default(), tap: None }
    }

    fn is_idle(&self) -> bool {
        self.readers == 0 && self.tap.is_none()
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
            std::future::pending().await
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
    number: u64,
    attempt: u32,
    run: u32,
    growing: Option<Growing>,
}

impl Tap {
    /// From here on it is another log: of the container's next run, or begun anew under our eyes (T66).
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn begin(&mut self, run: u32) -> Result<()> {
        let growing = self.outputs.0.store.growing(self.outputs.0.options.max_bytes).await?;
        self.run = run;
        self.growing = Some(growing.clone());
        let feed = Feed { attempt: self.attempt, run, growing };
        self.show(|shown| *shown = Shown { feed: Some(feed), is_over: false, is_refused: false });
        Ok(())
    }

    /// Which run's log this is.
    pub fn run(&self) -> u32 {
        self.run
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
        self.outputs.wants(&self.execution_id)
    }

    fn show(&self, change: impl FnOnce(&mut Shown)) {
        if let Some(entry) =
            self.outputs.entries().get(&self.execution_id).filter(|entry| entry.tap == Some(self.number))
        {
            entry.shown.send_modify(change);
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.outputs.0.metrics.follows.dec();
        self.show(|shown| shown.is_over = true);
        let mut entries = self.outputs.entries();
        let Some(entry) = entries.get_mut(&self.execution_id).filter(|entry| entry.tap == Some(self.number)) else {
            return;
        };
        entry.tap = None;
        if entry.is_idle() {
            entries.remove(&self.execution_id);
        }
    }
}
