//! Jobs and their pods, as the monitor sees them: two watches without an order between them, and whatever comes in between.
//! The T-numbers are those of docs/TRAPS.md; what is decided from it is held in `crates/core/tests/jobs.rs`.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    pods,
    scripted_api::{Kind, Refusal, log_text},
    world::World,
};

const NAMESPACE: &str = pods::NAMESPACE;
const BEGIN: &str = "2026-02-10T12:00:03Z";
const MINUTE: Duration = Duration::from_secs(60);

fn world(settings: &[(&str, &str)]) -> World {
    let mut all = vec![("kube.label_selectors", "execution-id")];
    all.extend_from_slice(settings);
    World::new(BEGIN, &all)
}

async fn started(settings: &[(&str, &str)]) -> World {
    let mut world = world(settings);
    world.start().await;
    world.api.wait_for_requests(Kind::WatchJobs, 1).await;
    world
}

pub(crate) fn job(conditions: Value) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "namespace": NAMESPACE, "name": "work", "uid": "job-uid", "creationTimestamp": "2026-02-10T12:00:00Z",
            "labels": {"execution-id": "e"},
        },
        "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 2},
        "status": {"startTime": "2026-02-10T12:00:00Z", "conditions": conditions},
    })
}

fn finished(kind: &str, reason: Option<&str>) -> Value {
    let mut condition = json!({"type": kind, "status": "True", "lastTransitionTime": "2026-02-10T12:00:09Z"});
    if let Some(reason) = reason {
        condition["reason"] = reason.into();
    }
    job(json!([condition]))
}

pub(crate) fn complete() -> Value {
    finished("Complete", None)
}

fn gave_up() -> Value {
    finished("Failed", Some("BackoffLimitExceeded"))
}

/// Makes a bare pod the Job's, under a name of its own.
fn of_job(mut pod: Value, name: &str) -> Value {
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["uid"] = format!("uid-{name}").into();
    pod["metadata"]["labels"] = json!({"execution-id": "e", "batch.kubernetes.io/job-name": "work", "batch.kubernetes.io/controller-uid": "job-uid"});
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "work", "uid": "job-uid", "controller": true}]);
    pod
}

fn unlabelled(mut pod: Value) -> Value {
    pod["metadata"]["labels"].as_object_mut().unwrap().remove("execution-id");
    // Nor does its name say whose it is.
    pod
}

pub(crate) fn running(name: &str) -> Value {
    of_job(pods::running("e"), name)
}

pub(crate) fn ended(name: &str, code: i32) -> Value {
    of_job(pods::ended("e", code), name)
}

fn terminals(events: &[Value]) -> Vec<&Value> {
    let types = ["execution_completed", "execution_failed", "execution_timeout", "execution_cancelled"];
    events.iter().filter(|event| types.iter().any(|kind| event["event_type"] == *kind)).collect()
}

/// The one terminal event; what is told once is told once after a long while too.
async fn only_end(world: &World) -> Value {
    sleep(10 * MINUTE).await;
    let events = world.events().await;
    let ends = terminals(&events);
    assert_eq!(ends.len(), 1, "{events:#?}");
    ends[0].clone()
}

/// T53, T58: the whole life of a Job whose first pod fails, with podherald killed and started again after any step.
#[tokio::test(start_paused = true)]
async fn a_job_is_one_attempt_with_one_end_however_often_podherald_dies_on_the_way() {
    type Step = fn(&World);
    let steps: [Step; 9] = [
        |world| world.api.apply(job(json!([]))),
        |world| world.api.apply(running("work-a")),
        |world| {
            world.api.set_logs(NAMESPACE, "work-a", "executor", log_text("first\n"));
            world.api.apply(ended("work-a", 3));
        },
        |world| world.api.delete(NAMESPACE, "work-a"),
        |world| world.api.apply(running("work-b")),
        |world| world.api.apply(finished("SuccessCriteriaMet", None)),
        |world| {
            world.api.set_logs(NAMESPACE, "work-b", "executor", log_text("second\n"));
            world.api.apply(ended("work-b", 0));
        },
        |world| world.api.apply(complete()),
        |world| {
            world.api.delete_job(NAMESPACE, "work");
            world.api.delete(NAMESPACE, "work-b");
        },
    ];
    let mut stories = Vec::new();
    for killed_after in (0..=steps.len()).rev() {
        let mut world = started(&[]).await;
        for (number, step) in steps.iter().enumerate() {
            step(&world);
            if number == killed_after {
                // Not always at the same point of what follows from the step.
                sleep(Duration::from_millis(number as u64)).await;
                world.kill().await;
                world.start().await;
            }
            world.settle().await;
        }
        let end = only_end(&world).await;
        assert_eq!((&end["event_type"], &end["stdout"]), (&json!("execution_completed"), &json!("second\n")));
        assert_eq!((&end["attempt"], &end["exit_code"]), (&json!(1), &json!(0)), "killed after {killed_after}");
        let events = world.events().await;
        let mut ids: Vec<_> = events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        stories.push((killed_after, ids));
        let execution = world.execution("e").await;
        let names: Vec<_> = execution["pods"].as_array().unwrap().iter().map(|pod| &pod["name"]).collect();
        assert_eq!(names, ["work-a", "work-b"], "both are pods of the attempt, the Job is none");
        assert_eq!(world.get("/pods").await.1["items"], json!([]));
        assert_eq!(world.metric("podherald_monitor_tracked_pods").await, 0, "nothing is left behind");
    }
    assert!(stories.iter().all(|(_, ids)| *ids == stories[0].1), "{stories:#?}");
}

/// T83: pods of a Job whose own frame has not come are held back, and asked for by name.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_seen_before_its_job_waits_until_it_is_certain_whose_it_is() {
    let mut world = world(&[]);
    world.api.fail(Kind::WatchJobs, Refusal::of_code(500, "not today"));
    world.start().await;
    world.settle().await;
    world.api.fail(Kind::ListJobs, Refusal::of_code(500, "not today"));
    world.api.apply(job(json!([])));
    world.api.apply(running("work-a"));
    world.api.apply(ended("work-a", 0));
    sleep(MINUTE).await;
    assert_eq!(world.events().await, Vec::<Value>::new(), "a guess could not be taken back");
    assert_eq!(world.metric("podherald_monitor_unknown_jobs").await, 1);
    world.api.restore();
    world.api.fail(Kind::WatchJobs, Refusal::of_code(500, "not today"));
    sleep(MINUTE).await;
    let types: Vec<_> = world.events().await.iter().map(|event| event["event_type"].clone()).collect();
    assert!(types.contains(&json!("pod_terminated")) && types.contains(&json!("execution_started")), "{types:?}");
    world.api.apply(complete());
    world.api.restore();
    only_end(&world).await;
}

/// A Job without the label is none of ours; its pods that bear the label are attempts by themselves, as they always were.
#[tokio::test(start_paused = true)]
async fn pods_of_a_job_that_no_selector_admits_are_followed_one_by_one() {
    let world = started(&[]).await;
    let mut stranger = job(json!([]));
    stranger["metadata"]["labels"] = json!({});
    world.api.apply(stranger);
    world.api.apply(ended("work-a", 3));
    world.api.apply(ended("work-b", 0));
    world.settle().await;
    sleep(MINUTE).await;
    let events = world.events().await;
    assert_eq!(terminals(&events).len(), 2, "{events:#?}");
    assert_eq!(
        world.api.requests_of(Kind::ListJobs).iter().filter(|a| a.parameter("fieldSelector").is_some()).count(),
        1
    );
}

/// T53: the log is read when the pod ends, and kept through a restart until the Job ends.
#[tokio::test(start_paused = true)]
async fn the_output_of_a_pod_that_the_job_deleted_is_whole_and_that_of_the_others_is_gone() {
    let mut world = started(&[("logs.max_bytes", "1MiB")]).await;
    let long = "0123456789abcde\n".repeat(20_000);
    world.api.set_logs(NAMESPACE, "work-a", "executor", log_text(&"x".repeat(300_000)));
    world.api.set_logs(NAMESPACE, "work-b", "executor", log_text(&long));
    world.api.apply(job(json!([])));
    for (name, code) in [("work-a", 3), ("work-b", 4)] {
        let mut pod = ended(name, code);
        if name == "work-b" {
            pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = json!("2026-02-10T12:00:08Z");
        }
        world.api.apply(pod);
        world.settle().await;
        sleep(Duration::from_secs(1)).await;
        world.api.delete(NAMESPACE, name);
    }
    world.settle().await;
    assert_eq!(world.output_directories(), 1, "the Job may try again as often as it likes");
    world.kill().await;
    world.start().await;
    world.api.apply(gave_up());
    let end = only_end(&world).await;
    assert_eq!((&end["exit_code"], &end["output"]["stdout"]["verdict"]), (&json!(4), &json!("complete")), "{end}");
    assert_eq!(end["output"]["stdout"]["bytes_kept"], long.len());
    let (_, output) = world.text("/executions/e/output").await;
    assert!(output == long, "{} bytes", output.len());
    assert_eq!(world.output_directories(), 1, "one for the execution's one attempt");
}

/// The Job is first in the journal, its pods with their outputs come after.
#[tokio::test(start_paused = true)]
async fn a_kill_between_the_decision_and_the_event_costs_a_job_no_output() {
    let mut world = started(&[]).await;
    world.api.set_logs(NAMESPACE, "work-a", "executor", log_text("all of it\n"));
    world.api.apply(job(json!([])));
    world.settle().await;
    world.api.apply(ended("work-a", 3));
    world.settle().await;
    sleep(Duration::from_secs(1)).await;
    world.faults.refuse_ends(true);
    world.api.apply(gave_up());
    sleep(MINUTE).await;
    assert!(terminals(&world.events().await).is_empty());
    world.kill().await;
    world.faults.refuse_ends(false);
    world.start().await;
    let end = only_end(&world).await;
    assert_eq!(
        (&end["output"]["stdout"]["verdict"], &end["stdout"]),
        (&json!("complete"), &json!("all of it\n")),
        "{end}"
    );
}

fn of_index(index: u32, mut pod: Value) -> Value {
    pod["metadata"]["annotations"] = json!({"batch.kubernetes.io/job-completion-index": index.to_string()});
    pod
}

/// Each index is a run of its own: none's output stands for another's, though one alone is the attempt's.
#[tokio::test(start_paused = true)]
async fn each_index_of_a_job_is_served_by_its_uri_up_to_a_limit_that_is_told() {
    let mut world = started(&[("logs.max_indexes", "3")]).await;
    world.api.apply(job(json!([])));
    let printed = |index: u32| if index == 2 { String::new() } else { format!("printed by {index}\n") };
    for index in [4, 0, 2, 1, 3] {
        let name = format!("work-{index}-x");
        world.api.set_logs(NAMESPACE, &name, "executor", log_text(&printed(index)));
        world.api.apply(of_index(index, ended(&name, 0)));
        world.settle().await;
        sleep(Duration::from_secs(1)).await;
        world.api.delete(NAMESPACE, &name);
    }
    world.settle().await;
    world.kill().await;
    world.start().await;
    world.api.apply(complete());
    let end = only_end(&world).await;
    assert_eq!(end["stdout"], "printed by 3\n", "that of the last");
    let indexes = &end["output"]["indexes"];
    assert_eq!(indexes["left_out"], 2, "{indexes:#}");
    assert_eq!(world.metric("podherald_logs_indexes_left_out_total").await, 2);
    let outputs = indexes["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 3, "{indexes:#}");
    for (index, output) in (0..).zip(outputs) {
        assert_eq!((&output["index"], &output["exit_code"]), (&json!(index), &json!(0)));
        assert_eq!(output["pod_name"], format!("work-{index}-x"));
        assert_eq!(output["stdout"]["verdict"], "complete");
        assert_eq!(output["stdout"]["bytes_kept"], printed(index).len());
        let (status, text) = world.text(output["uri"].as_str().unwrap()).await;
        assert_eq!((status.as_u16(), text), (200, printed(index)));
    }
    assert_eq!(world.execution("e").await["output"]["indexes"], *indexes);
    for (query, status) in
        [("index=3", 404), ("index=first", 400), ("index=1&stream=stderr", 200), ("index=1&offset=99", 400)]
    {
        assert_eq!(world.text(&format!("/executions/e/output?{query}")).await.0.as_u16(), status, "{query}");
    }
    assert_eq!(world.output_directories(), 3, "those of the indexes: the attempt's own is in the event");
}

/// No event holds what an index printed, so each has its blobs, whatever their size.
#[tokio::test(start_paused = true)]
async fn each_index_of_a_job_has_its_blob() {
    let shared = tempfile::TempDir::new().unwrap();
    let url = format!("file://{}", shared.path().display());
    let world = started(&[("blob.url", &url)]).await;
    world.api.apply(job(json!([])));
    for index in [0, 1] {
        let name = format!("work-{index}-x");
        world.api.set_logs(NAMESPACE, &name, "executor", log_text(&format!("printed by {index}\n")));
        world.api.apply(of_index(index, ended(&name, 0)));
        world.settle().await;
    }
    world.api.apply(complete());
    let end = only_end(&world).await;
    assert_eq!(end["output"].get("uri"), None, "the event holds that of the last");
    for (index, output) in end["output"]["indexes"]["outputs"].as_array().unwrap().iter().enumerate() {
        let uri = output["uri"].as_str().unwrap();
        assert!(uri.starts_with(&url) && uri.contains(&format!("/index-{index}/stdout-")), "{uri}");
        assert_eq!([&output["stdout"]["uri"], &output["raw_uri"]], [uri, uri]);
        let text = std::fs::read_to_string(uri.strip_prefix("file://").unwrap()).unwrap();
        assert_eq!(text, format!("printed by {index}\n"));
    }
    world.lose_outputs();
    let (status, text) = world.text("/executions/e/output?index=1").await;
    assert_eq!((status.as_u16(), &*text), (200, "printed by 1\n"));
}

/// T1, T57: nobody saw how it ended, and a GET confirms that it is gone.
#[tokio::test(start_paused = true)]
async fn a_job_that_went_while_podherald_was_down_ends_once_with_what_its_pods_know() {
    let mut world = started(&[]).await;
    world.api.apply(job(json!([])));
    world.api.apply(running("work-a"));
    world.settle().await;
    world.kill().await;
    // Whichever watch was faster, the Job's or the pod's.
    let asked = world.api.requests_of(Kind::GetJob).len();
    world.api.delete(NAMESPACE, "work-a");
    world.api.delete_job(NAMESPACE, "work");
    world.start().await;
    let end = only_end(&world).await;
    assert_eq!((&end["event_type"], &end["cause"]["class"]), (&json!("execution_failed"), &json!("unknown")));
    assert_eq!(world.api.requests_of(Kind::GetJob).len(), asked + 1);
}

/// Its pods are all that tells of it: one attempt, of which nobody knows the end, though each of them has one (P2).
#[tokio::test(start_paused = true)]
async fn pods_of_a_job_that_was_gone_before_it_was_seen_are_one_attempt_with_an_unknown_end() {
    for codes in [[3, 0], [0, 0]] {
        let mut world = started(&[]).await;
        world.api.set_logs(NAMESPACE, "work-b", "executor", log_text("of the last\n"));
        world.api.apply(ended("work-a", codes[0]));
        world.settle().await;
        world.kill().await;
        world.start().await;
        world.api.apply(ended("work-b", codes[1]));
        let end = only_end(&world).await;
        assert_eq!((&end["event_type"], &end["cause"]["class"]), (&json!("execution_failed"), &json!("unknown")));
        assert!(end["cause"]["message"].as_str().unwrap().contains("before anybody saw it"), "{end}");
        let execution = world.execution("e").await;
        assert_eq!((&execution["attempts"], execution["pods"].as_array().unwrap().len()), (&json!(1), 2));
        for pod in ["work-a", "work-b"] {
            world.api.delete(NAMESPACE, pod);
        }
        // The watch of Jobs may be long behind.
        world.api.apply(complete());
        world.api.delete_job(NAMESPACE, "work");
        only_end(&world).await;
        assert_eq!(world.execution("e").await["attempts"], 1);
        assert_eq!(world.metric("podherald_monitor_tracked_pods").await, 0, "nothing is left behind");
    }
}

/// A frame that comes late, but before the end is told, tells it.
#[tokio::test(start_paused = true)]
async fn a_late_frame_of_a_job_that_was_thought_unseen_tells_how_it_ended() {
    let world = started(&[]).await;
    world.api.apply(ended("work-a", 0));
    world.settle().await;
    sleep(Duration::from_secs(1)).await;
    world.api.apply(complete());
    let end = only_end(&world).await;
    assert_eq!((&end["event_type"], &end["attempt"]), (&json!("execution_completed"), &json!(1)), "{end}");
}

/// T20a: whoever said that it was gone was behind.
#[tokio::test(start_paused = true)]
async fn a_job_that_was_thought_gone_and_is_seen_to_run_goes_on() {
    let world = started(&[]).await;
    world.api.apply(ended("work-a", 0));
    sleep(Duration::from_secs(5)).await;
    world.api.apply(job(json!([])));
    sleep(MINUTE).await;
    assert!(terminals(&world.events().await).is_empty(), "it runs");
    world.api.apply(complete());
    assert_eq!(only_end(&world).await["event_type"], "execution_completed");
}

/// T60: made, failed and gone within a moment, without a pod; and one that ran so fast that its pod is seen after its end.
#[tokio::test(start_paused = true)]
async fn a_job_that_lives_for_a_moment_is_not_missed_and_its_late_pod_begins_no_attempt() {
    let world = started(&[]).await;
    world.api.apply(job(json!([])));
    world.api.apply(finished("Failed", Some("DeadlineExceeded")));
    world.api.delete_job(NAMESPACE, "work");
    world.until("e", "timeout", MINUTE).await;
    sleep(MINUTE).await;
    world.api.apply(ended("work-a", 0));
    let end = only_end(&world).await;
    assert!(end["cause"]["message"].as_str().unwrap().contains("made no pod"), "{end}");
    assert_eq!(world.execution("e").await["attempts"], 1);
}

/// The label is often on the Job alone.
#[tokio::test(start_paused = true)]
async fn pods_without_the_label_are_seen_if_asked_for_and_else_it_is_said_why_there_is_no_output() {
    let with_pods = started(&[("kube.job_pods", "true")]).await;
    let without = started(&[]).await;
    for world in [&with_pods, &without] {
        world.api.set_logs(NAMESPACE, "work-a", "executor", log_text("said\n"));
        world.api.apply(job(json!([])));
        world.api.apply(unlabelled(ended("work-a", 0)));
        world.settle().await;
        let mut counted = complete();
        counted["status"]["succeeded"] = 1.into();
        world.api.apply(counted);
    }
    assert_eq!(only_end(&with_pods).await["stdout"], "said\n");
    let end = only_end(&without).await;
    assert_eq!((&end["exit_code"], &end["output"]["stdout"]["verdict"]), (&json!(0), &json!("lost")));
    assert!(end["cause"]["evidence"].to_string().contains("kube.job_pods"), "{end}");
}

/// T17: an old role is said to be one, pods go on, and who does not want Jobs need not grant them.
#[tokio::test(start_paused = true)]
async fn a_role_without_jobs_is_not_ready_and_says_what_to_do() {
    let mut world = world(&[]);
    world.api.fail(Kind::ListJobs, Refusal::of_code(403, "jobs.batch is forbidden"));
    world.start().await;
    sleep(MINUTE).await;
    let problem = world.problem("monitor").await.expect("not ready");
    assert!(problem.contains("jobs") && problem.contains("kube.jobs = false"), "{problem}");
    world.api.apply(pods::ended("bare", 0));
    world.until("bare", "completed", MINUTE).await;
    world.api.apply(pods::running("gone"));
    world.until("gone", "running", MINUTE).await;
    world.kill().await;
    world.api.delete(NAMESPACE, "executor-gone");
    world.start().await;
    world.until("gone", "failed", MINUTE).await;
    world.api.restore();
    sleep(MINUTE).await;
    assert_eq!(world.problem("monitor").await, None, "granted late");

    let mut world = self::world(&[("kube.jobs", "false")]);
    world.api.fail(Kind::ListJobs, Refusal::of_code(403, "jobs.batch is forbidden"));
    world.start().await;
    assert_eq!(world.problem("monitor").await, None);
    world.api.apply(ended("work-a", 0));
    world.until("e", "completed", MINUTE).await;
    assert!(world.api.requests_of(Kind::ListJobs).is_empty());
}

/// Pods may stand before their Job, and the Job may be all that there is.
#[test]
fn a_job_is_explained_with_its_pods_in_any_order_and_without_any() {
    let example = std::fs::read_to_string("examples/explain/job.jsonl").unwrap();
    let lines: Vec<&str> = example.lines().collect();
    let backwards: Vec<&str> = lines.iter().rev().copied().collect();
    for (input, codes) in [(&lines[..], [3, 0].as_slice()), (&backwards, &[0, 3]), (&lines[3..], &[])] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), input.join("\n")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podherald"));
        let output = command.arg("explain").arg(file.path()).output().unwrap();
        let events: Vec<Value> = output
            .stdout
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        let ends = terminals(&events);
        assert_eq!(ends.len(), 1, "{events:#?}");
        assert_eq!((&ends[0]["event_type"], &ends[0]["exit_code"]), (&json!("execution_completed"), &json!(0)));
        let of_pods = events.iter().filter(|event| event["event_type"] == "pod_terminated");
        assert_eq!(of_pods.map(|event| event["exit_code"].as_i64().unwrap()).collect::<Vec<_>>(), codes);
    }
}

/// T16: the same name again is another Job, and another attempt.
#[tokio::test(start_paused = true)]
async fn a_job_made_again_under_its_name_ends_the_one_before_and_is_the_next_attempt() {
    let world = started(&[]).await;
    world.api.apply(job(json!([])));
    world.settle().await;
    let mut again = job(json!([]));
    again["metadata"]["uid"] = "job-uid-2".into();
    world.api.apply(again.clone());
    world.settle().await;
    again["status"] = complete()["status"].clone();
    world.api.apply(again);
    world.settle().await;
    sleep(MINUTE).await;
    let events = world.events().await;
    let ends: Vec<_> =
        terminals(&events).into_iter().map(|end| (end["attempt"].clone(), end["event_type"].clone())).collect();
    assert_eq!(ends.len(), 2, "{events:#?}");
    assert!(
        ends.contains(&(json!(1), json!("execution_failed")))
            && ends.contains(&(json!(2), json!("execution_completed")))
    );
}
