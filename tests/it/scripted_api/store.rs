//! The scripted cluster's pods and Jobs, everything that happened to them, and what is planned to go wrong.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    failure::Failure,
    request::{Asked, Kind},
    selector::{Filter, Sort},
};

/// Sort, namespace and name.
pub(super) type Key = (Sort, String, String);

/// Frames that a watch has not taken yet are found here by position; nothing is ever removed.
pub(super) enum Entry {
    Change(Change),
    /// To the watches of pods that are open now, word for word.
    Raw(Bytes),
    /// To the watches of pods that are open now and want them.
    Bookmark(u64),
    /// For the watches that are open now.
    End(End),
}

/// How a watch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The body ends as it should.
    Eof,
    /// The connection breaks.
    Reset,
}

/// One version of one pod.
pub(super) struct Change {
    /// Rising, even where the pod shows a version of its own.
    pub(super) version: u64,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
    /// The type and object of a frame that a test wants word for word.
    pub(super) verbatim: Option<(&'static str, Arc<Value>)>,
}

impl Change {
    /// What a watch with this filter sees of it: type and object.
    pub(super) fn seen_by(&self, filter: &Filter) -> Option<(&'static str, Arc<Value>)> {
        let was = self.before.as_ref().filter(|pod| filter.admits(pod));
        let is = self.after.as_ref().filter(|pod| filter.admits(pod));
        if let Some((kind, object)) = &self.verbatim {
            return (was.is_some() || filter.admits(object)).then(|| (*kind, object.clone()));
        }
        match (was, is) {
            (None, Some(pod)) => Some(("ADDED", pod.clone())),
            (Some(_), Some(pod)) => Some(("MODIFIED", pod.clone())),
            // The last state that the watch could see, under the version of the change.
            (Some(pod), None) => {
                let mut gone = Value::clone(pod);
                gone["metadata"]["resourceVersion"] = self.version.to_string().into();
                Some(("DELETED", Arc::new(gone)))
            }
            (None, None) => None,
        }
    }
}

/// One answer of the log endpoint.
#[derive(Debug, Clone)]
pub(crate) enum LogAttempt {
    /// 200 and these parts, then the end.
    Text(Vec<Bytes>, LogEnd),
    /// No 200.
    Fails(Failure),
}

/// How a log's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogEnd {
    /// As it should.
    Complete,
    /// The connection breaks.
    BreaksOff,
    /// It never does.
    Hangs,
}

/// Attempts in their order; the last one repeats.
#[derive(Default)]
pub(super) struct LogScript {
    pub(super) attempts: Vec<LogAttempt>,
    pub(super) next: usize,
}

/// A watch that somebody holds open.
pub(super) struct Open {
    pub(super) sort: Sort,
    /// First entry that the watch has not taken.
    pub(super) cursor: usize,
    /// It stays open and says nothing any more.
    pub(super) dead: bool,
    /// It is of the server that is behind.
    pub(super) is_stale: bool,
}

/// A second API server at the same address, which is behind.
pub(super) struct Stale {
    pub(super) pods: BTreeMap<Key, Arc<Value>>,
    pub(super) version: u64,
    /// What of the log it has.
    pub(super) log: usize,
    /// Whether it answers this request.
    pub(super) answers: Box<dyn FnMut(Kind) -> bool + Send>,
}

/// How a watch from a version that is no longer known is told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GoneAs {
    /// 200 and an `ERROR` frame, as the API server's watch cache does.
    Frame,
    /// The status 410.
    Status,
}

pub(super) struct State {
    pub(super) version: u64,
    /// The oldest version that a watch may start from.
    pub(super) oldest: u64,
    pub(super) pods: BTreeMap<Key, Arc<Value>>,
    pub(super) log: Vec<Entry>,
    pub(super) open: HashMap<u64, Open>,
    pub(super) watches_ever: u64,
    pub(super) gone_as: GoneAs,
    /// What paged lists go on from, by version.
    pub(super) snapshots: BTreeMap<u64, Vec<Arc<Value>>>,
    pub(super) page_limit: Option<usize>,
    /// What becomes of the next requests; none: nothing special.
    pub(super) failures: HashMap<Kind, VecDeque<Option<Failure>>>,
    pub(super) refusals: HashMap<Kind, Failure>,
    pub(super) forbidden: bool,
    pub(super) stale: Option<Stale>,
    /// By pod, container and whether it is the previous run.
    pub(super) logs: HashMap<(Key, String, bool), LogScript>,
    pub(super) asked: Vec<Asked>,
    pub(super) unexpected: Vec<String>,
}

impl State {
    pub(super) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Gives the pod a version if it has none, and the parts that every pod has on the wire.
    pub(super) fn stamp(&mut self, mut pod: Value) -> (u64, Arc<Value>) {
        let own = version_of(&pod);
        let version = match own {
            Some(own) if own > self.version => own,
            _ => self.version + 1,
        };
        self.version = version;
        if own.is_none() {
            pod["metadata"]["resourceVersion"] = version.to_string().into();
        }
        let sort = Sort::of(&pod);
        pod["apiVersion"] = sort.api_version().into();
        pod["kind"] = sort.kind().into();
        (version, Arc::new(pod))
    }

    /// Takes away what is there, and tells the watches.
    pub(super) fn remove(&mut self, key: Key) {
        let before = self.pods.remove(&key);
        assert!(before.is_some(), "the script deletes {key:?}, which is not there");
        let version = self.next_version();
        self.log.push(Entry::Change(Change { version, before, after: None, verbatim: None }));
    }

    /// All pods that the filter admits, in the order of their keys.
    pub(super) fn select(&self, filter: &Filter) -> Vec<Arc<Value>> {
        self.pods.values().filter(|pod| filter.admits(pod)).cloned().collect()
    }

    /// What `of` finds in the state that the server which is behind has.
    pub(super) fn as_it_was<T>(&mut self, of: impl FnOnce(&mut Self) -> T) -> T {
        let swap = |state: &mut Self| {
            let State { stale, pods, version, .. } = state;
            if let Some(stale) = stale {
                std::mem::swap(&mut stale.pods, pods);
                std::mem::swap(&mut stale.version, version);
            }
        };
        swap(self);
        let found = of(self);
        swap(self);
        found
    }

    /// The failure planned for the next request of this kind.
    pub(super) fn planned_failure(&mut self, kind: Kind) -> Option<Failure> {
        match self.failures.get_mut(&kind).and_then(VecDeque::pop_front) {
            Some(planned) => planned,
            None => self.refusals.get(&kind).cloned(),
        }
    }

    pub(super) fn open_watches(&self) -> usize {
        self.open.values().filter(|open| !open.dead && open.sort == Sort::Pod).count()
    }

    /// True if every open watch has taken everything.
    pub(super) fn is_delivered(&self) -> bool {
        self.open.values().all(|open| {
            let there_is = self.stale.as_ref().filter(|_| open.is_stale).map_or(self.log.len(), |stale| stale.log);
            open.dead || open.cursor >= there_is
        })
    }
}

/// The version that a pod shows.
fn version_of(pod: &Value) -> Option<u64> {
    pod.pointer("/metadata/resourceVersion")?.as_str()?.parse().ok()
}

pub(super) fn key_of(pod: &Value) -> Key {
    let text = |pointer| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (Sort::of(pod), text("/metadata/namespace"), text("/metadata/name"))
}

/// One line of a watch.
pub(super) fn frame(kind: &str, object: &Value) -> Bytes {
    let mut line = serde_json::to_vec(&json!({"type": kind, "object": object})).unwrap();
    line.push(b'\n');
    line.into()
}

/// The state, and a bell that rings after each change of it.
pub(super) struct Shared {
    state: Mutex<State>,
    bell: watch::Sender<()>,
}

impl Shared {
    pub(super) fn new() -> Self {
        let state = State {
            version: 1,
            oldest: 1,
            pods: BTreeMap::new(),
            log: Vec::new(),
            open: HashMap::new(),
            watches_ever: 0,
            gone_as: GoneAs::Frame,
            snapshots: BTreeMap::new(),
            page_limit: None,
            failures: HashMap::new(),
            refusals: HashMap::new(),
            forbidden: false,
            stale: None,
            logs: HashMap::new(),
            asked: Vec::new(),
            unexpected: Vec::new(),
        };
        Self { state: Mutex::new(state), bell: watch::Sender::new(()) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes whoever waits for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.bell.send_replace(());
        result
    }

    pub(super) fn bell(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }
}
