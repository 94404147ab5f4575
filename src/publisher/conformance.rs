//! What every [`Publisher`] must do, wherever it publishes. [`suite!`] makes a test of each.
//!
//! The tests on real servers have this file too: it names only what stands beside it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use podherald_core::event::{Draft, Event, Metadata, Payload, Slot, event_id};
use uuid::Uuid;

use super::Publisher;

macro_rules! suite {
    ($open:path: $($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::publisher::conformance::$name(&mut $open().await).await;
            }
        )*
    };
    ($open:path) => {
        $crate::publisher::conformance::suite!($open:
            what_is_acknowledged_is_there_in_order_and_numbered_without_a_gap,
            events_that_are_published_again_are_known_by_their_ids,
            a_far_side_that_is_away_is_a_fault_and_a_second_try_loses_nothing,
        );
    };
}
pub(crate) use suite;

/// A publisher with its far side.
pub(crate) trait Far: Send {
    /// The one that writes there.
    fn publisher(&self) -> Arc<dyn Publisher>;
    /// The events of execution `e`.
    fn published(&self) -> BoxFuture<'_, Vec<Bytes>>;
    /// It goes away.
    fn leave(&mut self) -> BoxFuture<'_, ()>;
    /// It is there again.
    fn come_back(&mut self) -> BoxFuture<'_, ()>;
}

/// Every wait ends by then.
const LIMIT: Duration = Duration::from_secs(60);

/// The event of execution `e` with this number.
pub(crate) fn draft(n: u32) -> Draft {
    Draft {
        event_id: event_id("e", "key", Slot::Progress { run: n, offset: 0 }),
        execution_id: "e".to_owned(),
        attempt: 1,
        timestamp: jiff::Timestamp::UNIX_EPOCH,
        synthesized: false,
        metadata: Metadata { service_name: "role".to_owned(), ..Metadata::default() },
        payload: Payload::ExecutionProgress { progress_percentage: None, message: None, offset: 0 },
    }
}

fn drafts(numbers: std::ops::RangeInclusive<u32>) -> Vec<Draft> {
    numbers.map(draft).collect()
}

fn ids(drafts: &[Draft]) -> Vec<Uuid> {
    drafts.iter().map(|draft| draft.event_id).collect()
}

async fn events(far: &impl Far) -> Vec<Event> {
    far.published().await.iter().map(|bytes| serde_json::from_slice(bytes).unwrap()).collect()
}

/// Ids in the order in which they are there for the first time.
async fn firsts(far: &impl Far) -> Vec<Uuid> {
    let mut firsts = Vec::new();
    for event in events(far).await {
        if !firsts.contains(&event.event_id) {
            firsts.push(event.event_id);
        }
    }
    firsts
}

async fn assert_each_source_counts_without_a_gap(far: &impl Far) {
    let mut counts = BTreeMap::new();
    for event in events(far).await {
        let seq = counts.entry(event.source).or_insert(0);
        *seq += 1;
        assert_eq!(event.seq, *seq);
    }
    assert!(counts.keys().all(|source| source.starts_with("role:")), "{counts:?}");
}

pub(crate) async fn what_is_acknowledged_is_there_in_order_and_numbered_without_a_gap(far: &mut impl Far) {
    let publisher = far.publisher();
    assert_eq!(publisher.publish(vec![]).await, Ok(vec![]));
    assert_eq!(publisher.publish(drafts(1..=3)).await, Ok(vec![]));
    assert_eq!(publisher.publish(drafts(4..=4)).await, Ok(vec![]));
    assert_eq!(firsts(far).await, ids(&drafts(1..=4)));
    assert_each_source_counts_without_a_gap(far).await;
    let events = events(far).await;
    assert!(events.iter().all(|event| event.source == events[0].source));
}

pub(crate) async fn events_that_are_published_again_are_known_by_their_ids(far: &mut impl Far) {
    let publisher = far.publisher();
    publisher.publish(drafts(1..=2)).await.unwrap();
    publisher.publish(drafts(1..=3)).await.unwrap();
    assert_eq!(firsts(far).await, ids(&drafts(1..=3)));
    assert_each_source_counts_without_a_gap(far).await;
}

pub(crate) async fn a_far_side_that_is_away_is_a_fault_and_a_second_try_loses_nothing(far: &mut impl Far) {
    far.publisher().publish(drafts(1..=2)).await.unwrap();
    let publisher = far.publisher();
    far.leave().await;
    publisher.publish(drafts(3..=4)).await.unwrap_err();
    far.come_back().await;
    let publisher = far.publisher();
    let again = async { while publisher.publish(drafts(3..=4)).await.is_err() {} };
    tokio::time::timeout(LIMIT, again).await.expect("it is back");
    assert_eq!(firsts(far).await, ids(&drafts(1..=4)));
    assert_each_source_counts_without_a_gap(far).await;
}
