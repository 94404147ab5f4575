//! The pods and Jobs under way, in memory: their evidence, who sees them, and when to look again.
//!
//! Only the monitor's loop touches it. What it holds is in the journal too; it moves on only after the append.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use podherald_core::evidence::Evidence;
use tokio::time::Instant;

/// Versions grow, but in a cluster that was restored (T8). When for so long nothing has come that is as new as what is known,
/// it was.
const RESTORED_AFTER: Duration = Duration::from_secs(300);

/// One pod or Job under way.
#[derive(Debug)]
pub struct Tracked {
    /// What is known of it.
    pub evidence: Arc<Evidence>,
    /// Bit set of the watches that list it. None since the start: only the journal knows it so far.
    pub watches: u64,
    /// When it was last seen by a watch or list.
    pub seen_at: Instant,
    /// It left its watches while it was still there: only GETs tell of it now (T15).
    pub strayed: bool,
    /// A watch said `DELETED`, and no GET has shown the pod since.
    pub left: bool,
    /// Since when everything that was told of it is older than what is known.
    pub outdated_since: Option<Instant>,
    /// A GET about it is under way.
    pub resolving: bool,
    /// When time alone may decide something.
    pub tick: Option<Instant>,
    /// When to ask the API server again.
    pub recheck: Option<Instant>,
    /// How often asking has failed in a row.
    pub failures: u32,
    /// The journal has no record of it yet.
    pub unsaved: bool,
    wake: Option<Instant>,
}

impl Tracked {
    /// True if what was told in this version is older than what is known: an API server among several may be behind.
    pub fn is_outdated(&mut self, version: Option<u64>, now: Instant) -> bool {
        if !self.evidence.is_newer_than(version) {
            self.outdated_since = None;
            return false;
        }
        let since = *self.outdated_since.get_or_insert(now);
        if now < since + RESTORED_AFTER {
            return true;
        }
        self.outdated_since = None;
        Arc::make_mut(&mut self.evidence).version = version;
        false
    }

    /// A watch or its list shows it.
    pub fn show(&mut self, watch: usize, now: Instant) {
        self.watches |= 1 << watch;
        self.seen_at = now;
        self.strayed = false;
        self.left = false;
        self.recheck = None;
    }
}

type Uid = Arc<str>;

/// All pods and Jobs under way, by uid.
///
/// There may be a hundred thousand. So whatever else they are found by holds no second copy of it, only its hash; whether it
/// is so, the record says.
#[derive(Debug, Default)]
pub struct Index {
    pods: HashMap<Uid, Tracked>,
    hasher: RandomState,
    /// Of namespace, kind and name: the one that came last.
    names: HashMap<u64, Uid>,
    /// Of the execution: all that are its.
    executions: BTreeSet<(u64, Uid)>,
    wakes: BTreeSet<(Instant, Uid)>,
}

impl Index {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.pods.len()
    }

    /// What is known of this uid.
    pub fn evidence(&self, uid: &str) -> Option<&Arc<Evidence>> {
        self.pods.get(uid).map(|tracked| &tracked.evidence)
    }

    /// The Job with this uid.
    pub fn job(&self, uid: &str) -> Option<&Arc<Evidence>> {
        self.evidence(uid).filter(|evidence| evidence.subject.job().is_some())
    }

    /// The pods of a Job, as far as they are under way.
    pub fn pods_of_job(&self, execution_id: &str, job: &str) -> Vec<Arc<Evidence>> {
        let pods = self.records_of(execution_id);
        pods.filter(|pod| pod.subject.of_job().is_some_and(|part| part.job == job)).cloned().collect()
    }

    /// In the order of their uids.
    fn records_of(&self, execution_id: &str) -> impl Iterator<Item = &Arc<Evidence>> {
        let hash = self.hasher.hash_one(execution_id);
        let uids = self.executions.range((hash, Uid::default())..).take_while(move |(of, _)| *of == hash);
        uids.filter_map(|(_, uid)| self.evidence(uid)).filter(move |record| record.execution_id == execution_id)
    }

    /// The pod with this uid.
    pub fn get_mut(&mut self, uid: &str) -> Option<&mut Tracked> {
        self.pods.get_mut(uid)
    }

    /// True if the pod is known.
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The uid of the pod that was tracked under this name last.
    pub fn pod_named(&self, namespace: &str, name: &str) -> Option<String> {
        self.named(namespace, name, false)
    }

    /// The uid of the Job that was tracked under this name last.
    pub fn job_named(&self, namespace: &str, name: &str) -> Option<String> {
        self.named(namespace, name, true)
    }

    fn named(&self, namespace: &str, name: &str, is_job: bool) -> Option<String> {
        let record = self.evidence(self.names.get(&self.hasher.hash_one((namespace, is_job, name)))?)?;
        (name_of(record) == (namespace, is_job, name)).then(|| record.uid.clone())
    }

    /// The uids of an execution's pods.
    pub fn of_execution(&self, execution_id: &str) -> Vec<String> {
        self.records_of(execution_id).map(|record| record.uid.clone()).collect()
    }

    /// Adds a pod.
    pub fn insert(&mut self, evidence: Evidence, now: Instant) -> &mut Tracked {
        let uid: Uid = evidence.uid.as_str().into();
        self.names.insert(self.hasher.hash_one(name_of(&evidence)), uid.clone());
        self.executions.insert((self.hasher.hash_one(evidence.execution_id.as_str()), uid.clone()));
        let tracked = Tracked {
            evidence: Arc::new(evidence),
            watches: 0,
            seen_at: now,
            strayed: false,
            left: false,
            outdated_since: None,
            resolving: false,
            tick: None,
            recheck: None,
            failures: 0,
            unsaved: false,
            wake: None,
        };
        self.pods.entry(uid).or_insert(tracked)
    }

    /// Drops a pod of which nothing more will come.
    pub fn remove(&mut self, uid: &str) {
        let Some((uid, tracked)) = self.pods.remove_entry(uid) else { return };
        if let Some(at) = tracked.wake {
            self.wakes.remove(&(at, uid.clone()));
        }
        let name = self.hasher.hash_one(name_of(&tracked.evidence));
        if self.names.get(&name).is_some_and(|last| *last == uid) {
            self.names.remove(&name);
        }
        self.executions.remove(&(self.hasher.hash_one(tracked.evidence.execution_id.as_str()), uid));
    }

    /// Puts the pod's plans (`tick`, `recheck`) into the order of all; call it after changing either.
    pub fn reschedule(&mut self, uid: &str) {
        let Some(tracked) = self.pods.get_mut(uid) else { return };
        let earliest = tracked.tick.into_iter().chain(tracked.recheck).min();
        if earliest == tracked.wake {
            return;
        }
        let uid: Uid = uid.into();
        if let Some(old) = std::mem::replace(&mut tracked.wake, earliest) {
            self.wakes.remove(&(old, uid.clone()));
        }
        if let Some(at) = earliest {
            self.wakes.insert((at, uid));
        }
    }

    /// When the next pod wants to be looked at.
    pub fn next_wake(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// The pods whose time has come.
    pub fn take_due(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        while self.wakes.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, uid)) = self.wakes.pop_first() else { break };
            if let Some(tracked) = self.pods.get_mut(&uid) {
                tracked.wake = None;
            }
            due.push(uid.as_ref().to_owned());
        }
        due
    }

    /// Known to this watch, not in its complete list of `listed`, and not seen since it was asked for: maybe gone (T1).
    pub fn missing(&self, watch: usize, asked_at: Instant, listed: &HashSet<String>) -> Vec<String> {
        let of_watch = |tracked: &Tracked| tracked.watches & (1 << watch) != 0;
        self.uids_of(|tracked| {
            of_watch(tracked)
                && tracked.seen_at <= asked_at
                && tracked.evidence.gone.is_none()
                && !listed.contains(&tracked.evidence.uid)
        })
    }

    /// Shown by this list, but older than they are known, while nobody is about to ask.
    pub fn outdated(&self, listed: &HashSet<String>) -> Vec<String> {
        self.uids_of(|tracked| {
            tracked.outdated_since.is_some() && tracked.recheck.is_none() && listed.contains(&tracked.evidence.uid)
        })
    }

    /// Known from the journal only: no watch has seen them since the start.
    pub fn unseen(&self, which: impl Fn(&Evidence) -> bool) -> Vec<String> {
        self.uids_of(|tracked| tracked.watches == 0 && tracked.evidence.gone.is_none() && which(&tracked.evidence))
    }

    /// Sorted, so that what follows from a list does not depend on the order of a map.
    fn uids_of(&self, which: impl Fn(&Tracked) -> bool) -> Vec<String> {
        let mut uids: Vec<String> =
            self.pods.values().filter(|tracked| which(tracked)).map(|tracked| tracked.evidence.uid.clone()).collect();
        uids.sort_unstable();
        uids
    }
}

/// A Job and a pod may bear the same name.
fn name_of(record: &Evidence) -> (&str, bool, &str) {
    (&record.namespace, record.subject.job().is_some(), &record.name)
}
