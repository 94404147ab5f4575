//! A sink in memory, whose far side does what a test wants.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::sleep;

use super::{Fault, Item, Rejection, Sink, conformance::MAX_BYTES};

/// See the module. Clones share the far side.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Far>>);

/// What has arrived, and how the far side behaves.
#[derive(Default)]
pub(crate) struct Far {
    pub(crate) arrived: Vec<Item>,
    /// Sizes of the batches that came, carried or not.
    pub(crate) batches: Vec<usize>,
    /// Why it takes nothing.
    pub(crate) down: Option<String>,
    /// So many items of the next batch arrive, and then it fails.
    pub(crate) breaks_after: Option<usize>,
    /// Time that each batch takes.
    pub(crate) pause: Duration,
    /// Positions that it can never take.
    pub(crate) rejects: BTreeSet<u64>,
    /// More items at once than it ever takes.
    pub(crate) too_many: Option<usize>,
}

impl Memory {
    pub(crate) fn far(&self) -> MutexGuard<'_, Far> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, items: &[Item]) -> Result<Vec<Rejection>, Fault> {
        let mut far = self.far();
        far.batches.push(items.len());
        if let Some(reason) = &far.down {
            return Err(Fault(reason.clone()));
        }
        if far.too_many.is_some_and(|too_many| items.len() >= too_many) {
            return Err(Fault("too many at once".to_owned()));
        }
        let breaks_after = far.breaks_after.take();
        let mut rejections = Vec::new();
        for item in &items[..breaks_after.unwrap_or(items.len())] {
            match rejection(&far, item) {
                Some(reason) => rejections.push(Rejection { position: item.position(), reason }),
                None => far.arrived.push(item.clone()),
            }
        }
        if breaks_after.is_some() { Err(Fault("it broke off".to_owned())) } else { Ok(rejections) }
    }
}

fn rejection(far: &Far, item: &Item) -> Option<String> {
    if far.rejects.contains(&item.position()) {
        return Some("the test rejects it".to_owned());
    }
    if item.bytes().len() > MAX_BYTES {
        return Some(format!("more than {MAX_BYTES} bytes"));
    }
    let readable = serde_json::from_slice::<serde::de::IgnoredAny>(&item.bytes());
    readable.err().map(|error| error.to_string())
}

impl Sink for Memory {
    fn carry<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Result<Vec<Rejection>, Fault>> {
        async {
            if items.is_empty() {
                return Ok(Vec::new());
            }
            let pause = self.far().pause;
            if pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                sleep(pause).await;
            }
            self.take(items)
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
    use crate::sink::{Item, Sink, conformance};

    impl conformance::Far for Memory {
        fn sink(&self) -> Arc<dyn Sink> {
            Arc::new(self.clone())
        }
        fn arrived(&self) -> BoxFuture<'_, Vec<Bytes>> {
            async { self.far().arrived.iter().filter(is_event).map(Item::bytes).collect() }.boxed()
        }
        fn gaps(&self) -> BoxFuture<'_, Vec<Bytes>> {
            async { self.far().arrived.iter().filter(|item| !is_event(item)).map(Item::bytes).collect() }.boxed()
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

    fn is_event(item: &&Item) -> bool {
        matches!(item, Item::Event(_))
    }

    async fn open() -> Memory {
        Memory::default()
    }

    conformance::suite!(open);
}
