//! Logs that are followed while somebody watches.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    herald::Frame,
    jobs,
    pods::{NAMESPACE, ended, running},
    scripted_api::{Kind, LogAttempt, LogEnd, log_text},
    world::World,
};

/// Longer than a follow waits before it opens a log again.
const WHILE: Duration = Duration::from_secs(8);

struct Watcher {
    body: axum::body::Body,
    bytes: Vec<u8>,
}

impl Watcher {
    async fn of(world: &World, id: &str) -> Self {
        Self::back(world, id, "").await
    }

    async fn back(world: &World, id: &str, last: &str) -> Self {
        let headers = [("accept", "text/event-stream"), ("last-event-id", last)];
        let headers = &headers[..if last.is_empty() { 1 } else { 2 }];
        let body = world.ask(&format!("/executions/{id}/events"), headers).await.into_body();
        Self { body, bytes: Vec::new() }
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            while let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.bytes.drain(..end + 2).collect();
                if let Some(frame) = Frame::parse(std::str::from_utf8(&frame).unwrap()) {
                    return Some(frame);
                }
            }
            self.bytes.extend_from_slice(&self.body.frame().await?.unwrap().into_data().unwrap());
        }
    }

    /// All that comes within this time.
    async fn frames(&mut self, limit: Duration) -> Vec<Frame> {
        let mut frames = Vec::new();
        // The stream need not end.
        let _ = timeout(limit, async {
            while let Some(frame) = self.next().await {
                frames.push(frame);
            }
        })
        .await;
        frames
    }
}

fn printed(frames: &[Frame]) -> String {
    let output = frames.iter().filter(|frame| frame.name == "output");
    output.map(|frame| frame.data["text"].as_str().unwrap()).collect()
}

async fn world() -> World {
    world_with(&[]).await
}

async fn world_with(settings: &[(&str, &str)]) -> World {
    let settings = [&[("kube.label_selectors", "execution-id")], settings].concat();
    let mut world = World::new("2026-02-10T12:00:03Z", &settings);
    world.start().await;
    world
}

/// The log prints this and does not end.
fn hangs(world: &World, pod: &str, text: &str) {
    let attempt = LogAttempt::Text(vec![Bytes::copy_from_slice(text.as_bytes())], LogEnd::Hangs);
    world.api.set_logs(NAMESPACE, pod, "executor", vec![attempt]);
}

fn follows(world: &World) -> usize {
    world.api.requests_of(Kind::Log).iter().filter(|asked| asked.parameter("follow") == Some("true")).count()
}

// T67, T77
#[tokio::test(start_paused = true)]
async fn a_log_is_followed_once_while_it_runs_and_a_follow_that_hangs_holds_up_nothing() {
    let world = world().await;
    let parts = ["one\n", "::progress 50 half\n", "two\n"];
    let hangs = LogAttempt::Text(parts.map(Bytes::from).to_vec(), LogEnd::Hangs);
    let whole = log_text(&parts.concat()).remove(0);
    world.api.set_logs(NAMESPACE, "executor-a", "executor", vec![hangs, whole]);
    world.api.apply(running("a"));
    world.settle().await;
    assert_eq!(follows(&world), 0, "nobody watches");

    let mut watcher = Watcher::of(&world, "a").await;
    let frames = watcher.frames(WHILE).await;
    assert_eq!(printed(&frames), parts.concat());
    let progress: Vec<&Value> =
        frames.iter().map(|frame| &frame.data).filter(|event| event["event_type"] == "execution_progress").collect();
    assert_eq!(
        (progress.len(), &progress[0]["progress_percentage"], &progress[0]["offset"]),
        (1, &50.0.into(), &4.into())
    );
    assert_eq!(follows(&world), 1, "one request for all of it");
    assert_eq!(world.execution("a").await["progress"]["message"], "half");

    let asked = Instant::now();
    world.api.apply(ended("a", 0));
    let rest = watcher.frames(Duration::from_secs(60)).await;
    assert_eq!(rest.last().unwrap().name, "end");
    assert_eq!(printed(&rest), "", "nothing is told twice");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

// T66, T67
#[tokio::test(start_paused = true)]
async fn a_follow_that_ends_early_goes_on_where_it_was_and_a_log_begun_anew_is_another_run() {
    let world = world().await;
    let text = |text: &str, end| LogAttempt::Text(vec![Bytes::copy_from_slice(text.as_bytes())], end);
    let attempts = vec![
        text("one\n", LogEnd::Complete),
        text("one\ntwo\n", LogEnd::BreaksOff),
        // Rotated: what was there is gone.
        text("three\n", LogEnd::Complete),
        text("three\nfour\n", LogEnd::Hangs),
    ];
    world.api.set_logs(NAMESPACE, "executor-a", "executor", attempts);
    world.api.apply(running("a"));
    let mut watcher = Watcher::of(&world, "a").await;
    let frames = watcher.frames(Duration::from_secs(60)).await;
    assert_eq!(printed(&frames), "one\ntwo\nthree\nfour\n");
    let runs: Vec<_> = frames.iter().filter(|frame| frame.name == "output").map(|frame| &frame.data["run"]).collect();
    assert!(runs.first().unwrap().as_u64() < runs.last().unwrap().as_u64(), "{runs:?}");
}

/// T66: it may have been begun anew while nobody watched.
#[tokio::test(start_paused = true)]
async fn who_comes_back_after_the_log_was_let_go_misses_nothing_and_gets_nothing_twice() {
    let world = world().await;
    hangs(&world, "executor-a", "one\n");
    world.api.apply(running("a"));
    let mut watcher = Watcher::of(&world, "a").await;
    let mut seen = watcher.frames(WHILE).await;
    for (log, told) in [("one\ntwo\n", "two\n"), ("one\ntwo\n3\n", "3\n"), ("rotated\n", "rotated\n"), ("x\n", "x\n")] {
        let last = seen.iter().rfind(|frame| frame.name == "output").unwrap();
        let (last, run) = (last.id.clone(), last.data["run"].as_u64());
        drop(watcher);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(world.metric("podherald_live_follows").await, 0);
        hangs(&world, "executor-a", log);
        watcher = Watcher::back(&world, "a", &last).await;
        seen = watcher.frames(WHILE).await;
        assert_eq!(printed(&seen), told);
        let now = seen.iter().rfind(|frame| frame.name == "output").unwrap().data["run"].as_u64();
        assert_eq!(now == run, log.starts_with("one"), "{log}: {run:?}, {now:?}");
    }
}

// T77
#[tokio::test(start_paused = true)]
async fn a_place_that_comes_free_goes_to_a_reader_that_was_refused() {
    let world = world_with(&[("logs.max_follows", "1")]).await;
    for id in ["a", "b"] {
        hangs(&world, &format!("executor-{id}"), id);
        world.api.apply(running(id));
    }
    world.settle().await;
    let mut first = Watcher::of(&world, "a").await;
    assert_eq!(printed(&first.frames(WHILE).await), "a");
    let mut second = Watcher::of(&world, "b").await;
    let refused = second.frames(WHILE).await;
    assert!(refused.iter().any(|frame| frame.data["missing"].is_string()), "{refused:?}");
    drop(first);
    assert_eq!(printed(&second.frames(Duration::from_secs(30)).await), "b");
}

// T53, T77
#[tokio::test(start_paused = true)]
async fn of_a_job_one_pod_is_followed_at_a_time_and_then_the_next() {
    let world = world_with(&[("logs.follow", "all")]).await;
    world.api.wait_for_requests(Kind::WatchJobs, 1).await;
    world.api.apply(jobs::job(serde_json::json!([])));
    for pod in ["work-a", "work-b"] {
        hangs(&world, pod, pod);
        world.api.apply(jobs::running(pod));
    }
    let mut watcher = Watcher::of(&world, "e").await;
    assert_eq!(printed(&watcher.frames(WHILE).await), "work-a");
    assert_eq!(follows(&world), 1);
    world.api.set_logs(NAMESPACE, "work-a", "executor", log_text("work-a"));
    world.api.apply(jobs::ended("work-a", 3));
    assert_eq!(printed(&watcher.frames(WHILE).await), "work-b");
    assert_eq!(follows(&world), 2);
}

#[tokio::test(start_paused = true)]
async fn who_follows_a_restarted_container_to_its_end_gets_each_of_its_logs_once() {
    let restarted = |mut pod: Value| {
        pod["spec"]["restartPolicy"] = "OnFailure".into();
        pod["status"]["containerStatuses"][0]["restartCount"] = 1.into();
        pod
    };
    let world = world().await;
    world.api.set_logs(NAMESPACE, "executor-a", "executor", log_text("one\n"));
    let mut first = running("a");
    first["spec"]["restartPolicy"] = "OnFailure".into();
    world.api.apply(first);
    let mut watcher = Watcher::of(&world, "a").await;
    assert_eq!(printed(&watcher.frames(WHILE).await), "one\n");
    world.api.apply(restarted(running("a")));
    hangs(&world, "executor-a", "two\n");
    assert_eq!(printed(&watcher.frames(WHILE).await), "two\n");
    world.api.set_logs(NAMESPACE, "executor-a", "executor", log_text("two\nand more\n"));
    world.api.apply(restarted(ended("a", 0)));
    let frames = watcher.frames(Duration::from_secs(60)).await;
    assert_eq!(printed(&frames), "and more\n");
    assert_eq!(frames.last().unwrap().name, "end");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_nobody_watches_any_more_is_let_go() {
    let world = world().await;
    let hangs = LogAttempt::Text(vec![Bytes::from("one\n")], LogEnd::Hangs);
    world.api.set_logs(NAMESPACE, "executor-a", "executor", vec![hangs]);
    world.api.apply(running("a"));
    let mut watcher = Watcher::of(&world, "a").await;
    watcher.frames(WHILE).await;
    assert!(world.metric("podherald_live_follows").await > 0);
    drop(watcher);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(world.metric("podherald_live_follows").await, 0);
}
