//! Why an attempt ended.

use jiff::SignedDuration;
use podherald_core::{
    event::{CauseClass, ErrorType, ExitSource, Terminal},
    evidence::{Intent, PendingClass, Purpose},
    mapper::{Observation, observe},
    pod::{Condition, Container, ContainerState, ContainerStatus, Phase, Pod, RestartPolicy, RestartRule, Termination},
};

use crate::life::*;

#[test]
fn a_pod_that_its_node_refused_never_started() {
    // T26
    for reason in ["OutOfcpu", "NodeAffinity", "UnexpectedAdmissionError"] {
        let refused = Pod { reason: Some(reason.into()), message: Some("no".into()), ..pod(Phase::Failed) };
        let expected = (CauseClass::NeverStarted, reason.to_owned(), ErrorType::SystemError, None);
        assert_eq!(Life::of([refused]).failure(), expected);
    }
}

#[test]
fn success_without_statuses_is_code_0() {
    let (event_type, terminal) = Life::of([pod(Phase::Succeeded)]).outcome();
    assert_eq!((event_type, terminal.exit_code), ("execution_completed", Some(0)));
}

#[test]
fn a_success_against_the_odds_says_which() {
    let told = |reason: &str| Pod { reason: Some(reason.into()), ..with(Phase::Failed, ended(0, "Completed")) };
    let cause = |pod| Life::of([pod]).outcome().1.cause;
    assert_eq!(cause(told("DeadlineExceeded")).unwrap().class, CauseClass::Timeout);
    assert_eq!(cause(told("Evicted")).unwrap().class, CauseClass::Evicted);
    assert_eq!(cause(with(Phase::Succeeded, ended(0, "OOMKilled"))).unwrap().class, CauseClass::ResourceLimit);
    assert_eq!(cause(with(Phase::Succeeded, ended(0, "Completed"))), None, "a plain one has no cause");
}

#[test]
fn a_failed_pod_that_only_waited_says_for_what() {
    let (_, terminal) = Life::of([with(Phase::Failed, waiting("ImagePullBackOff"))]).outcome();
    let cause = terminal.cause.unwrap();
    assert_eq!((cause.class, cause.reason.as_str()), (CauseClass::NeverStarted, "ImagePullBackOff"));
    assert_eq!(cause.message, "the program could not start: ImagePullBackOff: msg ImagePullBackOff");
    assert_eq!((terminal.stderr.as_str(), terminal.exit.source), ("msg ImagePullBackOff", ExitSource::None));
}

#[test]
fn a_failed_pod_whose_program_had_started_is_not_said_to_have_never_started() {
    let mut life = Life::of([with(Phase::Running, running())]);
    life.see(&pod(Phase::Failed));
    life.wait(10);
    let (class, reason, error_type, code) = life.failure();
    assert_eq!(
        (class, reason.as_str(), error_type, code),
        (CauseClass::Unknown, "Unknown", ErrorType::SystemError, None)
    );
    let evicted = Pod { reason: Some("OutOfMemory".into()), ..pod(Phase::Failed) };
    let mut life = Life::of([with(Phase::Running, running()), evicted]);
    life.wait(10);
    assert_eq!(life.failure().0, CauseClass::Unknown, "a node does not refuse what it has run");
}

#[test]
fn the_log_is_asked_for_only_where_a_program_may_have_run() {
    let log_of = |pod: Pod| Life::of([pod]).evidence.unwrap().ending.unwrap().container;
    assert_eq!(log_of(with(Phase::Failed, ended(1, "Error"))).as_deref(), Some("executor"));
    assert_eq!(log_of(pod(Phase::Succeeded)).as_deref(), Some("executor"));
    assert_eq!(log_of(pod(Phase::Failed)).as_deref(), Some("executor"), "nobody knows, so it is tried");
    assert_eq!(log_of(with(Phase::Failed, waiting("ImagePullBackOff"))), None);
    assert_eq!(log_of(with(Phase::Pending, waiting("InvalidImageName"))), None);
    let init = Pod {
        init_containers: vec![container("setup")],
        init_container_statuses: vec![status("setup", ended(5, "Error"))],
        ..pod(Phase::Failed)
    };
    assert_eq!(log_of(init).as_deref(), Some("setup"), "the container that decided");
}

#[test]
fn a_cause_says_in_a_sentence_what_happened() {
    let message = |pod| Life::of([pod]).outcome().1.error_message.unwrap();
    assert_eq!(message(with(Phase::Failed, ended(3, "Error"))), "the program ended with exit code 3");
    assert_eq!(
        message(with(Phase::Failed, ended(137, "Error"))),
        "the program was killed (exit code 137) and nothing tells by whom"
    );
    assert_eq!(message(with(Phase::Failed, ended(128, "StartError"))), "the program could not start (exit code 128)");
    let told = Termination { message: Some("first\nexec: no such file\n".into()), ..end(128, "StartError") };
    assert_eq!(
        message(with(Phase::Failed, ContainerState::Terminated(told))),
        "the program could not start: exec: no such file"
    );
}

#[test]
fn evidence_names_the_facts_and_says_nothing_of_what_was_not() {
    let facts = |life: Life| life.outcome().1.cause.unwrap().evidence;
    let plain = facts(Life::of([with(Phase::Failed, ended(3, "Error"))]));
    assert_eq!(
        plain,
        ["pod phase Failed", "container main terminated, exit code 3, reason Error, finished 2026-02-10T12:00:05Z"]
    );
    let mut frame = deleting(disrupted("PreemptionByScheduler", with(Phase::Running, ended(143, "Error"))));
    frame.container_statuses[0].restart_count = 2;
    frame.annotations.insert("podherald.dev/intent".into(), "asked".into());
    let rich = facts(Life::of([frame])).join("; ");
    for fact in [
        "after 2 restarts",
        "by convention signal 15",
        "DisruptionTarget: PreemptionByScheduler",
        "annotated intent: asked",
        "deletion was requested",
    ] {
        assert!(rich.contains(fact), "{fact} is not in {rich}");
    }
    let gone = facts(Life::of([with(Phase::Running, running())]).gone(false));
    assert_eq!(gone, ["pod phase Running", "main container last seen running", "pod not found"]);
    let waited = facts(Life::of([with(Phase::Failed, waiting("ErrImagePull"))])).join("; ");
    assert!(waited.contains("waiting: ErrImagePull since"), "{waited}");
}

#[test]
fn failure_without_any_explanation_is_unknown() {
    let (class, _, error_type, code) = Life::of([pod(Phase::Failed)]).failure();
    assert_eq!((class, error_type, code), (CauseClass::Unknown, ErrorType::SystemError, None));
}

#[test]
fn native_sidecars_and_ephemeral_containers_never_decide() {
    // T27, T29: ephemeral containers have a list of their own, which is not even read.
    let mut frame = with(Phase::Running, running());
    frame.init_containers = vec![Container { restart_policy: Some(RestartPolicy::Always), ..container("mesh") }];
    frame.init_container_statuses = vec![status("mesh", ended(137, "Error"))];
    assert!(Life::of([frame.clone()]).is_open());
    frame.phase = Phase::Succeeded;
    frame.container_statuses = vec![status("executor", ended(0, "Completed"))];
    assert_eq!(Life::of([frame]).outcome().0, "execution_completed");
}

#[test]
fn a_failed_init_container_means_that_the_program_never_started() {
    // T28
    let frame = |phase, policy| Pod {
        restart_policy: policy,
        init_containers: vec![container("setup")],
        init_container_statuses: vec![status("setup", ended(5, "Error"))],
        ..with(phase, waiting("PodInitializing"))
    };
    let expected = (CauseClass::NeverStarted, "InitContainerFailed".to_owned(), ErrorType::SystemError, Some(5));
    assert_eq!(Life::of([frame(Phase::Pending, RestartPolicy::Never)]).failure(), expected, "before the phase says so");
    assert_eq!(Life::of([frame(Phase::Failed, RestartPolicy::OnFailure)]).failure(), expected);
    assert!(Life::of([frame(Phase::Pending, RestartPolicy::OnFailure)]).is_open(), "it will run again");
}

#[test]
fn a_deletion_timestamp_is_an_intent_and_the_program_may_still_end_with_0() {
    // T31
    let mut life = Life::of([with(Phase::Running, running()), deleting(with(Phase::Running, running()))]);
    assert!(life.is_open());
    life.see(&deleting(with(Phase::Running, ended(0, "Completed"))));
    assert_eq!(life.outcome().0, "execution_completed");
    for code in [137, 143] {
        let life =
            Life::of([deleting(with(Phase::Running, running())), deleting(with(Phase::Running, ended(code, "Error")))]);
        assert_eq!(life.failure().0, CauseClass::Deleted);
    }
    let own = Life::of([deleting(with(Phase::Running, running())), deleting(with(Phase::Running, ended(3, "Error")))]);
    assert_eq!(own.failure().0, CauseClass::UserCode);
}

#[test]
fn an_annotated_intent_makes_a_deletion_a_cancellation() {
    // T37, T130
    let intended = |mut pod: Pod| {
        pod.annotations.insert("podherald.dev/intent".into(), r#"{"reason":"asked","by":"u1"}"#.into());
        pod
    };
    let life =
        Life::of([intended(with(Phase::Running, running())), intended(deleting(with(Phase::Running, running())))]);
    let intent = life.evidence.as_ref().unwrap().intent.as_deref();
    assert_eq!(intent, Some(&Intent { reason: "asked".into(), by: Some("u1".into()), purpose: Purpose::Cancel }));
    let (event_type, terminal) = life.gone(true).outcome();
    assert_eq!(event_type, "execution_cancelled");
    assert_eq!((terminal.reason.as_deref(), terminal.cancelled_by.as_deref()), (Some("asked"), Some("u1")));
    assert_eq!(terminal.force_terminated, Some(true));
    let by_itself = Life::of([
        with(Phase::Running, ended(0, "Completed")),
        intended(deleting(with(Phase::Running, ended(0, "Completed")))),
    ]);
    assert_eq!(by_itself.outcome().0, "execution_completed", "it had ended before");
    let unasked =
        Life::of([intended(with(Phase::Running, running())), intended(with(Phase::Failed, ended(1, "Error")))]);
    assert_eq!(unasked.failure().0, CauseClass::UserCode, "an intent without a deletion ends nothing");
}

#[test]
fn a_pod_that_is_tidied_away_ended_as_it_did_before() {
    // T37: whoever sees it for the first time while it goes, with a lost disk for instance, tells what the first one told.
    let tidied = |mut pod: Pod| {
        let intent = Intent::to_clean_up("its result is stored", "resource-cleaner");
        pod.annotations.insert("podherald.dev/intent".into(), serde_json::to_string(&intent).unwrap());
        deleting(pod)
    };
    for (code, reason) in [(0, "Completed"), (3, "Error"), (137, "Error"), (143, "Error"), (137, "OOMKilled")] {
        let phase = if code == 0 { Phase::Succeeded } else { Phase::Failed };
        let (event_type, before) = Life::of([with(phase, ended(code, reason))]).outcome();
        let (event_type_now, now) = Life::of([tidied(with(phase, ended(code, reason)))]).outcome();
        assert_eq!(event_type_now, event_type, "{code} {reason}");
        assert_eq!(now.exit, before.exit, "{code} {reason}");
        let class = |terminal: &Terminal| terminal.cause.as_ref().map(|cause| cause.class);
        assert_eq!(class(&now), class(&before), "{code} {reason}");
    }
}

#[test]
fn a_lost_node_ends_the_attempt_after_its_grace_and_a_returning_one_does_not() {
    // T33
    let lost = || Pod { reason: Some("NodeLost".into()), ..deleting(with(Phase::Running, running())) };
    let mut life = Life::of([with(Phase::Running, running()), lost()]);
    assert!(life.is_open());
    life.wait(10);
    assert_eq!(life.failure().0, CauseClass::NodeLost);

    let mut life = Life::of([lost()]);
    life.wait(9);
    life.see(&with(Phase::Running, running()));
    life.wait(60);
    assert!(life.is_open(), "it came back");

    let tainted = || disrupted("DeletionByTaintManager", deleting(with(Phase::Running, running())));
    let mut life = Life::of([tainted()]);
    life.wait(39);
    assert!(life.is_open(), "a node that is only tainted gives its pods their grace period");
    life.wait(1);
    assert_eq!(life.failure().0, CauseClass::NodeLost);
}

#[test]
fn what_may_change_back_is_not_taken_from_an_older_look_and_what_only_grows_is() {
    // T20a
    let at = |version, pod: Pod| Pod { version: Some(version), ..pod };
    let lost = Pod { reason: Some("NodeLost".into()), ..with(Phase::Running, running()) };
    let mut life = Life::of([at(7, with(Phase::Running, running())), at(6, lost)]);
    life.wait(60);
    assert!(life.is_open(), "its node has come back since");
    life.see(&at(5, with(Phase::Failed, ended(3, "Error"))));
    assert_eq!(life.failure().3, Some(3), "versions may have shrunk (T8)");

    let mut life = Life::of([at(7, with(Phase::Pending, waiting("ContainerCreating")))]);
    life.see(&at(6, with(Phase::Pending, waiting("ImagePullBackOff"))));
    life.wait(3600);
    assert!(life.is_open(), "the image has been put right since");
}

#[test]
fn phase_unknown_alone_is_not_an_end() {
    // T34
    let mut life = Life::of([with(Phase::Running, running()), with(Phase::Unknown, running())]);
    life.wait(3600);
    assert!(life.is_open());
}

#[test]
fn eviction_outranks_the_exit_code_and_node_pressure_is_a_resource_limit() {
    // T35
    let evicted = |state: Option<ContainerState>| Pod {
        reason: Some("Evicted".into()),
        message: Some("The node was low on resource: memory.".into()),
        container_statuses: state.map(|state| status("executor", state)).into_iter().collect(),
        ..pod(Phase::Failed)
    };
    assert_eq!(class(evicted(None)), (CauseClass::Evicted, ErrorType::ResourceLimit));
    assert_eq!(class(evicted(Some(ended(137, "Error")))), (CauseClass::Evicted, ErrorType::ResourceLimit));
    let by_api = disrupted("EvictionByEvictionAPI", with(Phase::Failed, ended(137, "Error")));
    assert_eq!(class(by_api), (CauseClass::Evicted, ErrorType::SystemError));
}

#[test]
fn what_the_pod_itself_says_of_its_end_is_its_class() {
    let told = |reason: &str, code| Pod { reason: Some(reason.into()), ..with(Phase::Failed, ended(code, "Error")) };
    for (reason, expected) in [
        ("Preempting", CauseClass::Preempted),
        ("NodeShutdown", CauseClass::NodeLost),
        ("Terminated", CauseClass::NodeLost),
        ("NodeLost", CauseClass::NodeLost),
    ] {
        assert_eq!(class(told(reason, 137)).0, expected, "{reason}");
    }
    assert_eq!(class(told("NodeLost", 3)).0, CauseClass::UserCode, "it ended by itself before the node went");
    assert_eq!(
        class(disrupted("TerminationByKubelet", with(Phase::Failed, ended(137, "Error")))).0,
        CauseClass::Evicted
    );
    assert_eq!(class(disrupted("SomethingNew", with(Phase::Failed, ended(137, "Error")))).0, CauseClass::Platform);
}

#[test]
fn a_pod_marked_for_disruption_may_still_end_by_itself() {
    // T36
    let marked = |code| disrupted("PreemptionByScheduler", with(Phase::Running, ended(code, "Error")));
    assert_eq!(Life::of([marked(0)]).outcome().0, "execution_completed");
    assert_eq!(class(marked(2)).0, CauseClass::UserCode);
    assert_eq!(class(marked(143)).0, CauseClass::Preempted);
    let gone = Life::of([disrupted("PreemptionByScheduler", deleting(with(Phase::Running, running())))]).gone(true);
    assert_eq!(gone.failure().0, CauseClass::Preempted);
}

#[test]
fn an_unschedulable_message_that_only_counts_nodes_anew_is_no_news() {
    // T38
    let unschedulable = |nodes: u32| {
        let condition = Condition {
            kind: "PodScheduled".into(),
            reason: Some("Unschedulable".into()),
            message: Some(format!("0/{nodes} nodes are available")),
            ..Condition::default()
        };
        Pod { node_name: None, conditions: vec![condition], ..pod(Phase::Pending) }
    };
    let mut life = Life::of([unschedulable(3)]);
    let frame = unschedulable(4);
    let step = observe(life.evidence.as_mut().unwrap(), Observation::Seen(&frame), &life.policy, life.now);
    assert!(!step.changed && step.wake.is_none(), "and by default it may wait for ever");
    assert!(life.types().is_empty(), "never scheduled: no pod_scheduled");
    life.policy.unschedulable_deadline = Some(SignedDuration::from_secs(60));
    life.wait(60);
    assert_eq!(life.failure(), (CauseClass::NeverStarted, "Unschedulable".into(), ErrorType::SystemError, None));
}

#[test]
fn gated_and_creating_pods_wait_without_a_deadline() {
    // T39
    let gate =
        Condition { kind: "PodScheduled".into(), reason: Some("SchedulingGated".into()), ..Condition::default() };
    let gated = Pod { node_name: None, conditions: vec![gate], ..pod(Phase::Pending) };
    for frame in [gated, with(Phase::Pending, waiting("ContainerCreating"))] {
        let mut life = Life::of([frame]);
        life.wait(1_000_000);
        assert!(life.is_open());
        assert_eq!(life.evidence.unwrap().pending.unwrap().class, PendingClass::Benign);
    }
}

#[test]
fn what_cannot_start_ends_after_the_deadline_of_its_class() {
    for (reason, seconds) in
        [("InvalidImageName", 0), ("ImagePullBackOff", 300), ("ErrImagePull", 300), ("CreateContainerConfigError", 120)]
    {
        let mut life = Life::of([with(Phase::Pending, waiting(reason))]);
        if seconds > 0 {
            life.wait(seconds - 1);
            assert!(life.is_open(), "{reason}");
            life.wait(1);
        }
        let (event_type, terminal) = life.outcome();
        let cause = terminal.cause.unwrap();
        assert_eq!(
            (event_type, cause.class, cause.reason.as_str()),
            ("execution_failed", CauseClass::NeverStarted, reason)
        );
        assert_eq!(terminal.stderr, format!("msg {reason}"));
        assert_eq!(terminal.output.stderr.source.as_deref(), Some("message"));
    }
}

#[test]
fn an_image_problem_keeps_its_clock_while_its_reason_alternates_and_loses_it_when_solved() {
    let mut life = Life::of([with(Phase::Pending, waiting("ErrImagePull"))]);
    life.wait(200);
    life.see(&with(Phase::Pending, waiting("ImagePullBackOff")));
    life.wait(99);
    assert!(life.is_open());
    let mut solved = Life::of([with(Phase::Pending, waiting("ErrImagePull"))]);
    solved.wait(299);
    solved.see(&with(Phase::Pending, waiting("ContainerCreating")));
    solved.wait(1000);
    assert!(solved.is_open());
    life.wait(1);
    assert_eq!(life.failure().0, CauseClass::NeverStarted);
}

#[test]
fn a_restarted_container_is_judged_by_its_latest_run() {
    // T40, T41
    let crash_loop = |restarts: u32, state| Pod {
        restart_policy: RestartPolicy::OnFailure,
        container_statuses: vec![ContainerStatus {
            restart_count: restarts,
            last_state: ended(1, "Error"),
            ..status("executor", state)
        }],
        ..pod(Phase::Running)
    };
    let looping = Life::of([crash_loop(1, waiting("CrashLoopBackOff"))]);
    assert!(looping.is_open());
    assert_eq!(looping.gone(true).failure(), (CauseClass::UserCode, "Error".into(), ErrorType::ScriptError, Some(1)));
    let again = Life::of([crash_loop(1, waiting("CrashLoopBackOff")), crash_loop(1, running())]);
    assert_eq!(again.gone(true).failure().0, CauseClass::Deleted, "the second run's code is not known");
    let solved = Life::of([crash_loop(1, running()), crash_loop(1, ended(0, "Completed"))]);
    assert_eq!(solved.outcome().0, "execution_completed", "OnFailure with 0 ends it whatever the phase");
}

#[test]
fn a_containers_own_restart_rules_outrank_the_pods_policy() {
    let rule = RestartRule { codes: vec![42], within: true, restarts: true };
    let frame = |code| {
        let mut pod = with(Phase::Running, ended(code, "Error"));
        pod.containers[0].restart_policy = Some(RestartPolicy::Never);
        pod.containers[0].restart_rules = vec![rule.clone()];
        pod
    };
    assert!(Life::of([frame(42)]).is_open());
    assert_eq!(Life::of([frame(1)]).failure().3, Some(1));
    let mut always = with(Phase::Running, ended(1, "Error"));
    always.restart_policy = RestartPolicy::Always;
    always.containers[0].restart_policy = Some(RestartPolicy::Never);
    assert_eq!(Life::of([always]).failure().3, Some(1));
}

#[test]
fn a_lost_container_has_no_code() {
    // T42
    let lost = Termination { started_at: None, finished_at: None, ..end(137, "ContainerStatusUnknown") };
    let (event_type, terminal) = Life::of([with(Phase::Failed, ContainerState::Terminated(lost))]).outcome();
    assert_eq!((event_type, terminal.exit_code, terminal.exit.code), ("execution_failed", None, None));
    let (cause, error_type) = (terminal.cause.unwrap(), terminal.error_type.unwrap());
    assert_eq!((cause.class, error_type), (CauseClass::Unknown, ErrorType::SystemError));
}

#[test]
fn an_exit_code_is_not_a_signal() {
    // T43, T44
    let (event_type, terminal) = Life::of([with(Phase::Failed, ended(137, "Error"))]).outcome();
    assert_eq!((event_type, terminal.exit.signal), ("execution_failed", None));
    let cause = terminal.cause.unwrap();
    assert_eq!((cause.class, terminal.error_type), (CauseClass::Unknown, Some(ErrorType::ScriptError)));
    assert!(cause.evidence.iter().any(|fact| fact.contains("by convention signal 9")));
}

#[test]
fn only_a_killed_main_process_makes_an_oom_fatal() {
    // T45, T46
    let oom = |code| Life::of([with(Phase::Failed, ended(code, "OOMKilled"))]).outcome();
    let (_, terminal) = oom(137);
    assert_eq!((terminal.error_type, terminal.oom.unwrap().fatal), (Some(ErrorType::ResourceLimit), true));
    let (event_type, terminal) = oom(0);
    assert_eq!(
        (event_type, terminal.oom.unwrap().seen, terminal.oom.unwrap().fatal),
        ("execution_completed", true, false)
    );
    let (_, terminal) = oom(143);
    assert_eq!((terminal.cause.unwrap().class, terminal.oom.unwrap().fatal), (CauseClass::UserCode, false));
    let (_, plain) = Life::of([with(Phase::Failed, ended(1, "Error"))]).outcome();
    assert_eq!(plain.oom, None);
}

#[test]
fn what_could_not_be_executed_is_not_the_programs_fault() {
    // T47
    let at = |code, reason: &str| class(with(Phase::Failed, ended(code, reason)));
    assert_eq!(at(128, "StartError"), (CauseClass::NeverStarted, ErrorType::SystemError));
    assert_eq!(at(127, "ContainerCannotRun"), (CauseClass::NeverStarted, ErrorType::SystemError));
    assert_eq!(at(126, "Error"), (CauseClass::UserCode, ErrorType::PermissionDenied));
    assert_eq!(at(1, "Error"), (CauseClass::UserCode, ErrorType::ScriptError));
}

#[test]
fn a_clock_that_is_set_back_makes_no_attempt_wait_longer() {
    let evicted = Pod { reason: Some("Evicted".into()), ..pod(Phase::Failed) };
    let rows = [
        (vec![with(Phase::Running, running()), evicted], 10),
        (vec![with(Phase::Pending, waiting("ImagePullBackOff"))], 300),
    ];
    for (frames, grace) in rows {
        let mut life = Life::new();
        life.now += SignedDuration::from_hours(1);
        frames.iter().for_each(|frame| life.see(frame));
        life.now = after(20);
        life.wait(0);
        assert!(life.is_open(), "what it waits for may still come");
        assert_eq!(life.wake, Some(after(20 + grace)));
        assert_eq!(life.evidence.as_ref().unwrap().last_seen, after(20));
        life.wait(grace);
        assert!(!life.is_open());
    }
}
