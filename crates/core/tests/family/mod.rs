//! A Job with its pods, driven as the monitor drives them.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    event::{Draft, Terminal},
    evidence::Evidence,
    job::{self, Job},
    mapper::{self, Observation, Policy, Step},
    output::{Captured, Collected},
    pod::{Condition, Container, ContainerState, ContainerStatus, Phase, Pod, Termination},
    silence::Node,
};

pub(crate) fn t0() -> Timestamp {
    "2026-02-10T12:00:00Z".parse().unwrap()
}

pub(crate) fn after(seconds: i64) -> Timestamp {
    t0() + SignedDuration::from_secs(seconds)
}

pub(crate) fn job() -> Job {
    Job {
        namespace: "ns".into(),
        name: "job".into(),
        uid: "job-uid".into(),
        created: Some(t0()),
        labels: [("execution-id".into(), "e1".into())].into_iter().collect(),
        ..Job::default()
    }
}

fn with(kind: &str, reason: Option<&str>) -> Job {
    let condition = Condition {
        kind: kind.into(),
        is_true: true,
        reason: reason.map(Into::into),
        message: None,
        since: Some(after(100)),
    };
    Job { conditions: vec![condition], ..job() }
}

pub(crate) fn announced(kind: &str) -> Job {
    with(kind, Some("BackoffLimitExceeded"))
}

pub(crate) fn complete() -> Job {
    with("Complete", None)
}

pub(crate) fn failed(reason: &str) -> Job {
    with("Failed", Some(reason))
}

pub(crate) fn with_deadline(job: Job, seconds: i64) -> Job {
    Job { active_deadline_seconds: Some(seconds), ..job }
}

fn pod(number: u32, phase: Phase, state: ContainerState) -> Pod {
    let status = ContainerStatus { name: "executor".into(), state, ..ContainerStatus::default() };
    Pod {
        namespace: "ns".into(),
        name: format!("pod-{number}"),
        uid: format!("uid-{number}"),
        created: Some(t0()),
        node_name: Some("node".into()),
        restart_policy: podherald_core::pod::RestartPolicy::Never,
        containers: vec![Container { name: "executor".into(), ..Container::default() }],
        phase,
        container_statuses: vec![status],
        ..Pod::default()
    }
}

pub(crate) fn running(number: u32) -> Pod {
    let state = ContainerState::Running { started_at: Some(after(i64::from(number))) };
    pod(number, Phase::Running, state)
}

pub(crate) fn waiting(number: u32, reason: &str) -> Pod {
    pod(number, Phase::Pending, ContainerState::Waiting { reason: Some(reason.into()), message: None })
}

fn end(number: u32, code: i32) -> Termination {
    Termination {
        code: Some(code),
        reason: Some(if code == 0 { "Completed" } else { "Error" }.into()),
        started_at: Some(after(i64::from(number))),
        finished_at: Some(after(10 + i64::from(number))),
        ..Termination::default()
    }
}

pub(crate) fn ended(number: u32, code: i32) -> Pod {
    let phase = if code == 0 { Phase::Succeeded } else { Phase::Failed };
    pod(number, phase, ContainerState::Terminated(end(number, code)))
}

/// A pod with restartPolicy OnFailure that is about to be run again.
pub(crate) fn between_runs(number: u32, code: i32) -> Pod {
    let mut pod = waiting(number, "CrashLoopBackOff");
    pod.phase = Phase::Running;
    pod.restart_policy = podherald_core::pod::RestartPolicy::OnFailure;
    pod.container_statuses[0].restart_count = 1;
    pod.container_statuses[0].last_state = ContainerState::Terminated(end(number, code));
    pod
}

pub(crate) fn of_index(index: u32, mut pod: Pod) -> Pod {
    pod.annotations.insert(podherald_core::pod::INDEX_ANNOTATION.into(), index.to_string());
    pod
}

pub(crate) fn deleting(pod: Pod) -> Pod {
    Pod { deletion: Some(after(50)), deletion_grace_seconds: Some(30), ..pod }
}

/// See the module.
pub(crate) struct Family {
    pub(crate) job: Evidence,
    pub(crate) pods: BTreeMap<String, Evidence>,
    pub(crate) drafts: Vec<Draft>,
    /// Everything that is known goes through the journal and back before each observation.
    pub(crate) restarts: bool,
    pub(crate) policy: Policy,
    /// What the API server says of the node of all pods.
    pub(crate) node: Node,
    now: Timestamp,
    wakes: Vec<(Option<String>, Timestamp)>,
}

impl Family {
    pub(crate) fn new(job: Job) -> Self {
        let mut family = Self {
            job: job::begin(&job, "e1", 1, t0()),
            pods: BTreeMap::new(),
            drafts: Vec::new(),
            restarts: false,
            policy: Policy::default(),
            node: Node::Gone,
            now: after(100),
            wakes: Vec::new(),
        };
        family.job(job);
        family
    }

    pub(crate) fn job(&mut self, job: Job) {
        self.observe_job(job::Observation::Seen(&job));
    }

    pub(crate) fn job_gone(&mut self, deleted: bool) {
        self.observe_job(job::Observation::Gone { deleted });
    }

    pub(crate) fn pod(&mut self, pod: Pod) {
        if !self.pods.contains_key(&pod.uid) {
            let evidence = job::begin_pod(&pod, &mut self.job, &self.policy, self.now);
            self.pods.insert(pod.uid.clone(), evidence);
        }
        self.observe(&pod.uid, Observation::Seen(&pod));
    }

    pub(crate) fn gone(&mut self, number: u32) {
        self.observe(&format!("uid-{number}"), Observation::Gone { deleted: true });
    }

    /// Lets time pass, in steps as small as anybody wants to be woken.
    pub(crate) fn tick(&mut self, seconds: i64) {
        let until = self.now + SignedDuration::from_secs(seconds);
        while let Some(index) =
            (0..self.wakes.len()).filter(|i| self.wakes[*i].1 <= until).min_by_key(|i| self.wakes[*i].1)
        {
            let (uid, at) = self.wakes.remove(index);
            self.now = self.now.max(at);
            match uid {
                Some(uid) => self.observe(&uid, Observation::Tick),
                None => self.observe_job(job::Observation::Tick),
            }
        }
        self.now = until;
    }

    /// The clock is set back; what is due is due all the same.
    pub(crate) fn set_back(&mut self, seconds: i64) {
        self.now -= SignedDuration::from_secs(seconds);
        for (uid, _) in std::mem::take(&mut self.wakes) {
            match uid {
                Some(uid) => self.observe(&uid, Observation::Tick),
                None => self.observe_job(job::Observation::Tick),
            }
        }
    }

    fn observe(&mut self, uid: &str, observation: Observation<'_>) {
        self.restart();
        let pod = self.pods.get_mut(uid).unwrap();
        let Step { events, collect, wake, look, .. } = mapper::observe(pod, observation, &self.policy, self.now);
        self.drafts.extend(events);
        self.wakes.retain(|(who, _)| who.as_deref() != Some(uid));
        self.wakes.extend(wake.map(|at| (Some(uid.to_owned()), at)));
        let pod = self.pods[uid].clone();
        self.observe_job(job::Observation::Pod(&pod));
        if collect {
            let text = format!("printed by {}", pod.name);
            let stdout = Captured { text, whole: true, ..Captured::default() };
            let output = Collected { stdout, ..Collected::default() };
            self.observe(uid, Observation::Collected(Box::new(output)));
        }
        if look {
            self.observe(uid, Observation::Looked(self.node.clone()));
        }
    }

    fn observe_job(&mut self, observation: job::Observation<'_>) {
        self.restart();
        let pods = || self.pods.values().cloned().map(Arc::new).collect();
        let step = job::observe(&mut self.job, observation, pods, &self.policy, self.now);
        self.drafts.extend(step.own.events);
        self.wakes.retain(|(who, _)| who.is_some());
        self.wakes.extend(step.own.wake.map(|at| (None, at)));
        if step.confirm {
            self.observe_job(job::Observation::Confirmed);
        }
        if let Some(uid) = step.superseded {
            self.observe(&uid, Observation::Superseded);
        }
        if step.own.collect {
            let chosen = self.job.subject.job().unwrap().chosen.clone();
            let part = chosen.and_then(|uid| self.pods[&uid].subject.of_job().cloned());
            let mut output = part.and_then(|part| part.output).unwrap_or_default();
            let pods: Vec<_> = self.pods.values().cloned().map(Arc::new).collect();
            output.indexes = job::indexes::outputs(&pods, &self.policy);
            self.observe_job(job::Observation::Collected(output));
            let terminal = self.job.terminal.unwrap();
            for uid in self.pods.keys().cloned().collect::<Vec<_>>() {
                self.observe(&uid, Observation::AttemptEnded(terminal));
            }
            self.observe_job(job::Observation::Released);
        }
    }

    fn restart(&mut self) {
        if self.restarts {
            let again = |evidence: &Evidence| serde_json::from_slice(&serde_json::to_vec(evidence).unwrap()).unwrap();
            self.job = again(&self.job);
            self.pods = self.pods.iter().map(|(uid, pod)| (uid.clone(), again(pod))).collect();
        }
    }

    pub(crate) fn types(&self) -> Vec<&'static str> {
        self.drafts.iter().map(|draft| draft.payload.event_type()).collect()
    }

    pub(crate) fn terminals(&self) -> Vec<(&'static str, Terminal)> {
        let ends = self.drafts.iter().filter_map(|d| Some((d.payload.event_type(), d.payload.terminal()?.clone())));
        ends.collect()
    }

    pub(crate) fn only_end(&self) -> (&'static str, Terminal) {
        let ends = self.terminals();
        assert_eq!(ends.len(), 1, "{:?}", self.types());
        ends.into_iter().next().unwrap()
    }

    /// What the pods keep for the Job.
    pub(crate) fn outputs(&self) -> Vec<&str> {
        let outputs = self.pods.values().filter_map(|pod| pod.subject.of_job()?.output.as_ref());
        outputs.map(|output| output.stdout.text.as_str()).filter(|text| !text.is_empty()).collect()
    }
}
