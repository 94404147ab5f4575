//! The objects, their versions and their history: what etcd and the API server's storage are.
//!
//! Whoever plays a part of the control plane or a node works on it directly, with plain JSON; everybody else through
//! [`crate::api`]. One lock holds everything; nothing is awaited under it. Versions rise by one with each change of any
//! object. Of each kind a bounded history is kept, from which watches and pages of a list are answered.

mod delete;
mod follow;
mod history;
mod json;
mod kind;
mod names;
mod refusal;
mod state;
mod update;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::stream::BoxStream;
use jiff::Timestamp;
use serde_json::Value;

use crate::logs::Logs;

pub use kind::Kind;
pub use refusal::Refusal;

pub(crate) use delete::Deletion;
pub(crate) use history::Event;
pub(crate) use json::{items, text};
pub(crate) use kind::Resource;
pub(crate) use names::{is_label_key, is_label_value};
pub(crate) use refusal::Cause;
pub(crate) use state::{Kept, Key, State};
pub(crate) use update::Part;

/// Where a cluster's time and names come from: the machine, or a test.
#[derive(Clone)]
pub struct Options {
    /// The time of day.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Makes `metadata.uid`s; random unless it is given a seed. Seeded, versions count from 1; else from the microseconds since
    /// 1970, so that whoever knew an earlier cluster in this place does not take the present one for one that is behind.
    pub seed: Option<u64>,
}

/// How much a cluster holds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Objects of one kind; one more is forbidden as by a quota. Of events the oldest makes room.
    pub objects: usize,
    /// All objects together, in bytes of JSON.
    pub bytes: usize,
    /// One object, in bytes of JSON.
    pub object_bytes: usize,
    /// Changes of one kind that watches can still be told of.
    pub history: usize,
    /// The same in bytes of JSON.
    pub history_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { objects: 20_000, bytes: 256 << 20, object_bytes: 3 << 19, history: 10_000, history_bytes: 64 << 20 }
    }
}

/// A cluster. Clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

struct Inner {
    state: Mutex<State>,
    options: Options,
    logs: RwLock<Option<Arc<dyn Logs>>>,
    counters: Tally,
}

#[derive(Default)]
struct Tally {
    cut_watches: AtomicU64,
}

/// What a cluster has dropped so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Changes that no watch can be told of any more.
    pub forgotten_changes: u64,
    /// Events that made room for later ones.
    pub dropped_events: u64,
    /// Watches that were ended because they read too slowly.
    pub cut_watches: u64,
}

/// What happened to an object.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is there, new or from before.
    Added(Arc<Value>),
    /// It is another now.
    Modified(Arc<Value>),
    /// It is gone; this is its last state.
    Deleted(Arc<Value>),
}

/// What a node or a controller in this process asks of a cluster.
impl Cluster {
    /// An empty cluster, but for the namespace `default`.
    pub fn new(options: Options) -> Self {
        Self::bounded(options, Limits::default())
    }

    /// The same with limits of its own.
    pub fn bounded(options: Options, limits: Limits) -> Self {
        let state = State::new(&options, limits);
        let inner = Inner { state: Mutex::new(state), options, logs: RwLock::default(), counters: Tally::default() };
        Self { inner: Arc::new(inner) }
    }

    /// From now on the log endpoint asks here.
    pub fn set_logs(&self, logs: Arc<dyn Logs>) {
        *self.inner.logs.write().unwrap_or_else(PoisonError::into_inner) = Some(logs);
    }

    /// One object.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().get(kind, &key(namespace, name)).cloned()
    }

    /// All objects of a kind, by namespace and name; `namespace` may be empty for those of all.
    pub fn list(&self, kind: Kind, namespace: &str) -> Vec<Arc<Value>> {
        let state = self.lock();
        state.all(kind).filter(|(key, _)| namespace.is_empty() || key.0 == namespace).map(|(_, o)| o.clone()).collect()
    }

    /// Makes one, with all that the API server fills in.
    ///
    /// # Errors
    /// `BadRequest`, `AlreadyExists`, `Invalid`, and 404 for a namespace that is not there.
    pub fn create(&self, kind: Kind, namespace: &str, mut object: Value) -> Result<Arc<Value>, Refusal> {
        kind.resource().decode(&mut object)?;
        self.create_decoded(kind, namespace, object)
    }

    /// Changes one under the cluster's lock, status and all; nothing happens to its version if it stays the same.
    ///
    /// # Errors
    /// `NotFound`; with `uid`, `Conflict` if it is another's by now.
    pub fn update(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Value>, Refusal> {
        let now = self.now();
        self.lock().change(kind, &key(namespace, name), Part::All, now, |old| {
            if let Some(uid) = uid {
                refusal::expect_uid(kind, name, uid, old)?;
            }
            let mut new = old.clone();
            change(&mut new);
            Ok(new)
        })
    }

    /// Takes a pod away as a kubelet does when its containers have ended (grace 0): finalizers still hold it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is another's by now.
    pub fn remove(&self, kind: Kind, namespace: &str, name: &str, uid: &str) -> Result<(), Refusal> {
        let deletion = Deletion { grace: Some(0), uid: Some(uid.to_owned()), ..Deletion::default() };
        self.delete(kind, namespace, name, &deletion).map(|_| ())
    }

    /// All objects of a kind that are there, then everything that happens to them; never ends.
    pub fn follow(&self, kind: Kind) -> BoxStream<'static, Change> {
        follow::follow(self.clone(), kind)
    }

    /// Forgets the history: whoever watches from a version before this one is told that it is too old.
    pub fn compact(&self) {
        self.lock().compact();
    }

    /// What has been dropped so far.
    pub fn counters(&self) -> Counters {
        let state = self.lock();
        Counters {
            forgotten_changes: state.forgotten_changes,
            dropped_events: state.dropped_events,
            cut_watches: self.inner.counters.cut_watches.load(Ordering::Relaxed),
        }
    }
}

/// What the API asks besides.
impl Cluster {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A change is made on a copy and put in place as a whole: whoever panicked left nothing half done.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of day here.
    pub fn now(&self) -> Timestamp {
        (self.inner.options.clock)()
    }

    pub(crate) fn logs(&self) -> Option<Arc<dyn Logs>> {
        self.inner.logs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn count_cut_watch(&self) {
        self.inner.counters.cut_watches.fetch_add(1, Ordering::Relaxed);
    }

    /// The same with what has been through [`Resource::decode`].
    pub(crate) fn create_decoded(&self, kind: Kind, namespace: &str, object: Value) -> Result<Arc<Value>, Refusal> {
        let now = self.now();
        self.lock().create(kind, namespace, object, now)
    }

    /// Changes what a client may change of this part.
    pub(crate) fn change(
        &self,
        kind: Kind,
        key: &Key,
        part: Part,
        change: impl FnOnce(&Value) -> Result<Value, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let now = self.now();
        self.lock().change(kind, key, part, now, change)
    }

    pub(crate) fn delete(&self, kind: Kind, namespace: &str, name: &str, deletion: &Deletion) -> Result<Kept, Refusal> {
        let now = self.now();
        self.lock().delete(kind, &key(namespace, name), deletion, now)
    }
}

pub(crate) fn key(namespace: &str, name: &str) -> Key {
    (namespace.to_owned(), name.to_owned())
}
