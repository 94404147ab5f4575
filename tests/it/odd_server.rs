//! An API server that is slow, fails, breaks off or holds more than usual, and what must not come of it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    pods::{NAMESPACE, ended, pending, running},
    scripted_api::{End, Failure, GoneAs, Kind, Refusal},
    world::{MOMENT, World},
};

const BEGIN: &str = "2026-02-10T12:00:03Z";
/// Enough for a retry or two, less than any periodic repair.
const SOON: Duration = Duration::from_secs(5);

/// One watch, of the pods with an execution id.
async fn world() -> World {
    let mut world = World::new(BEGIN, &[("kube.label_selectors", "execution-id")]);
    world.start().await;
    world
}

fn terminal_events(events: &[Value]) -> usize {
    let is_terminal = |event: &&Value| event.get("exit").is_some();
    events.iter().filter(is_terminal).count()
}

/// T5: too old while the list is still being paged; the list begins anew.
#[tokio::test(start_paused = true)]
async fn a_list_whose_pages_expire_is_begun_anew() {
    let mut world = World::new(BEGIN, &[("kube.label_selectors", "execution-id")]);
    for id in ["a", "b", "c"] {
        world.api.apply(running(id));
    }
    world.api.limit_pages(1);
    world.api.pass_next(Kind::List, 2);
    world.api.fail_next(Kind::List, 1, Refusal::expired_continue("x"));
    world.start().await;
    for id in ["a", "b", "c"] {
        world.until(id, "running", SOON).await;
    }
    assert_eq!(world.api.requests_of(Kind::List).len(), 2 + 1 + 3);
}

/// T8: after a restore the versions of newer facts can be smaller.
#[tokio::test(start_paused = true)]
async fn a_fact_is_taken_however_small_its_version() {
    let world = world().await;
    let at = |mut pod: Value, version: &str| {
        pod["metadata"]["resourceVersion"] = version.into();
        pod
    };
    world.api.send("ADDED", at(running("a"), "9000000000000000000"));
    world.settle().await;
    world.api.send("MODIFIED", at(ended("a", 0), "7"));
    world.until("a", "completed", SOON).await;
}

/// T7: what may be stale decides nothing.
#[tokio::test(start_paused = true)]
async fn every_list_is_a_quorum_list() {
    let world = world().await;
    world.api.expire(GoneAs::Frame);
    world.api.disconnect(End::Eof);
    sleep(Duration::from_secs(310)).await;
    let lists = world.api.requests_of(Kind::List);
    assert!(lists.len() >= 3, "two by the watch, one by the reconciler: {}", lists.len());
    for list in lists {
        assert_eq!(list.parameter("resourceVersion"), None);
    }
    assert!(world.api.requests_of(Kind::Get).iter().all(|get| get.parameter("resourceVersion").is_none()));
}

/// T16: a missed deletion and a new pod of the same name look like a change.
#[tokio::test(start_paused = true)]
async fn a_pod_under_a_known_name_with_another_uid_ends_the_one_before() {
    let world = world().await;
    world.api.apply(running("a"));
    world.settle().await;
    let mut other = running("b");
    other["metadata"]["name"] = "executor-a".into();
    world.api.send("MODIFIED", other);
    let first = world.until("a", "failed", SOON).await;
    assert!(["deleted", "unknown"].contains(&first["cause"]["class"].as_str().unwrap()), "{first}");
    assert_eq!(world.execution("b").await["status"], "running");
}

/// T10: a quiet selector does not grow too old while others are busy.
#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_carried_over_by_bookmarks() {
    let world = world().await;
    for _ in 0..10 {
        let mut other = running("x");
        other["metadata"]["labels"] = json!({"app": "other"});
        world.api.apply(other);
        sleep(Duration::from_secs(59)).await;
        world.api.compact();
        sleep(Duration::from_secs(2)).await;
    }
    let by_watch = world.api.requests_of(Kind::List).len();
    assert!(by_watch <= 1 + 3, "one list at the start, and the reconciler's: {by_watch}");
    assert!(world.api.requests_of(Kind::Watch).len() >= 10);
}

/// T19: the number of namespaces costs no watch.
#[tokio::test(start_paused = true)]
async fn all_namespaces_are_one_watch_a_selector() {
    let mut world = World::new(BEGIN, &[]);
    world.start().await;
    let mut selectors: Vec<_> = world
        .api
        .requests_of(Kind::Watch)
        .into_iter()
        .map(|watch| {
            assert_eq!(watch.namespace, None);
            watch.parameter("labelSelector").unwrap().to_owned()
        })
        .collect();
    selectors.sort();
    assert_eq!(selectors, ["eval-id", "execution-id"]);
}

/// A pod that two selectors admit is one pod, and leaves when the last of them lets go.
#[tokio::test(start_paused = true)]
async fn a_pod_in_two_watches_is_one_pod() {
    let mut world = World::new(BEGIN, &[]);
    world.start().await;
    let both = |mut pod: Value| {
        pod["metadata"]["labels"]["eval-id"] = "other".into();
        pod
    };
    world.api.apply(both(running("a")));
    world.settle().await;
    world.api.apply(running("a"));
    world.settle().await;
    world.api.apply(both(ended("a", 0)));
    world.until("a", "completed", SOON).await;
    world.api.delete(NAMESPACE, "executor-a");
    sleep(SOON).await;
    let types: Vec<_> = world.events().await.iter().map(|event| event["event_type"].clone()).collect();
    let distinct: std::collections::BTreeSet<_> = types.iter().map(ToString::to_string).collect();
    assert_eq!(types.len(), distinct.len(), "{types:?}");
}

/// Without such a word the pauses grow, and are not equal.
#[tokio::test(start_paused = true)]
async fn a_server_that_fails_is_asked_less_and_less() {
    let mut world = World::new(BEGIN, &[("kube.label_selectors", "execution-id")]);
    world.api.fail(Kind::List, Refusal::of_code(500, "etcdserver: leader changed"));
    world.launch().await;
    sleep(Duration::from_secs(120)).await;
    let lists = world.api.requests_of(Kind::List);
    assert!((6..40).contains(&lists.len()), "{} tries in two minutes", lists.len());
    let last: Vec<_> = lists.windows(2).rev().take(2).map(|pair| pair[1].at - pair[0].at).collect();
    assert!(last.iter().all(|pause| *pause > Duration::from_secs(5)) && last[0] != last[1], "{last:?}");
    world.api.restore();
    world.api.apply(ended("a", 0));
    world.until("a", "completed", Duration::from_secs(60)).await;
}

/// A request that is never answered does not hold the others up for ever.
#[tokio::test(start_paused = true)]
async fn a_list_that_is_never_answered_is_given_up() {
    let mut world = World::new(BEGIN, &[("kube.label_selectors", "execution-id")]);
    world.api.fail_next(Kind::List, 1, Failure::Hang);
    world.launch().await;
    world.api.apply(ended("a", 0));
    world.until("a", "completed", Duration::from_secs(90)).await;
}

/// The same for a GET on which a pod's end depends.
#[tokio::test(start_paused = true)]
async fn a_get_that_fails_or_is_never_answered_is_asked_again() {
    for failure in [
        Failure::Hang,
        Failure::Reset,
        Refusal::of_code(500, "x").into(),
        Refusal::of_code(503, "x").retry_after(3).into(),
    ] {
        let world = world().await;
        world.api.apply(running("a"));
        world.settle().await;
        world.api.fail_next(Kind::Get, 2, failure.clone());
        world.api.delete(NAMESPACE, "executor-a");
        let gone = world.until("a", "failed", Duration::from_secs(60)).await;
        assert_eq!(gone["cause"]["class"], "deleted", "{failure:?}: {gone}");
    }
}

/// Ends and breaks of the watch between all frames lose nothing and repeat nothing.
#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_between_all_frames_misses_nothing() {
    let world = world().await;
    let ids: Vec<String> = (0..30).map(|n| format!("e{n}")).collect();
    for (n, id) in ids.iter().enumerate() {
        for pod in [pending(id), running(id), ended(id, 0)] {
            world.api.apply(pod);
            world.api.disconnect(if n % 2 == 0 { End::Eof } else { End::Reset });
            if n % 3 == 0 {
                sleep(MOMENT).await;
            }
        }
    }
    for id in &ids {
        world.until(id, "completed", Duration::from_secs(120)).await;
    }
    let events = world.events().await;
    assert_eq!(terminal_events(&events), ids.len());
    assert_eq!(world.api.requests_of(Kind::List).len(), 1, "no list was needed");
}

/// T13: more pods than a page holds.
#[tokio::test(start_paused = true)]
async fn a_list_of_many_pages_is_read_to_its_end() {
    let mut world = World::new(BEGIN, &[("kube.label_selectors", "execution-id")]);
    let ids: Vec<String> = (0..1_203).map(|n| format!("e{n}")).collect();
    for id in &ids {
        world.api.apply(ended(id, 0));
    }
    world.start().await;
    world.until(&ids[0], "completed", SOON).await;
    world.until(&ids[1_202], "completed", SOON).await;
    sleep(SOON).await;
    assert_eq!(terminal_events(&world.events().await), ids.len());
    let starts = world.api.requests_of(Kind::List).iter().filter(|list| list.parameter("continue").is_none()).count();
    assert_eq!(starts, 1, "the pages are of one list");
}

/// T17: a cluster in which nothing happens is ready all the same, once it may be watched again.
#[tokio::test(start_paused = true)]
async fn a_quiet_watch_that_is_allowed_again_is_ready_again() {
    let world = world().await;
    world.api.forbid();
    world.api.disconnect(End::Eof);
    sleep(SOON).await;
    assert!(world.problem("monitor").await.unwrap().contains("403"));
    world.api.restore();
    sleep(Duration::from_secs(40)).await;
    assert_eq!(world.problem("monitor").await, None);
}

/// T5: lists that work do not make a watch work that is refused after each of them.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_always_refused_does_not_list_in_a_hot_loop() {
    let world = world().await;
    world.api.fail(Kind::Watch, Refusal::too_old(1, 2));
    world.api.disconnect(End::Eof);
    sleep(Duration::from_secs(120)).await;
    let lists = world.api.requests_of(Kind::List).len();
    assert!((6..100).contains(&lists), "{lists} lists in two minutes");
    world.api.restore();
    world.api.apply(ended("a", 0));
    world.until("a", "completed", Duration::from_secs(60)).await;
}
