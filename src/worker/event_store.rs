//! Keeps every event, and the executions that they fold into.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};

use super::{Failure, Work};
use crate::{
    inbox::Message,
    store::{Arrival, Store},
};

/// Its consumer group.
pub const GROUP: &str = "event-store";

/// See the module.
pub struct EventStore {
    /// Where events are kept.
    pub store: Arc<dyn Store>,
}

impl EventStore {
    async fn keep(&self, message: &Message) -> Result<(), Failure> {
        let Message { place, offset, about, bytes, .. } = message;
        let arrival = Arrival::read(place.clone(), *offset, about.clone(), bytes.clone()).map_err(Failure::Unfit)?;
        self.store.append(vec![arrival]).await.map_err(|error| Failure::Away(error.to_string()))?;
        Ok(())
    }
}

impl Work for EventStore {
    fn name(&self) -> &'static str {
        GROUP
    }

    fn process<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        self.keep(message).boxed()
    }
}
