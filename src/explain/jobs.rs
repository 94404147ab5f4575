//! Jobs among what is explained, and the pods that are theirs.

use std::sync::Arc;

use jiff::Timestamp;
use podherald_core::{
    evidence::Evidence,
    identity,
    job::{self, Job},
    mapper,
    output::{Collected, Limits, Scanner},
    pod::Pod,
};

use super::{Error, Explanation, Printer};

impl Explanation<'_> {
    /// One frame of a Job.
    pub(super) fn job_frame(&mut self, job: &Job, is_gone: bool, printer: &mut Printer<'_>) -> Result<(), Error> {
        self.begin_job(job, printer)?;
        self.observe_job(&job.uid, job::Observation::Seen(job), printer)?;
        if is_gone {
            self.observe_job(&job.uid, job::Observation::Gone { deleted: true }, printer)?;
        }
        Ok(())
    }

    fn begin_job(&mut self, job: &Job, printer: &mut Printer<'_>) -> Result<(), Error> {
        if self.records.contains_key(&job.uid) {
            return Ok(());
        }
        let id = identity::execution_id(job, &self.options.places).map(str::to_owned);
        let id = self.id_or_name(id, "Job", &job.name, printer)?;
        let attempt = self.next_attempt(&id);
        let evidence = job::begin(job, &id, attempt, self.now);
        self.records.insert(job.uid.clone(), (evidence, None));
        Ok(())
    }

    /// The record of a pod whose Job is in the input; none if it is an attempt by itself.
    pub(super) fn begin_pod_of_job(&mut self, pod: &Pod, printer: &mut Printer<'_>) -> Result<Option<Evidence>, Error> {
        let Some(owner) = &pod.job else { return Ok(None) };
        let Some(job) = self.jobs.get(&owner.uid).cloned() else {
            printer.remark(format_args!(
                "pod {} is of Job {}, which is not given; explained by itself",
                pod.name, owner.name
            ))?;
            return Ok(None);
        };
        self.begin_job(&job, printer)?;
        let Some((job, _)) = self.records.get_mut(&owner.uid) else { return Ok(None) };
        Ok(Some(job::begin_pod(pod, job, &self.options.policy, self.now)))
    }

    /// Tells a Job what is new of one of its pods.
    pub(super) fn tell_job(&mut self, pod: &str, printer: &mut Printer<'_>) -> Result<(), Error> {
        let Some((pod, _)) = self.records.get(pod) else { return Ok(()) };
        let Some(part) = pod.subject.of_job() else { return Ok(()) };
        let (job, pod) = (part.job.clone(), pod.clone());
        self.observe_job(&job, job::Observation::Pod(&pod), printer)
    }

    fn observe_job(
        &mut self,
        uid: &str,
        observation: job::Observation<'_>,
        printer: &mut Printer<'_>,
    ) -> Result<(), Error> {
        let pods = self.pods_of(uid);
        let Some((job, wake)) = self.records.get_mut(uid) else { return Ok(()) };
        let told = || pods.iter().cloned().map(Arc::new).collect();
        let step = job::observe(job, observation, told, &self.options.policy, self.now);
        *wake = step.own.wake.filter(|_| job.terminal.is_none());
        let chosen = job.subject.job().and_then(|facts| facts.chosen.clone());
        let otherwise = job::without_output(job);
        for draft in step.own.events {
            printer.print(draft)?;
        }
        if step.confirm {
            // What is given is all that there is.
            self.observe_job(uid, job::Observation::Confirmed, printer)?;
        }
        if let Some(loser) = step.superseded {
            self.observe(&loser, mapper::Observation::Superseded, printer)?;
        }
        if step.own.collect {
            let of_pod = chosen.and_then(|uid| pods.iter().find(|pod| pod.uid == uid)).and_then(output);
            let mut collected = of_pod.unwrap_or_else(|| none(otherwise, self.options.limits));
            collected.indexes =
                job::indexes::outputs(&pods.into_iter().map(Arc::new).collect::<Vec<_>>(), &self.options.policy);
            self.observe_job(uid, job::Observation::Collected(Box::new(collected)), printer)?;
        }
        Ok(())
    }

    fn pods_of(&self, job: &str) -> Vec<Evidence> {
        let pods = self.records.values().map(|(evidence, _)| evidence);
        pods.filter(|pod| pod.subject.of_job().is_some_and(|part| part.job == job)).cloned().collect()
    }

    /// No pod will come any more: Jobs that wait for one need not.
    pub(super) fn no_more_pods(&mut self, printer: &mut Printer<'_>) -> Result<(), Error> {
        let is_finished = |job: &Evidence| job.subject.job().is_some_and(|facts| facts.finish.is_some());
        let waiting = self.records.iter().filter(|(_, (job, _))| is_finished(job) && job.ending.is_none());
        let waiting: Vec<(String, Timestamp)> =
            waiting.filter_map(|(uid, (_, wake))| Some((uid.clone(), (*wake)?))).collect();
        for (uid, wake) in waiting {
            self.now = self.now.max(wake);
            self.observe_job(&uid, job::Observation::Tick, printer)?;
        }
        Ok(())
    }
}

fn output(pod: &Evidence) -> Option<Collected> {
    pod.subject.of_job()?.output.as_deref().cloned()
}

fn none(why: podherald_core::output::LogEnd, limits: Limits) -> Collected {
    Scanner::new(limits).finish(why, None).into_inline_only()
}
