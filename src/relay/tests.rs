//! Relays on a paused clock, between a real journal and a sink in memory.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use podherald_core::gap::Gap;
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{CHECK, FLUSH, Progress, Relay, Turns};
use crate::{
    clock::{Clock, TokioClock},
    health::SinkHealth,
    journal::{
        Adopted, Bounds, DeadLetterQuery, Journal, Options, Retention, Sqlite, Subscription,
        fixture::{Pod, at},
    },
    leadership::{Carried, Leads},
    sink::{Item, memory::Memory},
};

const MOMENT: Duration = Duration::from_millis(20);
/// Of a life's five events.
const LIFE: u64 = 5;

const ONE: Subscription = Subscription { sink: "one", required: false };
const OTHER: Subscription = Subscription { sink: "other", required: false };

struct World {
    journal: Arc<Sqlite>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    clock: Arc<dyn Clock>,
    _dir: TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal.db");
        let journal = Sqlite::open(Options { path, ..Options::default() }).await.unwrap();
        journal.subscribe(vec![ONE, OTHER]).await.unwrap();
        let clock = Arc::new(TokioClock::starting_at(at(0)));
        Self { journal, tasks: JoinSet::new(), stop: CancellationToken::new(), clock, _dir: dir }
    }

    /// Starts a relay where its cursor is.
    async fn relay(&mut self, of: Subscription, sink: &Memory) -> Progress {
        let cursor = self.journal.subscribe(vec![of.clone()]).await.unwrap()[0];
        let relay = Relay::new(of, cursor, Arc::new(sink.clone()), self.journal.clone(), self.clock.clone());
        let progress = relay.progress();
        let stop = self.stop.clone();
        self.tasks.spawn(relay.run(stop));
        progress
    }

    /// Starts one that takes turns with another podherald.
    async fn relay_in_turns(&mut self, of: Subscription, sink: &Memory, is_shared: bool) -> Turn {
        let cursor = self.journal.subscribe(vec![of.clone()]).await.unwrap()[0];
        let (held, leads) = (watch::Sender::new(None), watch::Sender::new(true));
        let carried = watch::Sender::new(Carried::default());
        let turns =
            Turns { leads: Leads::new(held.subscribe(), leads.subscribe()), carried: carried.subscribe(), is_shared };
        let relay = Relay::new(of, cursor, Arc::new(sink.clone()), self.journal.clone(), self.clock.clone());
        let relay = relay.in_turns(turns);
        let progress = relay.progress();
        let stop = self.stop.clone();
        self.tasks.spawn(relay.run(stop));
        Turn { held, _leads: leads, carried, progress }
    }

    /// The same lives as [`append`](Self::append), told by another podherald.
    async fn adopt(&self, lives: std::ops::Range<i64>) {
        for n in lives {
            let changes = Pod::new(&format!("e{n}"), &format!("u{n}"), 1).life(n);
            let drafts = changes.iter().flat_map(|change| change.events.iter().cloned());
            let adopted = (1..).zip(drafts).map(|(seq, draft)| {
                let event = draft.number("pod-monitor:other", seq);
                Adopted {
                    bytes: event.to_bytes().into(),
                    event,
                    about: Default::default(),
                    in_order: false,
                    recalled: false,
                }
            });
            self.journal.adopt(adopted.collect(), vec![]).await.unwrap();
        }
    }

    /// So many lives of five events, one execution each, one second apart.
    async fn append(&self, lives: std::ops::Range<i64>) {
        for n in lives {
            let changes = Pod::new(&format!("e{n}"), &format!("u{n}"), 1).life(n);
            self.journal.append(changes).await.unwrap();
        }
    }

    /// Takes everything that ended before this second.
    async fn prune(&self, before: i64) {
        let retention = Retention { age: Duration::ZERO, now: at(before), batch: 1000 };
        while !self.journal.prune(retention).await.unwrap().executions.is_empty() {}
    }

    /// As a kill does.
    async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// Another podherald's hand on a relay.
struct Turn {
    held: watch::Sender<Option<Instant>>,
    _leads: watch::Sender<bool>,
    carried: watch::Sender<Carried>,
    progress: Progress,
}

impl Turn {
    fn begin(&self) {
        self.held.send_replace(Some(Instant::now() + Duration::from_hours(1)));
    }

    fn end(&self) {
        self.held.send_replace(None);
    }

    /// The other one was so far behind a second ago.
    fn hear(&self, lag: u64) {
        let after = Instant::now().checked_sub(Duration::from_secs(1));
        let lag = [("one".to_owned(), Duration::from_secs(lag))].into();
        self.carried.send_replace(Carried { after, lag });
    }
}

async fn until(limit: Duration, what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < limit, "it did not become so in {limit:?}");
        sleep(MOMENT).await;
    }
}

fn positions(sink: &Memory) -> Vec<u64> {
    sink.far().arrived.iter().filter(|item| matches!(item, Item::Event(_))).map(Item::position).collect()
}

fn gaps(sink: &Memory) -> Vec<Gap> {
    let far = sink.far();
    let gap = |item: &Item| if let Item::Gap(gap) = item { Some(Gap::clone(gap)) } else { None };
    far.arrived.iter().filter_map(gap).collect()
}

/// Positions in the order of their first arrival.
fn firsts(sink: &Memory) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    positions(sink).into_iter().filter(|position| seen.insert(*position)).collect()
}

fn up_to(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

fn lag(health: &SinkHealth) -> (u64, u64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
    (health.lag_events, health.lag_seconds.round() as u64)
}

#[tokio::test(start_paused = true)]
async fn events_arrive_once_each_in_order_at_once_and_the_cursor_follows() {
    let mut world = World::new().await;
    let sink = Memory::default();
    let progress = world.relay(ONE, &sink).await;
    world.append(0..3).await;
    until(MOMENT * 3, || positions(&sink) == up_to(3 * LIFE)).await;
    sleep(CHECK * 100).await;
    world.append(3..4).await;
    until(MOMENT * 3, || positions(&sink) == up_to(4 * LIFE)).await;
    let health = progress.health();
    assert_eq!((health.delivered, health.retries, health.failing, lag(&health)), (4 * LIFE, 0, false, (0, 0)));
    world.kill().await;
    assert_eq!(world.journal.subscribe(vec![ONE]).await.unwrap()[0].position, 4 * LIFE);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_down_for_hours_gets_everything_when_it_is_back() {
    let mut world = World::new().await;
    let sink = Memory::default();
    sink.far().down = Some("nobody there".to_owned());
    let progress = world.relay(ONE, &sink).await;
    until(MOMENT * 3, || progress.health().failing).await;
    world.append(0..2).await;
    sleep(Duration::from_hours(5)).await;
    let health = progress.health();
    assert_eq!(health.last_error.as_deref(), Some("nobody there"));
    assert_eq!(lag(&health), (2 * LIFE, 5 * 3600));
    assert!((600..1300).contains(&health.retries), "every half to whole 30 s: {}", health.retries);
    sink.far().down = None;
    until(Duration::from_secs(31), || positions(&sink) == up_to(2 * LIFE)).await;
    let health = progress.health();
    assert_eq!((health.failing, lag(&health)), (false, (0, 0)));
    assert_eq!(health.last_error.as_deref(), Some("nobody there"), "what was last wrong is still told");
}

#[tokio::test(start_paused = true)]
async fn an_idle_sink_that_goes_away_is_noticed_and_so_is_its_return() {
    let mut world = World::new().await;
    let sink = Memory::default();
    let progress = world.relay(ONE, &sink).await;
    sleep(MOMENT).await;
    sink.far().down = Some("gone".to_owned());
    until(CHECK + MOMENT * 2, || progress.health().failing).await;
    sink.far().down = None;
    until(CHECK, || !progress.health().failing).await;
    assert_eq!(sink.far().batches, [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_sink_lags_on_disk_and_slows_nobody() {
    let mut world = World::new().await;
    let (slow, fast) = (Memory::default(), Memory::default());
    slow.far().pause = Duration::from_secs(60);
    let behind = world.relay(ONE, &slow).await;
    world.relay(OTHER, &fast).await;
    let begun = Instant::now();
    world.append(0..200).await;
    assert!(begun.elapsed() < MOMENT, "an append waits for no sink");
    until(MOMENT * 5, || positions(&fast) == up_to(200 * LIFE)).await;
    assert!(lag(&behind.health()).0 >= 199 * LIFE, "{:?}", behind.health());
    until(Duration::from_secs(600), || positions(&slow) == up_to(200 * LIFE)).await;
    assert!(slow.far().batches.iter().all(|records| *records <= 256), "{:?}", slow.far().batches);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_bounded_in_bytes_too() {
    let mut world = World::new().await;
    let sink = Memory::default();
    for n in 0..40 {
        let end = Pod::new(&format!("e{n}"), &format!("u{n}"), 1).end(at(n), 0, &"x".repeat(100_000));
        world.journal.append(vec![end]).await.unwrap();
    }
    world.relay(ONE, &sink).await;
    until(Duration::from_secs(60), || sink.far().batches.iter().sum::<usize>() == 40).await;
    assert!(sink.far().batches.iter().all(|records| *records <= 11), "{:?}", sink.far().batches);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_can_never_be_carried_is_kept_as_a_dead_letter_and_the_rest_goes_on() {
    let mut world = World::new().await;
    let sink = Memory::default();
    sink.far().rejects = [2, 10].into();
    let progress = world.relay(ONE, &sink).await;
    world.append(0..2).await;
    until(MOMENT * 3, || positions(&sink) == [1, 3, 4, 5, 6, 7, 8, 9]).await;
    until(MOMENT, || progress.health().lag_events == 0).await;
    let health = progress.health();
    assert_eq!((health.rejected, health.delivered, health.failing, health.lag_events), (2, 8, false, 0));
    let events = world.journal.batch(0, Bounds { records: 99, bytes: usize::MAX }).await.unwrap();
    let unproven =
        [2, 10].map(|position: usize| events[position - 1].status.is_some_and(|status| status.is_terminal()));
    assert_eq!(health.result_unproven, unproven.iter().filter(|is| **is).count() as u64);
    // It has moved on before the journal knows.
    let letters =
        async || world.journal.dead_letters(DeadLetterQuery { limit: 9, ..Default::default() }).await.unwrap();
    let begun = Instant::now();
    while letters().await.len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the letters are not kept");
        sleep(MOMENT).await;
    }
    let letters = letters().await;
    for (listed, position) in letters.iter().rev().zip([2, 10]) {
        let (letter, event) = (&listed.letter, &events[position - 1]);
        assert_eq!((&*listed.sink, letter.position, &*letter.reason), ("one", position as u64, "the test rejects it"));
        assert_eq!((&letter.bytes, &letter.execution_id), (&event.bytes, &event.execution_id));
        assert_eq!(letter.result_unproven, event.status.is_some_and(|status| status.is_terminal()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_broke_off_comes_again_and_keeps_the_order() {
    let mut world = World::new().await;
    world.append(0..2).await;
    let sink = Memory::default();
    sink.far().breaks_after = Some(3);
    world.relay(ONE, &sink).await;
    until(Duration::from_secs(1), || firsts(&sink) == up_to(2 * LIFE)).await;
    assert_eq!(positions(&sink)[..4], [1, 2, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn killed_in_mid_batch_it_repeats_and_loses_nothing() {
    let mut world = World::new().await;
    world.append(0..2).await;
    let sink = Memory::default();
    sink.far().breaks_after = Some(3);
    world.relay(ONE, &sink).await;
    until(Duration::from_secs(1), || positions(&sink).len() == 3).await;
    world.kill().await;
    world.append(2..3).await;
    world.relay(ONE, &sink).await;
    until(Duration::from_secs(1), || firsts(&sink) == up_to(3 * LIFE)).await;
    world.kill().await;
    world.relay(ONE, &sink).await;
    sleep(CHECK).await;
    assert_eq!(positions(&sink).len() as u64, 3 + 3 * LIFE, "what was acknowledged does not come again");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_at_once_arrives_in_parts() {
    let mut world = World::new().await;
    world.append(0..10).await;
    let sink = Memory::default();
    sink.far().too_many = Some(8);
    world.relay(ONE, &sink).await;
    until(Duration::from_mins(10), || positions(&sink) == up_to(10 * LIFE)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_retention_passes_is_told_how_much_it_missed_and_goes_on() {
    let mut world = World::new().await;
    let sink = Memory::default();
    let progress = world.relay(ONE, &sink).await;
    world.append(0..1).await;
    until(MOMENT, || positions(&sink).len() as u64 == LIFE).await;
    sink.far().down = Some("away".to_owned());
    world.append(1..4).await;
    world.append(1000..1001).await;
    world.prune(500).await;
    sink.far().down = None;
    until(Duration::from_secs(31), || positions(&sink).last() == Some(&(5 * LIFE))).await;
    assert_eq!(progress.health().missed, 3 * LIFE);
    let (gap, arrived) = (gaps(&sink).remove(0), sink.far().arrived.clone());
    let place = arrived.iter().position(|item| matches!(item, Item::Gap(_))).unwrap();
    let around = &arrived[place - 1..=place + 1];
    assert_eq!([&around[0], &around[2]].map(Item::position), [LIFE, 4 * LIFE + 1], "it is where the events were");
    assert_eq!(around[1].position(), gap.last);
    assert_eq!((gap.missed, gap.first, gap.last, &*gap.sink), (3 * LIFE, LIFE + 1, 4 * LIFE, "one"));
    assert_eq!(gap.source, format!("podherald:{}", world.journal.epoch()));
    let time = |item: &Item| serde_json::from_slice::<serde_json::Value>(&item.bytes()).unwrap()["timestamp"].clone();
    let times = [gap.since, gap.until].map(|time| format!("{:.6}", time.unwrap()));
    assert_eq!(times, [&around[0], &around[2]].map(|item| time(item).as_str().unwrap().to_owned()));

    // And when nothing is left to come.
    sink.far().down = Some("away".to_owned());
    world.append(1001..1002).await;
    world.prune(5000).await;
    sink.far().down = None;
    until(Duration::from_secs(31), || progress.health().missed == 4 * LIFE).await;
    assert_eq!(lag(&progress.health()), (0, 0));
    assert_eq!((gaps(&sink).len(), gaps(&sink)[1].last), (2, 6 * LIFE));
    world.kill().await;
    let progress = world.relay(ONE, &sink).await;
    assert_eq!(progress.health().missed, 4 * LIFE, "it is known for ever");
    assert_eq!(progress.health().delivered, 0);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_was_not_acknowledged_is_told_again_under_its_id_after_a_crash_too() {
    let mut world = World::new().await;
    let sink = Memory::default();
    world.append(0..1).await;
    world.append(1000..1001).await;
    world.prune(500).await;
    // The gap arrives, and its acknowledgement does not.
    sink.far().breaks_after = Some(1);
    world.relay(ONE, &sink).await;
    until(MOMENT, || gaps(&sink).len() == 1).await;
    world.kill().await;
    let progress = world.relay(ONE, &sink).await;
    until(MOMENT * 3, || positions(&sink).len() as u64 == LIFE).await;
    let ids: BTreeSet<_> = gaps(&sink).iter().map(|gap| gap.event_id).collect();
    assert_eq!((gaps(&sink).len(), ids.len(), progress.health().missed), (2, 1, LIFE));
    sleep(CHECK).await;
    world.kill().await;
    world.relay(ONE, &sink).await;
    sleep(CHECK).await;
    assert_eq!(gaps(&sink).len(), 2, "what was acknowledged does not come again");
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_a_sink_can_never_carry_holds_nothing_up() {
    let mut world = World::new().await;
    let sink = Memory::default();
    sink.far().rejects = [LIFE].into();
    world.append(0..1).await;
    world.append(1000..1001).await;
    world.prune(500).await;
    let progress = world.relay(ONE, &sink).await;
    until(MOMENT * 3, || positions(&sink).len() as u64 == LIFE).await;
    until(MOMENT, || progress.health().lag_events == 0).await;
    let health = progress.health();
    assert_eq!((health.missed, health.delivered, health.rejected), (LIFE, LIFE, 0));
}

#[tokio::test(start_paused = true)]
async fn at_the_end_what_is_left_is_carried_and_what_was_acknowledged_is_kept() {
    let mut world = World::new().await;
    let sink = Memory::default();
    sink.far().pause = Duration::from_millis(300);
    world.relay(ONE, &sink).await;
    world.append(0..1).await;
    sleep(MOMENT).await;
    world.append(1..2).await;
    world.stop.cancel();
    timeout(FLUSH, world.tasks.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(positions(&sink), up_to(2 * LIFE));
    assert_eq!(world.journal.subscribe(vec![ONE]).await.unwrap()[0].position, 2 * LIFE);
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_neither_for_a_sink_that_hangs_nor_for_one_that_is_down() {
    for (pause, down, limit) in [(3600, None, FLUSH), (0, Some("away".to_owned()), MOMENT)] {
        let mut world = World::new().await;
        let sink = Memory::default();
        world.append(0..1).await;
        sink.far().pause = Duration::from_secs(pause);
        sink.far().down = down;
        world.relay(ONE, &sink).await;
        sleep(Duration::from_secs(100)).await;
        world.stop.cancel();
        timeout(limit + MOMENT, world.tasks.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(positions(&sink), [0; 0]);
        assert_eq!(world.journal.subscribe(vec![ONE]).await.unwrap()[0].position, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_lag_in_seconds_is_that_of_what_is_still_missing() {
    let mut world = World::new().await;
    let sink = Memory::default();
    let progress = world.relay(ONE, &sink).await;
    sleep(Duration::from_secs(1000)).await;
    sink.far().pause = Duration::from_secs(10);
    world.append(0..1).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(lag(&progress.health()), (LIFE, 5), "not since the last event long ago");
    world.append(1..2).await;
    sleep(Duration::from_secs(9)).await;
    assert_eq!(lag(&progress.health()), (LIFE, 14), "at most: the second came later than the first was read");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(lag(&progress.health()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn out_of_its_turn_a_relay_carries_nothing_and_in_it_what_nobody_has_told() {
    let mut world = World::new().await;
    let sink = Memory::default();
    let turn = world.relay_in_turns(ONE, &sink, true).await;
    world.adopt(0..2).await;
    until(MOMENT, || turn.progress.health().lag_events == 0).await;
    // What it had written down before, and the other one did not tell.
    world.append(2..3).await;
    world.adopt(3..4).await;
    sleep(CHECK * 3).await;
    assert_eq!(positions(&sink), [0; 0]);
    let health = turn.progress.health();
    assert_eq!((health.lag_events, health.failing), (2 * LIFE, false));
    turn.begin();
    until(MOMENT * 3, || positions(&sink) == (2 * LIFE + 1..=3 * LIFE).collect::<Vec<_>>()).await;
    until(MOMENT, || turn.progress.health().lag_events == 0).await;
    world.append(4..5).await;
    until(MOMENT * 3, || positions(&sink).len() as u64 == 2 * LIFE).await;
    turn.end();
    sleep(MOMENT).await;
    world.append(5..6).await;
    sleep(CHECK).await;
    assert_eq!(positions(&sink).len() as u64, 2 * LIFE);
}

#[tokio::test(start_paused = true)]
async fn a_sink_of_its_own_is_given_again_only_what_the_other_may_not_have_carried() {
    let mut world = World::new().await;
    let sink = Memory::default();
    let turn = world.relay_in_turns(ONE, &sink, false).await;
    for life in 0..10 {
        world.adopt(life..life + 1).await;
        turn.hear(3);
        sleep(Duration::from_secs(1)).await;
    }
    turn.begin();
    until(MOMENT * 3, || positions(&sink).last() == Some(&(10 * LIFE))).await;
    let again = positions(&sink);
    assert_eq!(again, (again[0]..=10 * LIFE).collect::<Vec<_>>());
    // Behind by 3 s, told 1 s ago, and 1 s for safety.
    assert_eq!(again[0], 5 * LIFE + 1);
}

#[tokio::test(start_paused = true)]
async fn a_relay_whose_turn_ends_in_mid_batch_lets_go_of_it() {
    let mut world = World::new().await;
    let sink = Memory::default();
    sink.far().pause = Duration::from_secs(60);
    let turn = world.relay_in_turns(ONE, &sink, true).await;
    turn.begin();
    world.append(0..1).await;
    sleep(MOMENT).await;
    turn.end();
    world.adopt(0..1).await;
    until(CHECK * 2, || turn.progress.health().lag_events == 0).await;
    sink.far().pause = Duration::ZERO;
    turn.begin();
    sleep(CHECK).await;
    assert_eq!(positions(&sink), [0; 0], "the other one has told it");
}
