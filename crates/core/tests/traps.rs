//! What breaks such programs in the field, held against the mapper. The T-numbers are those of docs/TRAPS.md.
#![allow(clippy::unwrap_used, missing_docs)]

use jiff::{SignedDuration, Timestamp};
use podherald_core::{
    event::{CauseClass, Draft, ErrorType, ExitSource, Payload, Terminal},
    evidence::{Evidence, Intent, PendingClass, Purpose},
    identity::{Place, attempt_key, default_places, execution_id},
    mapper::{Observation, Policy, begin, observe},
    output::{Captured, Collected},
    pod::{Condition, Container, ContainerState, ContainerStatus, Phase, Pod, RestartPolicy, RestartRule, Termination},
};

fn t0() -> Timestamp {
    "2026-02-10T12:00:00Z".parse().unwrap()
}

fn after(seconds: i64) -> Timestamp {
    t0() + SignedDuration::from_secs(seconds)
}

fn container(name: &str) -> Container {
    Container { name: name.into(), ..Container::default() }
}

fn status(name: &str, state: ContainerState) -> ContainerStatus {
    ContainerStatus { name: name.into(), state, ..ContainerStatus::default() }
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: Some(after(1)) }
}

fn waiting(reason: &str) -> ContainerState {
    ContainerState::Waiting { reason: Some(reason.into()), message: Some(format!("msg {reason}")) }
}

fn end(code: i32, reason: &str) -> Termination {
    Termination {
        code: Some(code),
        reason: Some(reason.into()),
        started_at: Some(after(1)),
        finished_at: Some(after(5)),
        ..Termination::default()
    }
}

fn ended(code: i32, reason: &str) -> ContainerState {
    ContainerState::Terminated(end(code, reason))
}

/// A pod of the field: one container, restartPolicy Never, bound to a node.
fn pod(phase: Phase) -> Pod {
    Pod {
        namespace: "ns".into(),
        name: "executor-e1".into(),
        uid: "uid-1".into(),
        created: Some(t0()),
        labels: [("execution-id".into(), "e1".into())].into_iter().collect(),
        node_name: Some("node-1".into()),
        restart_policy: RestartPolicy::Never,
        active_deadline_seconds: Some(60),
        start_time: Some(t0()),
        containers: vec![container("executor")],
        phase,
        ..Pod::default()
    }
}

fn with(phase: Phase, state: ContainerState) -> Pod {
    Pod { container_statuses: vec![status("executor", state)], ..pod(phase) }
}

fn deleting(pod: Pod) -> Pod {
    Pod { deletion: Some(after(3)), deletion_grace_seconds: Some(30), ..pod }
}

fn disrupted(reason: &str, pod: Pod) -> Pod {
    let condition = Condition {
        kind: "DisruptionTarget".into(),
        is_true: true,
        reason: Some(reason.into()),
        ..Condition::default()
    };
    Pod { conditions: vec![condition], ..pod }
}

struct Life {
    policy: Policy,
    now: Timestamp,
    evidence: Option<Evidence>,
    events: Vec<Draft>,
    collecting: bool,
    wake: Option<Timestamp>,
}

impl Life {
    fn new() -> Self {
        Self {
            policy: Policy::default(),
            now: after(10),
            evidence: None,
            events: Vec::new(),
            collecting: false,
            wake: None,
        }
    }

    fn of(frames: impl IntoIterator<Item = Pod>) -> Self {
        let mut life = Self::new();
        for frame in frames {
            life.see(&frame);
        }
        life
    }

    fn see(&mut self, pod: &Pod) {
        self.evidence.get_or_insert_with(|| begin(pod, "e1", 1, &self.policy, self.now));
        self.observe(Observation::Seen(pod));
    }

    fn observe(&mut self, observation: Observation<'_>) {
        let step = observe(self.evidence.as_mut().unwrap(), observation, &self.policy, self.now);
        self.events.extend(step.events);
        self.collecting |= step.collect;
        self.wake = step.wake;
    }

    fn gone(mut self, deleted: bool) -> Self {
        self.observe(Observation::Gone { deleted });
        self
    }

    fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.observe(Observation::Tick);
    }

    fn collect(&mut self) {
        assert!(std::mem::take(&mut self.collecting), "the attempt has not ended");
        self.observe(Observation::Collected(Box::default()));
    }

    fn is_open(&self) -> bool {
        !self.collecting && self.evidence.as_ref().unwrap().terminal.is_none()
    }

    fn types(&self) -> Vec<&'static str> {
        self.events.iter().map(|event| event.payload.event_type()).collect()
    }

    /// Collects, and gives the one terminal event.
    fn outcome(mut self) -> (&'static str, Terminal) {
        self.collect();
        let terminal: Vec<_> = self.events.iter().filter(|event| event.payload.terminal().is_some()).collect();
        assert_eq!(terminal.len(), 1);
        (terminal[0].payload.event_type(), terminal[0].payload.terminal().unwrap().clone())
    }

    fn failure(self) -> (CauseClass, String, ErrorType, Option<i32>) {
        let (event_type, terminal) = self.outcome();
        assert_eq!(event_type, "execution_failed");
        let cause = terminal.cause.unwrap();
        assert!(!cause.evidence.is_empty() && !cause.message.is_empty());
        (cause.class, cause.reason, terminal.error_type.unwrap(), terminal.exit.code)
    }
}

fn class(pod: Pod) -> (CauseClass, ErrorType) {
    let (class, _, error_type, _) = Life::of([pod]).failure();
    (class, error_type)
}

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
