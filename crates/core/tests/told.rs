//! Two monitors see one pod, one tells, and dies at any moment: what the other tells then is what is missing.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    event::{Draft, Event},
    evidence::Evidence,
    mapper::{Observation, Policy, begin, observe},
    pod::{Condition, Container, ContainerState, ContainerStatus, Phase, Pod, Termination},
    told::{Told, keep_back},
};
use proptest::prelude::*;
use uuid::Uuid;

fn after(seconds: i64) -> Timestamp {
    "2026-02-10T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn pod(phase: Phase, state: Option<ContainerState>) -> Pod {
    let status = |state| ContainerStatus { name: "executor".into(), state, ..ContainerStatus::default() };
    let is_bound =
        Condition { kind: "PodScheduled".into(), is_true: true, since: Some(after(0)), ..Condition::default() };
    Pod {
        namespace: "ns".into(),
        name: "executor-e1".into(),
        uid: "uid-1".into(),
        node_name: Some("node-1".into()),
        containers: vec![Container { name: "executor".into(), ..Container::default() }],
        conditions: vec![is_bound],
        container_statuses: state.map(status).into_iter().collect(),
        phase,
        ..Pod::default()
    }
}

/// What happens to the pod, in order. The output comes to whoever asks for it.
const LIFE: usize = 4;

fn happen(to: &mut Monitor, what: usize) {
    let ended = ContainerState::Terminated(Termination {
        code: Some(3),
        started_at: Some(after(1)),
        finished_at: Some(after(5)),
        ..Termination::default()
    });
    match what {
        0 => to.observe(Observation::Seen(&pod(Phase::Pending, None))),
        1 => {
            let running = ContainerState::Running { started_at: Some(after(1)) };
            to.observe(Observation::Seen(&pod(Phase::Running, Some(running))));
        }
        2 => to.observe(Observation::Seen(&pod(Phase::Failed, Some(ended)))),
        _ => to.observe(Observation::Gone { deleted: true }),
    }
}

struct Monitor {
    evidence: Evidence,
    leads: bool,
    is_collecting: bool,
    told: Vec<Draft>,
}

impl Monitor {
    fn new(leads: bool, attempt: u32) -> Self {
        let evidence = begin(&pod(Phase::Pending, None), "e1", attempt, &Policy::default(), after(0));
        Self { evidence, leads, is_collecting: false, told: Vec::new() }
    }

    fn observe(&mut self, observation: Observation<'_>) {
        let step = observe(&mut self.evidence, observation, &Policy::default(), after(10));
        if self.leads {
            self.told.extend(step.events);
        } else {
            keep_back(&mut self.evidence, step.events);
        }
        if step.collect && self.leads {
            self.is_collecting = true;
        }
    }

    fn collect(&mut self) {
        if std::mem::take(&mut self.is_collecting) {
            self.observe(Observation::Collected(Box::default()));
        }
    }

    fn hear(&mut self, event: &Event) {
        self.observe(Observation::Told(&Told::of(event)));
    }

    fn take_over(&mut self) {
        self.leads = true;
        self.told.append(&mut self.evidence.untold);
        self.is_collecting = self.evidence.is_collecting();
    }
}

fn ids(drafts: &[Draft]) -> Vec<Uuid> {
    drafts.iter().map(|draft| draft.event_id).collect()
}

fn numbered(drafts: &[Draft]) -> Vec<Event> {
    (1..).zip(drafts).map(|(seq, draft)| draft.clone().number("pod-monitor:first", seq)).collect()
}

fn whole_life(attempt: u32) -> Monitor {
    let mut monitor = Monitor::new(true, attempt);
    for what in 0..LIFE {
        happen(&mut monitor, what);
        monitor.collect();
    }
    assert!(monitor.evidence.is_closed());
    monitor
}

proptest! {
    /// The leader has told the first events of its life and dies; the other has seen so much, and heard of them before or after.
    #[test]
    fn whoever_takes_over_tells_what_is_missing_and_nothing_else(
        published in 0..=8_usize,
        seen in 0..=LIFE,
        heard_before in 0..=8_usize,
    ) {
        let all = whole_life(7);
        let told = numbered(&all.told[..published.min(all.told.len())]);
        let (early, late) = told.split_at(heard_before.min(told.len()));
        let mut other = Monitor::new(false, 1);
        for what in 0..seen {
            happen(&mut other, what);
        }
        early.iter().for_each(|event| other.hear(event));
        prop_assert!(other.told.is_empty() && !other.is_collecting);
        late.iter().for_each(|event| other.hear(event));
        other.take_over();
        other.collect();
        for what in seen..LIFE {
            happen(&mut other, what);
            other.collect();
        }
        let theirs: BTreeSet<Uuid> = told.iter().map(|event| event.event_id).collect();
        let mine = ids(&other.told);
        prop_assert!(mine.iter().all(|id| !theirs.contains(id)), "told again");
        let union: BTreeSet<Uuid> = theirs.iter().copied().chain(mine.iter().copied()).collect();
        prop_assert_eq!(union.len(), theirs.len() + mine.len(), "told twice");
        prop_assert_eq!(union, ids(&all.told).into_iter().collect::<BTreeSet<_>>());
        prop_assert!(other.evidence.is_closed());
        // The one who counts first counts for all.
        let attempt = if told.is_empty() { 1 } else { 7 };
        prop_assert!(other.told.iter().all(|draft| draft.attempt == attempt));
    }

    /// Both live on, and the other hears of everything, in any order with what it sees itself.
    #[test]
    fn a_record_is_closed_by_what_another_has_told(order in proptest::collection::vec(any::<bool>(), 0..24)) {
        let all = numbered(&whole_life(1).told);
        let mut heard = all.iter();
        let mut seen = 0..LIFE;
        let mut other = Monitor::new(false, 1);
        for hears in order {
            if hears {
                heard.next().into_iter().for_each(|event| other.hear(event));
            } else {
                seen.next().into_iter().for_each(|what| happen(&mut other, what));
            }
        }
        heard.for_each(|event| other.hear(event));
        seen.for_each(|what| happen(&mut other, what));
        prop_assert!(other.told.is_empty());
        prop_assert_eq!(&other.evidence.untold, &Vec::new());
        prop_assert!(other.evidence.is_closed());
    }
}

#[test]
fn what_is_told_of_another_pod_changes_nothing() {
    let mut event = numbered(&whole_life(1).told).pop().unwrap();
    event.event_id = Uuid::nil();
    let mut other = Monitor::new(false, 1);
    happen(&mut other, 0);
    let before = other.evidence.clone();
    other.hear(&event);
    assert_eq!(other.evidence, before);
}
