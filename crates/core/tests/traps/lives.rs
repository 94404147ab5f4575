//! From the first look to the last event.

use jiff::SignedDuration;
use podherald_core::{
    event::{CauseClass, ErrorType, ExitSource, Payload},
    identity::{Place, attempt_key, default_places, execution_id},
    mapper::{Observation, begin, observe},
    output::{Captured, Collected},
    pod::{ContainerState, ContainerStatus, Phase, Pod, RestartPolicy, Termination},
};

use crate::life::*;

#[test]
fn an_execution_id_is_the_first_usable_one_of_its_places() {
    let places = default_places();
    let id = |pod: &Pod| execution_id(pod, &places).map(str::to_owned);
    let mut named = pod(Phase::Pending);
    assert_eq!(id(&named).as_deref(), Some("e1"), "label execution-id");
    named.labels = [("eval-id".into(), "v1".into())].into_iter().collect();
    named.annotations.insert("integr8s.io/execution-id".into(), "a1".into());
    assert_eq!(id(&named).as_deref(), Some("v1"), "label eval-id before the annotation");
    named.labels.clear();
    assert_eq!(id(&named).as_deref(), Some("a1"));
    for unusable in [String::new(), "x".repeat(254), "a\nb".into()] {
        named.annotations.insert("integr8s.io/execution-id".into(), unusable);
        assert_eq!(id(&named).as_deref(), Some("e1"), "what follows executor- in the name");
    }
    named.annotations.insert("integr8s.io/execution-id".into(), "x".repeat(253));
    assert_eq!(id(&named).map(|id| id.len()), Some(253));
    named.annotations.clear();
    named.name = "stranger".into();
    assert_eq!(id(&named), None);
    for place in &places {
        assert_eq!(place.to_string().parse().as_ref(), Ok(place));
    }
    assert!("name:x".parse::<Place>().is_err() && "label:".parse::<Place>().is_err());
    assert_eq!(attempt_key(&named), "uid-1", "never the name (T16)");
    named.annotations.insert("podherald.dev/attempt".into(), "k1".into());
    assert_eq!(attempt_key(&named), "k1");
}

#[test]
fn the_end_may_stand_only_in_the_deleted_object() {
    // T2
    let (event_type, _) =
        Life::of([with(Phase::Running, running()), with(Phase::Succeeded, ended(0, "Completed"))]).outcome();
    assert_eq!(event_type, "execution_completed");
}

#[test]
fn a_pod_deleted_while_running_ends_as_deleted() {
    // T3, T32
    let life = Life::of([with(Phase::Running, running()), deleting(with(Phase::Running, running()))]).gone(true);
    assert_eq!(life.failure(), (CauseClass::Deleted, "Deleted".into(), ErrorType::SystemError, None));
}

#[test]
fn a_pod_that_vanished_ends_as_unknown() {
    // T1
    let life = Life::of([with(Phase::Running, running())]).gone(false);
    assert_eq!(life.failure(), (CauseClass::Unknown, "Vanished".into(), ErrorType::SystemError, None));
}

#[test]
fn a_fast_pod_that_skips_phases_has_its_steps_synthesised_in_order() {
    // T4
    let mut life = Life::of([with(Phase::Succeeded, ended(0, "Completed"))]);
    life.collect();
    assert_eq!(
        life.types(),
        [
            "pod_scheduled",
            "execution_started",
            "pod_running",
            "execution_running",
            "pod_terminated",
            "execution_completed"
        ]
    );
    assert!(life.events[..4].iter().all(|event| event.synthesized));
    assert_eq!(life.events[1].timestamp, after(1));
}

#[test]
fn a_restart_that_redelivers_a_recorded_pod_is_a_no_op() {
    // T6
    let mut life = Life::of([with(Phase::Succeeded, ended(0, "Completed"))]);
    life.collect();
    let step = observe(
        life.evidence.as_mut().unwrap(),
        Observation::Seen(&with(Phase::Succeeded, ended(0, "Completed"))),
        &life.policy,
        life.now,
    );
    assert!(!step.changed && step.events.is_empty() && !step.collect);
}

#[test]
fn the_main_container_drives_not_the_phase() {
    // T22, T23: the phase lags, a mesh sidecar keeps the pod running for ever (T27).
    let mut frame = with(Phase::Running, ended(3, "Error"));
    frame.containers.push(container("mesh"));
    frame.container_statuses.insert(0, status("mesh", running()));
    assert_eq!(Life::of([frame]).failure(), (CauseClass::UserCode, "Error".into(), ErrorType::ScriptError, Some(3)));
}

#[test]
fn a_deadline_waits_for_the_exit_code_and_then_no_longer() {
    // T24
    let exceeded = |state| Pod { reason: Some("DeadlineExceeded".into()), ..with(Phase::Failed, state) };
    let mut life = Life::of([exceeded(running())]);
    assert!(life.is_open());
    life.see(&exceeded(ended(137, "Error")));
    let (event_type, terminal) = life.outcome();
    assert_eq!((event_type, terminal.exit.code, terminal.timeout_seconds), ("execution_timeout", Some(137), Some(60)));
    assert_eq!((terminal.error_type, terminal.exit_code), (Some(ErrorType::Timeout), None));

    let mut life = Life::of([exceeded(running())]);
    assert_eq!(life.wake, Some(life.now + SignedDuration::from_secs(10)));
    life.wait(9);
    assert!(life.is_open());
    life.wait(1);
    let (event_type, terminal) = life.outcome();
    assert_eq!((event_type, terminal.exit.code, terminal.exit.source), ("execution_timeout", None, ExitSource::None));
}

#[test]
fn an_exit_code_that_comes_after_the_terminal_event_amends_it_once() {
    // T24, T33
    let exceeded = |state| Pod { reason: Some("DeadlineExceeded".into()), ..with(Phase::Failed, state) };
    let mut life = Life::of([exceeded(running())]);
    life.wait(10);
    life.collect();
    life.see(&exceeded(ended(143, "Error")));
    life.see(&exceeded(ended(143, "Error")));
    let amended: Vec<_> = life.events.iter().filter(|e| e.payload.event_type() == "execution_amended").collect();
    assert_eq!(amended.len(), 1);
    let Payload::ExecutionAmended { amends, exit, .. } = &amended[0].payload else { unreachable!() };
    assert_eq!((Some(*amends), exit.unwrap().code), (life.evidence.unwrap().terminal, Some(143)));
}

#[test]
fn the_code_of_an_earlier_run_neither_decides_nor_amends() {
    // T40, T41: the second run was still going when the deadline came; nobody knows its code.
    let status = ContainerStatus { restart_count: 1, last_state: ended(1, "Error"), ..status("executor", running()) };
    let frame = Pod {
        restart_policy: RestartPolicy::OnFailure,
        reason: Some("DeadlineExceeded".into()),
        container_statuses: vec![status],
        ..pod(Phase::Failed)
    };
    let mut life = Life::of([frame.clone()]);
    life.wait(10);
    life.collect();
    life.see(&frame);
    let end = life.events.last().unwrap();
    assert_eq!(end.payload.event_type(), "execution_timeout");
    assert_eq!(end.payload.terminal().unwrap().exit.code, None);
}

#[test]
fn an_exit_code_that_comes_while_the_output_is_read_improves_the_decision() {
    let exceeded = |state| Pod { reason: Some("DeadlineExceeded".into()), ..with(Phase::Failed, state) };
    let mut life = Life::of([exceeded(running())]);
    life.wait(10);
    let decided_at = life.now;
    life.now += SignedDuration::from_secs(1);
    life.see(&exceeded(ended(0, "Completed")));
    assert_eq!(life.evidence.as_ref().unwrap().ending.as_ref().unwrap().decided_at, decided_at);
    let (event_type, terminal) = life.outcome();
    assert_eq!((event_type, terminal.exit.code), ("execution_completed", Some(0)));
}

#[test]
fn a_deadline_with_the_main_container_at_0_is_a_success() {
    // T25; a sidecar at 1 does not count
    let mut frame = Pod { reason: Some("DeadlineExceeded".into()), ..with(Phase::Failed, ended(0, "Completed")) };
    frame.containers.push(container("sidecar"));
    frame.container_statuses.push(status("sidecar", ended(1, "Error")));
    assert_eq!(Life::of([frame]).outcome().0, "execution_completed");
}

#[test]
fn a_container_that_failed_well_before_the_deadline_failed_by_itself() {
    let exceeded = |code, finished| {
        let end = Termination { finished_at: Some(after(finished)), ..end(code, "Error") };
        Pod { reason: Some("DeadlineExceeded".into()), ..with(Phase::Failed, ContainerState::Terminated(end)) }
    };
    assert_eq!(Life::of([exceeded(3, 58)]).outcome().0, "execution_failed");
    assert_eq!(Life::of([exceeded(3, 59)]).outcome().0, "execution_timeout", "one second is the clock's grain (T50)");
    assert_eq!(Life::of([exceeded(137, 30)]).outcome().0, "execution_timeout");
    assert_eq!(Life::of([exceeded(143, 30)]).outcome().0, "execution_timeout");
}

#[test]
fn an_end_in_evidence_before_the_deadline_stands() {
    let mut life = Life::of([with(Phase::Running, ended(137, "Error"))]);
    life.see(&Pod { reason: Some("DeadlineExceeded".into()), ..with(Phase::Failed, ended(137, "Error")) });
    assert_eq!(life.outcome().0, "execution_failed");
}

#[test]
fn the_main_container_is_chosen_by_annotation_then_name_then_spec_and_kept() {
    // T26
    let statuses =
        vec![status("a", ended(0, "Completed")), status("b", ended(4, "Error")), status("executor", ended(5, "Error"))];
    let base = Pod {
        containers: vec![container("b"), container("executor"), container("a")],
        container_statuses: statuses,
        ..pod(Phase::Failed)
    };
    let code = |pod: &Pod| Life::of([pod.clone()]).failure().3;
    assert_eq!(code(&base), Some(5), "by kube.container");
    let mut annotated = base.clone();
    annotated.annotations.insert("kubectl.kubernetes.io/default-container".into(), "b".into());
    assert_eq!(code(&annotated), Some(4), "the annotation outranks it");
    annotated.annotations.insert("kubectl.kubernetes.io/default-container".into(), "nobody".into());
    assert_eq!(code(&annotated), Some(5), "unless it names nobody");
    let mut unnamed = base.clone();
    unnamed.containers.remove(1);
    assert_eq!(code(&unnamed), Some(4), "the first of the spec, not of the statuses");
    let first = Pod { container_statuses: vec![], ..pod(Phase::Pending) };
    let mut swapped = base;
    swapped.containers = vec![container("a")];
    assert_eq!(Life::of([first, swapped]).failure().3, Some(5), "chosen once");
}

#[test]
fn a_container_that_starts_and_ends_within_a_second_has_both_times() {
    // T50
    let instant = Termination { started_at: Some(after(5)), ..end(0, "Completed") };
    let mut life = Life::of([with(Phase::Succeeded, ContainerState::Terminated(instant))]);
    life.collect();
    assert!(life.events.iter().all(|event| event.timestamp >= after(5)));
}

#[test]
fn a_termination_message_stands_in_for_stderr_only_where_no_log_has_one() {
    // T51
    let told = Termination { message: Some("boom".into()), ..end(2, "Error") };
    let mut life = Life::of([with(Phase::Failed, ContainerState::Terminated(told.clone()))]);
    let read = Captured { text: "own".into(), ..Captured::default() };
    life.observe(Observation::Collected(Box::new(Collected { stderr: Some(read), ..Collected::default() })));
    assert_eq!(life.events.last().unwrap().payload.terminal().unwrap().stderr, "own");
    let (_, terminal) = Life::of([with(Phase::Failed, ContainerState::Terminated(told))]).outcome();
    assert_eq!(terminal.stderr, "boom");
    let summary = Termination { message: Some("exit_code=2\nwall_seconds=0.5\n".into()), ..end(2, "Error") };
    let (_, terminal) = Life::of([with(Phase::Failed, ContainerState::Terminated(summary))]).outcome();
    assert_eq!(terminal.stderr, "", "a frames' summary is no message");
}

#[test]
fn a_poorer_status_takes_nothing_back() {
    // T65a
    let mut life = Life::of([with(Phase::Running, running())]);
    life.see(&Pod {
        node_name: None,
        start_time: None,
        container_statuses: vec![],
        containers: vec![],
        ..pod(Phase::Pending)
    });
    let evidence = life.evidence.as_ref().unwrap();
    assert_eq!(
        (evidence.phase, evidence.started_at, evidence.node_name.as_deref()),
        (Phase::Running, Some(after(1)), Some("node-1"))
    );
}

#[test]
fn a_report_turns_a_0_into_its_code_and_never_outranks_the_kubelet() {
    // T82
    let report = |code| Collected { exit_code: Some(code), ..Collected::default() };
    let mut life = Life::of([with(Phase::Succeeded, ended(0, "Completed"))]);
    life.observe(Observation::Collected(Box::new(report(7))));
    let last = &life.events.last().unwrap().payload;
    assert_eq!(last.event_type(), "execution_failed");
    let exit = last.terminal().unwrap().exit;
    assert_eq!((exit.code, exit.source), (Some(7), ExitSource::Report));

    let mut life = Life::of([with(Phase::Failed, ended(137, "OOMKilled"))]);
    life.observe(Observation::Collected(Box::new(report(0))));
    let terminal = life.events.last().unwrap().payload.terminal().unwrap().clone();
    assert_eq!((terminal.exit.code, terminal.error_type), (Some(137), Some(ErrorType::ResourceLimit)));
    assert!(terminal.cause.unwrap().evidence.contains(&"report: exit_code=0".to_owned()), "the disagreement is kept");
}

#[test]
fn a_report_that_could_not_be_read_is_said_to_be_unread() {
    let mut life = Life::of([with(Phase::Succeeded, ended(0, "Completed"))]);
    life.observe(Observation::Collected(Box::new(Collected {
        notes: vec!["report_unread".into()],
        ..Collected::default()
    })));
    let last = &life.events.last().unwrap().payload;
    assert_eq!(last.event_type(), "execution_completed");
    assert!(last.terminal().unwrap().cause.as_ref().unwrap().evidence.contains(&"report_unread".to_owned()));
}

#[test]
fn pod_deleted_comes_last_and_waits_for_the_terminal_event() {
    let mut life = Life::of([with(Phase::Running, running())]).gone(true);
    assert!(!life.types().contains(&"pod_deleted"));
    life.collect();
    assert_eq!(life.types()[life.types().len() - 3..], ["pod_terminated", "execution_failed", "pod_deleted"]);
}

#[test]
fn a_conflicting_pod_has_no_events() {
    let frame = with(Phase::Succeeded, ended(0, "Completed"));
    let mut life = Life::new();
    let mut evidence = begin(&frame, "e1", 0, &life.policy, life.now);
    evidence.conflict = true;
    life.evidence = Some(evidence);
    life.see(&frame);
    life.observe(Observation::Gone { deleted: true });
    assert!(life.events.is_empty() && !life.collecting && life.evidence.unwrap().is_closed());
}
