//! What every [`Sink`] must do, wherever it carries things. [`suite!`] makes a test of each.
//!
//! The tests on real servers have this file too: it names only what stands beside it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use podherald_core::{
    about::About,
    event::{Draft, Metadata, Payload, Slot, event_id},
};

use super::{Frames, Gap, Item, Record, Sink};

macro_rules! suite {
    ($open:path: $($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::sink::conformance::$name(&mut $open().await).await;
            }
        )*
    };
    ($open:path) => {
        $crate::sink::conformance::suite!($open:
            what_is_acknowledged_has_arrived_in_order,
            records_that_come_again_leave_the_order_of_the_first_time,
            a_record_that_cannot_be_carried_is_rejected_alone,
            a_far_side_that_is_away_is_a_fault_until_it_is_back,
            a_delivery_that_is_dropped_harms_no_later_one,
            a_gap_is_told_between_the_events_around_it,
        );
    };
}
pub(crate) use suite;

/// A sink with its far side.
pub(crate) trait Far: Send {
    /// The sink, which carries at most [`MAX_BYTES`] of an event.
    fn sink(&self) -> Arc<dyn Sink>;
    /// The events of execution `e` that have arrived since the far side was last away.
    fn arrived(&self) -> BoxFuture<'_, Vec<Bytes>>;
    /// The gaps that have arrived, wherever they go.
    fn gaps(&self) -> BoxFuture<'_, Vec<Bytes>>;
    /// It goes away.
    fn leave(&mut self) -> BoxFuture<'_, ()>;
    /// It is there again.
    fn come_back(&mut self) -> BoxFuture<'_, ()>;
}

/// Of one event, in these tests.
pub(crate) const MAX_BYTES: usize = 4096;

/// Every wait ends by then.
const LIMIT: Duration = Duration::from_secs(30);

/// The event of execution `e` at this position, which says so much.
pub(crate) fn record(position: u64, message: &str) -> Arc<Record> {
    let slot = Slot::Progress { run: 0, offset: position };
    let draft = Draft {
        event_id: event_id("e", "key", slot),
        execution_id: "e".to_owned(),
        attempt: 1,
        timestamp: jiff::Timestamp::UNIX_EPOCH,
        synthesized: false,
        metadata: Metadata::default(),
        payload: Payload::ExecutionProgress {
            progress_percentage: None,
            message: Some(message.to_owned()),
            offset: position,
        },
    };
    let bytes = draft.number("test", position).to_bytes().into();
    Arc::new(Record {
        position,
        execution_id: "e".into(),
        about: Arc::new(About { namespace: Some("lab".to_owned()), ..About::default() }),
        event_type: "execution_progress",
        attempt: 1,
        source: "test".into(),
        seq: position,
        status: None,
        told: false,
        recalled: false,
        version: Arc::default(),
        bytes,
        frames: Frames::default(),
    })
}

fn bytes(records: &[Arc<Record>]) -> Vec<Bytes> {
    records.iter().map(|record| record.bytes.clone()).collect()
}

fn three() -> [Arc<Record>; 3] {
    [record(1, "one"), record(2, "two\r\n\0"), record(3, "three")]
}

pub(crate) async fn what_is_acknowledged_has_arrived_in_order(far: &mut impl Far) {
    let sink = far.sink();
    sink.check().await.unwrap();
    assert_eq!(sink.deliver(&[]).await, Ok(vec![]));
    assert_eq!(sink.deliver(&three()).await, Ok(vec![]));
    assert_eq!(sink.deliver(&[record(9, "after a gap")]).await, Ok(vec![]));
    assert_eq!(far.arrived().await, bytes(&[&three()[..], &[record(9, "after a gap")]].concat()));
}

pub(crate) async fn records_that_come_again_leave_the_order_of_the_first_time(far: &mut impl Far) {
    let sink = far.sink();
    let [first, second, third] = three();
    sink.deliver(&[first.clone(), second.clone()]).await.unwrap();
    sink.deliver(&[first, second, third]).await.unwrap();
    let mut firsts: Vec<Bytes> = Vec::new();
    for event in far.arrived().await {
        if !firsts.contains(&event) {
            firsts.push(event);
        }
    }
    assert_eq!(firsts, bytes(&three()));
}

pub(crate) async fn a_record_that_cannot_be_carried_is_rejected_alone(far: &mut impl Far) {
    let sink = far.sink();
    let noise = Arc::new(Record { bytes: Bytes::from_static(b"no event"), ..Record::clone(&record(4, "")) });
    let [first, second, third] = three();
    let batch = [first, record(7, &"x".repeat(MAX_BYTES)), second, noise, third];
    let rejected = sink.deliver(&batch).await.unwrap();
    assert_eq!(rejected.iter().map(|rejection| rejection.position).collect::<Vec<_>>(), [7, 4]);
    assert!(rejected[0].reason.contains("4096 bytes"), "{rejected:?}");
    assert_eq!(far.arrived().await, bytes(&three()));
}

pub(crate) async fn a_far_side_that_is_away_is_a_fault_until_it_is_back(far: &mut impl Far) {
    let sink = far.sink();
    sink.deliver(&[record(8, "before")]).await.unwrap();
    far.leave().await;
    sink.deliver(&three()).await.unwrap_err();
    sink.check().await.unwrap_err();
    far.come_back().await;
    let back = async { while sink.check().await.is_err() {} };
    tokio::time::timeout(LIMIT, back).await.expect("it is back");
    sink.deliver(&three()).await.unwrap();
    assert_eq!(far.arrived().await, bytes(&three()));
}

pub(crate) async fn a_delivery_that_is_dropped_harms_no_later_one(far: &mut impl Far) {
    let sink = far.sink();
    sink.check().await.unwrap();
    let dropped = [record(8, "dropped")];
    assert!(sink.deliver(&dropped).now_or_never().is_none(), "a far side does not answer at once");
    sink.deliver(&three()).await.unwrap();
    let mut arrived = far.arrived().await;
    arrived.retain(|event| *event != dropped[0].bytes);
    assert_eq!(arrived, bytes(&three()));
}

pub(crate) async fn a_gap_is_told_between_the_events_around_it(far: &mut impl Far) {
    let sink = far.sink();
    let [first, _, third] = three();
    let gap = Arc::new(Gap::new("epoch", "test", 2..=2, jiff::Timestamp::UNIX_EPOCH));
    let items = [Item::Event(first.clone()), Item::Gap(gap.clone()), Item::Event(third.clone())];
    assert_eq!(sink.carry(&items).await, Ok(vec![]));
    assert_eq!(far.arrived().await, bytes(&[first, third]));
    assert_eq!(far.gaps().await, [Bytes::from(gap.to_bytes())]);
}
