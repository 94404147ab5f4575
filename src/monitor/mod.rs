//! The spine: from looks at pods and Jobs to durable events.
//!
//! Watches and the reconciler say what they see; one loop turns it into evidence and events, in the order of truth:
//! observe, map, append the evidence, collect the output, append the terminal event. The loop alone changes the
//! [`index`], and only what is in the journal has effects: an output may be read while the evidence of the end becomes durable,
//! but counts only after, and a pod is forgotten only after its last event is.

mod answers;
pub mod api;
pub mod beginning;
mod changes;
pub mod collector;
mod expect;
mod follow;
pub mod hold;
pub mod index;
mod jobs;
mod listing;
pub mod metrics;
pub mod reconciler;
mod resolve;
mod step;
pub mod watcher;
pub mod wire;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    evidence::{Ending, Evidence, MainState},
    identity::Place,
    job::indexes,
    mapper::{self, Policy},
    output::Collected,
    told::Told,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    crash,
    journal::{self, Journal},
    leadership::Leads,
    live_output::LiveOutputs,
};

use self::{
    beginning::Beginning,
    collector::{Collector, Job},
    follow::Heard,
    index::Index,
    jobs::{Confirmed, Found, Jobs},
    metrics::Metrics,
    resolve::{Answer, Object, Resolver},
    watcher::{Inbox, Scope, Sighting},
};

/// Sightings taken into one append at most.
const BATCH: usize = 512;

/// Sightings that may wait for the loop; then the watches wait.
pub const QUEUE: usize = 1024;

/// Progress lines that may wait for the loop; further ones wait in their follows.
const HEARD: usize = 256;

/// Progress lines of a Job's pods are told apart by this many runs of each.
const RUNS_OF_POD: u32 = 1 << 16;

/// What the monitor goes by.
#[derive(Debug, Clone)]
pub struct Options {
    /// For the mapper.
    pub policy: Policy,
    /// Where execution ids stand.
    pub places: Vec<Place>,
    /// Where pods are watched.
    pub pod_scopes: Vec<Scope>,
    /// Where Jobs are watched, by watches numbered after those of pods; nowhere: each pod of a Job is an attempt by itself.
    pub job_scopes: Vec<Scope>,
    /// `logs.deadline`, from the decision that an attempt has ended.
    pub log_deadline: Duration,
}

/// What the monitor works with.
pub struct Means {
    /// The API server.
    pub client: kube::Client,
    /// Where evidence and events go.
    pub journal: Arc<dyn Journal>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Reads logs that have ended.
    pub collector: Collector,
    /// Takes logs that are followed.
    pub live: LiveOutputs,
    /// What it counts.
    pub metrics: Metrics,
    /// Whether it is the one that reads logs and tells events.
    pub leads: Leads,
    /// Told once all lists are in: when the oldest object that is there was made.
    pub listed: watch::Sender<Option<Timestamp>>,
    /// Where it says which pods are to be held or let go.
    pub hints: mpsc::Sender<hold::Hint>,
    /// What becomes of those.
    pub holding: hold::Metrics,
}

/// The loop and all that it holds.
pub struct Monitor {
    options: Options,
    client: kube::Client,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    stop: CancellationToken,
    collector: Arc<Collector>,
    resolver: Resolver,
    index: Index,
    jobs: Jobs,
    collections: JoinSet<(String, Box<Collected>)>,
    resolutions: JoinSet<(String, Answer)>,
    /// What is removed beside the loop.
    discards: JoinSet<()>,
    live: LiveOutputs,
    follows: JoinSet<String>,
    /// By uid.
    followed: HashMap<String, Followed>,
    /// Pods that were followed and are no more, as long as they are tracked.
    let_go: HashMap<String, Followed>,
    heard: (mpsc::Sender<Heard>, mpsc::Receiver<Heard>),
    /// Watches whose first list is in.
    listed: HashSet<usize>,
    leads: Leads,
    /// It has taken up what only the leader does.
    is_leading: bool,
    oldest: watch::Sender<Option<Timestamp>>,
    hints: mpsc::Sender<hold::Hint>,
    holding: hold::Metrics,
}

/// The journal is closed: nothing more can be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See the source.
    #[error("the monitor cannot go on")]
    Journal(#[from] journal::Error),
}

/// What one turn of the loop has to go by.
#[derive(Default)]
struct Inputs {
    sightings: Vec<Sighting>,
    jobs: Vec<Sighting<wire::Job>>,
    found: Vec<Found>,
    confirmed: Vec<Confirmed>,
    collected: Vec<(String, Box<Collected>)>,
    answers: Vec<(String, Answer)>,
    heard: Vec<Heard>,
    told: Vec<Told>,
    overdue: Vec<String>,
    expected: Vec<Evidence>,
    /// The monitor begins to lead.
    takes_over: bool,
    due: Vec<String>,
}

impl Monitor {
    /// A monitor that has seen nothing yet. It runs until `stop`.
    pub fn new(options: Options, means: Means, stop: CancellationToken) -> Self {
        let Means { client, journal, clock, collector, live, metrics, leads, listed, hints, holding } = means;
        Self {
            jobs: Jobs::new(options.job_scopes.clone(), options.pod_scopes.len()),
            live,
            follows: JoinSet::new(),
            followed: HashMap::new(),
            let_go: HashMap::new(),
            heard: mpsc::channel(HEARD),
            options,
            journal,
            clock,
            resolver: Resolver::new(&client, metrics.clone()),
            client,
            metrics,
            stop,
            collector: Arc::new(collector),
            index: Index::default(),
            collections: JoinSet::new(),
            resolutions: JoinSet::new(),
            discards: JoinSet::new(),
            listed: HashSet::new(),
            is_leading: leads.now(),
            leads,
            oldest: listed,
            hints,
            holding,
        }
    }

    /// Goes on where the journal stands, then follows what is seen of pods and Jobs until cancelled. What is not yet collected or resolved
    /// then is resumed from the journal by the next run.
    ///
    /// # Errors
    /// Only if the journal is closed under it.
    pub async fn run(self, sightings: Inbox) -> Result<(), Error> {
        let stop = self.stop.clone();
        match self.follow(sightings).await {
            Err(Error::Journal(journal::Error::Closed)) if stop.is_cancelled() => Ok(()),
            result => result,
        }
    }

    async fn follow(mut self, inbox: Inbox) -> Result<(), Error> {
        let Inbox { pods: mut sightings, mut jobs, mut told, mut overdue, mut expected } = inbox;
        self.recover().await?;
        let stop = self.stop.clone();
        let mut wishes = self.live.bell();
        let mut leads = self.leads.clone();
        loop {
            let mut inputs = Inputs::default();
            let wake = self.index.next_wake();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = leads.until(!self.is_leading) => inputs.takes_over = self.turn_about(),
                count = jobs.recv_many(&mut inputs.jobs, BATCH) => if count == 0 { return Ok(()) },
                count = sightings.recv_many(&mut inputs.sightings, BATCH) => if count == 0 { return Ok(()) },
                Some(found) = self.jobs.lookups.join_next() => inputs.found.extend(finished(found)),
                Some(confirmed) = self.jobs.confirmations.join_next() => inputs.confirmed.extend(finished(confirmed)),
                Some(done) = self.collections.join_next() => inputs.collected.extend(finished(done)),
                Some(answer) = self.resolutions.join_next() => inputs.answers.extend(finished(answer)),
                Some(heard) = self.heard.1.recv() => inputs.heard.push(heard),
                Some(one) = told.recv() => inputs.told.push(one),
                Some(uid) = overdue.recv() => inputs.overdue.push(uid),
                Some(evidence) = expected.recv() => inputs.expected.push(evidence),
                Some(ended) = self.follows.join_next() => self.forget_follow(finished(ended)).await,
                Ok(()) = wishes.changed() => self.follow_wanted().await,
                () = sleep_until(wake) => {}
            }
            // Nobody waits for anybody else, however much there is of it.
            take_waiting(&mut jobs, &mut inputs.jobs);
            take_waiting(&mut sightings, &mut inputs.sightings);
            take_waiting(&mut self.heard.1, &mut inputs.heard);
            take_waiting(&mut told, &mut inputs.told);
            take_waiting(&mut expected, &mut inputs.expected);
            take_finished(&mut self.jobs.lookups, &mut inputs.found);
            take_finished(&mut self.jobs.confirmations, &mut inputs.confirmed);
            take_finished(&mut self.collections, &mut inputs.collected);
            take_finished(&mut self.resolutions, &mut inputs.answers);
            while let Some(ended) = self.follows.try_join_next() {
                self.forget_follow(finished(ended)).await;
            }
            if wishes.has_changed().unwrap_or(false) {
                wishes.mark_unchanged();
                self.follow_wanted().await;
            }
            inputs.due = self.index.take_due(Instant::now());
            self.metrics.queued.set(i64::try_from(sightings.len()).unwrap_or(i64::MAX));
            // A turn that has begun is finished even when the stop comes: what was observed is appended.
            self.turn(inputs).await?;
        }
    }

    /// Loads the evidence that is not closed, and resumes what was under way (the process may have died between any two
    /// steps).
    async fn recover(&mut self) -> Result<(), Error> {
        let open = loop {
            match self.journal.open_evidence().await {
                Ok(open) => break open,
                Err(error @ journal::Error::Closed) => return Err(error.into()),
                Err(error) => {
                    tracing::error!(%error, "cannot read the evidence, trying again");
                    self.pause(Duration::from_secs(1)).await?;
                }
            }
        };
        let now = Instant::now();
        let mut inputs = Inputs { takes_over: self.is_leading, ..Inputs::default() };
        for evidence in open {
            if !evidence.is_collecting() {
                inputs.due.push(evidence.uid.clone());
            }
            self.index.insert(evidence, now);
        }
        if self.index.count() > 0 {
            tracing::info!(tracked = self.index.count(), "resumed from the journal");
        }
        // What the pods know first: their Job may have to decide by it.
        inputs.due.sort_by_key(|uid| self.index.job(uid).is_some());
        for uid in &inputs.due {
            if let Some(tracked) = self.index.get_mut(uid) {
                tracked.tick = Some(now);
            }
        }
        self.turn(inputs).await
    }

    /// Begins or ceases to lead. True if it begins.
    fn turn_about(&mut self) -> bool {
        self.is_leading = !self.is_leading;
        if !self.is_leading {
            // What is being read now is for the next leader to read.
            self.collections = JoinSet::new();
            self.metrics.collecting.set(0);
            self.followed.values().for_each(|followed| followed.over.cancel());
        }
        self.is_leading
    }

    /// Our clock's `at` on tokio's, never in the past.
    fn instant_of(&self, at: Timestamp, now: Timestamp) -> Instant {
        let wait = at.duration_since(now).max(SignedDuration::from_millis(1));
        Instant::now() + Duration::try_from(wait).unwrap_or_default()
    }

    fn collect(&mut self, uid: &str) {
        if let Some(job) = self.index.job(uid).cloned() {
            return self.collect_of_job(&job);
        }
        let Some(tracked) = self.index.get_mut(uid) else { return };
        let Some(ending) = &tracked.evidence.ending else { return };
        // The log of a later run begins otherwise by right.
        let followed = self.followed.get(uid).or_else(|| self.let_go.get(uid));
        let followed = followed.filter(|_| tracked.evidence.restart_count == 0);
        let beginning = followed.map(|followed| followed.beginning.get());
        let deadline = Instant::now() + self.options.log_deadline;
        let job = job(&tracked.evidence, ending, &self.options.policy, beginning, deadline);
        let (collector, uid) = (self.collector.clone(), uid.to_owned());
        self.collections.spawn(async move {
            crash::at(crash::Point::Collect);
            let collected = collector.collect(job).await;
            crash::at(crash::Point::Collect);
            (uid, Box::new(collected))
        });
        self.metrics.collecting.set(i64::try_from(self.collections.len()).unwrap_or(i64::MAX));
    }

    /// Follows what somebody has begun to watch.
    async fn follow_wanted(&mut self) {
        for execution_id in self.live.wanted() {
            for uid in self.index.of_execution(&execution_id) {
                self.follow_log(&uid).await;
            }
        }
    }

    /// Follows the pod's log if it runs and somebody watches.
    async fn follow_log(&mut self, uid: &str) {
        let Some(tracked) = self.index.get_mut(uid) else { return };
        let evidence = tracked.evidence.clone();
        let Some(container) = evidence.running_container().filter(|_| self.is_leading) else { return };
        if self.followed.contains_key(uid) || !self.live.wants(&evidence.execution_id) {
            return;
        }
        let tap = match self.live.tap(&evidence.execution_id, evidence.attempt, uid).await {
            Ok(Some(tap)) => tap,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, execution_id = evidence.execution_id, "live output cannot be kept");
                return;
            }
        };
        // Each pod of a Job prints a log of its own.
        let number = evidence.subject.of_job().map_or(0, |part| part.number);
        let job = follow::Job {
            namespace: evidence.namespace.clone(),
            pod: evidence.name.clone(),
            uid: uid.to_owned(),
            container: container.to_owned(),
            run: number.saturating_mul(RUNS_OF_POD).saturating_add(evidence.restart_count),
            restarts: evidence.restart_count,
            earlier: self
                .let_go
                .remove(uid)
                .filter(|earlier| earlier.restarts == evidence.restart_count)
                .map(|earlier| earlier.beginning.get()),
        };
        let Followed { over, beginning, .. } = Followed::default();
        let restarts = evidence.restart_count;
        self.followed.insert(uid.to_owned(), Followed { over: over.clone(), beginning: beginning.clone(), restarts });
        let (client, heard) = (self.client.clone(), self.heard.0.clone());
        self.follows.spawn(async move {
            follow::follow(&client, &job, tap, beginning, heard, over).await;
            job.uid
        });
    }

    /// Its place is free for another.
    async fn forget_follow(&mut self, uid: Option<String>) {
        match uid {
            Some(uid) => {
                if let Some(followed) = self.followed.remove(&uid).filter(|_| self.index.contains(&uid)) {
                    self.let_go.insert(uid, followed);
                }
            }
            // One that failed did not say which it was.
            None => self.followed.retain(|_, followed| !followed.over.is_cancelled()),
        }
        self.follow_wanted().await;
    }

    fn resolve(&mut self, uid: &str) {
        let Some(tracked) = self.index.get_mut(uid) else { return };
        if tracked.resolving || tracked.evidence.gone.is_some() {
            return;
        }
        tracked.resolving = true;
        tracked.recheck = None;
        let evidence = &tracked.evidence;
        let node = mapper::node_to_ask(evidence, &self.options.policy, self.clock.now());
        let object = Object {
            kind: if evidence.subject.job().is_some() { resolve::Kind::Job } else { resolve::Kind::Pod },
            namespace: evidence.namespace.clone(),
            name: evidence.name.clone(),
            uid: uid.to_owned(),
            // Of a deletion that a watch has told there are two witnesses.
            is_doubtful: evidence.version.is_some() && !tracked.left,
            node: node.map(str::to_owned),
        };
        self.index.reschedule(uid);
        let resolver = self.resolver.clone();
        self.resolutions.spawn(async move {
            let answer = resolver.ask(&object).await;
            (object.uid, answer)
        });
    }
}

/// A log that is followed.
#[derive(Default)]
struct Followed {
    /// Cancelled when the attempt is over.
    over: CancellationToken,
    beginning: beginning::Shared,
    /// Of the container, when it was begun.
    restarts: u32,
}

fn job(evidence: &Evidence, ending: &Ending, policy: &Policy, beginning: Option<Beginning>, deadline: Instant) -> Job {
    Job {
        namespace: evidence.namespace.clone(),
        pod: evidence.name.clone(),
        uid: evidence.uid.clone(),
        node_name: evidence.node_name.clone(),
        execution_id: evidence.execution_id.clone(),
        attempt: evidence.attempt,
        attempt_key: evidence.attempt_key.clone(),
        of_job: evidence.subject.of_job().is_some(),
        in_full: indexes::keeps_output(evidence, policy),
        container: ending.container.clone(),
        gone: evidence.gone.is_some(),
        is_open: evidence.state == MainState::Running,
        termination_message: ending.message.clone(),
        beginning: beginning.filter(Beginning::is_telling),
        deadline,
    }
}

fn take_waiting<T>(from: &mut mpsc::Receiver<T>, into: &mut Vec<T>) {
    while into.len() < BATCH
        && let Ok(sighting) = from.try_recv()
    {
        into.push(sighting);
    }
}

fn take_finished<T: 'static>(from: &mut JoinSet<T>, into: &mut Vec<T>) {
    while let Some(ended) = from.try_join_next() {
        into.extend(finished(ended));
    }
}

/// What a task found. One that panicked takes the monitor with it: its pod would wait for ever.
fn finished<T>(ended: Result<T, JoinError>) -> Option<T> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(found) => Some(found),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_cancelled)) => None,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "lost its way")]
    async fn a_task_that_panics_takes_the_monitor_with_it() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { panic!("lost its way") });
        let none: Option<()> = finished(tasks.join_next().await.expect("it was spawned"));
        assert_eq!(none, None);
    }
}
