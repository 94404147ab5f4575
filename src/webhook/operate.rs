//! What an operator can do about an endpoint.

use std::sync::Arc;

use super::{
    Endpoint,
    answers::{OperationError, Redelivery, Skip},
    endpoint::SKIPPED,
    message::Message,
    store::{Delivery, Error as StoreError},
};
use crate::{
    journal::{EventQuery, Record},
    wording,
};

/// Where an event of the log of deliveries is.
enum Place {
    Unknown,
    Gone,
    Kept(Delivery, Arc<Record>),
}

impl Endpoint {
    /// Sends to it again, from where it stopped, and at once.
    ///
    /// # Errors
    /// That cannot be kept on disk; it holds until the process ends.
    pub async fn enable(&self) -> Result<(), StoreError> {
        self.change_standing(|state| state.start_anew());
        tracing::info!(webhook = self.options.name, "the webhook has been enabled");
        self.retried.notify_one();
        self.write_standing().await
    }

    /// Its attempts before this one, newest first.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn deliveries(&self, before: Option<u64>, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.means.store.deliveries(&self.options.name, before, limit).await
    }

    /// Sends an event of the log once more, whatever it was answered before; the cursor and the standing do not change.
    ///
    /// # Errors
    /// The log or the journal cannot be read.
    pub async fn redeliver(&self, event_id: &str) -> Result<Redelivery, OperationError> {
        let _turn = self.operating.lock().await;
        let record = match self.place(event_id).await? {
            Place::Unknown => return Ok(Redelivery::Unknown),
            Place::Gone => return Ok(Redelivery::Gone),
            Place::Kept(_, record) => record,
        };
        let secrets = match self.options.secrets().await {
            Ok(secrets) => secrets,
            Err(error) => return Ok(Redelivery::Impossible(wording::of(&error))),
        };
        let message = match Message::new(&record.bytes, self.options.mode) {
            Ok(message) if message.event_id == event_id => message,
            Ok(_) => return Ok(Redelivery::Gone),
            Err(reason) => return Ok(Redelivery::Impossible(reason)),
        };
        let (_, delivery) = self.attempt(&record, &message, &secrets, true).await;
        Ok(Redelivery::Sent(delivery))
    }

    /// Leaves out an event that the endpoint does not take, so that what follows it is sent at once, or once it is enabled.
    ///
    /// # Errors
    /// The log or the journal cannot be read or written; nothing has changed.
    pub async fn skip(&self, event_id: &str) -> Result<Skip, OperationError> {
        let _turn = self.operating.lock().await;
        let (last, record) = match self.place(event_id).await? {
            Place::Unknown => return Ok(Skip::Unknown),
            Place::Gone => return Ok(Skip::Gone),
            Place::Kept(last, record) => (last, record),
        };
        if self.state().is_done_with(record.position) {
            return Ok(Skip::Done);
        }
        if self.state().skipped.contains_key(&record.position) {
            return Ok(Skip::Skipped(last));
        }
        let name = &self.options.name;
        self.means.store.skip(name, record.position, event_id).await?;
        self.state().skipped.insert(record.position, event_id.to_owned());
        tracing::warn!(webhook = name, event_id, position = record.position, "the event is skipped over the API");
        let (at, error) = (self.means.clock.now(), Some(SKIPPED.to_owned()));
        let skipped = Delivery { at, duration_ms: 0, status: None, error, redelivery: false, ..last };
        let skipped = self.log(skipped).await;
        self.retried.notify_one();
        Ok(Skip::Skipped(skipped))
    }

    async fn place(&self, event_id: &str) -> Result<Place, OperationError> {
        let Some(last) = self.means.store.last(&self.options.name, event_id).await? else {
            return Ok(Place::Unknown);
        };
        let query = EventQuery { after: last.position.saturating_sub(1), limit: 1 };
        let found = self.means.journal.events(query).await?;
        let record = found.into_iter().next().filter(|record| record.position == last.position);
        Ok(record.map_or(Place::Gone, |record| Place::Kept(last, record)))
    }
}
