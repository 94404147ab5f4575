//! The roles over a real store that is away at times, and a publisher that is.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use podherald_core::event::{Draft, Event, Payload, StoredResult};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{
    Failure, Work, Worker,
    event_store::EventStore,
    metrics::Metrics,
    result_processor::{GROUP, ResultProcessor},
};
use crate::{
    clock::SystemClock,
    inbox::{Message, Place},
    journal::fixture::Pod,
    publisher::{Publisher, Rejection},
    sink::Fault,
    store::{EventQuery, Store, sqlite::Sqlite},
};

/// Keeps what it is given, unless the next answer is another.
#[derive(Default)]
struct Far {
    published: Mutex<Vec<Draft>>,
    answers: Mutex<VecDeque<Result<Vec<Rejection>, Fault>>>,
}

impl Publisher for Far {
    fn publish(&self, events: Vec<Draft>) -> BoxFuture<'_, Result<Vec<Rejection>, Fault>> {
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(Vec::new()));
        if matches!(&answer, Ok(rejected) if rejected.is_empty()) {
            self.published.lock().unwrap().extend(events);
        }
        async { answer }.boxed()
    }
}

struct World {
    processor: ResultProcessor,
    far: Arc<Far>,
    store: Arc<dyn Store>,
    _dir: TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&dir.path().join("store.db")).await.unwrap());
        let far = Arc::new(Far::default());
        let processor = ResultProcessor {
            store: store.clone(),
            publisher: far.clone(),
            metrics: Metrics::default(),
            clock: Arc::new(SystemClock),
        };
        Self { processor, far, store, _dir: dir }
    }

    fn told(&self) -> Vec<StoredResult> {
        let published = self.far.published.lock().unwrap();
        let told = published.iter().filter_map(|draft| match &draft.payload {
            Payload::ResultStored(result) => Some(result.clone()),
            _ => None,
        });
        told.collect()
    }
}

/// The messages of a life, in order.
fn life(execution_id: &str, attempt: u32) -> Vec<Message> {
    let changes = Pod::new(execution_id, &format!("u{attempt}"), attempt).life(0);
    let drafts = changes.iter().flat_map(|change| change.events.iter().cloned());
    (1..).zip(drafts).map(|(seq, draft)| message(&draft.number("pod-monitor:x", seq))).collect()
}

/// The one that ends its first attempt.
pub(super) fn end(execution_id: &str) -> Message {
    let ends = |message: &Message| matches!(&*message.event_type, "execution_completed" | "execution_failed");
    life(execution_id, 1).into_iter().find(ends).unwrap()
}

fn message(event: &Event) -> Message {
    Message {
        event_id: event.event_id,
        event_type: event.payload.event_type().into(),
        execution_id: event.execution_id.as_str().into(),
        about: Default::default(),
        bytes: event.to_bytes().into(),
        tries: 1,
        place: Place { topic: "execution_events".into(), partition: 0 },
        offset: event.seq,
    }
}

async fn process(work: &dyn Work, messages: &[Message]) {
    for message in messages {
        work.process(message).await.unwrap();
    }
}

#[tokio::test]
async fn only_the_end_of_an_attempt_is_a_result_and_each_attempt_has_its_own() {
    let world = World::new().await;
    process(&world.processor, &life("e", 1)).await;
    process(&world.processor, &life("e", 2)).await;
    assert_eq!(world.told().len(), 2);
    for attempt in [1, 2] {
        let outcome = world.store.result("e".to_owned(), Some(attempt)).await.unwrap().unwrap();
        assert_eq!(outcome.attempt, attempt);
    }
    assert_eq!(world.store.result("e".to_owned(), None).await.unwrap().unwrap().attempt, 2);
}

/// One that died after the store, or after the publisher: all of it is done again, and comes to the same.
#[tokio::test]
async fn what_comes_again_is_told_again_under_the_same_id() {
    let world = World::new().await;
    let end = end("e");
    world.far.answers.lock().unwrap().push_back(Err(Fault("nobody there".to_owned())));
    let failed = world.processor.process(&end).await;
    assert_eq!(failed, Err(Failure::Away("nobody there".to_owned())));
    assert!(world.told().is_empty() && world.store.result("e".to_owned(), None).await.unwrap().is_some());
    for _ in 0..2 {
        world.processor.process(&end).await.unwrap();
    }
    let published = world.far.published.lock().unwrap();
    assert_eq!(published.len(), 2);
    assert_eq!(published[0], published[1]);
}

#[tokio::test]
async fn of_two_events_that_end_an_attempt_the_first_stays() {
    let world = World::new().await;
    let end = end("e");
    world.processor.process(&end).await.unwrap();
    let mut other: Event = serde_json::from_slice(&end.bytes).unwrap();
    other.event_id = uuid::Uuid::nil();
    world.processor.process(&message(&other)).await.unwrap();
    assert_eq!(world.told().len(), 1);
    assert_eq!(world.store.result("e".to_owned(), None).await.unwrap().unwrap().event_id, end.event_id);
}

#[tokio::test]
async fn a_result_that_is_too_large_to_be_told_is_told_without_its_output() {
    let world = World::new().await;
    let rejection = Rejection { event_id: uuid::Uuid::nil(), reason: "too large".to_owned() };
    world.far.answers.lock().unwrap().push_back(Ok(vec![rejection]));
    let end = end("e");
    world.processor.process(&end).await.unwrap();
    let told = world.told();
    assert_eq!((told.len(), &*told[0].stdout), (1, ""));
    assert!(told[0].size_bytes > 0);
}

/// It says how an attempt ended, but not in a way that can be kept.
fn broken(end: &Message) -> Message {
    let mut event: serde_json::Value = serde_json::from_slice(&end.bytes).unwrap();
    event["exit"] = serde_json::json!("three");
    Message { bytes: event.to_string().into(), ..end.clone() }
}

#[tokio::test]
async fn what_can_never_be_kept_is_told_before_it_is_a_dead_letter_and_once() {
    let world = World::new().await;
    let end = end("e");
    world.far.answers.lock().unwrap().push_back(Err(Fault("nobody there".to_owned())));
    let untold = world.processor.process(&broken(&end)).await;
    assert_eq!(untold, Err(Failure::Away("nobody there".to_owned())));
    for tries in 1..=5 {
        let unfit = world.processor.process(&Message { tries, ..broken(&end) }).await;
        assert!(matches!(unfit, Err(Failure::Unfit(reason)) if reason.contains("execution_")));
    }
    let published = world.far.published.lock().unwrap();
    let [told] = &published[..] else { panic!("{published:?}") };
    let read: Event = serde_json::from_slice(&end.bytes).unwrap();
    assert_eq!((&*told.execution_id, told.attempt, told.timestamp), ("e", 1, read.timestamp));
    let Payload::ResultFailed { result_of, error } = &told.payload else { panic!("{told:?}") };
    assert_eq!(*result_of, end.event_id);
    assert!(error.contains("three"), "{error}");
}

#[tokio::test]
async fn what_names_no_attempt_is_only_a_dead_letter_and_what_is_of_a_later_version_is_left() {
    let world = World::new().await;
    let anonymous = Message { bytes: Bytes::from_static(b"{}"), ..end("e") };
    assert!(matches!(world.processor.process(&anonymous).await, Err(Failure::Unfit(_))));
    let later = Message { event_type: "execution_paused".into(), ..anonymous };
    world.processor.process(&later).await.unwrap();
    assert!(world.far.published.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_event_is_kept_once_and_folded() {
    let world = World::new().await;
    let keeper = EventStore::new(world.store.clone());
    let messages = life("e", 1);
    for _ in 0..2 {
        process(&keeper, &messages).await;
    }
    let query = EventQuery { execution_id: "e".to_owned(), after: None, limit: 100 };
    let kept = world.store.events(query).await.unwrap();
    assert_eq!(kept.len(), messages.len());
    let found = world.store.execution("e".to_owned()).await.unwrap().unwrap();
    assert!(found.execution.status.is_terminal());
}

/// Fails until it does not.
struct Moody(Mutex<u32>);

impl Work for Moody {
    fn name(&self) -> &'static str {
        GROUP
    }

    fn process<'a>(&'a self, _: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        let mut left = self.0.lock().unwrap();
        let failed = *left > 0;
        *left = left.saturating_sub(1);
        async move { if failed { Err(Failure::Away("the store is away".to_owned())) } else { Ok(()) } }.boxed()
    }
}

/// However long the store is away, nothing goes to the dead letters.
#[tokio::test(start_paused = true)]
async fn what_a_role_needs_is_waited_for_and_the_role_says_so() {
    let metrics = Metrics::default();
    let (delivery, answer) = crate::inbox::delivery(end("e"));
    let (out, deliveries) = tokio::sync::mpsc::channel(1);
    out.send(delivery).await.unwrap();
    drop(out);
    let worker = Worker { work: Arc::new(Moody(Mutex::new(20))), metrics: metrics.clone(), concurrency: 1 };
    let begun = Instant::now();
    let watching = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(metrics.trouble(GROUP).as_deref(), Some("the store is away"));
    };
    tokio::join!(worker.run(deliveries, tokio_util::sync::CancellationToken::new()), watching);
    assert!(answer.await, "it is acknowledged");
    assert!(begun.elapsed() > Duration::from_secs(120), "{:?}", begun.elapsed());
    assert_eq!(metrics.trouble(GROUP), None);
}
