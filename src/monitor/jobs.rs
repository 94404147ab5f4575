//! Jobs beside pods: which pod is part of which Job, and what the one's news mean for the other.
//!
//! Pods and Jobs come by watches of their own, in no order. A pod whose Job is not known is held back until it is certain
//! whether that Job is tracked: the Job's watches say so, else a GET and a list by its name do. Only then does the pod count, as a
//! part of the Job's attempt or as an attempt by itself; a guess could not be taken back.

mod end;

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use podherald_core::{
    evidence::Evidence,
    identity,
    job::{self, Job, JobStep},
    mapper::{self, Step},
    pod::{JobRef, Pod},
};
use tokio::{task::JoinSet, time::Instant};

use crate::backoff::Backoff;

use super::{
    Error, Inputs, Monitor,
    resolve::{Owner, Resolver},
    step::{Newcomers, Outcome, told_by},
    watcher::{Scope, Sighting},
    wire,
};

pub(super) use end::Confirmed;

/// Jobs of which it is known why they are not tracked, at most; then they are asked for anew.
const UNTRACKED: usize = 8192;

/// Looks at the pods of one Job that are held, at most: some 16 MiB. The next complete list shows what is dropped.
const SIGHTINGS: usize = 4096;

/// A Job of which so many answers in a row say that it is not there is not there. Its pods do not say of when it is, and of
/// several API servers one may be behind (T20a).
const ABSENCES: u32 = 3;

/// What the monitor knows of Jobs that the index does not hold.
pub(super) struct Jobs {
    scopes: Vec<Scope>,
    /// Numbers of the watches of Jobs.
    watches: std::ops::Range<usize>,
    /// Pods that wait for their Job, by its uid.
    held: BTreeMap<String, Held>,
    /// By uid.
    untracked: HashMap<String, Untracked>,
    pub(super) lookups: JoinSet<Found>,
    pub(super) confirmations: JoinSet<Confirmed>,
    /// Uids of the Jobs whose pods are being listed.
    confirming: HashSet<String>,
}

/// Pods that wait until it is known whether their Job is tracked.
struct Held {
    namespace: String,
    job: JobRef,
    is_asked: bool,
    /// In the order in which they came: a later arrival can be an earlier look, and the end may stand in one of them only (T2).
    sightings: VecDeque<Sighting>,
}

/// What became of a question for a Job.
#[derive(Debug)]
pub(super) struct Found {
    uid: String,
    owner: Owner,
}

/// Why a Job is not tracked.
#[derive(Debug, Clone, Copy)]
enum Untracked {
    /// No selector admits it.
    Stranger,
    /// It was gone when it was asked for.
    Gone,
}

/// What a pod is part of.
pub(super) enum Kin {
    /// Nothing: it is an attempt by itself.
    Itself,
    /// A Job in the index.
    Tracked(String),
    /// A Job that has ended and is gone.
    Closed(Box<Evidence>),
    /// A Job that was gone before anybody saw it.
    Unseen(JobRef),
    /// Nobody knows yet.
    Unknown,
}

/// Two looks at one version of one pod.
fn says_the_same(a: &Sighting, b: &Sighting) -> bool {
    let seen = |sighting: &Sighting| match sighting {
        Sighting::Seen { watch, object, .. } => {
            object.facts.as_ref().and_then(|pod| Some((*watch, pod.uid.clone(), pod.version?)))
        }
        Sighting::Left { .. } | Sighting::Listed { .. } => None,
    };
    seen(a).is_some_and(|one| seen(b).is_some_and(|other| one == other))
}

/// The selectors of those scopes that hold this namespace, with their numbers.
fn selectors_for<'a>(scopes: impl Iterator<Item = (usize, &'a Scope)>, namespace: &str) -> Vec<(usize, String)> {
    let holds = |scope: &Scope| scope.namespace.as_ref().is_none_or(|own| own == namespace);
    scopes.filter(|(_, scope)| holds(scope)).map(|(watch, scope)| (watch, scope.selector.clone())).collect()
}

impl Jobs {
    pub(super) fn new(scopes: Vec<Scope>, first_watch: usize) -> Self {
        let watches = first_watch..first_watch + scopes.len();
        Self {
            scopes,
            watches,
            held: BTreeMap::new(),
            untracked: HashMap::new(),
            lookups: JoinSet::new(),
            confirmations: JoinSet::new(),
            confirming: HashSet::new(),
        }
    }

    /// Asks whether any scope admits the Job, for as long as it takes.
    fn ask(&mut self, resolver: &Resolver, uid: &str) {
        let Some(held) = self.held.get_mut(uid).filter(|held| !held.is_asked) else { return };
        held.is_asked = true;
        let selectors = selectors_for(self.watches.clone().zip(&self.scopes), &held.namespace);
        let (resolver, namespace, job) = (resolver.clone(), held.namespace.clone(), held.job.clone());
        self.lookups.spawn(async move {
            let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
            let mut absences = 0;
            loop {
                match resolver.find_job(&selectors, &namespace, &job).await {
                    Ok(Owner::Gone) if absences + 1 < ABSENCES => {
                        absences += 1;
                        tokio::time::sleep(backoff.pause()).await;
                    }
                    Ok(owner) => return Found { uid: job.uid, owner },
                    Err(failure) => {
                        absences = 0;
                        tracing::warn!(
                            namespace,
                            job = job.name,
                            failure,
                            "cannot tell whose pods these are, will ask again"
                        );
                        tokio::time::sleep(backoff.pause()).await;
                    }
                }
            }
        });
    }

    /// The pods of this Job go on.
    fn release(&mut self, uid: &str) -> Vec<Sighting> {
        self.held.remove(uid).map(|held| held.sightings.into()).unwrap_or_default()
    }

    fn forget(&mut self, uid: String, why: Untracked) {
        if self.untracked.len() >= UNTRACKED {
            self.untracked.clear();
        }
        self.untracked.insert(uid, why);
    }
}

impl Monitor {
    /// Takes in what is new of Jobs, before the pods of the same turn. Pods whose Job has become known go first of those.
    pub(super) async fn turn_of_jobs(
        &mut self,
        inputs: &mut Inputs,
        newcomers: &mut Newcomers,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let sightings = std::mem::take(&mut inputs.jobs);
        let found = std::mem::take(&mut inputs.found);
        if sightings.is_empty() && found.is_empty() {
            return Ok(());
        }
        let seen = sightings.iter().filter_map(Sighting::object);
        let looked_up = found.iter().filter_map(|found| match &found.owner {
            Owner::Admitted(_, job) => Some(&**job),
            Owner::Stranger | Owner::Gone => None,
        });
        let unknown = seen.chain(looked_up).filter_map(|object| object.facts.as_ref()).filter_map(|job| {
            let id = identity::execution_id(job, &self.options.places)?;
            (!self.index.contains(&job.uid)).then(|| (job.uid.clone(), id.to_owned()))
        });
        let unknown = unknown.collect();
        newcomers.known.extend(self.known(unknown).await?);
        for sighting in sightings {
            self.sight_job(sighting, newcomers, outcome);
        }
        for Found { uid, owner } in found {
            // One without an execution id is as good as one that no selector admits.
            let why = if matches!(owner, Owner::Gone) { Untracked::Gone } else { Untracked::Stranger };
            if let Owner::Admitted(watch, job) = owner
                && let Some(job) = self.identified(*job)
            {
                self.see_job(watch, &job, newcomers, outcome);
            }
            if self.index.job(&uid).is_none() && newcomers.closed_job(&uid).is_none() {
                self.jobs.forget(uid.clone(), why);
            }
            inputs.sightings.splice(0..0, self.jobs.release(&uid));
        }
        let known: Vec<String> = self.jobs.held.keys().filter(|uid| self.index.contains(uid)).cloned().collect();
        for uid in known {
            inputs.sightings.splice(0..0, self.jobs.release(&uid));
        }
        if self.jobs_are_listed() {
            let open: Vec<String> = self.jobs.held.keys().cloned().collect();
            open.iter().for_each(|uid| self.jobs.ask(&self.resolver, uid));
        }
        self.metrics.held.set(i64::try_from(self.jobs.held.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    pub(super) fn jobs_are_listed(&self) -> bool {
        self.jobs.watches.clone().all(|watch| self.listed.contains(&watch))
    }

    fn sight_job(&mut self, sighting: Sighting<wire::Job>, newcomers: &mut Newcomers, outcome: &mut Outcome) {
        match sighting {
            Sighting::Seen { watch, object, is_check } => {
                if let Some(job) = self.identified(object) {
                    let changes_before = outcome.changes.count();
                    self.see_job(watch, &job, newcomers, outcome);
                    self.count_repairs(is_check, outcome.changes.count() - changes_before);
                }
            }
            Sighting::Left { object } => {
                let Some(job) = self.identified(object) else { return };
                if !self.admit_job(&job, newcomers) {
                    return;
                }
                self.observe_job(&job.uid, job::Observation::Seen(&job), outcome);
                if let Some(tracked) = self.index.get_mut(&job.uid) {
                    tracked.strayed = true;
                    tracked.left = true;
                }
                outcome.resolve.push(job.uid);
            }
            Sighting::Listed { watch, asked_at, is_check, uids } => {
                self.after_list(watch, asked_at, is_check, &uids, outcome);
            }
        }
    }

    fn see_job(&mut self, watch: usize, job: &Job, newcomers: &mut Newcomers, outcome: &mut Outcome) {
        let is_new = !self.index.contains(&job.uid);
        let namesake = self.index.job_named(&job.namespace, &job.name).filter(|_| is_new);
        if !self.admit_job(job, newcomers) {
            return;
        }
        // A name is free only when its Job is gone (T16).
        outcome.resolve.extend(namesake);
        self.show(&job.uid, job.version, watch);
        self.observe_job(&job.uid, job::Observation::Seen(job), outcome);
    }

    /// Makes sure that the index has the Job. False if it is none of ours, or closed long ago.
    fn admit_job(&mut self, job: &Job, newcomers: &mut Newcomers) -> bool {
        if self.index.contains(&job.uid) {
            return true;
        }
        let Some(execution_id) = identity::execution_id(job, &self.options.places) else {
            self.metrics.ignored.inc();
            tracing::debug!(namespace = job.namespace, job = job.name, "no execution id, ignored");
            return false;
        };
        if newcomers.closed_job(&job.uid).is_some() {
            return false;
        }
        self.jobs.untracked.remove(&job.uid);
        if let Some(evidence) = newcomers.known_evidence(&job.uid) {
            self.index.insert(evidence, Instant::now());
            return true;
        }
        let key = identity::attempt_key(job);
        let place = (job.namespace.as_str(), job.name.as_str());
        let attempt = self.number(newcomers, &job.uid, execution_id, key, place);
        let mut evidence = job::begin(job, execution_id, attempt.unwrap_or_default(), self.clock.now());
        evidence.conflict = attempt.is_none();
        self.index.insert(evidence, Instant::now()).unsaved = true;
        self.inherit(&job.uid, newcomers);
        true
    }

    /// What a pod is part of that the index does not hold.
    pub(super) fn kin(&self, pod: &Pod, newcomers: &Newcomers) -> Kin {
        let Some(job) = pod.job.as_ref().filter(|_| !self.jobs.scopes.is_empty()) else { return Kin::Itself };
        if self.index.job(&job.uid).is_some() {
            return Kin::Tracked(job.uid.clone());
        }
        if let Some(closed) = newcomers.closed_job(&job.uid) {
            return Kin::Closed(Box::new(closed.clone()));
        }
        match self.jobs.untracked.get(&job.uid) {
            Some(Untracked::Stranger) => Kin::Itself,
            Some(Untracked::Gone) => Kin::Unseen(job.clone()),
            None => Kin::Unknown,
        }
    }

    /// The record of a pod of a Job, which counts it.
    pub(super) fn begin_pod_of(&mut self, kin: Kin, pod: &Pod, newcomers: &mut Newcomers) -> Option<Evidence> {
        match kin {
            Kin::Tracked(uid) => self.begin_pod_of_tracked(&uid, pod),
            Kin::Closed(mut job) => Some(job::begin_pod(pod, &mut job, &self.options.policy, self.clock.now())),
            Kin::Unseen(job) => {
                self.begin_unseen_job(&job, pod, newcomers)?;
                self.begin_pod_of_tracked(&job.uid, pod)
            }
            Kin::Itself | Kin::Unknown => None,
        }
    }

    fn begin_pod_of_tracked(&mut self, job: &str, pod: &Pod) -> Option<Evidence> {
        let tracked = self.index.get_mut(job)?;
        tracked.unsaved = true;
        let job = Arc::make_mut(&mut tracked.evidence);
        Some(job::begin_pod(pod, job, &self.options.policy, self.clock.now()))
    }

    /// All pods of a Job are one attempt, also where only they tell that there was one: each by itself would tell an end of
    /// its own, and what a failed pod meant for the Job, which may have tried again, nobody knows (P2).
    fn begin_unseen_job(&mut self, job: &JobRef, pod: &Pod, newcomers: &mut Newcomers) -> Option<()> {
        let execution_id = identity::execution_id(pod, &self.options.places)?;
        let place = (pod.namespace.as_str(), job.name.as_str());
        let attempt = self.number(newcomers, &pod.uid, execution_id, &job.uid, place);
        let now = self.clock.now();
        let mut evidence = job::begin_unseen(job, pod, execution_id, attempt.unwrap_or_default(), now);
        evidence.conflict = attempt.is_none();
        tracing::warn!(namespace = pod.namespace, job = job.name, execution_id, "a Job was gone before it was seen");
        self.index.insert(evidence, Instant::now()).unsaved = true;
        self.inherit(&job.uid, newcomers);
        Some(())
    }

    /// Holds a sighting of a pod back until its Job is known.
    pub(super) fn hold(&mut self, pod: &Pod, sighting: Sighting) {
        let Some(job) = pod.job.clone() else { return };
        let uid = job.uid.clone();
        let held = self.jobs.held.entry(uid.clone()).or_insert_with(|| Held {
            namespace: pod.namespace.clone(),
            job,
            is_asked: false,
            sightings: VecDeque::new(),
        });
        // Each list shows what the last one did.
        if held.sightings.iter().any(|earlier| says_the_same(earlier, &sighting)) {
            return;
        }
        if held.sightings.len() >= SIGHTINGS {
            held.sightings.pop_front();
            self.metrics.held_dropped.inc();
            tracing::warn!(namespace = held.namespace, job = held.job.name, "dropped the oldest look at a held pod");
        }
        held.sightings.push_back(sighting);
        if self.jobs_are_listed() {
            self.jobs.ask(&self.resolver, &uid);
        }
        self.metrics.held.set(i64::try_from(self.jobs.held.len()).unwrap_or(i64::MAX));
    }

    /// Puts a Job that is not on record yet before its pod, which would have nobody to end it if only the pod became durable.
    pub(super) fn save_job_first(&mut self, job: &str, outcome: &mut Outcome) {
        if self.index.get_mut(job).is_some_and(|job| job.unsaved) {
            outcome.changes.add(job, Vec::new());
        }
    }

    /// Tells a Job what is new of one of its pods.
    pub(super) fn tell_job(&mut self, job: &str, pod: &str, outcome: &mut Outcome) {
        let (Some(_), Some(pod)) = (self.index.job(job).filter(|job| job.terminal.is_none()), self.index.evidence(pod))
        else {
            return;
        };
        let pod = pod.clone();
        self.observe_job(job, job::Observation::Pod(&pod), outcome);
    }

    /// The same for what pods and Jobs have in common.
    pub(super) fn observe_as_job(&mut self, uid: &str, observation: mapper::Observation<'_>, outcome: &mut Outcome) {
        match observation {
            mapper::Observation::Gone { deleted } => self.observe_job(uid, job::Observation::Gone { deleted }, outcome),
            mapper::Observation::Tick => self.tick_job(uid, outcome),
            mapper::Observation::Collected(output) => {
                self.observe_job(uid, job::Observation::Collected(output), outcome);
            }
            mapper::Observation::Told(told) => self.observe_job(uid, job::Observation::Told(told), outcome),
            mapper::Observation::Seen(_)
            | mapper::Observation::Progress { .. }
            | mapper::Observation::HeldTooLong
            | mapper::Observation::Looked(_)
            | mapper::Observation::AttemptEnded(_)
            | mapper::Observation::Superseded => {}
        }
    }

    pub(super) fn observe_job(&mut self, uid: &str, observation: job::Observation<'_>, outcome: &mut Outcome) {
        let now = self.clock.now();
        let Some(mut evidence) = self.index.job(uid).cloned() else { return };
        self.metrics.observations.inc();
        let execution_id = evidence.execution_id.clone();
        let pods = || self.index.pods_of_job(&execution_id, uid);
        let JobStep { own: Step { changed, events, collect, wake, .. }, superseded, confirm } =
            job::observe(Arc::make_mut(&mut evidence), observation, pods, &self.options.policy, now);
        let events = told_by(self.is_leading, Arc::make_mut(&mut evidence), events);
        if evidence.is_closed() {
            outcome.closed.push(uid.to_owned());
        }
        let tick = wake.map(|at| self.instant_of(at, now));
        let Some(tracked) = self.index.get_mut(uid) else { return };
        tracked.evidence = evidence.clone();
        let is_unsaved = std::mem::take(&mut tracked.unsaved);
        if tracked.tick != tick {
            tracked.tick = tick;
            self.index.reschedule(uid);
        }
        if changed || is_unsaved {
            outcome.changes.add(uid, events);
        }
        if collect && self.is_leading {
            outcome.collect.push(uid.to_owned());
        }
        if confirm {
            outcome.confirm.push(uid.to_owned());
        }
        if let Some(loser) = superseded {
            self.observe(&loser, mapper::Observation::Superseded, outcome);
            outcome.superseded.push(loser);
        }
    }
}
