//! The spine: from looks at pods to durable events.
//!
//! Watches and the reconciler say what they see; one loop turns it into evidence and events, in the order of truth:
//! observe, map, append the evidence, collect the output, append the terminal event. The loop alone changes the
//! [`index`], and only what is in the journal has effects: an output is collected only after the evidence of the end is
//! durable, and a pod is forgotten only after its last event is.

pub mod api;
pub mod collector;
pub mod index;
pub mod metrics;
pub mod reconciler;
mod resolve;
mod step;
pub mod watcher;
pub mod wire;

use std::{collections::HashSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    evidence::{Ending, Evidence},
    identity::Place,
    mapper::Policy,
    output::Collected,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    crash,
    journal::{self, Journal},
};

use self::{
    collector::{Collector, Job},
    index::Index,
    metrics::Metrics,
    resolve::{Answer, Resolver},
    watcher::Sighting,
};

/// Sightings taken into one append at most.
const BATCH: usize = 512;

/// Sightings that may wait for the loop; then the watches wait.
pub const QUEUE: usize = 1024;

/// What the monitor goes by.
#[derive(Debug, Clone)]
pub struct Options {
    /// For the mapper.
    pub policy: Policy,
    /// Where execution ids stand.
    pub places: Vec<Place>,
    /// How many watches there are.
    pub watches: usize,
    /// `logs.deadline`, from the decision that an attempt has ended.
    pub log_deadline: Duration,
}

/// The loop and all that it holds.
pub struct Monitor {
    options: Options,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    stop: CancellationToken,
    collector: Arc<Collector>,
    resolver: Resolver,
    index: Index,
    collections: JoinSet<(String, Box<Collected>)>,
    resolutions: JoinSet<(String, Answer)>,
    /// Watches whose first list is in.
    listed: HashSet<usize>,
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
    collected: Vec<(String, Box<Collected>)>,
    answers: Vec<(String, Answer)>,
    due: Vec<String>,
}

impl Monitor {
    /// A monitor that has seen nothing yet. It runs until `stop`.
    pub fn new(
        options: Options,
        client: &kube::Client,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        collector: Collector,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        Self {
            options,
            journal,
            clock,
            resolver: Resolver::new(client, metrics.clone()),
            metrics,
            stop,
            collector: Arc::new(collector),
            index: Index::default(),
            collections: JoinSet::new(),
            resolutions: JoinSet::new(),
            listed: HashSet::new(),
        }
    }

    /// Goes on where the journal stands, then follows `sightings` until cancelled. What is not yet collected or resolved
    /// then is resumed from the journal by the next run.
    ///
    /// # Errors
    /// Only if the journal is closed under it.
    pub async fn run(self, sightings: mpsc::Receiver<Sighting>) -> Result<(), Error> {
        let stop = self.stop.clone();
        match self.follow(sightings).await {
            Err(Error::Journal(journal::Error::Closed)) if stop.is_cancelled() => Ok(()),
            result => result,
        }
    }

    async fn follow(mut self, mut sightings: mpsc::Receiver<Sighting>) -> Result<(), Error> {
        self.recover().await?;
        let stop = self.stop.clone();
        loop {
            let mut inputs = Inputs::default();
            let wake = self.index.next_wake();
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                count = sightings.recv_many(&mut inputs.sightings, BATCH) => if count == 0 { return Ok(()) },
                Some(done) = self.collections.join_next() => inputs.collected.extend(done.ok()),
                Some(answer) = self.resolutions.join_next() => inputs.answers.extend(answer.ok()),
                () = sleep_until(wake) => {}
            }
            while let Some(done) = self.collections.try_join_next() {
                inputs.collected.extend(done.ok());
            }
            while let Some(answer) = self.resolutions.try_join_next() {
                inputs.answers.extend(answer.ok());
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
        let mut inputs = Inputs::default();
        for evidence in open {
            let uid = evidence.uid.clone();
            let collecting = evidence.is_collecting();
            self.index.insert(evidence, now);
            if collecting {
                self.collect(&uid);
            } else {
                inputs.due.push(uid);
            }
        }
        if self.index.count() > 0 {
            tracing::info!(pods = self.index.count(), collecting = self.collections.len(), "resumed from the journal");
        }
        for uid in &inputs.due {
            if let Some(tracked) = self.index.get_mut(uid) {
                tracked.tick = Some(now);
            }
        }
        self.turn(inputs).await
    }

    /// Our clock's `at` on tokio's, never in the past.
    fn instant_of(&self, at: Timestamp, now: Timestamp) -> Instant {
        let wait = at.duration_since(now).max(SignedDuration::from_millis(1));
        Instant::now() + Duration::try_from(wait).unwrap_or_default()
    }

    fn collect(&mut self, uid: &str) {
        let Some(tracked) = self.index.get_mut(uid) else { return };
        let Some(ending) = &tracked.evidence.ending else { return };
        let job = job(&tracked.evidence, ending, Instant::now() + self.options.log_deadline);
        let (collector, uid) = (self.collector.clone(), uid.to_owned());
        self.collections.spawn(async move {
            crash::at(crash::Point::Collect);
            let collected = collector.collect(job).await;
            crash::at(crash::Point::Collect);
            (uid, Box::new(collected))
        });
        self.metrics.collecting.set(i64::try_from(self.collections.len()).unwrap_or(i64::MAX));
    }

    fn resolve(&mut self, uid: &str) {
        let Some(tracked) = self.index.get_mut(uid) else { return };
        if tracked.resolving || tracked.evidence.gone.is_some() {
            return;
        }
        tracked.resolving = true;
        tracked.recheck = None;
        let evidence = &tracked.evidence;
        let (namespace, name, uid) = (evidence.namespace.clone(), evidence.name.clone(), uid.to_owned());
        self.index.reschedule(&uid);
        let resolver = self.resolver.clone();
        self.resolutions.spawn(async move {
            let answer = resolver.ask(&namespace, &name, &uid).await;
            (uid, answer)
        });
    }
}

fn job(evidence: &Evidence, ending: &Ending, deadline: Instant) -> Job {
    Job {
        namespace: evidence.namespace.clone(),
        pod: evidence.name.clone(),
        uid: evidence.uid.clone(),
        node_name: evidence.node_name.clone(),
        execution_id: evidence.execution_id.clone(),
        attempt: evidence.attempt,
        container: ending.container.clone(),
        gone: evidence.gone.is_some(),
        termination_message: ending.message.clone(),
        deadline,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
