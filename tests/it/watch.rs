//! What happens to the watch, and what must not come of it. The T-numbers are those of docs/TRAPS.md.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    scripted_api::{End, Failure, GoneAs, Kind, Refusal, log_text},
    world::{MOMENT, World},
};

const BEGIN: &str = "2026-02-10T12:00:00Z";

fn pod(name: &str, uid: &str, status: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "ns", "uid": uid, "creationTimestamp": BEGIN,
            "labels": {"execution-id": name.trim_start_matches("executor-")}
        },
        "spec": {"nodeName": "n", "restartPolicy": "Never", "containers": [{"name": "executor"}]},
        "status": status
    })
}

fn running(name: &str, uid: &str) -> Value {
    let status = json!({"name": "executor", "restartCount": 0, "state": {"running": {"startedAt": BEGIN}}});
    pod(name, uid, json!({"phase": "Running", "containerStatuses": [status]}))
}

fn ended(name: &str, uid: &str, code: i32) -> Value {
    let end = json!({"exitCode": code, "reason": "Error", "startedAt": BEGIN, "finishedAt": "2026-02-10T12:00:02Z"});
    let status = json!({"name": "executor", "restartCount": 0, "state": {"terminated": end}});
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    pod(name, uid, json!({"phase": phase, "containerStatuses": [status]}))
}

async fn world() -> World {
    world_with(&[]).await
}

async fn world_with(settings: &[(&str, &str)]) -> World {
    let mut all = vec![("kube.label_selectors", "execution-id")];
    all.extend_from_slice(settings);
    let mut world = World::new(BEGIN, &all);
    world.start().await;
    world
}

async fn status(world: &World, id: &str) -> String {
    let (_, execution) = world.get(&format!("/executions/{id}")).await;
    execution["status"].as_str().unwrap_or("unknown").to_owned()
}

async fn class(world: &World, id: &str) -> String {
    let (_, execution) = world.get(&format!("/executions/{id}")).await;
    execution["cause"]["class"].as_str().unwrap_or_default().to_owned()
}

async fn is_ready(world: &World) -> bool {
    world.get("/readyz?role=monitor").await.0 == 200
}

/// Ends that happen while the watch is away are seen when it is back.
async fn is_seen_again(world: &World) {
    world.api.apply(ended("executor-a", "u1", 3));
    world.settle().await;
    for _ in 0..60 {
        if status(world, "a").await == "failed" {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("the end was not seen within a minute");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_by_eof_goes_on_from_its_version() {
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    let lists = world.api.requests_of(Kind::List).len();
    world.api.disconnect(End::Eof);
    is_seen_again(&world).await;
    assert_eq!(world.api.requests_of(Kind::List).len(), lists, "no relist was needed");
}

#[tokio::test(start_paused = true)]
async fn a_410_inside_the_stream_makes_a_relist() {
    // T5
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    world.api.expire(GoneAs::Frame);
    world.api.disconnect(End::Eof);
    is_seen_again(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_410_as_a_status_does_not_keep_the_bad_version_for_ever() {
    // T5: kube's watcher alone would ask again from the same version.
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    world.api.expire(GoneAs::Status);
    world.api.disconnect(End::Eof);
    is_seen_again(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_too_large_resource_version_does_not_keep_it_for_ever() {
    // T8, T18
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    let version = world.api.version();
    world.api.fail_next(Kind::Watch, 1, Refusal::too_large(version + 1000, version));
    let lists = world.api.requests_of(Kind::List).len();
    world.api.disconnect(End::Eof);
    is_seen_again(&world).await;
    assert!(world.api.requests_of(Kind::List).len() > lists);
}

#[tokio::test(start_paused = true)]
async fn an_error_a_reset_and_a_500_are_survived() {
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    world.api.fail_next(Kind::Watch, 3, Refusal::of_code(500, "etcdserver: leader changed"));
    world.api.fail_next(Kind::Watch, 1, Failure::Reset);
    world.api.disconnect(End::Reset);
    is_seen_again(&world).await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_kept_on_the_very_first_list() {
    // T21
    let mut world = World::new(BEGIN, &[("kube.label_selectors", "execution-id")]);
    world.api.fail_next(Kind::List, 2, Refusal::too_many_requests(7));
    let begun = Instant::now();
    world.start().await;
    let lists = world.api.requests_of(Kind::List);
    assert_eq!(lists.len(), 3);
    assert!(
        begun.elapsed() >= Duration::from_secs(14) && begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_open_and_dead_is_replaced() {
    // T11
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    world.api.play_dead();
    world.api.apply(ended("executor-a", "u1", 3));
    sleep(Duration::from_secs(80)).await;
    assert_eq!(status(&world, "a").await, "failed");
}

#[tokio::test(start_paused = true)]
async fn a_stale_watch_makes_the_monitor_not_ready_and_the_api_stays_ready() {
    let world = world().await;
    assert!(is_ready(&world).await);
    world.api.fail(Kind::Watch, Failure::Hang);
    world.api.fail(Kind::List, Failure::Hang);
    world.api.disconnect(End::Eof);
    sleep(Duration::from_secs(74)).await;
    assert!(is_ready(&world).await);
    sleep(Duration::from_secs(3)).await;
    let (code, problem) = world.get("/readyz?role=monitor").await;
    assert_eq!(code, 503);
    assert!(problem.to_string().contains("no sign of life from the watch"), "{problem}");
    assert_eq!(world.get("/readyz?role=api").await.0, 200, "the past stays readable");
    world.api.restore();
    world.api.disconnect(End::Eof);
    for _ in 0..200 {
        if is_ready(&world).await {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
    panic!("not ready again");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_selector_stays_fresh_by_its_own_end_and_bookmarks() {
    // T10
    let world = world().await;
    for _ in 0..30 {
        sleep(Duration::from_secs(20)).await;
        assert!(is_ready(&world).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_403_is_not_ready_and_not_no_pods() {
    // T17
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    world.api.forbid();
    world.api.expire(GoneAs::Status);
    world.api.disconnect(End::Eof);
    sleep(Duration::from_secs(120)).await;
    let (code, problem) = world.get("/readyz?role=monitor").await;
    assert_eq!(code, 503);
    assert!(problem.to_string().contains("refuses the watch of pods `execution-id` (403)"), "{problem}");
    assert_eq!(status(&world, "a").await, "running");
    world.api.restore();
    is_seen_again(&world).await;
    // The watch of Jobs finds out at a time of its own.
    sleep(Duration::from_secs(60)).await;
    assert!(is_ready(&world).await);
}

#[tokio::test(start_paused = true)]
async fn deleted_during_a_watch_gap_ends_the_execution_once() {
    // T1
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.api.apply(running("executor-b", "u2"));
    world.settle().await;
    world.api.replace_silently(vec![running("executor-b", "u2")]);
    world.api.expire(GoneAs::Frame);
    world.api.disconnect(End::Eof);
    sleep(Duration::from_secs(5)).await;
    assert_eq!((status(&world, "a").await.as_str(), class(&world, "a").await.as_str()), ("failed", "unknown"));
    assert_eq!(status(&world, "b").await, "running");
}

#[tokio::test(start_paused = true)]
async fn missing_from_a_list_is_not_gone_while_a_get_still_finds_it() {
    // T7, T20: the stale list comes from a cache; the GET is the judge.
    let world = world_with(&[("kube.label_selectors", "execution-id;other")]).await;
    let mut both = running("executor-a", "u1");
    both["metadata"]["labels"]["other"] = json!("x");
    world.api.apply(both);
    world.settle().await;
    world.api.apply(running("executor-a", "u1"));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(status(&world, "a").await, "running", "one of its two watches let it go");
    assert!(!world.api.requests_of(Kind::Get).is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_concluded_while_the_get_fails() {
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    world.api.fail(Kind::Get, Refusal::of_code(500, "down"));
    world.api.replace_silently(vec![]);
    world.api.expire(GoneAs::Frame);
    world.api.disconnect(End::Eof);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(status(&world, "a").await, "running");
    world.api.restore();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(status(&world, "a").await, "failed");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_loses_its_label_is_followed_by_get_until_it_ends() {
    // T15
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    let unlabelled = |mut pod: Value| {
        pod["metadata"]["labels"] = json!({});
        pod
    };
    world.api.apply(unlabelled(running("executor-a", "u1")));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(status(&world, "a").await, "running");
    world.api.set_logs("ns", "executor-a", "executor", log_text("still read\n"));
    world.api.apply(unlabelled(ended("executor-a", "u1", 3)));
    sleep(Duration::from_secs(10)).await;
    let (_, execution) = world.get("/executions/a").await;
    assert_eq!((execution["status"].as_str(), execution["stdout"].as_str()), (Some("failed"), Some("still read\n")));
}

#[tokio::test(start_paused = true)]
async fn the_same_name_with_another_uid_is_another_attempt() {
    // T16: a missed delete and create look like an update.
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    world.api.replace_silently(vec![running("executor-a", "u2")]);
    world.api.expire(GoneAs::Frame);
    world.api.disconnect(End::Eof);
    sleep(Duration::from_secs(5)).await;
    let events = world.events().await;
    let first: Vec<_> =
        events.iter().filter(|event| event["attempt"] == 1).map(|event| event["event_type"].clone()).collect();
    assert!(first.contains(&json!("execution_failed")) && first.contains(&json!("pod_deleted")), "{first:?}");
    let (_, execution) = world.get("/executions/a").await;
    assert_eq!((execution["attempt"].as_u64(), execution["attempts"].as_u64()), (Some(2), Some(2)));
    assert_eq!(execution["status"], "running");
}

#[tokio::test(start_paused = true)]
async fn a_list_of_several_pages_is_taken_whole() {
    // T13
    let mut world = World::new(BEGIN, &[("kube.label_selectors", "execution-id")]);
    world.api.limit_pages(2);
    world.api.replace_silently((0..7).map(|n| ended(&format!("executor-{n}"), &format!("u{n}"), 0)).collect());
    world.start().await;
    sleep(Duration::from_secs(2)).await;
    for n in 0..7 {
        assert_eq!(status(&world, &n.to_string()).await, "completed");
    }
}

#[tokio::test(start_paused = true)]
async fn the_reconciler_finds_what_the_watch_kept_to_itself() {
    // T11, T12
    let world = world_with(&[("monitor.reconcile_interval", "30s")]).await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    world.api.replace_silently(vec![ended("executor-a", "u1", 4), ended("executor-b", "u2", 0)]);
    sleep(MOMENT).await;
    assert_eq!(status(&world, "a").await, "running");
    sleep(Duration::from_secs(31)).await;
    assert_eq!((status(&world, "a").await.as_str(), status(&world, "b").await.as_str()), ("failed", "completed"));
}

#[tokio::test(start_paused = true)]
async fn a_restart_redelivers_everything_and_changes_nothing() {
    // T6
    let mut world = world().await;
    world.api.apply(ended("executor-a", "u1", 0));
    world.api.apply(running("executor-b", "u2"));
    sleep(Duration::from_secs(1)).await;
    let before = world.events().await;
    world.kill().await;
    world.start().await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.events().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_closed_pod_that_is_shown_twice_at_once_is_not_begun_anew() {
    // Late lists and frames may show a pod whose story is over twice in one turn.
    let world = world().await;
    let mut second = ended("executor-a-again", "u2", 0);
    second["metadata"]["labels"]["execution-id"] = "a".into();
    world.api.apply(ended("executor-a", "u1", 3));
    world.settle().await;
    world.api.apply(second.clone());
    world.settle().await;
    world.api.delete("ns", "executor-a-again");
    world.settle().await;
    let (_, before) = world.get("/executions/a").await;
    assert_eq!(before["attempt"], 2, "{before}");

    second["metadata"]["resourceVersion"] = "1".into();
    world.api.send_raw("ADDED", &second);
    world.api.send_raw("MODIFIED", &second);
    world.settle().await;
    assert_eq!(world.get("/executions/a").await.1, before);
}

#[tokio::test(start_paused = true)]
async fn a_pod_gone_while_podherald_was_down_ends_when_it_is_back() {
    let mut world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    world.kill().await;
    world.api.delete("ns", "executor-a");
    world.start().await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!((status(&world, "a").await.as_str(), class(&world, "a").await.as_str()), ("failed", "unknown"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_claims_another_namespaces_execution_is_shown_without_events() {
    let world = world().await;
    world.api.apply(running("executor-a", "u1"));
    world.settle().await;
    let mut thief = ended("executor-a", "u2", 0);
    thief["metadata"]["namespace"] = json!("elsewhere");
    world.api.apply(thief);
    world.settle().await;
    assert_eq!(status(&world, "a").await, "running");
    let (_, pod) = world.get("/pods/elsewhere/executor-a").await;
    assert_eq!((pod["state"].as_str(), pod["execution_id"].as_str()), (Some("conflict"), Some("a")));
    assert!(world.events().await.iter().all(|event| event["attempt"] == 1));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_numbered_by_creation_within_one_list() {
    let mut world = World::new(BEGIN, &[("kube.label_selectors", "execution-id")]);
    let aged = |name: &str, uid: &str, created: &str| {
        let mut pod = running(name, uid);
        pod["metadata"]["creationTimestamp"] = json!(created);
        pod["metadata"]["labels"]["execution-id"] = json!("a");
        pod
    };
    world.api.replace_silently(vec![
        aged("executor-a", "u9", "2026-02-10T11:00:00Z"),
        aged("executor-z", "u1", "2026-02-10T10:00:00Z"),
        aged("executor-m", "u5", "2026-02-10T11:00:00Z"),
    ]);
    world.start().await;
    sleep(MOMENT).await;
    let (_, execution) = world.get("/executions/a").await;
    let pods = execution["pods"].as_array().unwrap();
    let mut order: Vec<_> = pods.iter().map(|pod| (pod["attempt"].as_u64(), pod["uid"].as_str())).collect();
    order.sort_unstable();
    assert_eq!(order, [(Some(1), Some("u1")), (Some(2), Some("u5")), (Some(3), Some("u9"))]);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_frame_costs_neither_the_watch_nor_the_next_frame() {
    let world = world().await;
    world.api.send_raw("ADDED", &json!(5));
    world.api.send_raw("MODIFIED", &json!({"kind": "Pod", "metadata": {"name": 5, "resourceVersion": "1"}}));
    world.api.apply(running("executor-a", "u1"));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(status(&world, "a").await, "running");
}

/// Whether the pod's going has been told.
async fn is_told_gone(world: &World, id: &str) -> bool {
    world.events().await.iter().any(|event| event["execution_id"] == id && event["event_type"] == "pod_deleted")
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_ended_is_looked_at_again_only_when_it_is_another_or_gone() {
    let world = world_with(&[("monitor.reconcile_interval", "30s")]).await;
    for id in ["deleted", "vanished", "replaced", "stays"] {
        let pod = format!("executor-{id}");
        world.api.set_logs("ns", &pod, "executor", log_text("done\n"));
        world.api.apply(ended(&pod, id, 0));
    }
    world.settle().await;
    let looks = world.metric("podherald_monitor_observations_total").await;
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.metric("podherald_monitor_observations_total").await, looks, "nothing is new in the list");
    assert_eq!(world.metric("podherald_monitor_tracked_pods").await, 4);

    world.api.delete("ns", "executor-deleted");
    let mut other = running("executor-other", "other");
    other["metadata"]["name"] = "executor-replaced".into();
    world.api.replace_silently(vec![ended("executor-stays", "stays", 0), other]);
    sleep(Duration::from_secs(31)).await;
    for id in ["deleted", "vanished", "replaced"] {
        assert!(is_told_gone(&world, id).await, "{id}");
        assert_eq!(status(&world, id).await, "completed");
    }
    assert!(!is_told_gone(&world, "stays").await);
    assert_eq!(status(&world, "other").await, "running");
    assert_eq!(world.metric("podherald_monitor_tracked_pods").await, 2);
}
