//! One turn of the monitor's loop: everything that is new becomes observations, their changes one append, and only then
//! effects.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use podherald_core::{
    event::Draft,
    evidence::Evidence,
    hold::Wish,
    identity,
    mapper::{self, Observation, Step},
    pod::Pod,
    told::{self, Told},
};
use tokio::time::Instant;

use crate::{
    backoff::Backoff,
    crash,
    journal::{self, Change, Claim, Known},
};

use super::{
    Error, Inputs, Monitor,
    changes::Changes,
    follow::Heard,
    hold::{Hint, Target},
    jobs::Kin,
    watcher::Sighting,
    wire::{Facts, Object},
};

/// Changes of one append at most; a big list becomes several.
const APPEND: usize = 500;

/// What follows from a turn, once it is durable.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) changes: Changes,
    pub(super) collect: Vec<String>,
    pub(super) resolve: Vec<String>,
    /// Pods of which nothing is heard that should be.
    look: Vec<String>,
    running: Vec<String>,
    /// Pods of whose attempt all is told, once this turn is durable.
    told: Vec<String>,
    pub(super) closed: Vec<String>,
    /// Pods whose output does not matter any more.
    pub(super) superseded: Vec<String>,
    /// Pods to be held or let go.
    holds: Vec<String>,
    /// Jobs that are over, whose pods are to be listed.
    pub(super) confirm: Vec<String>,
}

impl Monitor {
    pub(super) async fn turn(&mut self, mut inputs: Inputs) -> Result<(), Error> {
        let mut outcome = Outcome::default();
        let mut newcomers = Newcomers::default();
        if inputs.takes_over {
            self.take_over(&mut outcome).await?;
        }
        self.turn_of_jobs(&mut inputs, &mut newcomers, &mut outcome).await?;
        let confirmed = Self::listed_pods(&mut inputs);
        newcomers.known.extend(self.look_up(&inputs.sightings).await?);
        for sighting in inputs.sightings {
            self.sight(sighting, &mut newcomers, &mut outcome);
        }
        for uid in confirmed {
            self.confirm_job(&uid, &mut outcome);
        }
        for told in inputs.told {
            for uid in self.index.of_execution(&told.execution_id) {
                self.observe(&uid, Observation::Told(&told), &mut outcome);
            }
        }
        self.expect(inputs.expected, &mut outcome).await?;
        for (uid, answer) in inputs.answers {
            self.answer(&uid, answer, &mut outcome);
        }
        for Heard { uid, run, line } in inputs.heard {
            self.observe(&uid, Observation::Progress { run, line }, &mut outcome);
        }
        self.wake(&inputs.overdue).await?;
        for uid in inputs.overdue {
            self.observe(&uid, Observation::HeldTooLong, &mut outcome);
        }
        for (uid, collected) in inputs.collected {
            self.observe(&uid, Observation::Collected(collected), &mut outcome);
        }
        for uid in inputs.due {
            self.tick(&uid, &mut outcome);
        }
        let (jobs, pods): (Vec<_>, Vec<_>) = outcome.collect.into_iter().partition(|uid| self.index.job(uid).is_some());
        // A log is read while the evidence becomes durable; what was read waits for a later turn, and so for the append.
        for uid in pods {
            self.collect(&uid);
        }
        let changes = outcome.changes.take(&self.index);
        self.append(changes).await?;
        for uid in jobs {
            self.collect(&uid);
        }
        self.wake(&outcome.resolve).await?;
        for uid in outcome.resolve {
            self.resolve(&uid);
        }
        for uid in outcome.look {
            self.look(&uid);
        }
        for uid in outcome.confirm {
            self.list_pods_of(&uid);
        }
        for uid in outcome.running {
            self.follow_log(&uid).await;
        }
        self.hint(&outcome.holds);
        let superseded = outcome.superseded.iter().filter_map(|uid| self.output_to_discard(uid)).collect();
        self.discard(superseded);
        for uid in outcome.closed {
            self.index.remove(&uid);
            self.let_go.remove(&uid);
        }
        for uid in outcome.told {
            self.index.rest(&uid);
            self.let_go.remove(&uid);
        }
        self.metrics.tracked.set(i64::try_from(self.index.count()).unwrap_or(i64::MAX));
        self.metrics.collecting.set(i64::try_from(self.collections.len()).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Does what was left to the leader before.
    async fn take_over(&mut self, outcome: &mut Outcome) -> Result<(), Error> {
        let left = self.index.left_to_leader();
        let left: Vec<(String, String)> =
            left.iter().map(|evidence| (evidence.uid.clone(), evidence.execution_id.clone())).collect();
        let mut known = self.known(left.iter().cloned().collect()).await?;
        for (uid, _) in left {
            // What the last leader told may be known to the journal before it is to the loop.
            for told in known.remove(&uid).unwrap_or_default().told {
                self.observe(&uid, Observation::Told(&told), outcome);
            }
            let Some(tracked) = self.index.get_mut(&uid) else { continue };
            if tracked.evidence.is_collecting() {
                outcome.collect.push(uid.clone());
            }
            if !tracked.evidence.untold.is_empty() {
                let events = std::mem::take(&mut Arc::make_mut(&mut tracked.evidence).untold);
                if tracked.evidence.is_closed() {
                    outcome.closed.push(uid.clone());
                } else if tracked.evidence.is_at_rest() {
                    outcome.told.push(uid.clone());
                }
                outcome.changes.add(&uid, events);
                outcome.holds.push(uid);
            }
        }
        Ok(())
    }

    /// Says what is wished of these pods. What nobody takes now, a sweep finds.
    fn hint(&self, uids: &[String]) {
        for evidence in uids.iter().filter_map(|uid| self.index.evidence(uid)) {
            if let Some(hint) = Hint::of(evidence, self.options.policy.hold).filter(|_| self.is_leading) {
                self.send_hint(hint);
            }
        }
    }

    fn send_hint(&self, hint: Hint) {
        if self.hints.try_send(hint).is_err() {
            self.holding.dropped.inc();
        }
    }

    /// Lets a pod go of which nothing will ever be told.
    fn abandon(&self, pod: &Pod) {
        if pod.is_held && self.is_leading {
            let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
            tracing::warn!(
                namespace,
                name,
                "it has our finalizer and is none of ours, or long done with: letting it go"
            );
            let target = Target { namespace, name, uid: pod.uid.clone() };
            self.send_hint(Hint { execution_id: String::new(), target, wish: Wish::Abandon });
        }
    }

    /// Fetches those that rest back into the index: they may be gone.
    async fn wake(&mut self, uids: &[String]) -> Result<(), Error> {
        let resting = uids.iter().filter(|uid| self.index.rests(uid)).map(|uid| (uid.clone(), String::new())).collect();
        for evidence in self.known(resting).await?.into_values().filter_map(|known| known.evidence) {
            self.index.insert(evidence, Instant::now()).strayed = true;
        }
        Ok(())
    }

    /// What the journal knows of the pods that the index does not.
    async fn look_up(&self, sightings: &[Sighting]) -> Result<HashMap<String, Known>, Error> {
        let news = sightings.iter().filter(|sighting| self.seen_resting(sighting).is_none());
        let mut unknown = BTreeMap::new();
        for pod in news.filter_map(|sighting| sighting.object()?.facts.as_ref()) {
            if self.index.contains(&pod.uid) {
                continue;
            }
            let id = identity::execution_id(pod, &self.options.places);
            if let Some(job) = &pod.job {
                // It is told by its Job whose it is, and a Job that is closed is known here only.
                unknown.insert(pod.uid.clone(), id.unwrap_or_default().to_owned());
                if !self.index.contains(&job.uid) {
                    unknown.entry(job.uid.clone()).or_default();
                }
            } else if let Some(id) = id {
                unknown.insert(pod.uid.clone(), id.to_owned());
            }
        }
        self.known(unknown).await
    }

    /// What the journal knows, by uid, of these uids and the executions that they claim.
    pub(super) async fn known(&self, unknown: BTreeMap<String, String>) -> Result<HashMap<String, Known>, Error> {
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
        if let Some((watch, uid)) = self.seen_resting(&sighting) {
            return self.index.show_resting(uid, watch, Instant::now());
        }
        match sighting {
            Sighting::Seen { watch, object, is_check } => {
                if let Some(pod) = self.identified(object) {
                    let changes_before = outcome.changes.count();
                    self.see(watch, &pod, is_check, newcomers, outcome);
                    self.count_repairs(is_check, outcome.changes.count() - changes_before);
                }
            }
            Sighting::Left { object } => {
                let Some(pod) = self.identified(object) else { return };
                match self.admit(&pod, newcomers) {
                    Admission::Tracked => {}
                    Admission::Held => {
                        return self.hold(&pod, Sighting::Left { object: pod.clone().into() });
                    }
                    Admission::None => return,
                }
                // The end may stand only in the deleted object (T2); whether the pod is gone, a GET decides (T15).
                self.observe(&pod.uid, Observation::Seen(&pod), outcome);
                if let Some(tracked) = self.index.get_mut(&pod.uid) {
                    tracked.strayed = true;
                    tracked.left = true;
                }
                outcome.resolve.push(pod.uid);
            }
            Sighting::Listed { watch, asked_at, is_check, uids } => {
                self.after_list(watch, asked_at, is_check, &uids, outcome);
            }
        }
    }

    /// Concludes what is missing from a complete list of pods or Jobs.
    pub(super) fn after_list(
        &mut self,
        watch: usize,
        asked_at: Instant,
        is_check: bool,
        listed: &HashSet<String>,
        outcome: &mut Outcome,
    ) {
        let mut missing = self.index.missing(watch, asked_at, listed);
        // What is newer may come by no watch.
        outcome.resolve.extend(self.index.outdated(listed));
        if !is_check && self.listed.insert(watch) && self.pods_are_listed() {
            if self.jobs_are_listed() {
                let oldest = self.index.oldest().unwrap_or_else(|| self.clock.now());
                self.oldest.send_replace(Some(oldest));
            }
            // Jobs, and pods that are theirs, wait for the lists of Jobs too; pods alone do not wait for a role to read those.
            let with_jobs = self.jobs_are_listed();
            missing.extend(self.index.unseen(|evidence| with_jobs || evidence.subject.is_pod()));
        }
        self.count_repairs(is_check, missing.len());
        for uid in missing {
            if let Some(tracked) = self.index.get_mut(&uid) {
                tracked.strayed = true;
            }
            outcome.resolve.push(uid);
        }
    }

    pub(super) fn count_repairs(&self, is_check: bool, count: usize) {
        if is_check {
            self.metrics.repairs.inc_by(count as u64);
        }
    }

    fn pods_are_listed(&self) -> bool {
        (0..self.options.pod_scopes.len()).all(|watch| self.listed.contains(&watch))
    }

    /// The pod or Job itself, if the frame has an identity.
    pub(super) fn identified<F: Facts>(&self, object: Object<F>) -> Option<F> {
        let Object { facts, malformed, .. } = object;
        let (kind, name) = (F::KIND, facts.as_ref().map(|facts| facts.marks().name));
        self.metrics.count_malformed(&malformed);
        if !malformed.is_empty() {
            tracing::warn!(kind, fields = malformed.join(", "), name, "unreadable fields, taken as absent");
        }
        if name.is_none() {
            self.metrics.unidentified.inc();
            tracing::warn!(kind, "dropped an object without name, namespace or uid");
        }
        facts
    }

    /// Watch and uid, if a pod that rests was seen as it was.
    fn seen_resting<'a>(&self, sighting: &'a Sighting) -> Option<(usize, &'a str)> {
        let Sighting::Seen { watch, object, .. } = sighting else { return None };
        let pod = object.facts.as_ref()?;
        self.index.rests_at(&pod.uid, pod.version).then_some((*watch, &pod.uid))
    }

    fn see(&mut self, watch: usize, pod: &Pod, is_check: bool, newcomers: &mut Newcomers, outcome: &mut Outcome) {
        let is_new = !self.index.contains(&pod.uid);
        let namesake = self.index.pod_named(&pod.namespace, &pod.name).filter(|uid| is_new && *uid != pod.uid);
        match self.admit(pod, newcomers) {
            Admission::Tracked => {}
            Admission::Held => {
                return self.hold(pod, Sighting::Seen { watch, object: pod.clone().into(), is_check });
            }
            Admission::None => return self.abandon(pod),
        }
        // A name is free only when its pod is gone, though nobody may have said so (T16).
        outcome.resolve.extend(namesake);
        self.show(&pod.uid, pod.version, watch);
        self.observe(&pod.uid, Observation::Seen(pod), outcome);
    }

    /// Makes sure that the index has the pod, if it is one of ours.
    fn admit(&mut self, pod: &Pod, newcomers: &mut Newcomers) -> Admission {
        if self.index.contains(&pod.uid) {
            return Admission::Tracked;
        }
        // It stays among the known: a late list and a late frame of it may come in one turn.
        if newcomers.is_closed(&pod.uid) {
            return Admission::None;
        }
        if let Some(evidence) = newcomers.known_evidence(&pod.uid) {
            self.index.insert(evidence, Instant::now());
            return Admission::Tracked;
        }
        let kin = self.kin(pod, newcomers);
        if matches!(kin, Kin::Unknown) {
            return Admission::Held;
        }
        let of_job = self.begin_pod_of(kin, pod, newcomers);
        let Some(evidence) = of_job.or_else(|| self.begin(pod, newcomers)) else { return Admission::None };
        let uid = evidence.uid.clone();
        self.index.insert(evidence, Instant::now()).unsaved = true;
        self.inherit(&uid, newcomers);
        Admission::Tracked
    }

    /// Takes note of what another monitor has told of a pod or Job that is new here.
    pub(super) fn inherit(&mut self, uid: &str, newcomers: &Newcomers) {
        let Some(tracked) = self.index.get_mut(uid) else { return };
        let told = newcomers.told.get(&tracked.evidence.execution_id);
        let told = told.or_else(|| newcomers.known.get(uid).map(|known| &known.told));
        for told in told.into_iter().flatten() {
            told::note(Arc::make_mut(&mut tracked.evidence), told);
        }
    }

    /// The record of a pod that is an attempt by itself; none if nobody says whose.
    fn begin(&mut self, pod: &Pod, newcomers: &mut Newcomers) -> Option<Evidence> {
        let Some(execution_id) = identity::execution_id(pod, &self.options.places) else {
            self.metrics.ignored.inc();
            tracing::debug!(namespace = pod.namespace, pod = pod.name, "no execution id, ignored");
            return None;
        };
        let place = (pod.namespace.as_str(), pod.name.as_str());
        let attempt = self.number(newcomers, &pod.uid, execution_id, identity::attempt_key(pod), place);
        let now = self.clock.now();
        let mut evidence = mapper::begin(pod, execution_id, attempt.unwrap_or_default(), &self.options.policy, now);
        evidence.conflict = attempt.is_none();
        Some(evidence)
    }

    /// The number of an attempt, by its key; none if the execution is another namespace's.
    pub(super) fn number(
        &self,
        newcomers: &mut Newcomers,
        uid: &str,
        execution_id: &str,
        key: &str,
        (namespace, name): (&str, &str),
    ) -> Option<u32> {
        let known = newcomers.known.remove(uid).unwrap_or_default();
        let counted = known.told.iter().map(|told| told.attempt).max().unwrap_or_default();
        newcomers.told.insert(execution_id.to_owned(), known.told);
        let claim = newcomers.claims.entry(execution_id.to_owned()).or_insert_with(|| {
            known.claim.unwrap_or_else(|| Claim { namespace: namespace.to_owned(), attempts: BTreeMap::new() })
        });
        if claim.namespace != namespace {
            self.metrics.conflicts.inc();
            tracing::warn!(
                execution_id,
                namespace,
                name,
                owner = claim.namespace,
                "it claims an execution of another namespace, shown without events"
            );
            return None;
        }
        let next = claim.attempts.values().max().copied().unwrap_or_default().max(counted) + 1;
        Some(*claim.attempts.entry(key.to_owned()).or_insert(next))
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

    pub(super) fn observe(&mut self, uid: &str, observation: Observation<'_>, outcome: &mut Outcome) {
        let now = self.clock.now();
        let Some(tracked) = self.index.get_mut(uid) else { return };
        if tracked.evidence.subject.job().is_some() {
            return self.observe_as_job(uid, observation, outcome);
        }
        self.metrics.observations.inc();
        let is_tick = matches!(observation, Observation::Tick);
        let is_overdue = matches!(observation, Observation::HeldTooLong);
        let evidence = Arc::make_mut(&mut tracked.evidence);
        let Step { changed, events, collect, wake, look } =
            mapper::observe(evidence, observation, &self.options.policy, now);
        let events = told_by(self.is_leading, evidence, events);
        if evidence.is_closed() {
            outcome.closed.push(uid.to_owned());
        } else if evidence.is_at_rest() {
            outcome.told.push(uid.to_owned());
        }
        if is_overdue && changed {
            self.holding.result_unproven.inc();
            let Evidence { namespace, name, uid, execution_id, .. } = &*evidence;
            tracing::error!(
                namespace,
                name,
                uid,
                execution_id,
                is_told = evidence.terminal.is_some(),
                "result_unproven: held for as long as monitor.hold_ceiling allows, let go without proof that its end was taken over"
            );
        }
        let is_unsaved = std::mem::take(&mut tracked.unsaved);
        if changed || is_unsaved {
            outcome.holds.push(uid.to_owned());
        }
        if collect && self.is_leading {
            outcome.collect.push(uid.to_owned());
        }
        if look {
            outcome.look.push(uid.to_owned());
        }
        let is_news = changed || is_unsaved || is_tick;
        let job = tracked.evidence.subject.of_job().filter(|_| is_news).map(|part| part.job.clone());
        if tracked.evidence.has_output() {
            if let Some(followed) = self.followed.get(uid) {
                followed.over.cancel();
            }
        } else if tracked.evidence.running_container().is_some() && !self.followed.contains_key(uid) {
            outcome.running.push(uid.to_owned());
        }
        if changed || is_unsaved {
            if let Some(job) = &job {
                self.save_job_first(job, outcome);
            }
            outcome.changes.add(uid, events);
        }
        let tick = wake.map(|at| self.instant_of(at, now));
        if let Some(tracked) = self.index.get_mut(uid)
            && tracked.tick != tick
        {
            tracked.tick = tick;
            self.index.reschedule(uid);
        }
        if let Some(job) = job {
            self.tell_job(&job, uid, outcome);
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
            self.measure_ends(&changes);
            changes = rest;
        }
        Ok(())
    }
}

impl Monitor {
    fn measure_ends(&self, changes: &[Change]) {
        let now = self.clock.now();
        let ends = changes.iter().flat_map(|change| &*change.events).filter(|event| event.payload.terminal().is_some());
        for end in ends {
            // A clock that is ahead of ours says nothing.
            self.metrics.told_seconds.0.observe(now.duration_since(end.timestamp).as_secs_f64().max(0.0));
        }
    }

    /// Waits before another try, unless the process is to stop: what was not appended is seen again at the next start.
    pub(super) async fn pause(&self, pause: Duration) -> Result<(), Error> {
        match self.stop.run_until_cancelled(tokio::time::sleep(pause)).await {
            Some(()) => Ok(()),
            None => Err(journal::Error::Closed.into()),
        }
    }
}

/// What is to be told now: nothing while another monitor leads.
pub(super) fn told_by(leader: bool, evidence: &mut Evidence, events: Vec<Draft>) -> Vec<Draft> {
    if leader {
        return events;
    }
    told::keep_back(evidence, events);
    Vec::new()
}

fn append_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(20), Duration::from_secs(5))
}

/// What becomes of a sighting.
enum Admission {
    /// The index has the pod.
    Tracked,
    /// Its Job has to be known first.
    Held,
    /// It is none of ours, or closed long ago.
    None,
}

/// Pods and Jobs that the index has not met, as far as the journal and this turn know them.
#[derive(Default)]
pub(super) struct Newcomers {
    pub(super) known: HashMap<String, Known>,
    claims: HashMap<String, Claim>,
    /// By execution.
    told: HashMap<String, Vec<Told>>,
}

impl Newcomers {
    fn is_closed(&self, uid: &str) -> bool {
        self.known.get(uid).and_then(|known| known.evidence.as_ref()).is_some_and(Evidence::is_closed)
    }

    /// The Job of this uid, if it has ended and is gone.
    pub(super) fn closed_job(&self, uid: &str) -> Option<&Evidence> {
        let evidence = self.known.get(uid)?.evidence.as_ref()?;
        (evidence.subject.job().is_some() && evidence.is_closed()).then_some(evidence)
    }

    /// The record that the journal has, for the index to go on with.
    pub(super) fn known_evidence(&mut self, uid: &str) -> Option<Evidence> {
        self.known.get_mut(uid)?.evidence.take()
    }
}
