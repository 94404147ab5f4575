//! What an execution is, and how an event looks on the wire.
#![allow(clippy::unwrap_used, missing_docs)]

use jiff::Timestamp;
use podherald_core::{
    event::{Draft, Event, Exit, ExitSource, Metadata, Payload, Slot, Terminal, event_id},
    evidence::{Ending, Evidence, Gone, MonitorState, Outcome},
    execution::{Execution, Status, VersionVector},
    mapper::{Policy, begin, output_uri},
    pod::{Phase, Pod},
};
use serde_json::{Value, json};
use uuid::Uuid;

fn at(second: u32) -> Timestamp {
    format!("2026-02-10T12:00:{second:02}Z").parse().unwrap()
}

fn evidence(uid: &str, attempt: u32) -> Evidence {
    let pod = Pod {
        namespace: "ns".into(),
        name: format!("executor-{uid}"),
        uid: uid.into(),
        labels: [("user-id".into(), "ada".into())].into_iter().collect(),
        ..Pod::default()
    };
    Evidence { node_name: Some("n".into()), ..begin(&pod, "e1", attempt, &Policy::default(), at(1)) }
}

fn event(attempt: u32, seq: u64, payload: Payload) -> Event {
    let draft = Draft {
        event_id: Uuid::from_u128(u128::from(seq)),
        execution_id: "e1".into(),
        attempt,
        timestamp: at(5),
        synthesized: false,
        metadata: Metadata { service_name: "pod-monitor".into(), ..Metadata::default() },
        payload,
    };
    draft.number("pod-monitor:x", seq)
}

fn scheduled() -> Payload {
    Payload::PodScheduled { pod_name: "p".into(), node_name: None }
}

fn running() -> Payload {
    Payload::ExecutionRunning { pod_name: "p".into() }
}

fn terminal(code: i32) -> Terminal {
    let exit = Exit { code: Some(code), signal: None, source: ExitSource::Kubelet };
    Terminal { exit, exit_code: Some(code), stdout: format!("out {code}"), ..Terminal::default() }
}

fn fold(events: &[Event]) -> Execution {
    let mut execution = Execution::new("e1");
    for event in events {
        execution.apply(event);
    }
    execution
}

#[test]
fn a_status_rises_by_rank_and_the_first_end_stays() {
    let steps = [
        (None, "pending", 0),
        (Some(scheduled()), "scheduled", 2),
        (Some(running()), "running", 3),
        (Some(scheduled()), "running", 3),
        (Some(Payload::ExecutionFailed(terminal(1))), "failed", 9),
        (Some(Payload::ExecutionCompleted(terminal(0))), "failed", 9),
        (Some(running()), "failed", 9),
    ];
    let mut execution = Execution::new("e1");
    for (seq, (payload, status, rank)) in (1..).zip(steps) {
        if let Some(payload) = payload {
            execution.apply(&event(1, seq, payload));
        }
        assert_eq!((execution.status.as_str(), execution.status.rank()), (status, rank));
        assert_eq!(execution.status.is_terminal(), rank == 9);
    }
    assert_eq!((execution.exit.unwrap().code, execution.stdout.as_deref()), (Some(1), Some("out 1")));
    assert_eq!(execution.times.ended, Some(at(5)));
}

#[test]
fn every_status_has_the_name_that_it_has_in_json() {
    let all = [
        (Status::Pending, 0),
        (Status::Queued, 1),
        (Status::Scheduled, 2),
        (Status::Running, 3),
        (Status::Completed, 9),
        (Status::Failed, 9),
        (Status::Timeout, 9),
        (Status::Cancelled, 9),
    ];
    for (status, rank) in all {
        assert_eq!(serde_json::to_value(status).unwrap(), json!(status.as_str()));
        assert_eq!(status.rank(), rank);
    }
}

#[test]
fn the_four_ends_bring_about_their_statuses_and_pod_events_none() {
    let status = |payload| Status::after(&payload);
    assert_eq!(status(Payload::ExecutionCompleted(terminal(0))), Some(Status::Completed));
    assert_eq!(status(Payload::ExecutionFailed(terminal(1))), Some(Status::Failed));
    assert_eq!(status(Payload::ExecutionTimeout(terminal(137))), Some(Status::Timeout));
    assert_eq!(status(Payload::ExecutionCancelled(terminal(143))), Some(Status::Cancelled));
    assert_eq!(status(Payload::PodDeleted { pod_name: "p".into(), reason: None }), None);
    assert_eq!(status(Payload::PodRunning { pod_name: "p".into(), container_statuses: vec![] }), None);
}

#[test]
fn an_execution_shows_its_latest_attempt_and_all_its_pods() {
    let mut execution = Execution::new("e1");
    execution.witness(&evidence("u1", 1));
    execution.apply(&event(1, 1, Payload::ExecutionFailed(terminal(1))));
    execution.witness(&evidence("u2", 2));
    assert_eq!((execution.status, execution.attempt, execution.attempts), (Status::Pending, 2, 2));
    assert_eq!((&execution.exit, &execution.stdout, execution.times.ended), (&None, &None, None));
    execution.apply(&event(2, 2, running()));
    execution.apply(&event(1, 3, Payload::ExecutionCompleted(terminal(0))));
    assert_eq!(execution.status, Status::Running, "an earlier attempt's event changes nothing");
    assert_eq!(execution.as_of.0["pod-monitor:x"], 3, "but it has been seen");
    let pods: Vec<_> = execution.pods.iter().map(|pod| (pod.uid.as_str(), pod.attempt)).collect();
    assert_eq!(pods, [("u1", 1), ("u2", 2)]);
    assert_eq!(execution.user_id.as_deref(), Some("ada"));
}

#[test]
fn a_pod_seen_again_is_the_same_pod_and_times_keep_their_earliest() {
    let mut execution = Execution::new("e1");
    let first = Evidence { scheduled_at: Some(at(3)), ..evidence("u1", 1) };
    execution.witness(&first);
    let later = Evidence { phase: Phase::Running, scheduled_at: Some(at(2)), started_at: Some(at(4)), ..first };
    execution.witness(&later);
    execution.witness(&Evidence { started_at: Some(at(6)), scheduled_at: Some(at(9)), ..later });
    assert_eq!((execution.pods.len(), execution.pods[0].phase), (1, Phase::Running));
    assert_eq!(execution.times.scheduled, Some(at(2)));
    assert_eq!(execution.times.started, Some(at(4)));
    assert_eq!(execution.times.created, Some(at(1)), "without a creation time, the first sight");
    let mut untouched = Execution::new("e1");
    untouched.witness(&Evidence { conflict: true, ..evidence("u9", 0) });
    assert_eq!(untouched, Execution::new("e1"), "a conflicting pod is none of its pods");
}

#[test]
fn an_amendment_is_listed_once_and_changes_no_status() {
    let amends = Uuid::from_u128(7);
    let amendment = Payload::ExecutionAmended { amends, exit: Some(Exit::default()), evidence: vec!["late".into()] };
    let end = event(1, 1, Payload::ExecutionFailed(terminal(1)));
    let late = event(1, 2, amendment);
    let execution = fold(&[end, late.clone(), late]);
    assert_eq!((execution.status, execution.amended.len()), (Status::Failed, 1));
    assert_eq!(execution.amended[0].amends, amends);
}

#[test]
fn a_version_vector_covers_what_it_has_passed() {
    let mut vector = VersionVector::default();
    assert!(!vector.covers("a", 1));
    vector.advance("a", 5);
    vector.advance("a", 3);
    vector.advance("b", 1);
    assert!(vector.covers("a", 5) && vector.covers("a", 1) && !vector.covers("a", 6) && !vector.covers("c", 1));
}

#[test]
fn an_event_has_its_envelope_and_its_fields_side_by_side() {
    let mut draft = event(2, 9, Payload::PodScheduled { pod_name: "p".into(), node_name: Some("n".into()) });
    draft.synthesized = true;
    let value: Value = serde_json::from_slice(&draft.to_bytes()).unwrap();
    let metadata = json!({"service_name": "pod-monitor", "service_version": "", "environment": ""});
    assert_eq!(
        value,
        json!({
            "event_id": "00000000-0000-0000-0000-000000000009", "event_version": "1.0", "synthesized": true,
            "timestamp": "2026-02-10T12:00:05.000000Z", "execution_id": "e1", "attempt": 2, "source": "pod-monitor:x", "seq": 9,
            "metadata": metadata, "event_type": "pod_scheduled", "pod_name": "p", "node_name": "n"
        })
    );
    assert_eq!(serde_json::from_value::<Event>(value).unwrap(), draft);
    let unsynthesized: Value = serde_json::from_slice(&event(1, 1, running()).to_bytes()).unwrap();
    assert!(unsynthesized.get("synthesized").is_none() && unsynthesized.get("node_name").is_none());
}

#[test]
fn every_payload_names_its_type_as_its_json_does() {
    let all = [
        scheduled(),
        running(),
        Payload::ExecutionStarted { pod_name: "p".into(), node_name: None, container_id: None },
        Payload::PodRunning { pod_name: "p".into(), container_statuses: vec![] },
        Payload::PodTerminated { pod_name: "p".into(), exit_code: None, reason: None, message: None },
        Payload::PodDeleted { pod_name: "p".into(), reason: None },
        Payload::ExecutionCompleted(terminal(0)),
        Payload::ExecutionFailed(terminal(1)),
        Payload::ExecutionTimeout(terminal(2)),
        Payload::ExecutionCancelled(terminal(3)),
        Payload::ExecutionAmended { amends: Uuid::nil(), exit: None, evidence: vec![] },
    ];
    for payload in all {
        assert_eq!(serde_json::to_value(&payload).unwrap()["event_type"], payload.event_type());
        let is_end = matches!(Status::after(&payload), Some(status) if status.is_terminal());
        assert_eq!(payload.terminal().is_some(), is_end);
    }
}

#[test]
fn an_event_id_depends_on_execution_attempt_and_slot_and_on_nothing_else() {
    let slots = [
        Slot::PodScheduled,
        Slot::Started,
        Slot::PodRunning,
        Slot::Running,
        Slot::PodTerminated,
        Slot::Terminal,
        Slot::PodDeleted,
        Slot::Amended(1),
        Slot::Amended(2),
    ];
    let mut ids: Vec<_> = slots.iter().map(|slot| event_id("e", "k", *slot)).collect();
    ids.extend([event_id("e", "l", Slot::Terminal), event_id("f", "k", Slot::Terminal)]);
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
    // For ever: another value here would make every journal's ids foreign.
    assert_eq!(event_id("e", "k", Slot::Terminal).to_string(), "77ce964b-15f4-5805-8cf3-0f6f4a6d5ec9");
}

#[test]
fn the_monitor_state_follows_the_record() {
    let open = evidence("u1", 1);
    assert_eq!((open.monitor_state(), open.is_collecting(), open.is_closed()), (MonitorState::Tracked, false, false));
    let ending = Ending {
        outcome: Outcome::Completed,
        exit: Exit::default(),
        cause: None,
        oom: None,
        at: at(5),
        decided_at: at(6),
        container: None,
        message: None,
        deadline_seconds: None,
    };
    let collecting = Evidence { ending: Some(Box::new(ending)), ..open.clone() };
    assert_eq!((collecting.monitor_state(), collecting.is_collecting()), (MonitorState::Collecting, true));
    let mut ended = Evidence { terminal: Some(Uuid::nil()), ..collecting };
    assert_eq!((ended.monitor_state(), ended.is_collecting(), ended.is_closed()), (MonitorState::Ended, false, false));
    ended.gone = Some(Gone { at: at(9), deleted: true });
    assert!(!ended.is_closed(), "pod_deleted is still to come");
    ended.emitted.pod_deleted = true;
    assert!(ended.is_closed());
    ended.terminal = None;
    assert!(!ended.is_closed());
    let conflict = Evidence { conflict: true, ..open };
    assert_eq!((conflict.monitor_state(), conflict.is_closed()), (MonitorState::Conflict, false));
    assert!(Evidence { gone: ended.gone, ..conflict }.is_closed());
}

#[test]
fn a_record_without_amendments_does_not_mention_them() {
    let value = serde_json::to_value(evidence("u1", 1)).unwrap();
    assert!(value.get("amendments").is_none());
    let amended = serde_json::to_value(Evidence { amendments: 2, ..evidence("u1", 1) }).unwrap();
    assert_eq!(amended["amendments"], 2);
    assert_eq!(serde_json::from_value::<Evidence>(amended).unwrap().amendments, 2);
}

#[test]
fn an_output_is_found_whatever_characters_its_execution_has() {
    assert_eq!(output_uri("a-b_c.d~1"), "/executions/a-b_c.d~1/output");
    assert_eq!(output_uri("a/b c?é"), "/executions/a%2Fb%20c%3F%C3%A9/output");
}
