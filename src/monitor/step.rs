//! One turn of the monitor's loop: everything that is new becomes observations, their changes one append, and only then
//! effects.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use podherald_core::{
    evidence::Evidence,
    identity,
    mapper::{self, Observation, Step},
    pod::Pod,
};
use tokio::time::Instant;

use crate::{
    crash,
    journal::{self, Change, Claim, Known},
};

use super::{Error, Inputs, Monitor, api::Backoff, follow::Heard, resolve::Answer, watcher::Sighting};

/// Changes of one append at most; a big list becomes several.
const APPEND: usize = 500;
/// A pod outside its watches is asked for this often while its attempt is open, and after.
const STRAY_OPEN: Duration = Duration::from_secs(5);
const STRAY_ENDED: Duration = Duration::from_secs(60);

/// What follows from a turn, once it is durable.
#[derive(Default)]
struct Outcome {
    changes: Vec<Change>,
    collect: Vec<String>,
    resolve: Vec<String>,
    running: Vec<String>,
    closed: Vec<String>,
}

impl Monitor {
    pub(super) async fn turn(&mut self, inputs: Inputs) -> Result<(), Error> {
        let mut outcome = Outcome::default();
        let known = self.look_up(&inputs.sightings).await?;
        let mut newcomers = Newcomers { known, claims: HashMap::new() };
        for sighting in inputs.sightings {
            self.sight(sighting, &mut newcomers, &mut outcome);
        }
        for (uid, answer) in inputs.answers {
            self.answer(&uid, answer, &mut outcome);
        }
        for Heard { uid, run, line } in inputs.heard {
            self.observe(&uid, Observation::Progress { run, line }, &mut outcome);
        }
        for (uid, collected) in inputs.collected {
            self.observe(&uid, Observation::Collected(collected), &mut outcome);
        }
        for uid in inputs.due {
            self.tick(&uid, &mut outcome);
        }
        self.append(outcome.changes).await?;
        for uid in outcome.collect {
            self.collect(&uid);
        }
        for uid in outcome.resolve {
            self.resolve(&uid);
        }
        for uid in outcome.running {
            self.follow_log(&uid).await;
        }
        for uid in outcome.closed {
            self.index.remove(&uid);
        }
        self.metrics.tracked.set(i64::try_from(self.index.count()).unwrap_or(i64::MAX));
        self.metrics.collecting.set(i64::try_from(self.collections.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// What the journal knows of the pods that the index does not.
    async fn look_up(&self, sightings: &[Sighting]) -> Result<HashMap<String, Known>, Error> {
        let pods = sightings.iter().flat_map(|sighting| match sighting {
            Sighting::Listed { pods, .. } => pods.as_slice(),
            Sighting::Seen { pod, .. } | Sighting::Left { pod } => std::slice::from_ref(pod),
        });
        let mut unknown = BTreeMap::new();
        for pod in pods.filter_map(|pod| pod.pod.as_ref()) {
            if !self.index.contains(&pod.uid)
                && let Some(id) = identity::execution_id(pod, &self.options.places)
            {
                unknown.insert(pod.uid.clone(), id.to_owned());
            }
        }
        if unknown.is_empty() {
            return Ok(HashMap::new());
        }
        let keys: Vec<(String, String)> = unknown.into_iter().collect();
        let mut backoff = append_backoff();
        loop {
            match self.journal.known(keys.clone()).await {
                Ok(known) => return Ok(keys.into_iter().map(|(uid, _)| uid).zip(known).collect()),
                Err(error @ journal::Error::Closed) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(%error, "cannot read the journal, trying again");
                    self.pause(backoff.pause()).await?;
                }
            }
        }
    }

    fn sight(&mut self, sighting: Sighting, newcomers: &mut Newcomers, outcome: &mut Outcome) {
        match sighting {
            Sighting::Seen { watch, pod } => {
                if let Some(pod) = self.identified(pod) {
                    self.see(watch, &pod, newcomers, outcome);
                }
            }
            Sighting::Left { pod } => {
                let Some(pod) = self.identified(pod) else { return };
                if !self.admit(&pod, newcomers) {
                    return;
                }
                // The end may stand only in the deleted object (T2); whether the pod is gone, a GET decides (T15).
                self.observe(&pod.uid, Observation::Seen(&pod), outcome);
                if let Some(tracked) = self.index.get_mut(&pod.uid) {
                    tracked.strayed = true;
                    tracked.left = true;
                }
                outcome.resolve.push(pod.uid);
            }
            Sighting::Listed { watch, asked_at, by_watch, pods } => {
                let mut pods: Vec<Pod> = pods.into_iter().filter_map(|pod| self.identified(pod)).collect();
                // Attempts are numbered in the order of creation.
                pods.sort_by(|a, b| (a.created, &a.uid).cmp(&(b.created, &b.uid)));
                let changes_before = outcome.changes.len();
                for pod in &pods {
                    self.see(watch, pod, newcomers, outcome);
                }
                let listed: HashSet<String> = pods.into_iter().map(|pod| pod.uid).collect();
                let mut missing = self.index.missing(watch, asked_at, &listed);
                if by_watch && self.listed.insert(watch) && self.listed.len() == self.options.watches {
                    missing.extend(self.index.unseen());
                }
                if !by_watch {
                    let repairs = outcome.changes.len() - changes_before + missing.len();
                    self.metrics.repairs.inc_by(repairs as u64);
                }
                for uid in missing {
                    if let Some(tracked) = self.index.get_mut(&uid) {
                        tracked.strayed = true;
                    }
                    outcome.resolve.push(uid);
                }
            }
        }
    }

    /// The pod itself, if the frame has an identity.
    fn identified(&self, pod: super::wire::Pod) -> Option<Pod> {
        self.metrics.count_malformed(&pod.malformed);
        if !pod.malformed.is_empty() {
            tracing::warn!(fields = ?pod.malformed, pod = pod.pod.as_ref().map(|p| p.name.as_str()), "unreadable pod fields, taken as absent");
        }
        if pod.pod.is_none() {
            self.metrics.unidentified.inc();
            tracing::warn!("dropped a pod without name, namespace or uid");
        }
        pod.pod
    }

    fn see(&mut self, watch: usize, pod: &Pod, newcomers: &mut Newcomers, outcome: &mut Outcome) {
        let is_new = !self.index.contains(&pod.uid);
        let namesake = self.index.named(&pod.namespace, &pod.name).filter(|_| is_new).cloned();
        if !self.admit(pod, newcomers) {
            return;
        }
        // A name is free only when its pod is gone, though nobody may have said so (T16).
        outcome.resolve.extend(namesake);
        if let Some(tracked) = self.index.get_mut(&pod.uid) {
            tracked.watches |= 1 << watch;
            tracked.seen_at = Instant::now();
            tracked.strayed = false;
            tracked.left = false;
            tracked.recheck = None;
        }
        self.observe(&pod.uid, Observation::Seen(pod), outcome);
    }

    /// Makes sure that the index has the pod. False if it is none of ours, or closed long ago.
    fn admit(&mut self, pod: &Pod, newcomers: &mut Newcomers) -> bool {
        if self.index.contains(&pod.uid) {
            return true;
        }
        let Some(execution_id) = identity::execution_id(pod, &self.options.places) else {
            self.metrics.ignored.inc();
            tracing::debug!(namespace = pod.namespace, pod = pod.name, "no execution id, ignored");
            return false;
        };
        // It stays among the known: a late list and a late frame of it may come in one turn.
        let is_closed = |known: &Known| known.evidence.as_ref().is_some_and(Evidence::is_closed);
        if newcomers.known.get(&pod.uid).is_some_and(is_closed) {
            return false;
        }
        let known = newcomers.known.remove(&pod.uid).unwrap_or_default();
        if let Some(evidence) = known.evidence {
            self.index.insert(evidence, Instant::now());
            return true;
        }
        let claim = newcomers.claims.entry(execution_id.to_owned()).or_insert_with(|| {
            known.claim.unwrap_or_else(|| Claim { namespace: pod.namespace.clone(), attempts: BTreeMap::new() })
        });
        let is_conflict = claim.namespace != pod.namespace;
        let attempt = if is_conflict {
            self.metrics.conflicts.inc();
            tracing::warn!(
                execution_id,
                namespace = pod.namespace,
                pod = pod.name,
                owner = claim.namespace,
                "the pod claims an execution of another namespace, shown without events"
            );
            0
        } else {
            let next = claim.attempts.values().max().copied().unwrap_or_default() + 1;
            *claim.attempts.entry(identity::attempt_key(pod).to_owned()).or_insert(next)
        };
        let mut evidence = mapper::begin(pod, execution_id, attempt, &self.options.policy, self.clock.now());
        evidence.conflict = is_conflict;
        self.index.insert(evidence, Instant::now()).unsaved = true;
        true
    }

    fn answer(&mut self, uid: &str, answer: Answer, outcome: &mut Outcome) {
        let Some(tracked) = self.index.get_mut(uid) else { return };
        tracked.resolving = false;
        let now = Instant::now();
        match answer {
            Answer::Gone => {
                let deleted = tracked.left;
                self.observe(uid, Observation::Gone { deleted }, outcome);
            }
            Answer::Present(found) => {
                tracked.failures = 0;
                tracked.left = false;
                let Some(pod) = self.identified(*found) else { return };
                self.observe(uid, Observation::Seen(&pod), outcome);
                if let Some(tracked) = self.index.get_mut(uid).filter(|tracked| tracked.strayed) {
                    let pause = if tracked.evidence.terminal.is_some() { STRAY_ENDED } else { STRAY_OPEN };
                    tracked.recheck = Some(now + pause);
                }
            }
            Answer::Failed => {
                let pause = Duration::from_millis(500) * (1 << tracked.failures.min(6));
                tracked.failures += 1;
                tracked.recheck = Some(now + pause);
            }
        }
        self.index.reschedule(uid);
    }

    fn tick(&mut self, uid: &str, outcome: &mut Outcome) {
        let now = Instant::now();
        let Some(tracked) = self.index.get_mut(uid) else { return };
        if tracked.recheck.is_some_and(|at| at <= now) {
            tracked.recheck = None;
            outcome.resolve.push(uid.to_owned());
        }
        if tracked.tick.take_if(|at| *at <= now).is_some() {
            self.observe(uid, Observation::Tick, outcome);
        }
        self.index.reschedule(uid);
    }

    fn observe(&mut self, uid: &str, observation: Observation<'_>, outcome: &mut Outcome) {
        let now = self.clock.now();
        let Some(tracked) = self.index.get_mut(uid) else { return };
        self.metrics.observations.inc();
        let evidence = Arc::make_mut(&mut tracked.evidence);
        let Step { changed, events, collect, wake } = mapper::observe(evidence, observation, &self.options.policy, now);
        if evidence.is_closed() {
            outcome.closed.push(uid.to_owned());
        }
        if changed || std::mem::take(&mut tracked.unsaved) {
            outcome.changes.push(Change { evidence: tracked.evidence.clone(), events });
        }
        if collect {
            outcome.collect.push(uid.to_owned());
        }
        if tracked.evidence.terminal.is_some() {
            if let Some(followed) = self.followed.get(uid) {
                followed.over.cancel();
            }
        } else if tracked.evidence.running_container().is_some() && !self.followed.contains_key(uid) {
            outcome.running.push(uid.to_owned());
        }
        let tick = wake.map(|at| self.instant_of(at, now));
        if let Some(tracked) = self.index.get_mut(uid)
            && tracked.tick != tick
        {
            tracked.tick = tick;
            self.index.reschedule(uid);
        }
    }

    /// Makes the changes durable, however often that takes: nothing moves on before.
    async fn append(&self, mut changes: Vec<Change>) -> Result<(), Error> {
        let mut backoff = append_backoff();
        while !changes.is_empty() {
            let rest = changes.split_off(changes.len().min(APPEND));
            let ends = changes.iter().any(|change| change.evidence.is_collecting());
            let point = if ends { crash::Point::Evidence } else { crash::Point::Append };
            crash::at(point);
            loop {
                match self.journal.append(changes.clone()).await {
                    Ok(()) => break,
                    Err(error @ journal::Error::Closed) => return Err(error.into()),
                    Err(error) => {
                        self.metrics.append_retries.inc();
                        let pause = backoff.pause();
                        tracing::error!(%error, pause_ms = pause.as_millis(), "cannot append to the journal, trying again");
                        self.pause(pause).await?;
                    }
                }
            }
            crash::at(point);
            changes = rest;
        }
        Ok(())
    }
}

impl Monitor {
    /// Waits before another try, unless the process is to stop: what was not appended is seen again at the next start.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), Error> {
        match self.stop.run_until_cancelled(tokio::time::sleep(pause)).await {
            Some(()) => Ok(()),
            None => Err(journal::Error::Closed.into()),
        }
    }
}

fn append_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(20), Duration::from_secs(5))
}

/// Pods that the index has not met, as far as the journal and this turn know them.
struct Newcomers {
    known: HashMap<String, Known>,
    claims: HashMap<String, Claim>,
}
