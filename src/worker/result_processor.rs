//! Keeps what each attempt came to, and says so.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use podherald_core::{
    event::{Draft, Event, Metadata, Payload, Slot, StorageType, StoredResult, event_id},
    mapper::result_uri,
};
use serde::Deserialize;

use super::{Failure, Work, metrics::Metrics};
use crate::{
    clock::Clock,
    crash,
    inbox::Message,
    publisher::{Publisher, Rejection},
    store::{Outcome, Store, Stored},
};

/// Its consumer group.
pub const GROUP: &str = "result-processor-group";
/// `service_name` of its events.
const SERVICE: &str = "result-processor";

/// See the module.
pub struct ResultProcessor {
    /// Where results are kept.
    pub store: Arc<dyn Store>,
    /// Where it says so.
    pub publisher: Arc<dyn Publisher>,
    /// What is counted.
    pub metrics: Metrics,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

impl ResultProcessor {
    async fn keep(&self, message: &Message) -> Result<(), Failure> {
        let event: Event = match serde_json::from_slice(&message.bytes) {
            Ok(event) => event,
            // Whoever knows the type has to know all of it; what is of no type here is of no attempt's end.
            Err(error) if ends_an_attempt(&message.event_type) => {
                let reason = format!("it cannot be read as a {}: {error}", message.event_type);
                return Err(self.give_up(message, reason).await);
            }
            Err(_) => return Ok(()),
        };
        let Some(outcome) = Outcome::of(&event) else { return Ok(()) };
        let status = outcome.status.as_str();
        crash::at(crash::Point::Store);
        let kept = self.store.put_result(outcome).await.map_err(|error| Failure::Away(error.to_string()))?;
        crash::at(crash::Point::Tell);
        match kept {
            Stored::First => {
                if let Some(terminal) = event.payload.terminal() {
                    self.metrics.stored(status, &message.about.labels, terminal);
                }
            }
            // It may have been kept by one that died before it said so.
            Stored::Again => {}
            Stored::Other { event_id } => {
                let (execution_id, attempt) = (&event.execution_id, event.attempt);
                tracing::warn!(execution_id, attempt, first = %event_id, later = %event.event_id, "an attempt has ended by two events, the first one stays");
                return Ok(());
            }
        }
        self.tell(&event).await?;
        crash::at(crash::Point::Acknowledge);
        let since = self.clock.now().duration_since(event.timestamp);
        self.metrics.told(since.try_into().unwrap_or_default());
        Ok(())
    }

    /// Once the result is kept.
    async fn tell(&self, event: &Event) -> Result<(), Failure> {
        let Some(draft) = stored(event, true) else { return Ok(()) };
        for draft in [Some(draft), stored(event, false)].into_iter().flatten() {
            let rejected = self.publisher.publish(vec![draft]).await.map_err(|fault| Failure::Away(fault.0))?;
            let Some(rejection) = rejected.first() else { return Ok(()) };
            let (execution_id, reason) = (&event.execution_id, &rejection.reason);
            tracing::warn!(execution_id, reason, "a stored result cannot be told with its output");
        }
        Err(Failure::Unfit("that its result is stored cannot be published".to_owned()))
    }

    /// Whoever waits for the result hears at the first of the tries that there will be none.
    async fn give_up(&self, message: &Message, reason: String) -> Failure {
        if message.tries > 1 {
            return Failure::Unfit(reason);
        }
        let (execution_id, event_id) = (&*message.execution_id, message.event_id);
        let Some(draft) = failed(message, &reason) else {
            self.metrics.failed();
            tracing::warn!(execution_id, %event_id, "a result cannot be kept, and nobody is told: its event names no attempt");
            return Failure::Unfit(reason);
        };
        let rejected = match self.publisher.publish(vec![draft]).await {
            Ok(rejected) => rejected,
            Err(fault) => return Failure::Away(fault.0),
        };
        self.metrics.failed();
        if let Some(Rejection { reason, .. }) = rejected.first() {
            tracing::warn!(execution_id, %event_id, reason, "that a result cannot be kept cannot be told");
        }
        Failure::Unfit(reason)
    }
}

/// Whose an event is, where that is all that can be read of it.
#[derive(Deserialize)]
struct Identity {
    #[serde(with = "podherald_core::time")]
    timestamp: Timestamp,
    attempt: u32,
    metadata: Metadata,
}

/// Says that what this message ended cannot be kept; nothing where nobody could tell whose it is.
fn failed(message: &Message, reason: &str) -> Option<Draft> {
    let Identity { timestamp, attempt, metadata } = serde_json::from_slice(&message.bytes).ok()?;
    let result_of = message.event_id;
    Some(Draft {
        event_id: event_id(&message.execution_id, &result_of.to_string(), Slot::ResultFailed),
        execution_id: message.execution_id.to_string(),
        attempt,
        timestamp,
        synthesized: false,
        metadata: of_this_service(&metadata),
        payload: Payload::ResultFailed { result_of, error: reason.to_owned() },
    })
}

fn of_this_service(metadata: &Metadata) -> Metadata {
    Metadata {
        service_name: SERVICE.to_owned(),
        service_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..metadata.clone()
    }
}

fn ends_an_attempt(event_type: &str) -> bool {
    matches!(event_type, "execution_completed" | "execution_failed" | "execution_timeout" | "execution_cancelled")
}

/// Says that what this event ended is stored, with its output or (where that is too large to be published) without.
fn stored(event: &Event, with_output: bool) -> Option<Draft> {
    let terminal = event.payload.terminal()?;
    let text = |text: &String| if with_output { text.clone() } else { String::new() };
    let Event { execution_id, attempt, timestamp, .. } = event;
    let payload = Payload::ResultStored(StoredResult {
        result_of: event.event_id,
        storage_type: StorageType::Database,
        storage_path: result_uri(execution_id, *attempt),
        size_bytes: (terminal.stdout.len() + terminal.stderr.len()) as u64,
        status: podherald_core::execution::Status::after(&event.payload)?,
        exit: terminal.exit,
        cause: terminal.cause.clone(),
        resource_usage: terminal.resource_usage.clone(),
        stdout: text(&terminal.stdout),
        stderr: text(&terminal.stderr),
        output: terminal.output.clone(),
    });
    Some(Draft {
        event_id: event_id(execution_id, &event.event_id.to_string(), Slot::ResultStored),
        execution_id: execution_id.clone(),
        attempt: *attempt,
        timestamp: *timestamp,
        synthesized: false,
        metadata: of_this_service(&event.metadata),
        payload,
    })
}

impl Work for ResultProcessor {
    fn name(&self) -> &'static str {
        GROUP
    }

    fn process<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        self.keep(message).boxed()
    }
}
