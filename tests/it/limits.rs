//! An API server at its limits: it drops slow readers, asks for patience, and no longer knows who we are.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    pods::{NAMESPACE, ended, running},
    scripted_api::{End, Kind, Refusal, log_text},
    world::{MOMENT, World},
};

const BEGIN: &str = "2026-02-10T12:00:03Z";
const MINUTE: Duration = Duration::from_secs(60);

async fn world(settings: &[(&str, &str)]) -> World {
    let mut all = vec![("kube.label_selectors", "execution-id")];
    all.extend_from_slice(settings);
    World::new(BEGIN, &all)
}

fn terminal_events(events: &[Value]) -> usize {
    events.iter().filter(|event| event.get("exit").is_some()).count()
}

/// The server closes such a watch with a plain end, and what it had not sent is not sent.
#[tokio::test(start_paused = true)]
async fn a_watch_that_was_too_slow_for_the_server_loses_nothing() {
    let mut world = world(&[]).await;
    world.start().await;
    let ids: Vec<String> = (0..3_000).map(|n| format!("e{n}")).collect();
    // While nothing can be appended nothing is taken, and soon nothing is read any more.
    world.faults.add(12);
    for id in &ids {
        world.api.apply(running(id));
    }
    sleep(MOMENT).await;
    let newest = world.api.version();
    world.api.drop_slow_watches();
    for id in &ids {
        world.api.apply(ended(id, 0));
    }
    for id in &ids[..1_000] {
        world.api.delete(NAMESPACE, &format!("executor-{id}"));
    }
    world.until(&ids[2_999], "completed", 2 * MINUTE).await;
    sleep(MINUTE).await;
    assert_eq!(terminal_events(&world.events().await), ids.len());
    let watches = world.api.requests_of(Kind::Watch);
    let resumed: u64 = watches[1].parameter("resourceVersion").unwrap().parse().unwrap();
    assert!(resumed < newest, "the reader was not slow: {resumed} of {newest}");
    assert_eq!(world.api.requests_of(Kind::List).len(), 1, "no list was needed");
}

/// T21
#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_patience_is_given_it_and_nothing_is_lost() {
    let silent = Refusal { retry_after: None, ..Refusal::too_many_requests(1) };
    for (refusal, most_lists, most_gets) in [(Refusal::too_many_requests(7), 15, 9), (silent, 36, 18)] {
        let mut world = world(&[("monitor.reconcile_interval", "30s")]).await;
        world.api.apply(running("a"));
        world.api.apply(running("b"));
        for kind in [Kind::List, Kind::ListJobs] {
            world.api.fail(kind, refusal.clone());
        }
        world.launch().await;
        sleep(MINUTE).await;
        let problem = world.problem("monitor").await.unwrap();
        assert!(
            problem.contains("first list is not complete yet") && problem.contains("Too many requests"),
            "{problem}"
        );
        for kind in [Kind::List, Kind::ListJobs] {
            // The watch and the reconciler ask, each for itself.
            let asked = world.api.requests_of(kind).len();
            assert!((2..=most_lists).contains(&asked), "{asked} {kind:?} in a minute");
        }
        world.api.restore();
        world.until("a", "running", MINUTE).await;
        sleep(MINUTE).await;
        assert_eq!(world.problem("monitor").await, None);

        // The GETs on which an end depends, while the watch is well.
        world.api.fail(Kind::Get, refusal.clone());
        let before = world.api.requests_of(Kind::Get).len();
        world.api.delete(NAMESPACE, "executor-a");
        sleep(MINUTE).await;
        assert_eq!(world.execution("a").await["status"], "running");
        let asked = world.api.requests_of(Kind::Get).len() - before;
        assert!((2..=most_gets).contains(&asked), "{asked} GETs in a minute");
        world.api.restore();
        assert_eq!(world.until("a", "failed", MINUTE).await["cause"]["class"], "deleted");
        assert_eq!(world.execution("b").await["status"], "running");
    }
}

/// T17a: the client is made anew below (src/cluster/renewal.rs); here is what comes of it meanwhile.
#[tokio::test(start_paused = true)]
async fn a_401_is_said_and_makes_nobody_give_up() {
    let mut world = world(&[]).await;
    world.start().await;
    for id in ["a", "b", "c"] {
        world.api.apply(running(id));
    }
    world.api.set_logs(NAMESPACE, "executor-b", "executor", log_text("said\n"));
    world.settle().await;
    // What is open stays open until it ends.
    let unknown = Refusal::of_code(401, "Unauthorized");
    for kind in [Kind::List, Kind::Watch, Kind::Get, Kind::Log, Kind::ListJobs, Kind::WatchJobs, Kind::GetJob] {
        world.api.fail(kind, unknown.clone());
    }
    world.api.delete(NAMESPACE, "executor-a");
    world.api.apply(ended("b", 0));
    world.settle().await;
    world.api.disconnect(End::Eof);
    sleep(Duration::from_secs(10)).await;
    let problem = world.problem("monitor").await.unwrap();
    assert!(problem.contains("refuses the watch of pods `execution-id` (401)"), "{problem}");
    assert_eq!(world.problem("api").await, None);
    world.api.apply(ended("c", 3));
    for id in ["a", "b", "c"] {
        assert_eq!(world.execution(id).await["status"], "running", "{id}");
    }

    world.api.restore();
    let restored = Instant::now();
    assert_eq!(world.until("b", "completed", MINUTE).await["stdout"], "said\n");
    assert_eq!(world.until("a", "failed", MINUTE).await["cause"]["class"], "deleted");
    world.until("c", "failed", MINUTE).await;
    // The watch of Jobs finds out at a time of its own.
    while world.problem("monitor").await.is_some() {
        assert!(restored.elapsed() < 2 * MINUTE);
        sleep(MOMENT).await;
    }
    assert_eq!(terminal_events(&world.events().await), 3);
}
