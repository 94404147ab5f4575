//! Whatever happens to the frames of a pod that ends, it ends once, under the same ids, and nothing seen is forgotten.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    event::{Event, Payload},
    evidence::Evidence,
    execution::Execution,
    mapper::{Observation, Policy, begin, observe},
    pod::{Condition, Container, ContainerState, ContainerStatus, Phase, Pod, RestartPolicy, Termination},
};
use proptest::prelude::*;

fn t0() -> Timestamp {
    "2026-02-10T12:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    t0() + SignedDuration::from_secs(seconds)
}

fn pod(phase: Phase, state: Option<ContainerState>, restarts: u32, policy: RestartPolicy) -> Pod {
    Pod {
        namespace: "ns".into(),
        name: "executor-e1".into(),
        uid: "uid-1".into(),
        created: Some(t0()),
        labels: [("execution-id".into(), "e1".into())].into_iter().collect(),
        node_name: Some("node-1".into()),
        restart_policy: policy,
        containers: vec![Container { name: "executor".into(), ..Container::default() }],
        phase,
        conditions: vec![Condition {
            kind: "PodScheduled".into(),
            is_true: true,
            since: Some(t0()),
            ..Condition::default()
        }],
        container_statuses: state
            .map(|state| ContainerStatus {
                name: "executor".into(),
                restart_count: restarts,
                state,
                ..ContainerStatus::default()
            })
            .into_iter()
            .collect(),
        ..Pod::default()
    }
}

fn ended(code: i32, reason: &str) -> ContainerState {
    ContainerState::Terminated(Termination {
        code: Some(code),
        reason: Some(reason.into()),
        started_at: Some(after(1)),
        finished_at: Some(after(5)),
        ..Termination::default()
    })
}

/// The frames of one life in their true order; the last is terminal.
fn life(policy: RestartPolicy, restarts: u32, code: i32) -> Vec<Pod> {
    let waiting = |reason: &str| ContainerState::Waiting { reason: Some(reason.into()), message: None };
    let running = || ContainerState::Running { started_at: Some(after(1)) };
    let mut frames = vec![
        Pod { node_name: None, conditions: vec![], ..pod(Phase::Pending, None, 0, policy) },
        pod(Phase::Pending, Some(waiting("ContainerCreating")), 0, policy),
        pod(Phase::Running, Some(running()), 0, policy),
    ];
    for run in 1..=restarts {
        let mut crashed = pod(Phase::Running, Some(waiting("CrashLoopBackOff")), run, policy);
        crashed.container_statuses[0].last_state = ended(1, "Error");
        let mut again = pod(Phase::Running, Some(running()), run, policy);
        again.container_statuses[0].last_state = ended(1, "Error");
        frames.extend([crashed, again]);
    }
    let (phase, reason) = if code == 0 { (Phase::Succeeded, "Completed") } else { (Phase::Failed, "Error") };
    frames.push(pod(phase, Some(ended(code, reason)), restarts, policy));
    frames
}

/// What may happen between two frames.
#[derive(Debug, Clone)]
enum Act {
    Frame(usize),
    Restart,
    Collect,
    Tick(u16),
}

fn acts(frames: usize) -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0..frames).prop_map(Act::Frame),
        1 => Just(Act::Restart),
        1 => Just(Act::Collect),
        1 => (0u16..400).prop_map(Act::Tick),
    ];
    prop::collection::vec(act, 0..24)
}

/// A monitor and its journal, as small as they can be.
struct World {
    policy: Policy,
    now: Timestamp,
    evidence: Option<Evidence>,
    journal: Vec<Event>,
    /// An output that is being read; a restart forgets it.
    collecting: bool,
}

impl World {
    fn new() -> Self {
        Self { policy: Policy::default(), now: after(10), evidence: None, journal: Vec::new(), collecting: false }
    }

    fn observe(&mut self, observation: Observation<'_>) {
        let Some(evidence) = &mut self.evidence else { return };
        let before = evidence.clone();
        let step = observe(evidence, observation, &self.policy, self.now);
        assert_grown(&before, evidence);
        self.collecting |= step.collect;
        for draft in step.events {
            assert!(self.journal.iter().all(|known| known.event_id != draft.event_id), "made twice: {draft:?}");
            let seq = self.journal.len() as u64 + 1;
            self.journal.push(draft.number("pod-monitor:epoch", seq));
        }
    }

    fn act(&mut self, act: &Act, frames: &[Pod]) {
        match act {
            Act::Frame(n) => {
                let frame = &frames[*n];
                self.evidence.get_or_insert_with(|| begin(frame, "e1", 1, &self.policy, self.now));
                self.observe(Observation::Seen(frame));
            }
            Act::Restart => {
                let bytes = serde_json::to_vec(&self.evidence).unwrap();
                self.evidence = serde_json::from_slice(&bytes).unwrap();
                self.collecting = self.evidence.as_ref().is_some_and(Evidence::is_collecting);
            }
            Act::Collect => {
                if std::mem::take(&mut self.collecting) {
                    self.observe(Observation::Collected(Box::default()));
                }
            }
            Act::Tick(seconds) => {
                self.now += SignedDuration::from_secs(i64::from(*seconds));
                self.observe(Observation::Tick);
            }
        }
    }

    fn terminals(&self) -> Vec<&Event> {
        self.journal.iter().filter(|event| event.payload.terminal().is_some()).collect()
    }
}

fn assert_grown(before: &Evidence, now: &Evidence) {
    let facts = |e: &Evidence| {
        [
            ("main", e.main.is_some()),
            ("scheduled_at", e.scheduled_at.is_some()),
            ("started_at", e.started_at.is_some()),
            ("exit", e.exit.is_some()),
            ("exit code", e.exit.as_ref().is_some_and(|exit| exit.end.code.is_some())),
            ("init_failure", e.init_failure.is_some()),
            ("disruption", e.disruption.is_some()),
            ("deletion", e.deletion.is_some()),
            ("gone", e.gone.is_some()),
            ("ending", e.ending.is_some()),
            ("terminal", e.terminal.is_some()),
            ("pod_running", e.emitted.pod_running),
            ("pod_terminated", e.emitted.pod_terminated),
            ("pod_deleted", e.emitted.pod_deleted),
            ("terminal phase", e.phase.is_terminal()),
        ]
    };
    for ((name, had), (_, has)) in facts(before).into_iter().zip(facts(now)) {
        assert!(!had || has, "{name} was known and is forgotten");
    }
    if before.terminal.is_some() {
        assert_eq!(before.terminal, now.terminal);
    }
    if let (Some(a), Some(b)) = (&before.exit, &now.exit) {
        assert!(a.run <= b.run, "an older run's end replaced a newer one's");
    }
}

fn policies() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![Just(RestartPolicy::Never), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Always)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_order_loss_repetition_and_restart_ends_an_attempt_once(
        policy in policies(), restarts in 0u32..3, code in prop_oneof![Just(0), Just(1), Just(137), Just(143)], script in acts(20),
    ) {
        let restarts = if policy == RestartPolicy::Never { 0 } else { restarts };
        let frames = life(policy, restarts, code);
        let mut world = World::new();
        for act in &script {
            let act = match act {
                Act::Frame(n) => Act::Frame(n % frames.len()),
                other => other.clone(),
            };
            world.act(&act, &frames);
        }
        world.act(&Act::Frame(frames.len() - 1), &frames);
        world.act(&Act::Collect, &frames);
        world.act(&Act::Restart, &frames);
        world.act(&Act::Collect, &frames);
        for frame in 0..frames.len() {
            world.act(&Act::Frame(frame), &frames); // a relist re-delivers whatever it likes
        }

        let terminals = world.terminals();
        prop_assert_eq!(terminals.len(), 1);
        let terminal = terminals[0].payload.terminal().unwrap();
        prop_assert_eq!(terminal.exit.code, Some(code));
        prop_assert_eq!(matches!(terminals[0].payload, Payload::ExecutionCompleted(_)), code == 0);

        let mut plain = World::new();
        for frame in 0..frames.len() {
            plain.act(&Act::Frame(frame), &frames);
        }
        plain.act(&Act::Collect, &frames);
        let ids = |world: &World| world.journal.iter().map(|event| event.event_id).collect::<BTreeSet<_>>();
        prop_assert_eq!(ids(&world), ids(&plain), "the same steps under the same ids, however they came to be known");

        let mut execution = Execution::new("e1");
        execution.witness(world.evidence.as_ref().unwrap());
        let forward = world.journal.iter().fold(execution.clone(), |mut e, event| { e.apply(event); e });
        let backward = world.journal.iter().rev().fold(execution, |mut e, event| { e.apply(event); e });
        prop_assert_eq!(forward, backward, "the projection does not depend on the order of events");
    }

    #[test]
    fn a_pod_that_is_gone_ends_at_once_whatever_was_seen(
        policy in policies(), restarts in 0u32..3, seen in prop::collection::vec(0usize..20, 1..8), deleted in any::<bool>(),
    ) {
        let frames = life(policy, restarts, 1);
        let mut world = World::new();
        for frame in seen {
            world.act(&Act::Frame(frame % frames.len()), &frames);
        }
        world.observe(Observation::Gone { deleted });
        prop_assert!(world.evidence.as_ref().unwrap().ending.is_some());
        world.act(&Act::Restart, &frames);
        world.act(&Act::Collect, &frames);
        prop_assert_eq!(world.terminals().len(), 1);
        prop_assert_eq!(world.journal.last().unwrap().payload.event_type(), "pod_deleted");
        prop_assert!(world.evidence.as_ref().unwrap().is_closed());
    }
}
