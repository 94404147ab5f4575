//! The cases through the pure mapper: no server, no clock, no file.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, ToSpan};
use podherald::monitor::wire;
use podherald_core::{
    evidence::Evidence,
    identity,
    mapper::{self, Observation, Policy},
    output::{Collected, Limits, LogEnd, Scanner},
    pod::Pod,
};
use serde_json::Value;

use super::{
    expect::differences,
    grammar::{Case, Fetch, FrameKind, Logs, Step, load, recorded},
    own,
    variants::{self, FRAMES, INTERRUPTIONS, Key, Telling, tell, tell_with_one_interruption},
};

/// `logs.deadline` and `monitor.exit_grace` together.
const AFTERWARDS: SignedDuration = SignedDuration::from_secs(40);

/// What a monitor does, with everything that is not a decision left out.
struct Monitor {
    policy: Policy,
    now: Timestamp,
    /// What the API server has: pods, and what the log endpoint answers.
    shown: BTreeMap<Key, Value>,
    logs: BTreeMap<(Key, String), Vec<Fetch>>,
    tracked: BTreeMap<String, Tracked>,
    attempts: BTreeMap<String, u32>,
    /// Appends that are still to fail.
    faults: usize,
    events: Vec<Value>,
}

struct Tracked {
    evidence: Evidence,
    wake: Option<Timestamp>,
}

impl Monitor {
    fn new(begin: Timestamp) -> Self {
        Self {
            policy: Policy::default(),
            now: begin,
            shown: BTreeMap::new(),
            logs: BTreeMap::new(),
            tracked: BTreeMap::new(),
            attempts: BTreeMap::new(),
            faults: 0,
            events: Vec::new(),
        }
    }

    fn play(mut self, case: &Case) -> Vec<Value> {
        for step in &case.steps {
            self.now += 10.milliseconds();
            variants::follow(&mut self.shown, step);
            self.step(step);
        }
        self.pass(AFTERWARDS);
        crate::contract::assert_exact(&self.events);
        self.events
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Watch { kind, pod, logs } => {
                self.script_logs(std::slice::from_ref(pod), logs);
                let pod = read(pod);
                self.see(&pod);
                if *kind == FrameKind::Deleted {
                    self.gone(&pod.uid, true);
                }
            }
            Step::Relist { pods, logs } | Step::Reconcile { pods, logs } => {
                self.script_logs(pods, logs);
                let mut pods: Vec<Pod> = pods.iter().map(read).collect();
                pods.sort_by(|a, b| (a.created, &a.uid).cmp(&(b.created, &b.uid)));
                pods.iter().for_each(|pod| self.see(pod));
                let missing: Vec<String> =
                    self.tracked.keys().filter(|uid| pods.iter().all(|pod| pod.uid != **uid)).cloned().collect();
                missing.iter().for_each(|uid| self.gone(uid, false));
            }
            Step::Restart => self.restart(),
            Step::PublishFault { count } => self.faults += count,
            Step::Tick { seconds } => self.pass(SignedDuration::from_secs_f64(*seconds)),
            // What is known does not depend on the connection, nor on whoever waits for our place.
            Step::WatchRaw { .. } | Step::WatchDisconnect | Step::SecondMonitor => {}
        }
    }

    fn script_logs(&mut self, pods: &[Value], logs: &Logs) {
        for pod in pods {
            for (container, fetches) in logs {
                self.logs.insert((variants::key(pod), container.clone()), fetches.clone());
            }
        }
    }

    fn see(&mut self, pod: &Pod) {
        let places = identity::default_places();
        let Some(id) = identity::execution_id(pod, &places) else { return };
        if !self.tracked.contains_key(&pod.uid) {
            // A name is free only when its pod is gone (T16).
            let is_namesake = |tracked: &Tracked| {
                let known = &tracked.evidence;
                (&known.namespace, &known.name) == (&pod.namespace, &pod.name) && known.gone.is_none()
            };
            let namesakes: Vec<String> =
                self.tracked.iter().filter(|(_, t)| is_namesake(t)).map(|(uid, _)| uid.clone()).collect();
            namesakes.iter().for_each(|uid| self.gone(uid, false));
            let attempt = self.attempts.entry(id.to_owned()).or_default();
            *attempt += 1;
            let evidence = mapper::begin(pod, id, *attempt, &self.policy, self.now);
            self.tracked.insert(pod.uid.clone(), Tracked { evidence, wake: None });
        }
        self.observe(&pod.uid, &|| Observation::Seen(pod));
    }

    fn gone(&mut self, uid: &str, deleted: bool) {
        self.observe(uid, &|| Observation::Gone { deleted });
    }

    fn observe<'a>(&mut self, uid: &str, observation: &(dyn Fn() -> Observation<'a> + 'a)) {
        let Some(tracked) = self.tracked.get_mut(uid) else { return };
        while self.faults > 0 {
            // The append fails: the step is lost, and made again from the same evidence.
            self.faults -= 1;
            mapper::observe(&mut tracked.evidence.clone(), observation(), &self.policy, self.now);
        }
        let step = mapper::observe(&mut tracked.evidence, observation(), &self.policy, self.now);
        tracked.wake = step.wake;
        for draft in step.events {
            let known = self.events.iter().any(|event| event["event_id"] == draft.event_id.to_string());
            assert!(!known, "{} is made twice", draft.event_id);
            let seq = self.events.iter().filter(|event| event["execution_id"] == *draft.execution_id).count() + 1;
            let event = draft.number("pod-monitor:pure", u64::try_from(seq).unwrap());
            self.events.push(serde_json::from_slice(&event.to_bytes()).unwrap());
        }
        if step.collect {
            let collected = self.collect(uid);
            self.observe(uid, &|| Observation::Collected(Box::new(collected.clone())));
        }
    }

    /// Reads the log as far as the script goes; an error that is final or comes to the end of the script stays.
    fn collect(&self, uid: &str) -> Collected {
        let evidence = &self.tracked[uid].evidence;
        let ending = evidence.ending.as_ref().unwrap();
        let key = (evidence.namespace.clone(), evidence.name.clone());
        let is_there = self.shown.get(&key).is_some_and(|pod| pod["metadata"]["uid"] == *uid);
        let mut scanner = Scanner::new(Limits::default());
        let end = match &ending.container {
            None => LogEnd::None,
            Some(_) if !is_there => LogEnd::Lost("404".to_owned()),
            Some(container) => match self.logs.get(&(key, container.clone())).map(Vec::as_slice) {
                None => LogEnd::Complete,
                Some(fetches) => {
                    let is_final = |fetch: &&Fetch| matches!(fetch, Fetch::Parts(_) | Fetch::Error { status: 404, .. });
                    match fetches.iter().find(is_final).or(fetches.last()).unwrap() {
                        Fetch::Error { message, .. } => LogEnd::Lost(message.clone()),
                        Fetch::Parts(parts) => {
                            parts.iter().for_each(|part| scanner.push(&part.bytes()));
                            LogEnd::Complete
                        }
                    }
                }
            },
        };
        scanner.finish(end, ending.message.as_deref()).into_inline_only()
    }

    /// Memory is gone; the evidence comes back from its durable form.
    fn restart(&mut self) {
        for tracked in self.tracked.values_mut() {
            let bytes = serde_json::to_vec(&tracked.evidence).unwrap();
            let evidence: Evidence = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(evidence, tracked.evidence, "evidence survives its own form");
            *tracked = Tracked { evidence, wake: None };
        }
        let uids: Vec<String> = self.tracked.keys().cloned().collect();
        uids.iter().for_each(|uid| self.observe(uid, &|| Observation::Tick));
    }

    fn pass(&mut self, time: SignedDuration) {
        let until = self.now + time;
        let next = |tracked: &BTreeMap<String, Tracked>| {
            let wakes = tracked.iter().filter_map(|(uid, tracked)| Some((tracked.wake?, uid.clone())));
            wakes.min().filter(|(at, _)| *at <= until)
        };
        while let Some((at, uid)) = next(&self.tracked) {
            self.now = self.now.max(at);
            self.tracked.get_mut(&uid).unwrap().wake = None;
            self.observe(&uid, &|| Observation::Tick);
        }
        self.now = until;
    }
}

fn read(pod: &Value) -> Pod {
    let read: wire::Pod = serde_json::from_value(pod.clone()).unwrap();
    assert!(read.malformed.is_empty(), "{:?} cannot be read", read.malformed);
    read.facts.unwrap()
}

fn run(tellings: &[Telling]) {
    // The present is after the case's times; how long after decides nothing.
    for begin in ["2026-12-10T12:00:03Z", "2027-08-01T00:00:00Z"] {
        let begin: Timestamp = begin.parse().unwrap();
        let check = |telling: &Telling| {
            let events = Monitor::new(begin).play(&telling.case);
            let differences = differences(&telling.case.expect, &events);
            (!differences.is_empty()).then(|| (telling.name.clone(), differences))
        };
        let failures: Vec<_> = tellings.iter().filter_map(check).collect();
        variants::report(tellings.len(), &failures);
    }
}

fn all() -> Vec<Case> {
    [load(), own::cases(), recorded()].concat()
}

#[test]
fn every_case_is_told_as_expected() {
    assert_eq!(load().len(), 41);
    assert!(recorded().len() >= 30, "a case was not recorded");
    run(&tell(&all(), &FRAMES));
}

#[test]
fn every_case_is_told_the_same_when_lists_and_restarts_come_between_all_steps() {
    run(&tell(&all(), &INTERRUPTIONS));
}

#[test]
fn every_case_is_told_the_same_with_one_list_or_restart_at_any_step() {
    run(&tell_with_one_interruption(&all()));
}
