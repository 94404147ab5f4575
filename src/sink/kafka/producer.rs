//! A client of a Kafka, from its making to its end.
//!
//! Within one producer the messages of a partition arrive without a gap: those that a broker has of them are the first ones. That
//! takes one request at a time, for a broker checks no number of a producer that it hears for the first time.
//! Each producer begins with what is not acknowledged. So, whatever arrives late of an earlier one, what a partition has of
//! a key for the first time is in order.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::DeliveryResult,
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _, ProducerContext, PurgeConfig},
    types::RDKafkaErrorCode as Code,
};
use tokio::time::{sleep, timeout};

use super::{
    message::Message,
    wording::{Blame, blame},
};

/// Until there may be room again in the client's queue.
const NO_ROOM: Duration = Duration::from_millis(5);
/// How often a producer that has not reported everything is asked whether it still will.
const LOOK: Duration = Duration::from_millis(20);

/// What a client last complained of by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble(Arc<Mutex<Option<(Code, String)>>>);

impl Trouble {
    pub(crate) fn get(&self) -> Option<(Code, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Trouble {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // What is wrong with the sink is said once, by its relay.
            RDKafkaLogLevel::Debug => tracing::trace!(facility, message, "librdkafka"),
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down tells less than why.
        if code != Code::AllBrokersDown || last.is_none() {
            *last = Some((code, reason.to_owned()));
        }
    }
}

/// Hears nothing: for a client that is made only to see whether it can be.
pub(super) struct Deaf;

impl ClientContext for Deaf {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Deaf {
    type DeliveryOpaque = ();
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// One producer. It must end off the runtime's threads: [`Producer::end`].
pub(super) struct Producer {
    client: FutureProducer<Trouble>,
    trouble: Trouble,
}

impl Producer {
    /// Makes one that begins to connect. Blocks.
    pub(super) fn make(config: &ClientConfig) -> Result<Self, KafkaError> {
        let trouble = Trouble::default();
        Ok(Self { client: config.create_with_context(trouble.clone())?, trouble })
    }

    /// Makes one that publishes in transactions, and shuts out all earlier ones of this id. Blocks.
    pub(super) fn make_transactional(config: &ClientConfig, id: &str, timeout: Duration) -> Result<Self, KafkaError> {
        let mut config = config.clone();
        config.set("transactional.id", id);
        // The client refuses one that is longer than a transaction may take, and picks its own.
        config.remove("message.timeout.ms");
        let made = Self::make(&config)?;
        made.client.init_transactions(timeout)?;
        Ok(made)
    }

    /// Begins a transaction.
    pub(super) fn begin(&self) -> Result<(), KafkaError> {
        self.client.begin_transaction()
    }

    pub(super) fn trouble(&self) -> Option<(Code, String)> {
        self.trouble.get()
    }

    pub(super) fn client(&self) -> FutureProducer<Trouble> {
        self.client.clone()
    }

    /// True once it takes nothing any more.
    pub(super) fn is_fatal(&self) -> bool {
        self.client.client().fatal_error().is_some()
    }

    /// Hands all over and waits for what becomes of each.
    pub(super) async fn publish(&self, messages: &[Message]) -> Vec<Result<(), KafkaError>> {
        let mut handed = Vec::with_capacity(messages.len());
        for message in messages {
            let is_refused = matches!(handed.last(), Some(Err(error)) if blame(error) != Blame::Record);
            // None may go before one that the client itself did not take.
            handed.push(if is_refused { Err(KafkaError::Canceled) } else { self.hand_over(message).await });
        }
        let reports = handed.into_iter().map(async |handed| match handed?.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(error),
            Err(_) => Err(KafkaError::Canceled),
        });
        let mut reports = pin!(join_all(reports));
        loop {
            match timeout(LOOK, &mut reports).await {
                Ok(reports) => return reports,
                // A fatal producer empties its queue once; what was under way comes back into it later, and stays.
                Err(_) if self.is_fatal() => self.client.purge(PurgeConfig::default().queue().non_blocking()),
                Err(_) => {}
            }
        }
    }

    async fn hand_over(&self, message: &Message) -> Result<DeliveryFuture, KafkaError> {
        loop {
            let record = FutureRecord::to(&message.topic)
                .key(&*message.key)
                .payload(&message.payload[..])
                .headers(message.native_headers());
            match self.client.send_result(record) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(Code::QueueFull), _)) => sleep(NO_ROOM).await,
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Lets go of all that was handed over and not acknowledged. Blocks until nothing more is sent.
    pub(super) fn end(self) {
        drop(self);
    }
}
