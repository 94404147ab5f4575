//! Recalling and listing, over a real journal and a real store.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use podherald_core::execution::Status;
use tempfile::TempDir;

use super::*;
use crate::{
    inbox::Place,
    journal::{Sqlite, fixture},
    store::{Arrival, sqlite},
};

struct World {
    journal: Arc<dyn Journal>,
    store: Arc<dyn Store>,
    past: Past,
    _dir: TempDir,
}

struct At(jiff::Timestamp);

impl Clock for At {
    fn now(&self) -> jiff::Timestamp {
        self.0
    }
}

impl World {
    /// So long after noon.
    async fn new(after_noon: Duration) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal.db");
        let journal: Arc<dyn Journal> =
            Sqlite::open(journal::Options { path, ..journal::Options::default() }).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(sqlite::Sqlite::open(&dir.path().join("store.db")).await.unwrap());
        let now = fixture::at(i64::try_from(after_noon.as_secs()).unwrap());
        let past = Past::new(store.clone(), journal.clone(), Arc::new(At(now)), Metrics::default());
        Self { journal, store, past, _dir: dir }
    }

    async fn store(&self, events: &[Event]) {
        let arrival = |event: &Event| {
            let labels = [("team".to_owned(), "blue".to_owned())].into_iter().collect();
            let about = About { namespace: Some("lab".to_owned()), labels, pod_uid: Some("u".to_owned()) };
            let place = Place { topic: "execution_events".into(), partition: 0 };
            Arrival::read(place, event.seq, about, event.to_bytes().into()).unwrap()
        };
        self.store.append(events.iter().map(arrival).collect()).await.unwrap();
    }

    async fn hear(&self, events: &[Event]) {
        let adopted = |event: &Event| Adopted {
            event: event.clone(),
            bytes: event.to_bytes().into(),
            about: About::default(),
            in_order: true,
            recalled: false,
        };
        let early = self.journal.adopt(events.iter().map(adopted).collect(), Vec::new()).await.unwrap();
        assert!(early.is_empty());
    }

    async fn seqs(&self, id: &str) -> Vec<u64> {
        let records = self.journal.execution_events(id.to_owned(), 0, 100).await.unwrap();
        records.iter().map(|record| record.seq).collect()
    }

    async fn page(&self, query: ExecutionQuery) -> (Vec<(String, Status)>, Option<Cursor>) {
        let page = self.past.executions(query).await.unwrap();
        let item = |listed: Listed| (listed.execution.execution_id, listed.execution.status);
        (page.items.into_iter().map(item).collect(), page.next)
    }
}

/// Six events of a life that begins so many seconds after noon.
fn life(id: &str, second: i64) -> Vec<Event> {
    let changes = fixture::Pod::new(id, &format!("u-{id}"), 1).life(second);
    let drafts = changes.iter().flat_map(|change| change.events.iter().cloned());
    (1..).zip(drafts).map(|(seq, draft)| draft.number("pod-monitor:other", seq)).collect()
}

fn query(limit: usize) -> ExecutionQuery {
    ExecutionQuery { limit, ..ExecutionQuery::default() }
}

#[tokio::test]
async fn what_was_before_is_recalled_in_its_order_and_once() {
    let world = World::new(Duration::from_secs(20)).await;
    let events = life("e", 0);
    let (first, last) = (events.len() as u64, events.last().unwrap().clone());
    // The store has been faster with the last, and what is between comes by another partition.
    world.store(&events[..2]).await;
    world.store(&[last]).await;
    world.past.recall("e").await.unwrap();
    assert_eq!(world.seqs("e").await, [1, 2], "the rest of a source may still come");
    world.hear(&events[2..]).await;
    assert_eq!(world.seqs("e").await, (1..=first).collect::<Vec<_>>());
    assert_eq!(world.past.unfinished().len(), 1);
    for _ in 0..2 {
        world.past.recall("e").await.unwrap();
    }
    assert!(world.past.unfinished().is_empty());
    assert_eq!(world.past.metrics.recalled.get(), 1);
    let execution = world.journal.execution("e".to_owned()).await.unwrap().unwrap();
    assert_eq!((execution.status, &*execution.labels["team"]), (Status::Completed, "blue"));
    assert_eq!(execution.pods.iter().map(|pod| (&*pod.namespace, &*pod.uid)).collect::<Vec<_>>(), [("lab", "u")]);
    world.past.recall("nobody").await.unwrap();
    assert_eq!(world.journal.execution("nobody".to_owned()).await.unwrap(), None);
}

#[tokio::test]
async fn of_what_is_long_over_all_that_there_is_is_recalled_holes_and_all() {
    let world = World::new(Duration::from_secs(3600)).await;
    let events = life("e", 0);
    world.store(&events[..1]).await;
    world.store(&events[3..]).await;
    world.past.recall("e").await.unwrap();
    let seqs: Vec<_> = events.iter().map(|event| event.seq).filter(|seq| *seq != 2 && *seq != 3).collect();
    assert_eq!(world.seqs("e").await, seqs);
}

#[tokio::test]
async fn a_list_has_what_came_just_now_and_says_of_nothing_less_than_is_known() {
    let world = World::new(Duration::from_secs(100)).await;
    for (n, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
        world.store(&life(id, 10 * i64::try_from(n).unwrap())).await;
    }
    world.store(&life("late", 50)[..2]).await;
    world.hear(&life("late", 50)).await;
    world.hear(&life("new", 60)).await;
    let done = |id: &str| (id.to_owned(), Status::Completed);
    let (first, next) = world.page(query(3)).await;
    assert_eq!(first, [done("new"), done("late"), done("d")]);
    // Whatever comes meanwhile.
    world.store(&life("newer", 70)).await;
    let (second, next) = world.page(ExecutionQuery { after: next, ..query(2) }).await;
    assert_eq!(second, [done("c"), done("b")]);
    let (third, next) = world.page(ExecutionQuery { after: next, ..query(2) }).await;
    assert_eq!((third, next), (vec![done("a")], None));
    let running = ExecutionQuery { statuses: vec![Status::Running, Status::Scheduled], ..query(5) };
    assert_eq!(world.page(running).await, (vec![], None), "what has ended by now does not run");
    let completed = ExecutionQuery { statuses: vec![Status::Completed], ..query(9) };
    let (listed, next) = world.page(completed).await;
    assert_eq!(listed, ["newer", "new", "late", "d", "c", "b", "a"].map(done));
    assert_eq!(next, None);
}

/// So many events of one source in their order, long ago.
fn progress(count: usize) -> Vec<Event> {
    let of = &life("e", 0)[2];
    let numbered = |seq: u64| Event { event_id: uuid::Uuid::from_u128(seq.into()), seq, ..of.clone() };
    (1..=count as u64).map(numbered).collect()
}

#[tokio::test]
async fn a_life_of_many_pages_is_recalled_whole_although_pages_are_not_in_the_order_of_its_source() {
    let world = World::new(Duration::from_secs(3600)).await;
    // The last number has the earliest time, and so stands on the first page.
    let mut events = progress(2 * PAGE);
    events.last_mut().unwrap().timestamp = fixture::at(-1);
    world.store(&events).await;
    world.past.recall("e").await.unwrap();
    let records = world.journal.execution_events("e".to_owned(), 0, 4 * PAGE).await.unwrap();
    let seqs: Vec<_> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=2 * PAGE as u64).collect::<Vec<_>>());
    assert!(world.past.unfinished().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_the_store_has_enough_to_do_is_told_so_or_what_is_known() {
    let world = World::new(Duration::from_secs(20)).await;
    world.hear(&life("known", 0)).await;
    let _all = futures::future::try_join_all((0..TURNS).map(|_| world.past.turn())).await.unwrap();
    world.past.recall("known").await.unwrap();
    let refusal = world.past.recall("unknown").await.unwrap_err();
    assert!(refusal.to_string().contains("others have asked before"), "{refusal}");
}

#[tokio::test]
async fn a_recall_that_breaks_off_is_not_taken_for_all_that_there_was() {
    let world = World::new(Duration::from_secs(3600)).await;
    world.store(&progress(4 * PAGE)).await;
    let mut recall = Box::pin(world.past.recall("e"));
    while world.journal.execution("e".to_owned()).await.unwrap().is_none() {
        assert!(futures::poll!(&mut recall).is_pending(), "it is over before it could be broken off");
        tokio::task::yield_now().await;
    }
    drop(recall);
    let all = futures::future::try_join_all((0..TURNS).map(|_| world.past.turn())).await.unwrap();
    world.past.recall("e").await.unwrap_err();
    assert_eq!(world.past.unfinished(), [Arc::from("e")]);
    drop(all);
    world.past.recall("e").await.unwrap();
    assert_eq!(world.journal.execution_events("e".to_owned(), 0, 5 * PAGE).await.unwrap().len(), 4 * PAGE);
    assert!(world.past.unfinished().is_empty());
}

#[tokio::test]
async fn of_a_long_life_whose_beginning_is_missing_the_rest_is_recalled() {
    let world = World::new(Duration::from_secs(3600)).await;
    world.store(&progress(2 * MOST_EARLY)[1..]).await;
    world.past.recall("e").await.unwrap();
    let records = world.journal.execution_events("e".to_owned(), 0, 2 * MOST_EARLY).await.unwrap();
    let seqs: Vec<_> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (2..=2 * MOST_EARLY as u64).collect::<Vec<_>>());
}
