//! A pod of which nothing is heard: when it is looked for, and what that comes to.
#![allow(clippy::unwrap_used, missing_docs)]

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    event::{CauseClass, ExitSource, Payload, Terminal},
    evidence::{Evidence, Outcome},
    mapper::{Observation, Policy, Step, begin, node_to_ask, observe},
    pod::{Container, ContainerState, ContainerStatus, Phase, Pod, RestartPolicy, Termination},
    silence::{Node, Patience, Readiness, Ready},
};
use proptest::prelude::*;

const GRACE: i64 = 180;
const BY: i64 = 3600;
const DEADLINE: i64 = 60;
/// When a pod with [`DEADLINE`] is looked for.
const DUE: i64 = DEADLINE + GRACE;

fn at(seconds: i64) -> Timestamp {
    "2026-02-10T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn running() -> Pod {
    Pod {
        namespace: "ns".into(),
        name: "executor-e1".into(),
        uid: "uid-1".into(),
        node_name: Some("node-1".into()),
        restart_policy: RestartPolicy::Never,
        start_time: Some(at(0)),
        containers: vec![Container { name: "executor".into(), ..Container::default() }],
        phase: Phase::Running,
        container_statuses: vec![ContainerStatus {
            name: "executor".into(),
            state: ContainerState::Running { started_at: Some(at(0)) },
            ..ContainerStatus::default()
        }],
        ..Pod::default()
    }
}

fn with_deadline() -> Pod {
    Pod { active_deadline_seconds: Some(DEADLINE), ..running() }
}

fn deleted_at(seconds: i64, pod: Pod) -> Pod {
    Pod { deletion: Some(at(seconds)), deletion_grace_seconds: Some(30), ..pod }
}

fn there(ready: Ready, since: i64, heartbeat: i64) -> Node {
    let reason = Some("SomeReason".to_owned());
    Node::There(Readiness { ready, reason, since: Some(at(since)), heartbeat: Some(at(heartbeat)) })
}

fn unreachable() -> Node {
    there(Ready::Unknown, 50, 10)
}

struct Watched {
    evidence: Evidence,
    policy: Policy,
}

impl Watched {
    fn of(pod: &Pod) -> Self {
        let patience = Patience { grace: SignedDuration::from_secs(GRACE), by: None };
        let policy = Policy { must_hear: Some(patience), ..Policy::default() };
        let mut watched = Self { evidence: begin(pod, "e1", 1, &policy, at(0)), policy };
        let seen_at = pod.deletion.map_or(0, |deletion| deletion.duration_since(at(0)).as_secs());
        watched.sees(seen_at, pod);
        watched
    }

    fn within(mut self, by: i64) -> Self {
        self.policy.must_hear.as_mut().unwrap().by = Some(SignedDuration::from_secs(by));
        self
    }

    fn observes(&mut self, seconds: i64, observation: Observation<'_>) -> Step {
        observe(&mut self.evidence, observation, &self.policy, at(seconds))
    }

    fn sees(&mut self, seconds: i64, pod: &Pod) -> Step {
        self.observes(seconds, Observation::Seen(pod))
    }

    fn ticks(&mut self, seconds: i64) -> Step {
        self.observes(seconds, Observation::Tick)
    }

    /// Looks at these times, each of which has to be due, and returns whether the attempt has ended with the last.
    fn finds(&mut self, looks: &[(i64, Node)]) -> bool {
        for (seconds, node) in looks {
            assert!(!self.ticks(seconds - 1).look, "{seconds} is not the time");
            assert!(self.ticks(*seconds).look, "{seconds} is the time");
            assert_eq!(node_to_ask(&self.evidence, &self.policy, at(*seconds)), Some("node-1"));
            self.observes(*seconds, Observation::Looked(node.clone()));
            assert_eq!(node_to_ask(&self.evidence, &self.policy, at(*seconds)), None);
        }
        self.evidence.ending.is_some()
    }

    fn cause(&self) -> (CauseClass, &str, String) {
        let ending = self.evidence.ending.as_ref().unwrap();
        assert_eq!((ending.exit.code, ending.exit.source), (None, ExitSource::None));
        let cause = ending.cause.as_ref().unwrap();
        (cause.class, &cause.reason, cause.evidence.join("\n"))
    }
}

#[test]
fn nothing_is_asked_for_before_an_end_is_overdue() {
    let of_deadline = Watched::of(&with_deadline()).ticks(1);
    assert_eq!((of_deadline.wake, of_deadline.look), (Some(at(DUE)), false));
    let of_deletion = Watched::of(&deleted_at(0, with_deadline())).ticks(1);
    assert_eq!(of_deletion.wake, Some(at(30 + GRACE)), "whichever is first");
    assert_eq!(Watched::of(&running()).ticks(1).wake, None, "it may run for ever");
    assert_eq!(Watched::of(&running()).within(BY).ticks(1).wake, Some(at(BY)));
    let homeless = Pod { node_name: None, start_time: None, ..with_deadline() };
    assert_eq!(Watched::of(&homeless).within(BY).ticks(1).wake, None, "no kubelet is to tell of it");
}

/// T52: a kubelet that has never said a word has not set `startTime` either.
#[test]
fn a_pod_that_its_kubelet_has_never_touched_is_overdue_after_it_got_its_node() {
    let untouched = Pod { phase: Phase::Pending, start_time: None, container_statuses: Vec::new(), ..with_deadline() };
    assert_eq!(Watched::of(&untouched).ticks(1).wake, Some(at(DUE)));
}

/// T33
#[test]
fn a_node_that_is_found_lost_twice_ends_the_attempt_with_what_was_found() {
    for (node, reason, said) in [
        (Node::Gone, "NodeGone", "there is none of that name"),
        (unreachable(), "NodeUnreachable", "condition Ready Unknown since 2026-02-10T12:00:50Z, reason SomeReason"),
        (there(Ready::False, 50, 10), "NodeNotReady", "condition Ready False since 2026-02-10T12:00:50Z"),
    ] {
        for pod in [with_deadline(), deleted_at(DEADLINE - 30, running())] {
            let mut watched = Watched::of(&pod);
            assert!(!watched.finds(&[(DUE, node.clone())]), "it may be away for a moment");
            assert!(watched.finds(&[(DUE + GRACE, node.clone())]));
            let (class, found, evidence) = watched.cause();
            assert_eq!((class, found), (CauseClass::NodeLost, reason));
            assert!(evidence.contains(said) && evidence.contains("found so since 2026-02-10T12:04:00Z"), "{evidence}");
        }
        let mut watched = Watched::of(&running()).within(BY);
        assert!(watched.finds(&[(BY, node.clone()), (BY + GRACE, node)]));
        assert_eq!(watched.cause().0, CauseClass::NodeLost);
    }
}

#[test]
fn a_node_that_lives_is_waited_for_less_and_less_often() {
    let mut watched = Watched::of(&with_deadline());
    let looks = [0, 1, 2, 4, 8, 16, 32].map(|times| DUE + times * GRACE).map(|at| (at, there(Ready::True, 0, at)));
    assert!(!watched.finds(&looks));
    let last = DUE + 32 * GRACE;
    assert!(!watched.finds(&[3600, 7200].map(|more| (last + more, there(Ready::True, 0, last + more)))));
    // What is due anew is looked for as if for the first time.
    let mut watched = Watched::of(&running()).within(BY);
    assert!(!watched.finds(&[BY, 2 * BY].map(|at| (at, there(Ready::True, 0, at)))));
    watched.sees(2 * BY + 5, &deleted_at(2 * BY + 5, running()));
    assert_eq!(watched.ticks(2 * BY + 6).wake, Some(at(2 * BY + 5 + 30 + GRACE)));
}

/// T89: by our own clock, for what its node's shows nobody knows.
#[test]
fn a_node_that_is_called_ready_but_has_no_heartbeat_for_long_is_lost() {
    let mut watched = Watched::of(&with_deadline());
    let quiet = |times: i64| (DUE + times * GRACE, there(Ready::True, 0, 5));
    assert!(!watched.finds(&[quiet(0), quiet(1), quiet(2), quiet(4)]));
    assert!(watched.finds(&[quiet(8)]));
    assert_eq!(watched.cause().1, "NodeSilent");

    let mut watched = Watched::of(&with_deadline());
    let never = Node::There(Readiness { ready: Ready::True, ..Readiness::default() });
    assert!(
        !watched.finds(&[0, 1, 2, 4, 8, 16].map(|times| (DUE + times * GRACE, never.clone()))),
        "it tells none ever"
    );
}

#[test]
fn a_node_that_may_not_be_asked_for_is_not_called_lost() {
    for pod in [with_deadline(), deleted_at(DEADLINE - 30, running())] {
        let mut watched = Watched::of(&pod);
        assert!(watched.finds(&[(DUE, Node::Forbidden), (DUE + GRACE, Node::Forbidden)]));
        let (class, reason, evidence) = watched.cause();
        assert_eq!((class, reason), (CauseClass::Unknown, "NotHeardOf"));
        assert!(evidence.contains("podherald may not ask for it"), "{evidence}");
    }
    let mut watched = Watched::of(&running()).within(BY);
    assert!(
        !watched.finds(&[1, 2, 3].map(|times| (times * BY, Node::Forbidden))),
        "nothing says that it should have ended"
    );
    // Nor does what was found then, once its end is due.
    watched.sees(3 * BY, &deleted_at(3 * BY, running()));
    let due = 3 * BY + 30 + GRACE;
    assert!(!watched.finds(&[(due, Node::Forbidden)]));
    assert!(watched.finds(&[(due + GRACE, Node::Forbidden)]));
}

#[test]
fn a_doubt_that_does_not_last_is_none() {
    let mut watched = Watched::of(&with_deadline());
    assert!(!watched.finds(&[(DUE, unreachable()), (DUE + GRACE, there(Ready::True, DUE + 9, DUE + GRACE))]));
    assert!(
        !watched.finds(&[(DUE + 2 * GRACE, unreachable()), (DUE + 3 * GRACE, there(Ready::Unknown, DUE + 400, 0))])
    );
    assert!(watched.finds(&[(DUE + 4 * GRACE, there(Ready::Unknown, DUE + 400, 0))]), "away since then");
}

#[test]
fn whoever_asked_for_the_end_has_cancelled_it_though_its_node_was_lost() {
    let annotations = [("podherald.dev/intent".to_owned(), "enough".to_owned())].into_iter().collect();
    let mut watched = Watched::of(&Pod { annotations, ..deleted_at(DEADLINE - 30, running()) });
    assert!(watched.finds(&[(DUE, unreachable()), (DUE + GRACE, unreachable())]));
    assert_eq!(watched.evidence.ending.as_ref().unwrap().outcome, Outcome::Cancelled);
}

#[test]
fn what_a_lost_node_tells_when_it_is_back_amends_and_changes_no_status() {
    let mut watched = Watched::of(&with_deadline());
    assert!(watched.finds(&[(DUE, unreachable()), (DUE + GRACE, unreachable())]));
    let told = watched.observes(DUE + GRACE + 1, Observation::Collected(Box::default())).events;
    let Payload::ExecutionFailed(Terminal { exit_code: None, .. }) = &told[0].payload else { panic!("{told:?}") };
    let mut back = with_deadline();
    back.phase = Phase::Succeeded;
    back.container_statuses[0].state =
        ContainerState::Terminated(Termination { code: Some(0), finished_at: Some(at(20)), ..Termination::default() });
    let told = watched.sees(9999, &back).events;
    let amended = told.iter().find_map(|event| match &event.payload {
        Payload::ExecutionAmended { exit, .. } => *exit,
        _ => None,
    });
    assert_eq!(amended.unwrap().code, Some(0), "{told:?}");
}

/// The answer of the look itself may bring it.
#[test]
fn an_end_that_is_heard_in_time_is_told_as_it_was() {
    let mut watched = Watched::of(&with_deadline());
    assert!(!watched.finds(&[(DUE, unreachable())]));
    let failed = Pod {
        phase: Phase::Failed,
        reason: Some("DeadlineExceeded".into()),
        container_statuses: Vec::new(),
        ..with_deadline()
    };
    watched.sees(DUE + GRACE, &failed);
    watched.observes(DUE + GRACE, Observation::Looked(unreachable()));
    watched.ticks(DUE + 2 * GRACE);
    assert_eq!(watched.evidence.ending.as_ref().unwrap().outcome, Outcome::Timeout);
}

fn nodes() -> impl Strategy<Value = Node> {
    prop_oneof![
        Just(Node::Gone),
        Just(Node::Forbidden),
        (0..3_usize, 0..3_i64, 0..3_i64).prop_map(|(ready, since, heartbeat)| {
            there([Ready::True, Ready::False, Ready::Unknown][ready], since, heartbeat)
        }),
    ]
}

proptest! {
    #[test]
    fn an_attempt_ends_only_by_looks_that_agree_for_the_whole_grace(
        looks in prop::collection::vec((-300_i64..1200, nodes()), 1..40),
        by in prop::option::of(1_i64..5000),
        has_deadline: bool,
    ) {
        let mut watched = Watched::of(&if has_deadline { with_deadline() } else { running() });
        watched.policy.must_hear.as_mut().unwrap().by = by.map(SignedDuration::from_secs);
        let (mut now, mut agreed) = (0, None::<(i64, Node)>);
        for (passes, node) in looks {
            now = (now + passes).max(0);
            let step = watched.ticks(now);
            prop_assert!(step.wake.is_none_or(|wake| wake > at(now)), "a time that is over is no plan");
            if !step.look {
                continue;
            }
            watched.observes(now, Observation::Looked(node.clone()));
            let word = node.word();
            let since = agreed.take().filter(|(_, earlier)| earlier.word() == word).map_or(now, |(since, _)| since.min(now));
            agreed = Some((since, node));
            if watched.evidence.ending.is_some() {
                prop_assert!(now - since >= GRACE, "{word} since {since}, ended at {now}");
                prop_assert!(has_deadline || by.is_some());
                break;
            }
        }
        prop_assert!(watched.evidence.ending.is_none() || !watched.observes(now, Observation::Collected(Box::default())).events.is_empty());
    }
}
