//! What a monitor that has lost its records takes up from what is kept elsewhere: attempts that nobody saw end.

use jiff::Timestamp;

use crate::{
    evidence::{Emitted, Evidence},
    execution::{Execution, Status},
    mapper::{self, Policy},
    pod::{Phase, Pod},
};

/// Labels of every pod of a Job.
const OF_A_JOB: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// The record of the pod of an execution's latest attempt, as far as its events tell it; nothing of it is to be told again. None if the
/// attempt has ended or never had a pod, and of a Job's: its record would need the Job, which tells its end.
pub fn expected(execution: &Execution, policy: &Policy, now: Timestamp) -> Option<Evidence> {
    let is_open = matches!(execution.status, Status::Scheduled | Status::Running);
    let is_of_a_job = OF_A_JOB.iter().any(|label| execution.labels.contains_key(*label));
    let mut pods = execution.pods.iter().filter(|pod| pod.attempt == execution.attempt);
    let known = pods.next().filter(|_| is_open && !is_of_a_job)?;
    if pods.next().is_some() {
        return None;
    }
    let pod = Pod {
        namespace: known.namespace.clone(),
        name: known.name.clone(),
        uid: known.uid.clone(),
        labels: execution.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        ..Pod::default()
    };
    let is_running = execution.status == Status::Running;
    Some(Evidence {
        first_seen: execution.times.created.unwrap_or(now),
        node_name: known.node_name.clone(),
        phase: known.phase,
        scheduled_at: execution.times.scheduled,
        started_at: execution.times.started,
        emitted: Emitted {
            pod_scheduled: true,
            started: is_running,
            running: is_running,
            pod_running: known.phase != Phase::Pending,
            ..Emitted::default()
        },
        ..mapper::begin(&pod, &execution.execution_id, execution.attempt, policy, now)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        event::{Slot, event_id},
        execution::PodSummary,
        mapper::{Observation, observe},
        output::Collected,
        pod::{Condition, Container, ContainerState, ContainerStatus},
    };

    fn running() -> Execution {
        let pod = PodSummary {
            namespace: "lab".to_owned(),
            name: "executor-e".to_owned(),
            uid: "u".to_owned(),
            node_name: None,
            phase: Phase::Running,
            attempt: 2,
        };
        let labels = [("execution-id".to_owned(), "e".to_owned())].into();
        let (status, pods) = (Status::Running, vec![pod]);
        Execution { status, attempt: 2, attempts: 2, pods, labels, ..Execution::new("e") }
    }

    #[test]
    fn what_is_taken_up_ends_under_the_id_that_it_would_have_had_and_says_nothing_again() {
        let policy = Policy::default();
        let mut evidence = expected(&running(), &policy, Timestamp::UNIX_EPOCH).unwrap();
        let now = Timestamp::from_second(100).unwrap();
        let step = observe(&mut evidence, Observation::Gone { deleted: false }, &policy, now);
        assert!(step.collect && evidence.is_collecting());
        let collected = Box::new(Collected::default());
        let told = observe(&mut evidence, Observation::Collected(collected), &policy, now);
        let events: Vec<_> = step.events.into_iter().chain(told.events).collect();
        let types: Vec<_> = events.iter().map(|event| event.payload.event_type()).collect();
        assert_eq!(types, ["pod_terminated", "execution_failed", "pod_deleted"]);
        assert_eq!((events[1].event_id, events[1].attempt), (event_id("e", "u", Slot::Terminal), 2));
    }

    #[test]
    fn what_is_taken_up_is_what_had_been_seen_and_told() {
        let (policy, now) = (Policy::default(), Timestamp::from_second(100).unwrap());
        let since = Timestamp::from_second(50).unwrap();
        let bound =
            Condition { kind: "PodScheduled".into(), is_true: true, since: Some(since), ..Condition::default() };
        let running = ContainerState::Running { started_at: Some(since) };
        let container = Container { name: "executor".into(), ..Container::default() };
        let status = ContainerStatus { name: "executor".into(), state: running, ..ContainerStatus::default() };
        for status in [None, Some(status)] {
            let pod = Pod {
                namespace: "lab".into(),
                name: "executor-e".into(),
                uid: "u".into(),
                labels: [("team".to_owned(), "blue".to_owned())].into_iter().collect(),
                created: Some(since),
                node_name: Some("n".into()),
                conditions: vec![bound.clone()],
                containers: vec![container.clone()],
                phase: if status.is_some() { Phase::Running } else { Phase::Pending },
                container_statuses: status.into_iter().collect(),
                ..Pod::default()
            };
            let mut seen = mapper::begin(&pod, "e", 1, &policy, now);
            let told = observe(&mut seen, Observation::Seen(&pod), &policy, now).events;
            let mut execution = Execution::new("e");
            execution.witness(&seen);
            for (seq, draft) in (1..).zip(told) {
                execution.apply(&draft.number("pod-monitor:x", seq));
            }
            let mut taken = expected(&execution, &policy, now).unwrap();
            let story = |of: &Evidence| {
                let whose =
                    (of.namespace.clone(), of.name.clone(), of.uid.clone(), of.labels.clone(), of.node_name.clone());
                (whose, of.phase, of.scheduled_at, of.started_at, of.emitted)
            };
            assert_eq!(story(&taken), story(&seen));
            assert_eq!(taken.first_seen, since);
            let step = observe(&mut taken, Observation::Seen(&pod), &policy, now);
            assert_eq!(step.events, [], "nothing of it is told again");
        }
    }

    #[test]
    fn only_an_open_attempt_of_one_bare_pod_is_taken_up() {
        let (policy, now) = (Policy::default(), Timestamp::UNIX_EPOCH);
        let is_taken = |change: fn(&mut Execution)| {
            let mut execution = running();
            change(&mut execution);
            expected(&execution, &policy, now).is_some()
        };
        assert!(is_taken(|_| {}));
        assert!(is_taken(|execution| execution.status = Status::Scheduled));
        assert!(!is_taken(|execution| execution.status = Status::Queued));
        assert!(!is_taken(|execution| execution.status = Status::Failed));
        assert!(!is_taken(|execution| execution.pods.clear()));
        assert!(!is_taken(|execution| execution.attempt = 3), "of which no pod was seen");
        assert!(!is_taken(|execution| execution.pods.push(execution.pods[0].clone())));
        assert!(!is_taken(|execution| drop(execution.labels.insert("job-name".to_owned(), "j".to_owned()))));
    }
}
