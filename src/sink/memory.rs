//! A sink in memory, whose far side does what a test wants.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::sleep;

use super::{Fault, Rejection, Sink, conformance::MAX_BYTES};
use crate::journal::Record;

/// See the module. Clones share the far side.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Far>>);

/// What has arrived, and how the far side behaves.
#[derive(Default)]
pub(crate) struct Far {
    pub(crate) arrived: Vec<Arc<Record>>,
    /// Sizes of the batches that came, carried or not.
    pub(crate) batches: Vec<usize>,
    /// Why it takes nothing.
    pub(crate) down: Option<String>,
    /// So many records of the next batch arrive, and then it fails.
    pub(crate) breaks_after: Option<usize>,
    /// Time that each batch takes.
    pub(crate) pause: Duration,
    /// Positions that it can never take.
    pub(crate) rejects: BTreeSet<u64>,
    /// More records at once than it ever takes.
    pub(crate) too_many: Option<usize>,
}

impl Memory {
    pub(crate) fn far(&self) -> MutexGuard<'_, Far> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, records: &[Arc<Record>]) -> Result<Vec<Rejection>, Fault> {
        let mut far = self.far();
        far.batches.push(records.len());
        if let Some(reason) = &far.down {
            return Err(Fault(reason.clone()));
        }
        if far.too_many.is_some_and(|too_many| records.len() >= too_many) {
            return Err(Fault("too many at once".to_owned()));
        }
        let breaks_after = far.breaks_after.take();
        let mut rejections = Vec::new();
        for record in &records[..breaks_after.unwrap_or(records.len())] {
            match rejection(&far, record) {
                Some(reason) => rejections.push(Rejection { position: record.position, reason }),
                None => far.arrived.push(record.clone()),
            }
        }
        if breaks_after.is_some() { Err(Fault("it broke off".to_owned())) } else { Ok(rejections) }
    }
}

fn rejection(far: &Far, record: &Record) -> Option<String> {
    if far.rejects.contains(&record.position) {
        return Some("the test rejects it".to_owned());
    }
    if record.bytes.len() > MAX_BYTES {
        return Some(format!("more than {MAX_BYTES} bytes"));
    }
    let readable = serde_json::from_slice::<serde::de::IgnoredAny>(&record.bytes);
    readable.err().map(|error| error.to_string())
}

impl Sink for Memory {
    fn deliver<'a>(&'a self, records: &'a [Arc<Record>]) -> BoxFuture<'a, Result<Vec<Rejection>, Fault>> {
        async {
            if records.is_empty() {
                return Ok(Vec::new());
            }
            let pause = self.far().pause;
            if pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                sleep(pause).await;
            }
            self.take(records)
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Fault>> {
        async { self.far().down.clone().map_or(Ok(()), |reason| Err(Fault(reason))) }.boxed()
    }
}

mod contract {
    use bytes::Bytes;
    use futures::{FutureExt, future::BoxFuture};

    use super::{Arc, Memory};
    use crate::sink::{Sink, conformance};

    impl conformance::Far for Memory {
        fn sink(&self) -> Arc<dyn Sink> {
            Arc::new(self.clone())
        }
        fn arrived(&self) -> BoxFuture<'_, Vec<Bytes>> {
            async { self.far().arrived.iter().map(|record| record.bytes.clone()).collect() }.boxed()
        }
        fn leave(&mut self) -> BoxFuture<'_, ()> {
            self.far().down = Some("away".to_owned());
            async {}.boxed()
        }
        fn come_back(&mut self) -> BoxFuture<'_, ()> {
            let mut far = self.far();
            far.down = None;
            far.arrived.clear();
            async {}.boxed()
        }
    }

    async fn open() -> Memory {
        Memory::default()
    }

    conformance::suite!(open);
}
