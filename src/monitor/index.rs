//! The pods and Jobs under way, in memory: their evidence, who sees them, and when to look again.
//!
//! Only the monitor's loop touches it. What it holds is in the journal too; it moves on only after the append. A pod whose
//! attempt has been told rests: until something is new of it, all that is kept here is that it is there.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
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
    sight: Sight,
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

/// How an object was last seen by the watches and their lists.
#[derive(Debug, Clone, Copy)]
struct Sight {
    /// Bit set of the watches that have shown it. None since the start: only the journal knows it so far.
    watches: u64,
    at: Instant,
}

/// A pod of which the journal has the rest.
#[derive(Debug)]
struct Resting {
    sight: Sight,
    /// `metadata.resourceVersion` of the newest look. The same one again says that nothing is new, any other nothing (T8).
    version: u64,
}

impl Sight {
    fn show(&mut self, watch: usize, now: Instant) {
        *self = Self { watches: self.watches | 1 << watch, at: now };
    }

    fn is_of(&self, watch: usize) -> bool {
        self.watches & (1 << watch) != 0
    }
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
        self.sight.show(watch, now);
        self.strayed = false;
        self.left = false;
        self.recheck = None;
        self.failures = 0;
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
    resting: HashMap<Uid, Resting>,
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
        self.pods.len() + self.resting.len()
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

    /// True if the pod is known and does not rest.
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
        let uid = self.names.get(&self.hasher.hash_one((namespace, is_job, name)))?;
        let is_so = |record: &Arc<Evidence>| name_of(record) == (namespace, is_job, name);
        // What rests has its name in the journal; being asked for once too often does no harm.
        self.evidence(uid).map_or_else(|| self.rests(uid), is_so).then(|| uid.as_ref().to_owned())
    }

    /// The uids of an execution's pods.
    pub fn of_execution(&self, execution_id: &str) -> Vec<String> {
        self.records_of(execution_id).map(|record| record.uid.clone()).collect()
    }

    /// True if the pod rests.
    pub fn rests(&self, uid: &str) -> bool {
        self.resting.contains_key(uid)
    }

    /// True if the pod rests and this version of it says nothing new.
    pub fn rests_at(&self, uid: &str, version: Option<u64>) -> bool {
        self.resting.get(uid).is_some_and(|resting| version == Some(resting.version))
    }

    /// A watch or its list shows a resting pod as it was.
    pub fn show_resting(&mut self, uid: &str, watch: usize, now: Instant) {
        if let Some(resting) = self.resting.get_mut(uid) {
            resting.sight.show(watch, now);
        }
    }

    /// Lets a pod rest if all that the journal knows of it is told and nothing is planned.
    pub fn rest(&mut self, uid: &str) {
        let Some(tracked) = self.pods.get(uid) else { return };
        let Some(version) = tracked.evidence.version.filter(|_| tracked.sight.watches != 0) else { return };
        let is_doubted = tracked.outdated_since.is_some();
        let is_busy = tracked.strayed || tracked.left || tracked.resolving || tracked.unsaved || is_doubted;
        let is_told = tracked.evidence.is_at_rest();
        if !is_told || is_busy || tracked.tick.is_some() || tracked.recheck.is_some() {
            return;
        }
        if let Some((uid, tracked)) = self.pods.remove_entry(uid) {
            self.forget_execution(&tracked.evidence, &uid);
            self.resting.insert(uid, Resting { sight: tracked.sight, version });
        }
    }

    /// Adds a pod, or one that rested.
    pub fn insert(&mut self, evidence: Evidence, now: Instant) -> &mut Tracked {
        let uid: Uid = evidence.uid.as_str().into();
        let resting = self.resting.remove(&uid);
        let name = self.hasher.hash_one(name_of(&evidence));
        // Another may bear the name by now.
        if resting.is_none() || !self.names.contains_key(&name) {
            self.names.insert(name, uid.clone());
        }
        self.executions.insert((self.hasher.hash_one(evidence.execution_id.as_str()), uid.clone()));
        let tracked = Tracked {
            evidence: Arc::new(evidence),
            sight: resting.map_or(Sight { watches: 0, at: now }, |resting| resting.sight),
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
        self.forget_execution(&tracked.evidence, &uid);
    }

    fn forget_execution(&mut self, evidence: &Evidence, uid: &Uid) {
        self.executions.remove(&(self.hasher.hash_one(evidence.execution_id.as_str()), uid.clone()));
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
        let is_missing = |uid: &str, sight: &Sight| sight.is_of(watch) && sight.at <= asked_at && !listed.contains(uid);
        let mut missing = self
            .uids_of(|tracked| is_missing(&tracked.evidence.uid, &tracked.sight) && tracked.evidence.gone.is_none());
        let resting = self.resting.iter().filter(|(uid, resting)| is_missing(uid, &resting.sight));
        missing.extend(resting.map(|(uid, _)| uid.as_ref().to_owned()));
        missing.sort_unstable();
        missing
    }

    /// Shown by this list, but older than they are known, while nobody is about to ask.
    pub fn outdated(&self, listed: &HashSet<String>) -> Vec<String> {
        self.uids_of(|tracked| {
            tracked.outdated_since.is_some() && tracked.recheck.is_none() && listed.contains(&tracked.evidence.uid)
        })
    }

    /// Known from the journal only: no watch has seen them since the start.
    pub fn unseen(&self, which: impl Fn(&Evidence) -> bool) -> Vec<String> {
        self.uids_of(|tracked| {
            tracked.sight.watches == 0 && tracked.evidence.gone.is_none() && which(&tracked.evidence)
        })
    }

    /// Those with something that only a leader does.
    pub fn left_to_leader(&self) -> Vec<Arc<Evidence>> {
        let evidence = self.pods.values().map(|tracked| &tracked.evidence);
        let mut left: Vec<_> =
            evidence.filter(|evidence| evidence.is_collecting() || !evidence.untold.is_empty()).cloned().collect();
        left.sort_unstable_by(|one, other| one.uid.cmp(&other.uid));
        left
    }

    /// When the oldest object was made that does not rest and is still there.
    pub fn oldest(&self) -> Option<Timestamp> {
        let present = self.pods.values().filter(|tracked| tracked.evidence.gone.is_none());
        present.filter_map(|tracked| tracked.evidence.created).min()
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
