//! The log API, asked by podherald.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    pods::{NAMESPACE, ended, running},
    scripted_api::{Failure, Kind, LogAttempt, LogEnd, log_text},
    world::World,
};

async fn world() -> World {
    let mut world = World::new("2026-02-10T12:00:03Z", &[("kube.label_selectors", "execution-id")]);
    world.start().await;
    world
}

/// The program has ended, its companion runs on, and so does the pod.
fn ended_beside_a_companion(id: &str) -> Value {
    let mut pod = ended(id, 0);
    pod["status"]["phase"] = "Running".into();
    pod["spec"]["containers"] = json!([{"name": "executor"}, {"name": "mesh"}]);
    pod
}

/// T65: whoever deletes the pod after its end takes the log away; whoever waits for the pod's phase reads too late.
#[tokio::test(start_paused = true)]
async fn a_log_is_read_as_soon_as_the_program_has_ended() {
    let world = world().await;
    world.api.apply(running("a"));
    world.api.set_logs(NAMESPACE, "executor-a", "executor", log_text("all of it\n"));
    world.settle().await;
    assert!(world.api.requests_of(Kind::Log).is_empty(), "nothing is read of a program that runs");
    world.api.apply(ended_beside_a_companion("a"));
    world.settle().await;
    world.api.delete(NAMESPACE, "executor-a");
    let execution = world.until("a", "completed", Duration::from_secs(5)).await;
    assert_eq!(
        (&execution["stdout"], &execution["output"]["stdout"]["verdict"]),
        (&json!("all of it\n"), &json!("complete"))
    );
}

/// What would cut the log (T75), mark its lines (T69, T70), leave out some by whole seconds (T68), ask for a run before
/// (T64) or keep a connection that does not end with the container (T67) is not asked for.
#[tokio::test(start_paused = true)]
async fn a_log_is_asked_for_whole_and_as_it_is() {
    let world = world().await;
    world.api.apply(ended_beside_a_companion("a"));
    world.until("a", "completed", Duration::from_secs(5)).await;
    let asked = world.api.requests_of(Kind::Log);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].parameter("container"), Some("executor"));
    for parameter in ["previous", "follow", "limitBytes"] {
        assert!(matches!(asked[0].parameter(parameter), None | Some("false")), "{parameter}");
    }
    // Any other parameter would not have been answered at all.
}

/// A log that breaks off, hangs or is refused never holds the terminal event back beyond `logs.deadline`.
#[tokio::test(start_paused = true)]
async fn the_terminal_event_comes_with_what_could_be_read_in_time() {
    let half = || vec![bytes::Bytes::from_static(b"half")];
    let attempts = [
        (LogAttempt::Text(half(), LogEnd::BreaksOff), "half", "partial"),
        (LogAttempt::Text(half(), LogEnd::Hangs), "half", "partial"),
        (LogAttempt::Fails(Failure::Hang), "", "lost"),
        (LogAttempt::Fails(Failure::Reset), "", "lost"),
    ];
    for (attempt, stdout, verdict) in attempts {
        let world = world().await;
        world.api.set_logs(NAMESPACE, "executor-a", "executor", vec![attempt.clone()]);
        world.api.apply(ended("a", 0));
        let execution = world.until("a", "completed", Duration::from_secs(31)).await;
        let told = (&execution["stdout"], &execution["output"]["stdout"]["verdict"]);
        assert_eq!(told, (&json!(stdout), &json!(verdict)), "{attempt:?}");
        sleep(Duration::from_secs(60)).await;
        assert_eq!(world.execution("a").await, execution, "and that was it");
    }
}
