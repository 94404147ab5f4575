//! How a Job ends: its pods are listed, the output of one of them becomes its own, and then they let go of it.

use std::time::Duration;

use podherald_core::{evidence::Evidence, job, mapper, output::Collected};
use tokio::time::Instant;

use super::selectors_for;
use crate::{
    backoff::Backoff,
    monitor::{Inputs, Monitor, collector::Adoption, step::Outcome, watcher::Sighting, wire},
    output_store::OfPod,
};

/// The pods of a Job that was over when they were listed, each with the number of the watch that admits it.
#[derive(Debug)]
pub(in crate::monitor) struct Confirmed {
    job: String,
    pods: Vec<(usize, wire::Pod)>,
}

impl Monitor {
    /// Once the Job's end is durable its pods may forget what they kept for it; the Job closes only after that.
    pub(in crate::monitor) fn tick_job(&mut self, uid: &str, outcome: &mut Outcome) {
        let Some(job) = self.index.job(uid) else { return };
        let is_released = job.subject.job().is_none_or(|facts| facts.released);
        let Some(terminal) = job.terminal.filter(|_| !is_released) else {
            return self.observe_job(uid, job::Observation::Tick, outcome);
        };
        if outcome.changes.has(uid) {
            // Its end becomes durable with this turn.
            if let Some(tracked) = self.index.get_mut(uid) {
                tracked.tick = Some(Instant::now());
                self.index.reschedule(uid);
            }
            return;
        }
        for pod in self.index.pods_of_job(&job.execution_id, uid) {
            self.observe(&pod.uid, mapper::Observation::AttemptEnded(terminal), outcome);
        }
        self.observe_job(uid, job::Observation::Released, outcome);
    }

    /// Lists the pods of a Job that is over: their watch may be behind, or not have begun.
    pub(in crate::monitor) fn list_pods_of(&mut self, uid: &str) {
        let Some(job) = self.index.job(uid) else { return };
        if !self.jobs.confirming.insert(uid.to_owned()) {
            return;
        }
        let selectors = selectors_for(self.options.pod_scopes.iter().enumerate(), &job.namespace);
        let (resolver, namespace, uid) = (self.resolver.clone(), job.namespace.clone(), uid.to_owned());
        self.jobs.confirmations.spawn(async move {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
            loop {
                match resolver.pods_of_job(&selectors, &namespace, &uid).await {
                    Ok(pods) => return Confirmed { job: uid, pods },
                    Err(failure) => {
                        tracing::warn!(
                            namespace,
                            uid,
                            failure,
                            "cannot list the pods of a Job that has ended, will ask again"
                        );
                        tokio::time::sleep(backoff.pause()).await;
                    }
                }
            }
        });
    }

    /// Makes sightings of the pods that were listed, and says of which Jobs they are all.
    pub(in crate::monitor) fn listed_pods(inputs: &mut Inputs) -> Vec<String> {
        let confirmed = std::mem::take(&mut inputs.confirmed);
        let mut jobs = Vec::new();
        for Confirmed { job, pods } in confirmed {
            jobs.push(job);
            let seen = |(watch, object)| Sighting::Seen { watch, object, is_check: false };
            inputs.sightings.extend(pods.into_iter().map(seen));
        }
        jobs
    }

    /// All that there is of a Job's pods has been seen; those that are not there are asked for one by one.
    pub(in crate::monitor) fn confirm_job(&mut self, uid: &str, outcome: &mut Outcome) {
        self.jobs.confirming.remove(uid);
        let Some(job) = self.index.job(uid).cloned() else { return };
        let pods = self.index.pods_of_job(&job.execution_id, uid);
        outcome.resolve.extend(pods.iter().filter(|pod| pod.ending.is_none()).map(|pod| pod.uid.clone()));
        self.observe_job(uid, job::Observation::Confirmed, outcome);
    }

    /// What there is of a superseded pod, unless its index keeps it.
    pub(in crate::monitor) fn output_to_discard(&self, uid: &str) -> Option<OfPod> {
        let pod = self.index.evidence(uid)?;
        (!job::indexes::keeps_output(pod, &self.options.policy)).then(|| OfPod {
            execution_id: pod.execution_id.clone(),
            attempt: pod.attempt,
            uid: uid.to_owned(),
        })
    }

    /// Removes these, and does not wait for the disk.
    pub(in crate::monitor) fn discard(&mut self, pods: Vec<OfPod>) {
        while self.discards.try_join_next().is_some() {}
        if !pods.is_empty() {
            let collector = self.collector.clone();
            self.discards.spawn(async move { collector.discard(pods).await });
        }
    }

    /// Makes the output of the pod that was chosen the Job's.
    pub(in crate::monitor) fn collect_of_job(&mut self, job: &Evidence) {
        let pods = self.index.pods_of_job(&job.execution_id, &job.uid);
        let chosen = job.subject.job().and_then(|facts| facts.chosen.as_deref());
        let pod = chosen.and_then(|uid| self.index.evidence(uid)).and_then(|pod| {
            let output = pod.subject.of_job()?.output.as_deref()?;
            Some((pod.uid.clone(), Collected::clone(output)))
        });
        let adoption = Adoption {
            execution_id: job.execution_id.clone(),
            attempt: job.attempt,
            attempt_key: job.attempt_key.clone(),
            pod,
            indexes: job::indexes::outputs(&pods, &self.options.policy),
            otherwise: job::without_output(job),
            message: job.ending.as_ref().and_then(|ending| ending.message.clone()),
        };
        let (collector, uid) = (self.collector.clone(), job.uid.clone());
        self.collections.spawn(async move { (uid, Box::new(collector.adopt(adoption).await)) });
    }
}
