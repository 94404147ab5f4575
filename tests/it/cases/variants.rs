//! The same story told otherwise. Whatever is changed here must not change what is told of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::grammar::{Case, FrameKind, Logs, Step};

/// A case in one of its tellings.
pub(super) struct Telling {
    /// Case and variant, for a message.
    pub(super) name: String,
    pub(super) case: Case,
}

/// How a story can be told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// Word for word.
    Plain,
    /// The statuses of the containers stand in another order (T26).
    Permuted,
    /// One more container, last in the spec, first in the statuses, ending with 0 (T27).
    Sidecar,
    /// Every frame comes twice (T6).
    Repeated,
    /// Before this step (or each), a list that shows what was so far.
    Relisted(At),
    /// The same, and the process had died.
    Restarted(At),
    /// Two at once.
    Both(&'static Variant, &'static Variant),
}

/// Before which step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Each,
    Step(usize),
}

/// Those that change the frames.
pub(super) const FRAMES: [Variant; 5] = [
    Variant::Plain,
    Variant::Permuted,
    Variant::Sidecar,
    Variant::Repeated,
    Variant::Both(&Variant::Sidecar, &Variant::Repeated),
];

/// Those that interrupt, at every step at once.
pub(super) const INTERRUPTIONS: [Variant; 7] = [
    Variant::Relisted(At::Each),
    Variant::Restarted(At::Each),
    Variant::Both(&Variant::Repeated, &Variant::Relisted(At::Each)),
    Variant::Both(&Variant::Repeated, &Variant::Restarted(At::Each)),
    Variant::Both(&Variant::Sidecar, &Variant::Relisted(At::Each)),
    Variant::Both(&Variant::Sidecar, &Variant::Restarted(At::Each)),
    Variant::Both(&Variant::Relisted(At::Each), &Variant::Restarted(At::Each)),
];

/// Every case in each of these variants.
pub(super) fn tell(cases: &[Case], variants: &[Variant]) -> Vec<Telling> {
    let tellings = cases.iter().flat_map(|case| variants.iter().map(move |variant| telling(case, *variant)));
    tellings.collect()
}

/// Every case with one interruption, in turn before each of its steps and after the last.
pub(super) fn tell_with_one_interruption(cases: &[Case]) -> Vec<Telling> {
    let at_steps = |case: &Case| (0..=case.steps.len()).map(At::Step).collect::<Vec<_>>();
    let kinds: [fn(At) -> Variant; 2] = [Variant::Relisted, Variant::Restarted];
    let of_case = |case| {
        let at_steps = at_steps(case).into_iter();
        at_steps.flat_map(move |at| kinds.map(|kind| telling(case, kind(at))))
    };
    cases.iter().flat_map(of_case).collect()
}

fn telling(case: &Case, variant: Variant) -> Telling {
    let mut told = case.clone();
    change(&mut told.steps, variant);
    Telling { name: format!("{} ({}), {variant:?}", case.id, case.title), case: told }
}

fn change(steps: &mut Vec<Step>, variant: Variant) {
    match variant {
        Variant::Plain => {}
        Variant::Permuted => pods(steps).for_each(permute),
        Variant::Sidecar => pods(steps).for_each(add_sidecar),
        Variant::Repeated => *steps = steps.iter().flat_map(repeat).collect(),
        Variant::Relisted(at) => interrupt(steps, at, false),
        Variant::Restarted(at) => interrupt(steps, at, true),
        Variant::Both(first, second) => {
            change(steps, *first);
            change(steps, *second);
        }
    }
}

fn pods(steps: &mut [Step]) -> impl Iterator<Item = &mut Value> {
    steps.iter_mut().flat_map(|step| match step {
        Step::Watch { pod, .. } => std::slice::from_mut(pod),
        Step::Relist { pods, .. } | Step::Reconcile { pods, .. } => pods.as_mut_slice(),
        _ => &mut [],
    })
}

fn permute(pod: &mut Value) {
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        if let Some(statuses) = pod["status"].get_mut(list).and_then(Value::as_array_mut) {
            statuses.reverse();
        }
    }
}

fn add_sidecar(pod: &mut Value) {
    const NAME: &str = "a-sidecar";
    let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if let Some(containers) = pod["spec"].get_mut("containers").and_then(Value::as_array_mut) {
        containers.push(json!({"name": NAME, "image": "sidecar"}));
    }
    let Some(statuses) = pod["status"].get_mut("containerStatuses").and_then(Value::as_array_mut) else { return };
    // A kubelet that has told of no container yet has not told of this one.
    if statuses.is_empty() {
        return;
    }
    let state = match has_ended {
        true => json!({"terminated": {
            "exitCode": 0, "reason": "Completed",
            "startedAt": "2026-02-10T12:00:00Z", "finishedAt": "2026-02-10T12:00:02Z",
        }}),
        false => json!({"running": {"startedAt": "2026-02-10T12:00:00Z"}}),
    };
    statuses.insert(
        0,
        json!({
            "name": NAME, "image": "sidecar", "imageID": "", "ready": !has_ended, "restartCount": 0,
            "state": state, "lastState": {},
        }),
    );
}

fn repeat(step: &Step) -> Vec<Step> {
    let times = match step {
        Step::Watch { .. } | Step::WatchRaw { .. } => 2,
        _ => 1,
    };
    vec![step.clone(); times]
}

fn interrupt(steps: &mut Vec<Step>, at: At, restart: bool) {
    let mut told = Vec::new();
    let mut shown = BTreeMap::new();
    for (index, step) in steps.iter().enumerate() {
        if at == At::Each || at == At::Step(index) {
            told.extend(interruption(&shown, restart));
        }
        told.push(step.clone());
        follow(&mut shown, step);
    }
    if at == At::Each || at == At::Step(steps.len()) {
        told.extend(interruption(&shown, restart));
    }
    *steps = told;
}

fn interruption(shown: &BTreeMap<Key, Value>, restart: bool) -> Vec<Step> {
    let relist = Step::Relist { pods: shown.values().cloned().collect(), logs: Logs::new() };
    if restart { vec![Step::Restart, relist] } else { vec![relist] }
}

/// Namespace and name.
pub(super) type Key = (String, String);

pub(super) fn key(pod: &Value) -> Key {
    let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

/// What the API server has after the step.
pub(super) fn follow(shown: &mut BTreeMap<Key, Value>, step: &Step) {
    match step {
        Step::Watch { kind: FrameKind::Deleted, pod, .. } => {
            shown.remove(&key(pod));
        }
        Step::Watch { pod, .. } => {
            shown.insert(key(pod), pod.clone());
        }
        Step::Relist { pods, .. } | Step::Reconcile { pods, .. } => {
            *shown = pods.iter().map(|pod| (key(pod), pod.clone())).collect();
        }
        _ => {}
    }
}

/// Runs all tellings and fails with every one that went wrong.
pub(super) fn report(tellings: usize, failures: &[(String, Vec<String>)]) {
    if failures.is_empty() {
        return;
    }
    let cases: BTreeSet<&str> = failures.iter().map(|(name, _)| name.split(' ').next().unwrap_or(name)).collect();
    let lines: Vec<String> =
        failures.iter().map(|(name, differences)| format!("{name}\n    {}", differences.join("\n    "))).collect();
    panic!("{} of {tellings} tellings went wrong, of cases {cases:?}:\n{}", failures.len(), lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(value: Value) -> Vec<Step> {
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, phase: &str) -> Value {
        let state = json!({"name": "main", "state": {"running": {}}});
        json!({
            "metadata": {"namespace": "n", "name": name},
            "spec": {"containers": [{"name": "main"}]},
            "status": {"phase": phase, "containerStatuses": [state]},
        })
    }

    fn watch(kind: &str, pod: Value) -> Value {
        json!({"op": "watch", "type": kind, "pod": pod})
    }

    fn listed(step: &Step) -> Vec<&str> {
        let Step::Relist { pods, .. } = step else { panic!("no list: {step:?}") };
        pods.iter().map(|pod| pod["status"]["phase"].as_str().unwrap()).collect()
    }

    #[test]
    fn an_interruption_shows_what_was_before_it() {
        let mut told = steps(json!([
            watch("ADDED", pod("p", "Pending")),
            watch("MODIFIED", pod("p", "Running")),
            watch("DELETED", pod("p", "Running")),
        ]));
        change(&mut told, Variant::Restarted(At::Each));
        assert_eq!(told.len(), 3 + 4 * 2);
        let lists: Vec<_> = told.iter().filter(|step| matches!(step, Step::Relist { .. })).map(listed).collect();
        assert_eq!(lists, [vec![], vec!["Pending"], vec!["Running"], vec![]]);
        assert!(matches!(told[0], Step::Restart) && matches!(told[1], Step::Relist { .. }));
    }

    #[test]
    fn a_sidecar_is_last_in_the_spec_and_first_in_the_statuses() {
        let mut told = steps(json!([watch("ADDED", pod("p", "Running")), watch("MODIFIED", pod("p", "Failed"))]));
        change(&mut told, Variant::Both(&Variant::Sidecar, &Variant::Repeated));
        let pods: Vec<_> = pods(&mut told).map(|pod| pod.clone()).collect();
        assert_eq!(pods.len(), 4);
        for pod in &pods {
            assert_eq!(pod["spec"]["containers"][1]["name"], "a-sidecar");
            assert_eq!(pod["status"]["containerStatuses"][0]["name"], "a-sidecar");
        }
        assert!(pods[0].pointer("/status/containerStatuses/0/state/running").is_some());
        assert_eq!(pods[3].pointer("/status/containerStatuses/0/state/terminated/exitCode"), Some(&json!(0)));
    }
}
