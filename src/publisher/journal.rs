//! Without Kafka all roles share one process, and what they publish goes where the monitor's events are.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use podherald_core::event::Draft;

use super::{Publisher, Rejection};
use crate::{journal::Journal, sink::Fault};

/// Publishes to the journal, which numbers events in the transaction that makes them durable. An event that it knows leaves
/// no trace when it comes again.
pub struct Journaled(Arc<dyn Journal>);

impl Journaled {
    /// A publisher to this journal.
    pub fn new(journal: Arc<dyn Journal>) -> Self {
        Self(journal)
    }
}

impl Publisher for Journaled {
    fn publish(&self, events: Vec<Draft>) -> BoxFuture<'_, Result<Vec<Rejection>, Fault>> {
        async {
            let told = self.0.tell(events).await;
            told.map(|()| Vec::new()).map_err(|error| Fault(error.to_string()))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use futures::{FutureExt, future::BoxFuture};
    use tempfile::TempDir;

    use super::{Journaled, Publisher};
    use crate::{
        journal::{Journal, Options, Sqlite},
        publisher::conformance,
    };

    struct Local {
        journal: Arc<Sqlite>,
        dir: TempDir,
    }

    async fn journal(dir: &TempDir) -> Arc<Sqlite> {
        Sqlite::open(Options { path: dir.path().join("journal.db"), ..Options::default() }).await.unwrap()
    }

    async fn open() -> Local {
        let dir = TempDir::new().unwrap();
        Local { journal: journal(&dir).await, dir }
    }

    impl conformance::Far for Local {
        fn publisher(&self) -> Arc<dyn Publisher> {
            Arc::new(Journaled::new(self.journal.clone()))
        }
        fn published(&self) -> BoxFuture<'_, Vec<Bytes>> {
            async {
                let records = self.journal.execution_events("e".into(), 0, 1000).await.unwrap();
                records.iter().map(|record| record.bytes.clone()).collect()
            }
            .boxed()
        }
        fn leave(&mut self) -> BoxFuture<'_, ()> {
            self.journal.close()
        }
        fn come_back(&mut self) -> BoxFuture<'_, ()> {
            async { self.journal = journal(&self.dir).await }.boxed()
        }
    }

    conformance::suite!(open);
}
