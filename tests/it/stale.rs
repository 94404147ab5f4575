//! Two API servers behind one address, of which one is behind: it lacks what is new and shows what was (T20a).

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    jobs,
    pods::{NAMESPACE, ended, running},
    scripted_api::{Kind, log_text},
    world::World,
};

const BEGIN: &str = "2026-02-10T12:00:03Z";
const SOON: Duration = Duration::from_secs(5);
/// Some rounds of the reconciler.
const LONG: Duration = Duration::from_secs(120);

fn world() -> World {
    World::new(BEGIN, &[("kube.label_selectors", "execution-id"), ("monitor.reconcile_interval", "30s")])
}

async fn started() -> World {
    let mut world = world();
    world.start().await;
    world.api.wait_for_requests(Kind::WatchJobs, 1).await;
    world
}

/// What the server that is behind answers.
type Answers = Box<dyn FnMut(Kind) -> bool + Send>;

/// Every second request of a kind.
fn in_turn() -> Answers {
    let mut answered = BTreeSet::new();
    Box::new(move |kind| answered.insert(kind) || !answered.remove(&kind))
}

/// Everything but watches that are open already.
fn always() -> Answers {
    Box::new(|_| true)
}

async fn assert_nothing_is_told_twice(world: &World) {
    let events = world.events().await;
    let place =
        |event: &Value| (event["execution_id"].to_string(), event["attempt"].as_u64(), event["event_type"].to_string());
    let mut places: Vec<_> = events.iter().map(place).collect();
    places.sort();
    let count = places.len();
    places.dedup();
    assert_eq!(places.len(), count, "{events:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_a_pod_yet_does_not_end_it() {
    for answers in [always(), in_turn()] {
        let mut world = started().await;
        world.api.apply(running("a"));
        world.settle().await;
        world.api.fall_behind(answers);
        world.api.apply(running("b"));
        world.until("b", "running", SOON).await;
        sleep(LONG).await;
        assert_eq!(world.execution("b").await["status"], "running");

        // Nor to a podherald that knows it from the journal only.
        world.kill().await;
        world.launch().await;
        sleep(LONG).await;
        assert_eq!(world.execution("b").await["status"], "running");

        world.api.catch_up();
        world.api.apply(ended("b", 0));
        world.until("b", "completed", LONG).await;
        world.api.delete(NAMESPACE, "executor-a");
        assert_eq!(world.until("a", "failed", LONG).await["cause"]["class"], "deleted");
        assert_nothing_is_told_twice(&world).await;
    }
}

/// T8: then the versions of everything are smaller, for good.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_restored_is_believed_after_a_while() {
    let world = started().await;
    world.api.fall_behind(always());
    world.api.apply(running("a"));
    world.until("a", "running", SOON).await;
    sleep(LONG).await;
    assert_eq!(world.execution("a").await["status"], "running");
    assert!(world.metric("podherald_monitor_outdated_total").await > 2);
    sleep(3 * LONG).await;
    let gone = world.execution("a").await;
    assert_eq!((gone["status"].as_str(), gone["cause"]["class"].as_str()), (Some("failed"), Some("unknown")), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_still_shows_a_deleted_pod_does_not_bring_it_back() {
    let world = started().await;
    world.api.apply(running("a"));
    world.settle().await;
    world.api.fall_behind(|kind| kind == Kind::Get);
    world.api.delete(NAMESPACE, "executor-a");
    sleep(LONG).await;
    world.api.catch_up();
    let gone = world.until("a", "failed", LONG).await;
    assert_eq!(gone["cause"]["class"], "deleted", "the watch has told it: {gone}");
    sleep(LONG).await;
    assert_nothing_is_told_twice(&world).await;
}

#[tokio::test(start_paused = true)]
async fn what_may_change_back_is_not_taken_from_a_server_that_is_behind() {
    for answers in [always(), in_turn()] {
        let world = started().await;
        let mut lost = running("a");
        lost["status"]["reason"] = json!("NodeLost");
        world.api.apply(lost);
        world.settle().await;
        world.api.fall_behind(answers);
        world.api.apply(running("a"));
        sleep(LONG).await;
        assert_eq!(world.execution("a").await["status"], "running", "its node has come back");
        world.api.catch_up();
        world.api.apply(ended("a", 0));
        world.until("a", "completed", SOON).await;
        assert_nothing_is_told_twice(&world).await;
    }
}

/// T16: the earlier pod of a name is not proof that the later one is gone.
#[tokio::test(start_paused = true)]
async fn a_server_that_still_shows_an_earlier_pod_of_the_name_does_not_end_the_later() {
    let mut world = world();
    world.api.apply(running("a"));
    let is_behind = Arc::new(AtomicBool::new(false));
    let asked = is_behind.clone();
    world.api.fall_behind(move |_| asked.load(Ordering::SeqCst));
    world.api.delete(NAMESPACE, "executor-a");
    let mut later = running("b");
    later["metadata"]["name"] = json!("executor-a");
    world.api.apply(later);
    world.start().await;
    world.until("b", "running", SOON).await;
    is_behind.store(true, Ordering::SeqCst);
    sleep(LONG).await;
    assert_eq!(world.execution("b").await["status"], "running");
    world.api.catch_up();
    sleep(LONG).await;
    assert_eq!(world.execution("b").await["status"], "running");
    assert_eq!(world.execution("a").await["status"], "failed", "seen late, and gone");
    assert_nothing_is_told_twice(&world).await;
}

/// What is judged by itself because its Job seems not to be there cannot be taken back.
#[tokio::test(start_paused = true)]
async fn a_pod_whose_job_a_server_that_is_behind_does_not_know_waits_for_it() {
    let mut world = world();
    let mut turn = in_turn();
    // The watch and the list of Jobs are of the server that is behind, which answers every second GET of one too.
    world.api.fall_behind(move |kind| match kind {
        Kind::ListJobs | Kind::WatchJobs => true,
        Kind::GetJob => turn(kind),
        _ => false,
    });
    world.api.apply(jobs::job(json!([])));
    world.api.apply(jobs::running("work-a"));
    world.launch().await;
    sleep(LONG).await;
    assert_eq!(world.events().await, [Value::Null; 0]);
    world.api.catch_up();
    world.until("e", "running", LONG).await;
    world.api.apply(jobs::ended("work-a", 0));
    sleep(SOON).await;
    assert_ne!(world.execution("e").await["status"], "completed", "that is for the Job to say");
    world.api.apply(jobs::complete());
    world.until("e", "completed", LONG).await;
    assert_nothing_is_told_twice(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_of_which_a_server_that_is_behind_knows_nothing_is_asked_for_again() {
    let world = started().await;
    world.api.fall_behind(in_turn());
    for id in ["a", "b", "c"] {
        world.api.set_logs(NAMESPACE, &format!("executor-{id}"), "executor", log_text("said\n"));
        world.api.apply(ended(id, 0));
        assert_eq!(world.until(id, "completed", SOON).await["stdout"], "said\n");
    }
}
