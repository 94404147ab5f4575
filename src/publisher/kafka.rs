//! With Kafka, straight there: the events are numbered here, and the [sink](crate::sink::kafka) carries them.
//!
//! No journal remembers what was counted, so a *source* lasts as long as its count is known to be whole. It counts each
//! execution's events from 1, in memory; each number belongs to an event that the brokers have acknowledged. A batch that fails,
//! is refused in part or is given up may be there in part, and it ends its source: the next batch, which may be the same events
//! again, has a new one. So does the next life of the process. Within one source nothing is numbered twice or left out, but for
//! what was refused, which is in the dead letters with its number and of which the caller is told.
//!
//! An event that is published again has the same id and another source. Readers keep the first.

use std::{collections::HashMap, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use podherald_core::event::Draft;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Publisher, Rejection};
use crate::{
    journal::{Frames, Record},
    sink::{Fault, Sink},
};

/// Executions that one source counts at most; then it is done, and the next one begins.
const COUNTED: usize = 10_000;

/// Numbers events and has a sink carry them, one batch at a time.
pub struct Direct {
    sink: Arc<dyn Sink>,
    numbers: Mutex<Numbers>,
}

impl Direct {
    /// A publisher by way of this sink, which nobody else gives anything to.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, numbers: Mutex::new(Numbers::new()) }
    }

    async fn carry(&self, events: Vec<Draft>) -> Result<Vec<Rejection>, Fault> {
        let mut numbers = self.numbers.lock().await;
        if !numbers.are_whole || numbers.counts.len() >= COUNTED {
            *numbers = Numbers::new();
        }
        // A future that is dropped leaves it so.
        numbers.are_whole = false;
        let ids: Vec<Uuid> = events.iter().map(|draft| draft.event_id).collect();
        let number = |(place, draft)| Arc::new(numbers.number(draft, place));
        let records: Vec<Arc<Record>> = (1..).zip(events).map(number).collect();
        let refused = self.sink.deliver(&records).await?;
        numbers.are_whole = refused.is_empty();
        let rejection = |(record, event_id): (&Arc<Record>, Uuid)| {
            let refusal = refused.iter().find(|refusal| refusal.position == record.position)?;
            Some(Rejection { event_id, reason: refusal.reason.clone() })
        };
        Ok(records.iter().zip(ids).filter_map(rejection).collect())
    }
}

impl Publisher for Direct {
    fn publish(&self, events: Vec<Draft>) -> BoxFuture<'_, Result<Vec<Rejection>, Fault>> {
        self.carry(events).boxed()
    }
}

/// The count of one epoch.
struct Numbers {
    epoch: Uuid,
    /// By source and execution.
    counts: HashMap<(String, String), u64>,
    /// All that was counted is acknowledged.
    are_whole: bool,
}

impl Numbers {
    fn new() -> Self {
        Self { epoch: Uuid::now_v7(), counts: HashMap::new(), are_whole: true }
    }

    /// The event with its number, at this place of its batch.
    fn number(&mut self, draft: Draft, place: u64) -> Record {
        let source = format!("{}:{}", draft.metadata.service_name, self.epoch);
        let seq = self.counts.entry((source.clone(), draft.execution_id.clone())).or_default();
        *seq += 1;
        let event = draft.number(&source, *seq);
        Record {
            position: place,
            execution_id: event.execution_id.as_str().into(),
            about: Arc::default(),
            event_type: event.payload.event_type(),
            attempt: event.attempt,
            source: source.into(),
            seq: event.seq,
            status: None,
            told: false,
            recalled: false,
            version: Arc::default(),
            bytes: event.to_bytes().into(),
            frames: Frames::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;
    use crate::{
        publisher::conformance::{self, draft},
        sink::{Item, memory::Memory},
    };

    struct Far {
        publisher: Arc<Direct>,
        memory: Memory,
    }

    async fn open() -> Far {
        let memory = Memory::default();
        Far { publisher: Arc::new(Direct::new(Arc::new(memory.clone()))), memory }
    }

    impl conformance::Far for Far {
        fn publisher(&self) -> Arc<dyn Publisher> {
            self.publisher.clone()
        }
        fn published(&self) -> BoxFuture<'_, Vec<Bytes>> {
            async { self.memory.far().arrived.iter().map(Item::bytes).collect() }.boxed()
        }
        fn leave(&mut self) -> BoxFuture<'_, ()> {
            self.memory.far().down = Some("away".to_owned());
            async {}.boxed()
        }
        fn come_back(&mut self) -> BoxFuture<'_, ()> {
            self.memory.far().down = None;
            async {}.boxed()
        }
    }

    conformance::suite!(open);

    #[tokio::test]
    async fn a_source_ends_with_a_batch_that_is_not_wholly_there() {
        let far = open().await;
        let publish = |n: u32| far.publisher.publish(vec![draft(n), draft(n + 1)]);
        publish(1).await.unwrap();
        publish(3).await.unwrap();
        far.memory.far().breaks_after = Some(1);
        publish(5).await.unwrap_err();
        publish(5).await.unwrap();
        far.memory.far().rejects = [2].into();
        let rejected = publish(7).await.unwrap();
        assert_eq!(rejected.iter().map(|rejection| rejection.event_id).collect::<Vec<_>>(), [draft(8).event_id]);
        far.memory.far().rejects.clear();
        publish(9).await.unwrap();
        assert!(publish(11).now_or_never().is_none(), "it is given up");
        publish(11).await.unwrap();
        let arrived = far.memory.far().arrived.clone();
        let numbers = arrived.iter().map(|item| match item {
            Item::Event(record) => (record.seq, record.source.clone()),
            Item::Gap(gap) => panic!("nobody misses {gap:?}"),
        });
        let (counted, sources): (Vec<_>, BTreeSet<_>) = numbers.unzip();
        assert_eq!(counted, [1, 2, 3, 4, 5, 1, 2, 3, 1, 2, 1, 2]);
        assert_eq!(sources.len(), 4);
    }
}
