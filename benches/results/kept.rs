//! Events kept a second: by the role, as many at a time as it does, beside plain inserts of as many bytes by the driver alone, with the
//! same promise. Each event is folded into its execution and its attempt besides.

use std::sync::Arc;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use podherald::{
    store::{Store, sqlite::Sqlite},
    worker::{
        Work,
        event_store::{self, EventStore},
    },
};
use podherald_core::{
    event::{Event, Payload, Slot, event_id},
    execution::Status,
};

use crate::{
    Sizes, end,
    stored::{compare, insert_documents, insert_rows, message, migrated},
};

/// Of an output.
const OUTPUT: usize = 256;

pub(crate) async fn measure(sizes: &Sizes, mongo: Option<&String>) {
    let lives = sizes.lives;
    let life = life("an-execution");
    let (count, bytes) =
        (lives * life.len(), life.iter().map(|event| event.to_bytes().len()).sum::<usize>() / life.len());
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&dir.path().join("store.db")).await.unwrap());
    let alone = async |_| insert_rows(dir.path(), bytes, count).await;
    let by_role = async |store, round| keep(store, round, lives).await;
    compare("embedded", sizes.rounds, count, alone, async |_| store.clone(), by_role).await;
    let Some(uri) = mongo else { return };
    let database = |round| format!("kept_{round}");
    let alone = async |round| insert_documents(uri, &format!("{}_alone", database(round)), bytes, count).await;
    let open = async |round| migrated(uri, database(round)).await;
    compare("MongoDB", sizes.rounds, count, alone, open, by_role).await;
}

/// The events of one execution come one after the other.
async fn keep(store: Arc<dyn Store>, round: usize, lives: usize) {
    let keeper = EventStore::new(store);
    let kept = stream::iter(0..lives).for_each_concurrent(event_store::CONCURRENCY, |n| {
        let (keeper, events) = (&keeper, life(&format!("kept-{round}-{n}")));
        async move {
            for (event, offset) in events.iter().zip(0..) {
                keeper.process(&message(event, offset)).await.unwrap();
            }
        }
    });
    kept.await;
}

fn life(id: &str) -> [Event; 3] {
    let pod_name = "pod".to_owned();
    let ended = end(id, Timestamp::UNIX_EPOCH, Status::Completed, OUTPUT);
    let before = |slot, payload| Event { event_id: event_id(id, "key", slot), payload, ..ended.clone() };
    let scheduled = Payload::PodScheduled { pod_name: pod_name.clone(), node_name: None };
    let started = Payload::ExecutionStarted { pod_name, node_name: None, container_id: None };
    [before(Slot::PodScheduled, scheduled), before(Slot::Started, started), ended]
}
