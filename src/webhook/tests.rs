//! Endpoints between a real journal and far sides that answer what they are told to: scripted ones on a paused clock, and an
//! HTTP server on loopback.

#![allow(clippy::unwrap_used)]

mod network;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, StatusCode};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Disabled, Endpoint, Metrics, Options, Redelivery, Skip,
    endpoint::Means,
    store::Store,
    transport::{Answer, Transport},
};
use crate::{
    clock::TokioClock,
    config::Config,
    health::SinkHealth,
    journal::{
        self, Journal, Retention, Sqlite,
        fixture::{Pod, at},
    },
    relay::{Progress, Relay},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const MOMENT: Duration = Duration::from_millis(50);
/// Events of a pod's life.
const LIFE: u64 = 5;

/// An endpoint that answers what a test wants. Clones share it.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Far>>);

#[derive(Default)]
struct Far {
    /// When, which execution, and the event's id, of each request.
    requests: Vec<(Instant, String, String)>,
    /// What it answers; 200 unless something else is said.
    status: u16,
    /// What it answers to an event of this type instead.
    refuses: BTreeMap<&'static str, u16>,
    retry_after: Option<&'static str>,
    /// Time that each request takes.
    pause: Duration,
}

impl Script {
    fn far(&self) -> MutexGuard<'_, Far> {
        self.0.lock().unwrap()
    }

    fn count(&self) -> usize {
        self.far().requests.len()
    }

    /// Whole seconds between requests.
    fn pauses(&self) -> Vec<u64> {
        let far = self.far();
        far.requests.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs()).collect()
    }
}

impl Transport for Script {
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, String>> {
        async move {
            let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            let (pause, answer) = {
                let mut far = self.far();
                far.requests.push((Instant::now(), event["subject"].as_str().unwrap().to_owned(), id));
                let refused = far.refuses.get(event["type"].as_str().unwrap());
                let status = refused.copied().unwrap_or(if far.status == 0 { 200 } else { far.status });
                let retry_after = far.retry_after.map(str::to_owned);
                let status = StatusCode::from_u16(status).unwrap();
                (far.pause, Answer { status, retry_after, text: "because\nof ?k=v".to_owned() })
            };
            sleep(pause).await;
            Ok(answer)
        }
        .boxed()
    }

    fn reach(&self) -> BoxFuture<'_, Result<(), String>> {
        async { Ok(()) }.boxed()
    }
}

struct World {
    journal: Arc<Sqlite>,
    clock: TokioClock,
    script: Script,
    tasks: JoinSet<()>,
    dir: TempDir,
}

/// An endpoint whose relay runs.
struct Running {
    endpoint: Arc<Endpoint>,
    progress: Progress,
}

impl World {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal.db");
        let journal = Sqlite::open(journal::Options { path, ..journal::Options::default() }).await.unwrap();
        Self { journal, clock: TokioClock::starting_at(at(0)), script: Script::default(), tasks: JoinSet::new(), dir }
    }

    async fn endpoint(&self, settings: &[(&str, &str)]) -> Arc<Endpoint> {
        let settings: Vec<_> = settings.iter().map(|(key, value)| (format!("webhook.a.{key}"), *value)).collect();
        let mut all = vec![("webhook.a.url", "https://a.example/hook?k=v"), ("webhook.a.secret", SECRET)];
        all.extend(settings.iter().map(|(key, value)| (key.as_str(), *value)));
        let config = Config::of(&all).unwrap().webhook.0.remove("a").unwrap();
        let options = Options::of("a", config.url.as_ref().unwrap(), &config);
        let means = Means {
            transport: Arc::new(self.script.clone()),
            store: Store::open(self.dir.path().join("webhooks.db")).await.unwrap(),
            journal: self.journal.clone(),
            clock: Arc::new(self.clock),
            metrics: Metrics::default(),
        };
        Arc::new(Endpoint::open(options, means).await.unwrap())
    }

    /// Starts podherald's part of it where the cursor is.
    async fn start(&mut self, settings: &[(&str, &str)]) -> Running {
        let endpoint = self.endpoint(settings).await;
        let of = endpoint.subscription();
        let cursor = self.journal.subscribe(vec![of.clone()]).await.unwrap()[0];
        let relay = Relay::new(of, cursor, endpoint.clone(), self.journal.clone(), Arc::new(self.clock));
        let progress = relay.progress();
        self.tasks.spawn(relay.run(CancellationToken::new()));
        Running { endpoint, progress }
    }

    async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    /// So many lives of five events, one execution each.
    async fn append(&self, lives: std::ops::Range<i64>) {
        for n in lives {
            self.journal.append(Pod::new(&format!("e{n}"), &format!("u{n}"), 1).life(n)).await.unwrap();
        }
    }

    async fn cursor(&self, of: &Running) -> u64 {
        self.journal.subscribe(vec![of.endpoint.subscription()]).await.unwrap()[0].position
    }
}

async fn until(limit: Duration, what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < limit, "it did not become so in {limit:?}");
        sleep(MOMENT).await;
    }
}

fn error(health: &SinkHealth) -> &str {
    health.last_error.as_deref().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn events_of_an_execution_follow_each_other_and_those_of_several_go_side_by_side() {
    let mut world = World::new().await;
    drop(world.start(&[]).await);
    world.kill().await;
    world.append(0..8).await;
    world.script.far().pause = Duration::from_secs(1);
    let begun = Instant::now();
    let running = world.start(&[]).await;
    until(Duration::from_secs(20), || running.progress.health().lag_events == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(6), "five seconds for 40 events of eight executions");
    let mut of_one: BTreeMap<String, Vec<Instant>> = BTreeMap::new();
    for (when, execution, _) in &world.script.far().requests {
        of_one.entry(execution.clone()).or_default().push(*when);
    }
    for (execution, times) in of_one {
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1)), "{execution}: {times:?}");
    }
    let logged = running.endpoint.deliveries(None, 100).await.unwrap();
    let mut of_e3: Vec<_> =
        logged.iter().filter(|delivery| delivery.execution_id == "e3").map(|d| &*d.event_type).collect();
    of_e3.reverse();
    assert_eq!(
        of_e3,
        ["pod_scheduled", "execution_started", "execution_running", "execution_completed", "pod_deleted"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_endpoint_is_tried_by_its_schedule_and_as_it_asks_and_gets_all_in_the_end() {
    let mut world = World::new().await;
    let running = world.start(&[("retry", "10s,100s,1000s")]).await;
    world.script.far().status = 503;
    world.append(0..1).await;
    until(Duration::from_secs(4000), || world.script.count() == 5).await;
    for (pause, most) in world.script.pauses().into_iter().zip([10, 100, 1000, 1000]) {
        assert!(pause >= most * 4 / 5 - 1 && pause <= most, "{pause} of {most}");
    }
    assert_eq!(
        error(&running.progress.health()),
        "webhook.a.url = https://a.example/***: it answers 503 Service Unavailable (because of ?***)"
    );
    world.script.far().retry_after = Some("2000");
    until(Duration::from_secs(1100), || world.script.count() == 6).await;
    world.script.far().status = 0;
    until(Duration::from_secs(2100), || running.progress.health().lag_events == 0).await;
    assert_eq!(world.script.pauses()[5], 2000);
    let logged = running.endpoint.deliveries(None, 100).await.unwrap();
    let first: Vec<_> = logged.iter().rev().take(7).map(|delivery| (delivery.attempt, delivery.status)).collect();
    assert_eq!(first[..2], [(1, Some(503)), (2, Some(503))]);
    assert_eq!(first[6], (7, Some(200)));
    assert_eq!(running.endpoint.status().failing_since, None);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_is_disabled_over_restarts_and_goes_on_where_it_was() {
    let mut world = World::new().await;
    let mut running = world.start(&[]).await;
    world.append(0..1).await;
    until(Duration::from_secs(5), || running.progress.health().lag_events == 0).await;
    world.script.far().status = 410;
    world.append(1..2).await;
    until(Duration::from_secs(5), || running.endpoint.status().disabled.is_some()).await;
    let tried = world.script.count();
    for restarted in [false, true] {
        if restarted {
            world.kill().await;
            running = world.start(&[]).await;
        }
        sleep(Duration::from_hours(100)).await;
        let health = running.progress.health();
        let expected = "webhook.a.url = https://a.example/***: disabled since 2026-03-01T12:00:";
        assert!(health.failing && error(&health).starts_with(expected), "{health:?}");
        assert!(error(&health).ends_with("; POST /webhooks/a/enable goes on"), "{health:?}");
        assert_eq!((world.script.count(), health.lag_events), (tried, LIFE), "nothing is sent, nothing passed");
        assert_eq!(world.cursor(&running).await, LIFE);
        if restarted {
            world.script.far().status = 0;
            running.endpoint.enable().await.unwrap();
            until(Duration::from_secs(5), || running.progress.health().lag_events == 0).await;
            assert_eq!(running.endpoint.status().disabled, None);
            assert_eq!(running.progress.health().missed, 0);
        }
    }
    let ids: BTreeSet<_> = world.script.far().requests.iter().map(|(_, _, id)| id.clone()).collect();
    assert_eq!(ids.len() as u64, 2 * LIFE);
    world.kill().await;
    let enabled = world.start(&[]).await;
    sleep(Duration::from_secs(60)).await;
    assert!(!enabled.progress.health().failing, "it stays enabled");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_too_long_is_disabled_and_one_that_takes_something_is_not() {
    let mut world = World::new().await;
    let running = world.start(&[("retry", "1m"), ("disable_after", "1h")]).await;
    world.script.far().status = 500;
    world.append(0..1).await;
    sleep(Duration::from_mins(50)).await;
    assert!(running.endpoint.status().disabled.is_none() && running.endpoint.status().failing_since.is_some());
    world.script.far().status = 0;
    until(Duration::from_mins(2), || running.progress.health().lag_events == 0).await;
    world.script.far().status = 500;
    world.append(1..2).await;
    sleep(Duration::from_mins(50)).await;
    assert!(running.endpoint.status().disabled.is_none(), "the time begins anew");
    sleep(Duration::from_mins(15)).await;
    let reason = running.endpoint.status().disabled.unwrap().reason;
    assert!(reason.starts_with("it answers 500 Internal Server Error"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_is_left_out_after_a_few_tries_and_the_others_come_once() {
    let mut world = World::new().await;
    let running = world.start(&[]).await;
    world.script.far().refuses.insert("execution_running", 422);
    world.append(0..2).await;
    until(Duration::from_mins(10), || running.progress.health().lag_events == 0).await;
    let health = running.progress.health();
    assert_eq!((health.rejected, health.missed), (2, 0));
    let mut tries = BTreeMap::<String, u32>::new();
    for delivery in running.endpoint.deliveries(None, 100).await.unwrap() {
        *tries.entry(delivery.event_type).or_default() += 1;
    }
    assert_eq!(tries["pod_scheduled"], 2, "what was acknowledged does not come again");
    assert_eq!(tries["pod_deleted"], 2);
    assert!((10..=40).contains(&tries["execution_running"]), "{tries:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_sent_whatever_is_asked_for_and_somebody_may_skip_one_that_an_endpoint_does_not_take() {
    let mut world = World::new().await;
    let running = world.start(&[("statuses", "timeout")]).await;
    world.kill().await;
    world.append(0..2).await;
    let retention = Retention { age: Duration::ZERO, now: at(5000), batch: 1000 };
    while !world.journal.prune(retention).await.unwrap().executions.is_empty() {}
    drop(running);
    world.script.far().refuses.insert("podherald.gap", 500);
    let running = world.start(&[("statuses", "timeout")]).await;
    until(Duration::from_secs(5), || world.script.count() == 1).await;
    let delivery = running.endpoint.deliveries(None, 1).await.unwrap().remove(0);
    let source = format!("podherald:{}", world.journal.epoch());
    assert_eq!((&*delivery.event_type, delivery.execution_id), ("podherald.gap", source));
    assert_eq!(world.cursor(&running).await, 0, "it is not passed without an answer");
    assert!(matches!(running.endpoint.redeliver(&delivery.event_id).await.unwrap(), Redelivery::Gone));
    assert!(matches!(running.endpoint.skip(&delivery.event_id).await.unwrap(), Skip::Skipped(_)));
    until(Duration::from_secs(5), || running.progress.health().lag_events == 0).await;
    let health = running.progress.health();
    assert_eq!((health.missed, health.rejected, world.script.count()), (2 * LIFE, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_in_a_quiet_stream_holds_others_for_minutes_and_counts_as_no_failure() {
    let mut world = World::new().await;
    let running = world.start(&[("disable_after", "1h")]).await;
    // The endpoint fails once, then refuses all that there is, for good.
    world.script.far().status = 503;
    world.append(0..1).await;
    until(Duration::from_secs(5), || world.script.count() == 1).await;
    world.script.far().status = 400;
    until(Duration::from_mins(40), || running.progress.health().lag_events == 0).await;
    let pauses = world.script.pauses();
    assert!(pauses.iter().all(|pause| *pause <= 60), "{pauses:?}");
    assert_eq!((running.progress.health().rejected, running.endpoint.status().failing_since), (LIFE, None));
    // A single failure long after that is the first of its kind.
    sleep(Duration::from_hours(2)).await;
    world.script.far().status = 503;
    world.append(1..2).await;
    let tried = world.script.count();
    until(Duration::from_secs(5), || world.script.count() > tried).await;
    sleep(MOMENT).await;
    assert_eq!(running.endpoint.status().disabled, None);
    assert!(running.endpoint.status().failing_since.is_some());
    world.script.far().status = 0;
    until(Duration::from_secs(2), || running.progress.health().lag_events == 0).await;
    // While it refuses, it does not fail.
    world.script.far().status = 400;
    world.append(2..3).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!((running.progress.health().lag_events, running.endpoint.status().failing_since), (LIFE, None));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_somebody_skips_holds_nothing_up_any_more_also_after_a_restart() {
    let mut world = World::new().await;
    let running = world.start(&[]).await;
    world.script.far().refuses.insert("execution_running", 500);
    world.append(0..1).await;
    // By now it is tried every half hour.
    sleep(Duration::from_hours(2)).await;
    let last = running.endpoint.deliveries(None, 1).await.unwrap().remove(0);
    assert_eq!((&*last.event_type, last.status), ("execution_running", Some(500)));
    let Skip::Skipped(skipped) = running.endpoint.skip(&last.event_id).await.unwrap() else { panic!() };
    assert_eq!((skipped.attempt, skipped.error.as_deref()), (last.attempt + 1, Some("skipped over the API")));
    // Nothing has happened yet: a process that dies now has the wish on disk.
    world.kill().await;
    let running = world.start(&[]).await;
    until(Duration::from_secs(5), || running.progress.health().lag_events == 0).await;
    assert_eq!((running.progress.health().rejected, running.endpoint.status().failing_since), (1, None));
    let logged = running.endpoint.deliveries(None, 100).await.unwrap();
    assert!(!logged.iter().any(|delivery| delivery.event_id == last.event_id && delivery.id > skipped.id));
    assert_eq!(running.endpoint.skip(&last.event_id).await.unwrap(), Skip::Done);
    assert_eq!(running.endpoint.skip(&logged[0].event_id).await.unwrap(), Skip::Done, "it was acknowledged");
    assert_eq!(running.endpoint.skip("d893f9ae").await.unwrap(), Skip::Unknown);

    // Who waits is woken, and what was skipped is forgotten once it cannot come again.
    world.append(1..2).await;
    sleep(Duration::from_hours(2)).await;
    let last = running.endpoint.deliveries(None, 1).await.unwrap().remove(0);
    running.endpoint.skip(&last.event_id).await.unwrap();
    until(Duration::from_secs(5), || running.progress.health().lag_events == 0).await;
    world.script.far().refuses.clear();
    world.append(2..3).await;
    until(Duration::from_secs(5), || running.progress.health().lag_events == 0).await;
    let store = Store::open(world.dir.path().join("webhooks.db")).await.unwrap();
    assert!(store.skipped("a").await.unwrap().is_empty());
}

#[tokio::test]
async fn whoever_enables_an_endpoint_while_it_is_disabled_memory_and_disk_agree() {
    let world = World::new().await;
    let endpoint = world.endpoint(&[]).await;
    let store = Store::open(world.dir.path().join("webhooks.db")).await.unwrap();
    let disable = async || {
        let disabled = Some(Disabled { at: at(0), reason: "it is gone".to_owned() });
        endpoint.change_standing(|state| state.standing.disabled = disabled);
        endpoint.write_standing().await
    };
    for is_enabled_first in [true, false].repeat(20) {
        let (one, other) = if is_enabled_first {
            tokio::join!(endpoint.enable(), disable())
        } else {
            tokio::join!(disable(), endpoint.enable())
        };
        assert!(one.is_ok() && other.is_ok());
        assert_eq!(store.standing("a").await.unwrap().disabled, endpoint.status().disabled);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_keeps_back_moves_the_cursor_and_is_not_sent() {
    let mut world = World::new().await;
    let running = world.start(&[("statuses", "completed,failed")]).await;
    world.append(0..3).await;
    until(MOMENT * 20, || running.progress.health().lag_events == 0).await;
    assert_eq!((world.script.count(), world.cursor(&running).await), (3, 3 * LIFE));
}

#[tokio::test(start_paused = true)]
async fn an_event_of_the_log_is_sent_once_more_also_to_a_disabled_endpoint() {
    let mut world = World::new().await;
    let running = world.start(&[]).await;
    world.append(0..1).await;
    until(Duration::from_secs(5), || running.progress.health().lag_events == 0).await;
    world.script.far().status = 410;
    world.append(1..2).await;
    until(Duration::from_secs(5), || running.endpoint.status().disabled.is_some()).await;
    let logged = running.endpoint.deliveries(None, 100).await.unwrap();
    let (refused, first) = (&logged[0], logged.last().unwrap());
    for (delivery, status) in [(refused, 410), (first, 410), (first, 200)] {
        world.script.far().status = status;
        let Redelivery::Sent(again) = running.endpoint.redeliver(&delivery.event_id).await.unwrap() else { panic!() };
        assert_eq!((&again.event_id, again.status, again.redelivery), (&delivery.event_id, Some(status), true));
    }
    assert_eq!(running.endpoint.deliveries(None, 1).await.unwrap()[0].attempt, 3);
    assert!(running.endpoint.status().disabled.is_some(), "only who enables it does so");
    assert_eq!(running.endpoint.redeliver("d893f9ae").await.unwrap(), Redelivery::Unknown);
    let retention = Retention { age: Duration::ZERO, now: at(1_000_000), batch: 100 };
    world.journal.prune(retention).await.unwrap();
    assert_eq!(running.endpoint.redeliver(&first.event_id).await.unwrap(), Redelivery::Gone);
}
