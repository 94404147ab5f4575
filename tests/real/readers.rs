//! Processes that watch nothing and show what others tell, by Kafka and MongoDB.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Play},
    herald::{Herald, LIMIT, POLL, Stream, types},
    kafka::Consumed,
    results::World,
    store::Server,
};

/// What a browser hears of an execution that comes back to any of these, after a few frames each time.
async fn wander(addresses: &[String], id: &str) -> Vec<Value> {
    let path = format!("/executions/{id}/events");
    let deadline = Instant::now() + LIMIT;
    let (mut events, mut last_id) = (Vec::new(), None);
    loop {
        assert!(Instant::now() < deadline, "{id} does not end: {:?}", types(&events));
        let address = &addresses[rand::random_range(0..addresses.len())];
        let Ok(mut stream) = Stream::open(address, &path, last_id.as_deref()).await else { continue };
        for _ in 0..rand::random_range(1..=3) {
            let Some(frame) = stream.next().await.unwrap() else { break };
            assert_ne!(frame.name, "reset", "at {address} after {last_id:?}: {frame:?}");
            if !frame.id.is_empty() {
                last_id = Some(frame.id);
            }
            match &*frame.name {
                "" => events.push(frame.data),
                "end" => return events,
                _ => {}
            }
        }
    }
}

/// The events of an execution up to that its result is stored, which another process tells.
async fn all_events(herald: &Herald, id: &str) -> Vec<Value> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let events = herald.events(id).await;
        if types(&events).contains(&"result_stored") {
            return events;
        }
        assert!(Instant::now() < deadline, "{id}: {:?}", types(&events));
        sleep(POLL).await;
    }
}

fn ids(events: &[Value]) -> BTreeSet<&str> {
    events.iter().map(|event| event["event_id"].as_str().unwrap()).collect()
}

/// What all show alike of an execution.
fn story(execution: &Value) -> Value {
    let mut story = execution.clone();
    // As evidence has it, and as events tell it.
    for of_the_monitor in ["times", "as_of", "user_id"] {
        story.as_object_mut().unwrap().remove(of_the_monitor);
    }
    for pod in story["pods"].as_array_mut().unwrap() {
        pod.as_object_mut().unwrap().remove("phase");
    }
    story
}

/// Waits until the executions there are these, newest first.
async fn until_listed(herald: &Herald, path: &str, expected: &[&str]) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let listed = herald.pages(path).await;
        let ids: Vec<_> = listed.iter().map(|execution| execution["execution_id"].as_str().unwrap()).collect();
        let is_over = listed.iter().all(|execution| execution["result"] == "stored");
        if ids == expected && is_over {
            return;
        }
        assert!(Instant::now() < deadline, "{path}: {ids:?} are not {expected:?}");
        sleep(POLL).await;
    }
}

#[tokio::test]
async fn a_browser_that_comes_back_to_any_of_three_processes_misses_nothing_and_hears_nothing_twice() {
    let cluster = Cluster::shared().await;
    let mut world = World::new(&cluster, &Server::shared().await.uri("")).await;
    let monitor = world.start("api,monitor").await;
    let one = world.start("api,result_processor").await;
    let other = world.start("api").await;
    let addresses = [&monitor, &one, &other].map(|process| process.herald.address().to_owned());
    let mut browsers = tokio::task::JoinSet::new();
    for n in 0..6 {
        let id = world.namespace.id(&n.to_string());
        for _ in 0..2 {
            let (addresses, id) = (addresses.clone(), id.clone());
            browsers.spawn(async move { (id.clone(), wander(&addresses, &id).await) });
        }
        let run_for = if n % 2 == 0 { "1s" } else { "" };
        world.namespace.create(&id, &Play { log: Some("what it printed"), run_for, ..Play::exits(n) }).await;
        world.ids.push(id);
    }
    while let Some(heard) = browsers.join_next().await {
        let (id, heard) = heard.unwrap();
        let told = all_events(&monitor.herald, &id).await;
        assert_eq!(ids(&heard).len(), heard.len(), "{id} heard something twice: {:?}", types(&heard));
        let until_the_end: Vec<_> = told.iter().filter(|event| event["event_type"] != "pod_deleted").cloned().collect();
        assert!(ids(&until_the_end).is_subset(&ids(&heard)), "{id}: {:?} of {:?}", types(&heard), types(&told));
        for event in &heard {
            assert!(told.contains(event), "{event}");
        }
    }

    // One that comes late has read nothing of this, and shows all of it.
    let newest_first: Vec<_> = world.ids.iter().rev().map(String::as_str).collect();
    until_listed(&other.herald, "/executions?limit=2", &newest_first).await;
    let late = world.start("api").await;
    for id in &world.ids {
        let path = format!("/executions/{id}");
        let expected = monitor.herald.get(&path).await;
        for process in [&one, &other, &late] {
            assert_eq!(story(&process.herald.get(&path).await), story(&expected));
            assert_eq!(ids(&process.herald.events(id).await), ids(&monitor.herald.events(id).await));
        }
        let frames = late.herald.follow(&format!("{path}/events?last_event_id=0")).await;
        let heard: Vec<_> =
            frames.iter().filter(|frame| frame.name.is_empty()).map(|frame| frame.data.clone()).collect();
        assert_eq!(ids(&heard), ids(&monitor.herald.events(id).await));
        assert_eq!((&*frames.last().unwrap().name, &frames.last().unwrap().data["result"]), ("end", &"stored".into()));
    }
    until_listed(&late.herald, "/executions?limit=4", &newest_first).await;
    let failed = [&*world.ids[5], &*world.ids[4]];
    until_listed(
        &late.herald,
        &format!("/executions?status=failed&limit=2&namespace={}", world.namespace.name),
        &newest_first[..5],
    )
    .await;
    assert_eq!(newest_first[..2], failed);
    let (status, lines) = late.herald.try_get("/executions", "application/x-ndjson").await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let lines: Vec<Value> =
        std::str::from_utf8(&lines).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let listed: Vec<_> = lines.iter().map(|line| line["execution_id"].as_str().unwrap()).collect();
    assert_eq!(listed, newest_first);
}

#[tokio::test]
async fn what_only_the_monitor_has_is_asked_of_it_or_is_said_to_be_there() {
    let cluster = Cluster::shared().await;
    let mut world = World::new(&cluster, &Server::shared().await.uri("")).await;
    let monitor = world.start_with("api,monitor", &[]).await;
    let url = format!("http://{}", monitor.herald.address());
    let reader = world.start_with("api", &[("PODHERALD_HTTP__MONITOR_URL", &url)]).await;
    let alone = world.start_with("api", &[]).await;
    let id = world.namespace.id("large");
    let printed: &'static str = Box::leak("a line that is not the only one\n".repeat(4000).into_boxed_str());
    world.namespace.create(&id, &Play { log: Some(printed), ..Play::exits(0) }).await;
    world.ids.push(id.clone());
    reader.herald.ended(&id).await;
    let path = format!("/executions/{id}/output?stream=stdout");
    let whole = monitor.herald.text(&path).await;
    assert!(whole.len() > 64 << 10, "{}", whole.len());
    assert_eq!(reader.herald.text(&path).await, whole);
    let pods = format!("/pods?namespace={}", world.namespace.name);
    assert_eq!(reader.herald.get(&pods).await["items"], monitor.herald.get(&pods).await["items"]);
    alone.herald.ended(&id).await;
    for path in [&*path, &*pods, "/audit"] {
        let (status, said) = alone.herald.try_get(path, "*/*").await.unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && said.contains("http.monitor_url"), "{path}: {said}");
    }
    // One that is no monitor either does not ask around.
    let url = format!("http://{}", alone.herald.address());
    let astray = world.start_with("api", &[("PODHERALD_HTTP__MONITOR_URL", &url)]).await;
    let (status, said) = astray.herald.try_get(&pods, "*/*").await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn an_attempt_that_only_the_store_knows_of_ends_when_its_pod_is_gone() {
    let cluster = Cluster::shared().await;
    let mut world = World::new(&cluster, &Server::shared().await.uri("")).await;
    let ours = [("PODHERALD_MONGO__ONE_CLUSTER", "true")];
    let monitor = world.start_with("api,monitor", &ours).await;
    let processor = world.start("api,result_processor").await;
    for name in ["gone", "there"] {
        let id = world.namespace.id(name);
        world.namespace.create(&id, &Play::runs()).await;
        processor.herald.until_running(&id).await;
        world.ids.push(id);
    }
    monitor.herald.kill().await;
    world.namespace.force_delete(&world.ids[0]).await;
    // Its data directory is a new one.
    let monitor = world.start_with("api,monitor", &ours).await;
    for process in [&monitor, &processor] {
        let ended = process.herald.ended(&world.ids[0]).await;
        assert_eq!((&ended["status"], &ended["cause"]["class"]), (&"failed".into(), &"unknown".into()), "{ended}");
    }
    processor.herald.result(&world.ids[0]).await;
    monitor.herald.until_running(&world.ids[1]).await;
    assert_eq!(monitor.herald.counter("podherald_monitor_expected_attempts_total").await, 1);
}

#[tokio::test]
async fn partitions_that_are_added_are_read_too() {
    const KNOWN: usize = 10;
    let cluster = Cluster::shared().await;
    let mut world = World::new(&cluster, &Server::shared().await.uri("")).await;
    let soon = ("PODHERALD_KAFKA__PROPERTIES", "topic.metadata.refresh.interval.ms=500");
    let later = ("PODHERALD_KAFKA__PROPERTIES", "topic.metadata.refresh.interval.ms=5000");
    let _monitor = world.start_with("api,monitor", &[soon]).await;
    let blobs = world.blobs();
    let processor = world.start_with("api,result_processor", &[soon, ("PODHERALD_BLOB__URL", &blobs)]).await;
    let reader = world.start_with("api", &[later]).await;
    let mut stream = Stream::open(reader.herald.address(), "/events", None).await.unwrap();
    world.add_partitions("execution_events", 4 * KNOWN).await;
    let deadline = Instant::now() + LIMIT;
    let is_new = |message: &Consumed| usize::try_from(message.partition).unwrap() >= KNOWN;
    while !world.consume_all("execution_events").await.iter().any(is_new) {
        assert!(Instant::now() < deadline, "nothing is published to the new partitions");
        let made = world.create(1).await;
        // What the store has of a new partition is no reason not to read it.
        processor.herald.ended(&made[0]).await;
        all_events(&processor.herald, &made[0]).await;
    }
    // Nobody asks for any of them, which would fetch it.
    let mut open: BTreeSet<_> = world.ids.iter().cloned().collect();
    let deadline = Instant::now() + LIMIT;
    while !open.is_empty() {
        assert!(Instant::now() < deadline, "{open:?} did not end");
        let frame = stream.next().await.unwrap_or_else(|error| panic!("{open:?} did not end: {error}")).unwrap();
        if frame.data["event_type"].as_str().is_some_and(|of| matches!(of, "execution_completed" | "execution_failed"))
        {
            open.remove(frame.data["execution_id"].as_str().unwrap());
        }
    }
}
