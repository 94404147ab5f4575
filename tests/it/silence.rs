//! Pods whose kubelet says nothing more: on virtual time, over a scripted API server.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    jobs,
    pods::{NAMESPACE, ended, running},
    scripted_api::{Failure, Kind, Refusal, log_text},
    world::World,
};

const BEGIN: &str = "2026-02-10T12:00:03Z";
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// `monitor.must_hear_grace`.
const GRACE: Duration = MINUTE.saturating_mul(3);
/// From the begin of a test until a pod is looked for that runs from a little before, with a deadline of a minute.
const DUE: Duration = MINUTE.saturating_add(GRACE);
/// After a look that was due, what it has found is known.
const LITTLE: Duration = Duration::from_secs(5);

async fn world(settings: &[(&str, &str)]) -> World {
    let mut world = World::new(BEGIN, &[&[("kube.label_selectors", "execution-id")], settings].concat());
    world.start().await;
    world
}

fn with_deadline(mut pod: Value) -> Value {
    pod["spec"]["activeDeadlineSeconds"] = 60.into();
    pod
}

fn deleted(mut pod: Value) -> Value {
    pod["metadata"]["deletionTimestamp"] = BEGIN.into();
    pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    pod
}

fn node(ready: &str, heartbeat: &str) -> Value {
    let condition = json!({
        "type": "Ready", "status": ready, "reason": "NodeStatusUnknown", "lastHeartbeatTime": heartbeat,
        "lastTransitionTime": "2026-02-10T12:00:40Z",
    });
    json!({"kind": "Node", "metadata": {"name": "node-1"}, "status": {"conditions": [condition]}})
}

fn unreachable() -> Value {
    node("Unknown", BEGIN)
}

fn looks(world: &World) -> usize {
    world.api.requests_of(Kind::GetNode).len()
}

fn evidence(execution: &Value) -> String {
    let lines = execution["cause"]["evidence"].as_array().unwrap();
    lines.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// T33. The end that comes late amends.
#[tokio::test(start_paused = true)]
async fn a_pod_whose_node_is_lost_ends_though_nobody_ever_tells_its_end() {
    let world = world(&[]).await;
    world.api.apply(unreachable());
    world.api.apply(with_deadline(running("a")));
    world.api.set_logs(NAMESPACE, "executor-a", "executor", log_text("so far\n"));
    sleep(DUE - LITTLE).await;
    assert_eq!(looks(&world), 0);
    sleep(GRACE).await;
    assert_eq!((looks(&world), world.execution("a").await["status"].as_str()), (1, Some("running")));
    sleep(LITTLE).await;
    let lost = world.execution("a").await;
    assert_eq!(
        (lost["status"].as_str(), lost["cause"]["class"].as_str()),
        (Some("failed"), Some("node_lost")),
        "{lost}"
    );
    assert_eq!(
        (lost["stdout"].as_str(), lost["output"]["stdout"]["verdict"].as_str()),
        (Some("so far\n"), Some("partial"))
    );
    assert_eq!(lost["exit"], json!({"code": null, "signal": null, "source": "none"}));
    let told = evidence(&lost);
    for said in [
        "its deadline of 60 s was over at 2026-02-10T12:01:01Z",
        "the pod is there; node node-1: condition Ready Unknown since 2026-02-10T12:00:40Z, reason NodeStatusUnknown, last heartbeat",
        "node node-1 was found so since 2026-02-10T12:04:01",
    ] {
        assert!(told.contains(said), "{said} is not in {told}");
    }
    for (metric, value) in [("looks", 2), ("ends", 1)] {
        let metric = format!("podherald_monitor_unheard_{metric}_total{{node=\"unreachable\"}}");
        assert_eq!(world.metric(&metric).await, value);
    }

    world.api.apply(with_deadline(ended("a", 0)));
    world.settle().await;
    let amended = world.execution("a").await;
    assert_eq!(
        (amended["status"].as_str(), amended["amended"][0]["exit"]["code"].as_i64()),
        (Some("failed"), Some(0)),
        "{amended}"
    );
    sleep(60 * MINUTE).await;
    assert_eq!(looks(&world), 2, "it has ended");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_never_let_go_by_its_kubelet_ends_after_its_grace() {
    for (node, found) in [(None, "node_lost"), (Some(node("False", BEGIN)), "node_lost")] {
        let world = world(&[]).await;
        node.into_iter().for_each(|node| world.api.apply(node));
        world.api.apply(deleted(running("a")));
        sleep(MINUTE / 2 + 2 * GRACE - LITTLE).await;
        assert_eq!(world.execution("a").await["status"], "running");
        sleep(2 * LITTLE).await;
        assert_eq!(world.execution("a").await["cause"]["class"], found);
    }
}

/// P2: what nobody can know is said to be unknown, and only of an end that is overdue.
#[tokio::test(start_paused = true)]
async fn without_the_right_to_nodes_an_overdue_end_is_unknown() {
    let world = world(&[("monitor.must_hear_by", "10m")]).await;
    world.api.fail(Kind::GetNode, Refusal::of_code(403, "nodes is forbidden"));
    world.api.apply(with_deadline(running("a")));
    world.api.apply(running("b"));
    let unknown = world.until("a", "failed", DUE + GRACE + LITTLE).await;
    assert_eq!(unknown["cause"]["class"], "unknown");
    assert_eq!(unknown["cause"]["reason"], "NotHeardOf");
    sleep(60 * MINUTE).await;
    assert_eq!(world.execution("b").await["status"], "running");
    assert_eq!(world.metric("podherald_monitor_unheard_ends_total{node=\"forbidden\"}").await, 1);
    assert_eq!(looks(&world), 2 + 6);
}

/// T11: the look brings what a watch that is dead did not.
#[tokio::test(start_paused = true)]
async fn what_a_look_finds_of_the_pod_itself_decides() {
    let world = world(&[("monitor.reconcile_interval", "10h")]).await;
    world.api.apply(unreachable());
    for id in ["ended", "gone"] {
        world.api.apply(with_deadline(running(id)));
    }
    world.settle().await;
    world.api.play_dead();
    world.api.fail(Kind::List, Failure::Hang);
    world.api.replace_silently(vec![with_deadline(ended("ended", 3))]);
    sleep(DUE + LITTLE).await;
    assert_eq!(world.execution("ended").await["exit"]["code"], 3);
    world.api.restore();
    sleep(MINUTE).await;
    assert_eq!(world.execution("gone").await["cause"]["reason"], "Vanished");
}

#[tokio::test(start_paused = true)]
async fn a_pod_on_a_node_that_lives_is_waited_for() {
    let world = world(&[("monitor.must_hear_by", "10m")]).await;
    world.api.apply(with_deadline(running("a")));
    world.api.apply(running("b"));
    for minute in 0..120 {
        world.api.apply(node("True", &format!("2026-02-10T{:02}:{:02}:00Z", 12 + minute / 60, minute % 60)));
        sleep(MINUTE).await;
    }
    for id in ["a", "b"] {
        assert_eq!(world.execution(id).await["status"], "running");
    }
    let looks = looks(&world);
    assert!((12..24).contains(&looks), "{looks}");
    world.api.apply(ended("b", 0));
    world.until("b", "completed", LITTLE).await;
}

/// What was found is in the journal; what was not found out is asked again.
#[tokio::test(start_paused = true)]
async fn a_doubt_outlives_a_kill_and_an_api_server_that_does_not_answer() {
    let mut world = world(&[]).await;
    world.api.apply(unreachable());
    world.api.apply(with_deadline(running("a")));
    sleep(DUE + LITTLE).await;
    world.kill().await;
    world.start().await;
    for failure in [Refusal::of_code(500, "no").into(), Failure::Hang, Failure::Reset] {
        world.api.fail_next(Kind::GetNode, 2, failure);
    }
    sleep(GRACE).await;
    assert_eq!(world.execution("a").await["status"], "running", "nobody has told what its node is like");
    world.until("a", "failed", 3 * MINUTE).await;
    let ends: Vec<_> =
        world.events().await.into_iter().filter(|event| event["event_type"] == "execution_failed").collect();
    assert_eq!(ends.len(), 1);
    assert!(evidence(&ends[0]).contains("found so since 2026-02-10T12:04:01"), "{}", ends[0]);
    sleep(SECOND).await;
}

/// T37: and a node that comes back in time changes nothing.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_back_before_the_grace_is_over_costs_nothing() {
    let world = world(&[]).await;
    world.api.apply(unreachable());
    world.api.apply(with_deadline(running("a")));
    sleep(DUE + MINUTE).await;
    world.api.apply(node("True", "2026-02-10T12:05:00Z"));
    sleep(GRACE).await;
    world.api.delete_node("node-1");
    assert_eq!((looks(&world), world.execution("a").await["status"].as_str()), (2, Some("running")));
    let mut timeout = with_deadline(running("a"));
    timeout["status"] = json!({"phase": "Failed", "reason": "DeadlineExceeded"});
    world.api.apply(timeout);
    world.until("a", "timeout", MINUTE).await;
}

/// T33, T58: the Job waits for a pod that nobody ends. By the Job's deadline that is a timeout, for its controller has said so.
#[tokio::test(start_paused = true)]
async fn a_job_that_waits_for_a_lost_pod_ends_as_it_has_announced() {
    let mut world = world(&[]).await;
    let target = json!({"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"});
    world.api.apply(jobs::job(json!([target])));
    world.api.apply(deleted(jobs::running("work-a")));
    sleep(MINUTE / 2 + 2 * GRACE + LITTLE).await;
    assert_eq!(world.execution("e").await["status"], "running");
    world.kill().await;
    world.start().await;
    let end = world.until("e", "timeout", GRACE + LITTLE).await;
    let told = evidence(&end);
    assert!(told.contains("DeadlineExceeded") && told.contains("node node-1: there is none"), "{told}");
}
