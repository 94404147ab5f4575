//! What an operator can do about an endpoint.

use podherald_core::gap;

use super::{
    Endpoint,
    answers::{OperationError, Redelivery, Skip},
    endpoint::SKIPPED,
    message::Message,
    store::{Delivery, Error as StoreError},
};
use crate::{journal::EventQuery, sink::Item, wording};

/// Where an event of the log of deliveries is.
enum Place {
    Unknown,
    Gone(Delivery),
    Kept(Delivery, Item),
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
        let event = match self.place(event_id).await? {
            Place::Unknown => return Ok(Redelivery::Unknown),
            Place::Gone(_) => return Ok(Redelivery::Gone),
            Place::Kept(_, event) => event,
        };
        let secrets = match self.options.secrets().await {
            Ok(secrets) => secrets,
            Err(error) => return Ok(Redelivery::Impossible(wording::of(&error))),
        };
        let message = match Message::of(&event, self.options.mode) {
            Ok(message) if message.event_id == event_id => message,
            Ok(_) => return Ok(Redelivery::Gone),
            Err(reason) => return Ok(Redelivery::Impossible(reason)),
        };
        let (_, delivery) = self.attempt(&event, &message, &secrets, true).await;
        Ok(Redelivery::Sent(delivery))
    }

    /// Leaves out an event that the endpoint does not take, so that what follows it is sent at once, or once it is enabled.
    ///
    /// # Errors
    /// The log or the journal cannot be read or written; nothing has changed.
    pub async fn skip(&self, event_id: &str) -> Result<Skip, OperationError> {
        let _turn = self.operating.lock().await;
        let last = match self.place(event_id).await? {
            Place::Unknown => return Ok(Skip::Unknown),
            // A gap is where nothing is.
            Place::Gone(last) if last.event_type != gap::EVENT_TYPE => return Ok(Skip::Gone),
            Place::Gone(last) | Place::Kept(last, _) => last,
        };
        let position = last.position;
        if self.state().is_done_with(position) {
            return Ok(Skip::Done);
        }
        if self.state().skipped.contains_key(&position) {
            return Ok(Skip::Skipped(last));
        }
        let name = &self.options.name;
        self.means.store.skip(name, position, event_id).await?;
        self.state().skipped.insert(position, event_id.to_owned());
        tracing::warn!(webhook = name, event_id, position, "the event is skipped over the API");
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
        Ok(match record {
            Some(record) => Place::Kept(last, Item::Event(record)),
            None => Place::Gone(last),
        })
    }
}
