//! What Jobs do to those who watch them, held against the pure decisions. The T-numbers are those of docs/TRAPS.md.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::needless_pass_by_value, reason = "objects are written where they are used")]

mod family;

use std::sync::Arc;

use family::*;
use jiff::SignedDuration;
use podherald_core::{
    event::{CauseClass, Verdict},
    evidence::{Intent, Purpose, Subject},
    identity::attempt_key,
    job::{self, Job, Observation},
    pod::{ATTEMPT_ANNOTATION, Condition, INTENT_ANNOTATION, Phase},
    silence::Patience,
};

#[test]
fn a_job_is_one_attempt_whatever_its_pods_do_and_ends_by_its_condition() {
    // T53, T58: three pods, two of them fail; the Job completes.
    let mut family = Family::new(job());
    for (number, code) in [(1, 3), (2, 4), (3, 0)] {
        family.pod(running(number));
        family.pod(ended(number, code));
        assert_eq!(family.terminals().len(), 0, "a pod's end is not the Job's");
    }
    family.job(announced("SuccessCriteriaMet"));
    assert_eq!(family.terminals().len(), 0, "announced is not yet so");
    family.job(complete());
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.exit_code, end.stdout.as_str()), ("execution_completed", Some(0), "printed by pod-3"));
    let types = family.types();
    let count = |kind| types.iter().filter(|found| **found == kind).count();
    assert_eq!((count("execution_started"), count("execution_running"), count("pod_scheduled")), (1, 1, 3));
    assert_eq!(count("pod_terminated"), 3, "{types:?}");
}

#[test]
fn each_index_of_a_job_keeps_its_output_up_to_a_limit_and_the_rest_is_counted() {
    for restarts in [false, true] {
        let mut family = Family::new(job());
        family.restarts = restarts;
        family.policy.max_indexes = 2;
        // Index 1 fails before it completes, index 0 completes twice, 7 and 8 are beyond the limit.
        for (number, index, code) in [(1, 1, 3), (2, 7, 0), (3, 0, 0), (4, 1, 0), (5, 0, 0), (6, 8, 0), (7, 8, 0)] {
            family.pod(of_index(index, ended(number, code)));
            family.gone(number);
            assert!(family.outputs().len() <= 2, "{:?}", family.outputs());
        }
        family.job(complete());
        let (_, end) = family.only_end();
        assert_eq!(end.stdout, "printed by pod-7");
        let indexes = end.output.indexes.unwrap();
        let told: Vec<_> = indexes.outputs.iter().map(|output| (output.index, output.pod_name.as_str())).collect();
        assert_eq!((told, indexes.left_out), (vec![(0, "pod-5"), (1, "pod-4")], 2));
        assert_eq!(
            (indexes.outputs[1].exit_code, &*indexes.outputs[1].uri),
            (Some(0), "/executions/e1/output?index=1")
        );
        assert!(family.outputs().is_empty(), "{:?}", family.outputs());
    }
    let mut family = Family::new(job());
    family.pod(ended(1, 0));
    family.job(complete());
    assert_eq!(family.only_end().1.output.indexes, None);
}

#[test]
fn a_job_that_gives_up_ends_as_its_last_pod_that_failed_by_itself() {
    // T53, T54: two pods run at once; one fails, the Job gives up and deletes the other.
    let mut family = Family::new(job());
    family.pod(running(1));
    family.pod(running(2));
    family.pod(ended(1, 3));
    family.job(announced("FailureTarget"));
    family.pod(deleting(running(2)));
    family.pod(deleting(ended(2, 137)));
    family.gone(2);
    family.job(failed("BackoffLimitExceeded"));
    let (kind, end) = family.only_end();
    let cause = end.cause.unwrap();
    assert_eq!((kind, end.exit_code, end.stdout.as_str()), ("execution_failed", Some(3), "printed by pod-1"));
    assert_eq!((cause.class, cause.reason.as_str()), (CauseClass::UserCode, "Error"));
    assert!(cause.message.contains("BackoffLimitExceeded"), "{}", cause.message);
    assert!(cause.evidence.iter().any(|fact| fact == "pod pod-1"), "{:?}", cause.evidence);
}

#[test]
fn a_pod_that_the_job_deletes_between_two_runs_has_ended_and_its_log_is_read_at_once() {
    // T53: the log goes with the pod, so nobody waits for the phase or for the deletion to be done.
    let mut family = Family::new(job());
    family.pod(between_runs(1, 3));
    assert!(family.outputs().is_empty(), "it will run again");
    family.pod(deleting(between_runs(1, 3)));
    assert_eq!(family.outputs(), ["printed by pod-1"]);
    family.gone(1);
    family.job(failed("BackoffLimitExceeded"));
    let (_, end) = family.only_end();
    assert_eq!((end.exit_code, end.stdout.as_str()), (Some(3), "printed by pod-1"));
}

#[test]
fn a_deadline_of_the_job_is_a_timeout_and_one_of_its_pod_too() {
    // T52: the Job's deletes the pods, the pod's keeps them.
    let mut family = Family::new(with_deadline(job(), 60));
    family.pod(running(1));
    family.pod(deleting(ended(1, 137)));
    family.gone(1);
    family.job(with_deadline(failed("DeadlineExceeded"), 60));
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.timeout_seconds), ("execution_timeout", Some(60)));
    assert_eq!((end.exit.code, end.stdout.as_str()), (Some(137), "printed by pod-1"));

    let mut family = Family::new(job());
    let mut late = ended(1, 137);
    (late.reason, late.active_deadline_seconds) = (Some("DeadlineExceeded".into()), Some(7));
    family.pod(late);
    family.job(failed("BackoffLimitExceeded"));
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.timeout_seconds), ("execution_timeout", Some(7)));
}

#[test]
fn an_ignored_pod_failure_is_no_failure_of_the_job() {
    // T55: the Job does not count it, and completes with another pod.
    let mut family = Family::new(job());
    let mut evicted = ended(1, 137);
    evicted.reason = Some("Evicted".into());
    family.pod(evicted);
    family.gone(1);
    family.pod(ended(2, 0));
    family.job(complete());
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.stdout.as_str(), end.cause), ("execution_completed", "printed by pod-2", None));
}

#[test]
fn a_job_that_fails_and_that_nobody_can_ask_is_told_as_it_was_seen() {
    // T57: the Job is gone by its ttl before anybody saw its condition, or with the condition in its last frame.
    let mut family = Family::new(job());
    family.pod(ended(1, 0));
    family.job_gone(false);
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.exit_code), ("execution_completed", Some(0)), "its pod did all that it asked for");

    let mut family = Family::new(job());
    family.pod(ended(1, 3));
    family.job_gone(false);
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.cause.unwrap().class), ("execution_failed", CauseClass::Unknown), "it may have tried again");
    assert_eq!(end.exit.code, Some(3));

    let mut family = Family::new(job());
    family.pod(ended(1, 3));
    family.job(failed("BackoffLimitExceeded"));
    family.job_gone(true);
    let (_, end) = family.only_end();
    assert_eq!(end.cause.unwrap().class, CauseClass::UserCode);
    assert!(family.job.is_closed());
}

#[test]
fn each_pod_has_its_own_events_and_only_the_outputs_that_may_matter_are_kept() {
    // T59: an Indexed Job's pods are told apart by uid; of a thousand outputs two are enough.
    let mut family = Family::new(job());
    for number in 0..20 {
        family.pod(running(number));
        family.pod(ended(number, i32::from(number % 2 == 0)));
        assert!(family.outputs().len() <= 2, "{:?}", family.outputs());
    }
    let mut ids: Vec<_> = family.drafts.iter().map(|draft| draft.event_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), family.drafts.len(), "an id twice");
    family.job(failed("FailedIndexes"));
    let (_, end) = family.only_end();
    assert_eq!(end.stdout, "printed by pod-18", "the last that failed");
    assert!(family.pods.values().all(|pod| pod.terminal == family.job.terminal));
}

#[test]
fn a_job_that_never_makes_a_pod_ends_by_its_deadline_or_its_deletion() {
    // T60
    let mut family = Family::new(with_deadline(job(), 5));
    family.tick(3600);
    assert!(family.terminals().is_empty(), "nothing ends it but itself");
    family.job(with_deadline(failed("DeadlineExceeded"), 5));
    let (kind, end) = family.only_end();
    let cause = end.cause.unwrap();
    assert_eq!((kind, cause.class), ("execution_timeout", CauseClass::Timeout));
    assert!(cause.message.contains("made no pod"), "{}", cause.message);

    let mut family = Family::new(job());
    family.job_gone(true);
    let (kind, end) = family.only_end();
    let cause = end.cause.unwrap();
    assert_eq!((kind, cause.class), ("execution_failed", CauseClass::Deleted));
    assert!(cause.message.contains("before it made a pod"), "{}", cause.message);
}

#[test]
fn a_suspended_job_waits_and_its_deleted_pods_are_no_failure() {
    // T61, T39
    let mut family = Family::new(job());
    family.pod(running(1));
    let mut suspended = job();
    suspended.suspended = true;
    family.job(suspended);
    family.pod(deleting(ended(1, 143)));
    family.gone(1);
    family.tick(3600);
    assert!(family.terminals().is_empty());
    assert_eq!(family.job.pending.as_ref().unwrap().reason, "Suspended");
    family.job(job());
    assert!(family.job.pending.is_none());
    family.pod(ended(2, 0));
    family.job(complete());
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.stdout.as_str()), ("execution_completed", "printed by pod-2"));
}

#[test]
fn the_jobs_condition_and_its_last_pods_end_may_come_in_either_order() {
    // T83
    let tell = |condition_first: bool| {
        let mut family = Family::new(job());
        family.pod(running(1));
        if condition_first {
            family.job(complete());
            assert!(family.terminals().is_empty(), "the pod is waited for");
        }
        family.pod(ended(1, 0));
        if !condition_first {
            family.job(complete());
        }
        let (kind, end) = family.only_end();
        (kind, end)
    };
    assert_eq!(tell(true), tell(false));
}

#[test]
fn pods_that_tell_nothing_more_are_waited_for_no_longer_than_the_grace_before_and_after_a_list() {
    let mut family = Family::new(job());
    family.pod(running(1));
    family.job(failed("BackoffLimitExceeded"));
    family.tick(19);
    assert!(family.terminals().is_empty());
    family.tick(2);
    let (_, end) = family.only_end();
    assert_eq!((end.cause.unwrap().class, end.exit.code), (CauseClass::Unknown, None));

    // A pod that is being deleted has its own time on top.
    let mut family = Family::new(job());
    family.pod(deleting(running(1)));
    family.job(failed("BackoffLimitExceeded"));
    family.tick(49);
    assert!(family.terminals().is_empty());
    family.tick(2);
    family.only_end();

    // One that the Job counts and nobody saw may still be on its way.
    let mut family = Family::new(job());
    let mut counted = complete();
    counted.succeeded = 1;
    family.job(counted);
    assert!(family.terminals().is_empty());
    family.tick(11);
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.exit_code), ("execution_completed", Some(0)));
}

#[test]
fn a_clock_that_is_set_back_does_not_make_a_job_wait_for_hours() {
    let mut family = Family::new(job());
    family.pod(running(1));
    family.job(failed("BackoffLimitExceeded"));
    family.set_back(3600);
    family.tick(11);
    family.only_end();
}

#[test]
fn a_job_deleted_while_running_is_deleted_or_cancelled_and_not_what_its_killed_pod_says() {
    let mut family = Family::new(job());
    family.pod(running(1));
    family.job_gone(true);
    family.pod(deleting(running(1)));
    family.pod(deleting(ended(1, 137)));
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.cause.unwrap().class), ("execution_failed", CauseClass::Deleted));
    assert_eq!(end.stdout, "printed by pod-1");

    let mut family = Family::new(job());
    family.pod(running(1));
    let mut asked = job();
    asked.annotations.insert(INTENT_ANNOTATION.into(), r#"{"reason":"enough","by":"ann"}"#.into());
    family.job(asked);
    family.job_gone(true);
    family.pod(deleting(ended(1, 143)));
    assert_eq!(
        family.job.intent.as_deref(),
        Some(&Intent { reason: "enough".into(), by: Some("ann".into()), purpose: Purpose::Cancel })
    );
    let (kind, end) = family.only_end();
    assert_eq!((kind, end.cancelled_by.as_deref()), ("execution_cancelled", Some("ann")));
}

#[test]
fn a_job_whose_only_program_cannot_start_ends_by_the_deadlines_of_pods() {
    let mut family = Family::new(job());
    family.pod(waiting(1, "ErrImagePull"));
    family.tick(299);
    assert!(family.terminals().is_empty());
    family.tick(2);
    let (kind, end) = family.only_end();
    let cause = end.cause.unwrap();
    assert_eq!(
        (kind, cause.class, cause.reason.as_str()),
        ("execution_failed", CauseClass::NeverStarted, "ErrImagePull")
    );

    // Where another pod of it runs or ran, it is the Job's to say.
    let mut family = Family::new(job());
    family.pod(running(1));
    family.pod(waiting(2, "ErrImagePull"));
    family.tick(3600);
    assert!(family.terminals().is_empty());
}

#[test]
fn a_restart_between_any_two_steps_changes_nothing() {
    let mut whole = Family::new(job());
    let mut broken = Family::new(job());
    broken.restarts = true;
    for family in [&mut whole, &mut broken] {
        family.pod(running(1));
        family.pod(ended(1, 3));
        family.pod(running(2));
        family.job(failed("BackoffLimitExceeded"));
        family.pod(deleting(ended(2, 137)));
        family.gone(2);
        family.job_gone(true);
        family.gone(1);
    }
    assert_eq!(whole.drafts, broken.drafts);
    assert!(broken.job.is_closed() && broken.pods.values().all(|pod| pod.is_closed()));
}

#[test]
fn the_attempts_key_is_the_jobs_uid_unless_it_is_annotated() {
    let mut job = job();
    assert_eq!(attempt_key(&job), "job-uid");
    job.annotations.insert(ATTEMPT_ANNOTATION.into(), "try-2".into());
    let mut family = Family::new(job);
    family.pod(running(1));
    assert_eq!(family.job.attempt_key, "try-2");
    assert_eq!(family.pods["uid-1"].attempt_key, "try-2");
    assert_eq!(family.pods["uid-1"].phase, Phase::Running);
}

#[test]
fn a_pod_whose_output_comes_after_the_decision_takes_nobodys_place() {
    let mut family = Family::new(job());
    family.pod(ended(1, 1));
    let mut job = family.job.clone();
    let pods = || family.pods.values().cloned().map(Arc::new).collect();
    let step =
        job::observe(&mut job, Observation::Seen(&failed("BackoffLimitExceeded")), pods, &family.policy, after(200));
    assert!(step.own.collect && job.ending.is_some());

    let mut later = Family::new(family::job());
    later.pod(ended(2, 1));
    let pod = &later.pods["uid-2"];
    let step = job::observe(&mut job, Observation::Pod(pod), Vec::new, &family.policy, after(201));
    assert_eq!(step.superseded.as_deref(), Some("uid-2"));
    assert_eq!(job.subject.job().unwrap().chosen.as_deref(), Some("uid-1"));
}

#[test]
fn an_index_that_has_completed_and_is_not_read_yet_is_listed_as_lost() {
    let mut family = Family::new(job());
    family.pod(of_index(0, ended(1, 0)));
    let mut pod = family.pods["uid-1"].clone();
    let Subject::PodOfJob(part) = &mut pod.subject else { panic!("it is a pod of a Job") };
    part.output = None;
    let listed = job::indexes::outputs(&[Arc::new(pod)], &family.policy).unwrap().outputs;
    assert_eq!((listed[0].index, listed[0].stdout.verdict), (0, Verdict::Lost));
}

/// T33, T58: the node of a pod is gone, so the pod never ends, and the Job not before it.
#[test]
fn a_job_that_waits_for_a_lost_pod_ends_as_it_has_announced_or_as_the_pod() {
    let grace = SignedDuration::from_secs(180);
    let must_hear = Some(Patience { grace, by: None });
    let deadline = Job {
        conditions: vec![Condition {
            kind: "FailureTarget".into(),
            is_true: true,
            reason: Some("DeadlineExceeded".into()),
            ..Condition::default()
        }],
        ..with_deadline(job(), 60)
    };
    for (target, kind, class) in [
        (Some(deadline), "execution_timeout", Some(CauseClass::Timeout)),
        (Some(announced("FailureTarget")), "execution_failed", Some(CauseClass::NodeLost)),
        (Some(announced("SuccessCriteriaMet")), "execution_completed", None),
        (None, "execution_failed", Some(CauseClass::NodeLost)),
    ] {
        for restarts in [false, true] {
            let mut family = Family::new(job());
            (family.restarts, family.policy.must_hear) = (restarts, must_hear);
            family.pod(running(1));
            target.clone().into_iter().for_each(|target| family.job(target));
            if kind == "execution_completed" {
                family.pod(ended(2, 0));
            }
            family.pod(deleting(running(1)));
            // Grace of the deletion, lateness, how long the doubt has to last, and how long the Job waits then.
            family.tick(30 + 3 * 180 - 1);
            assert_eq!(family.terminals().len(), 0, "{:?}", family.types());
            family.tick(1);
            let (told, end) = family.only_end();
            assert_eq!((told, end.cause.as_ref().map(|cause| cause.class)), (kind, class), "{end:?}");
            assert!(
                class.is_none()
                    || end.cause.unwrap().evidence.iter().any(|fact| fact.contains("there is none of that name"))
            );
        }
    }
}

#[test]
fn a_job_that_makes_another_pod_for_a_lost_one_goes_on() {
    let mut family = Family::new(job());
    family.policy.must_hear = Some(Patience { grace: SignedDuration::from_secs(180), by: None });
    family.pod(deleting(running(1)));
    family.tick(30 + 2 * 180 + 1);
    family.pod(running(2));
    family.tick(10_000);
    assert_eq!(family.terminals().len(), 0);
    family.pod(ended(2, 0));
    family.tick(60);
    assert_eq!(family.terminals().len(), 0, "it will say so itself, unless it waits for the lost one");
    family.tick(180);
    assert_eq!(family.only_end().0, "execution_completed");
}
