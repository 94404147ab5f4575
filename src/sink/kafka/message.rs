//! What one event becomes in a topic: a CloudEvent 1.0 in binary mode.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use podherald_core::{
    cloud_event::{DATA_CONTENT_TYPE, Envelope},
    gap::{self, Gap},
    topic::Topic,
};
use rdkafka::message::{Header, OwnedHeaders};

use super::NAME;
use crate::{contract::DEAD_LETTER_HEADERS, journal::Record, sink::Item};

/// Of a record's numbers and lengths in Kafka's format at most, ...
const RECORD_OVERHEAD: usize = 36;
/// ... of each header's, ...
const HEADER_OVERHEAD: usize = 10;
/// ... and of the batch that it may be alone in.
const BATCH_OVERHEAD: usize = 61;

/// The uid of the Lease for which a message was published, where several podheralds take turns.
pub(crate) const LEASE_HEADER: &str = "podherald-lease";

/// A message, ready to be handed over.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Of the event in the journal.
    pub(super) position: u64,
    /// With the prefix.
    pub(super) topic: Arc<str>,
    /// The execution, or a gap's source: what is of one is in one partition, in order.
    pub(super) key: Arc<str>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// The event as it is in the journal.
    pub(super) payload: Bytes,
}

impl Message {
    /// The message of an item, or why there can be none.
    pub(super) fn of(item: &Item, topics: &Names, lease: Option<&str>) -> Result<Self, String> {
        match item {
            Item::Event(record) => Self::of_event(record, topics, lease),
            Item::Gap(gap) => Ok(Self::of_gap(gap, topics, lease)),
        }
    }

    fn of_event(record: &Record, topics: &Names, lease: Option<&str>) -> Result<Self, String> {
        let envelope =
            Envelope::parse(&record.bytes).map_err(|error| format!("it cannot be read as an event: {error}"))?;
        let topic = Topic::of(&envelope.event_type)
            .ok_or_else(|| format!("there is no topic for events of type {}", envelope.event_type))?;
        let about = record.about.attributes().into_iter().map(|(name, value)| (name, Cow::Owned(value)));
        let headers = headers(envelope.attributes().into_iter().chain(about), lease);
        let (key, payload) = (record.execution_id.clone(), record.bytes.clone());
        Ok(Self { position: record.position, topic: topics.of(topic), key, headers, payload })
    }

    fn of_gap(gap: &Gap, topics: &Names, lease: Option<&str>) -> Self {
        Self {
            position: gap.last,
            topic: topics.of(gap::TOPIC),
            key: gap.source.as_str().into(),
            headers: headers(gap.attributes(), lease),
            payload: gap.to_bytes().into(),
        }
    }

    /// An item that no message can be made of, as it is.
    pub(super) fn bare(item: &Item, topics: &Names) -> Self {
        let topic = topics.of(Topic::of(item.event_type()).unwrap_or(Topic::ExecutionEvents));
        Self { position: item.position(), topic, key: item.key(), headers: Vec::new(), payload: item.bytes() }
    }

    /// The same for the dead letter queue: bytes, key and headers as they were, and what became of it.
    pub(super) fn dead(&self, reason: &str, topics: &Names) -> Self {
        let mut dead = Self { topic: topics.of(Topic::DeadLetterQueue), ..self.clone() };
        let values = [reason, NAME, &self.topic, &self.position.to_string()];
        for ((name, _), value) in DEAD_LETTER_HEADERS.into_iter().zip(values) {
            dead.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        }
        dead
    }

    /// Bytes that it takes on the wire and on the broker's disk at most, uncompressed and alone in its batch.
    pub(super) fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD);
        BATCH_OVERHEAD + RECORD_OVERHEAD + self.key.len() + self.payload.len() + headers.sum::<usize>()
    }

    /// The headers as the client takes them.
    pub(super) fn native_headers(&self) -> OwnedHeaders {
        let headers = OwnedHeaders::new_with_capacity(self.headers.len());
        self.headers
            .iter()
            .fold(headers, |headers, (name, value)| headers.insert(Header { key: name, value: Some(value) }))
    }
}

/// Binary mode, and who publishes.
fn headers<'a>(
    attributes: impl IntoIterator<Item = (&'static str, Cow<'a, str>)>,
    lease: Option<&str>,
) -> Vec<(String, Vec<u8>)> {
    let mut headers = vec![("content-type".to_owned(), DATA_CONTENT_TYPE.as_bytes().to_vec())];
    for (name, value) in attributes {
        if name == "traceparent" {
            headers.push((name.to_owned(), value.as_bytes().to_vec()));
        }
        headers.push((format!("ce_{name}"), value.into_owned().into_bytes()));
    }
    headers.extend(lease.map(|lease| (LEASE_HEADER.to_owned(), lease.as_bytes().to_vec())));
    headers
}

/// The names of all topics, each with the prefix.
#[derive(Debug, Clone)]
pub(crate) struct Names([Arc<str>; Topic::ALL.len()]);

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self(Topic::ALL.map(|topic| format!("{prefix}{}", topic.name()).into()))
    }

    pub(crate) fn of(&self, topic: Topic) -> Arc<str> {
        let index = Topic::ALL.iter().position(|other| *other == topic);
        self.0[index.expect("`Topic::ALL` has all topics")].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::conformance::record;

    #[test]
    fn a_message_is_the_cloud_event_in_binary_mode() {
        let record = record(3, "half way");
        let message = Message::of(&Item::Event(record.clone()), &Names::new("lab."), None).unwrap();
        assert_eq!((&*message.topic, &*message.key, &message.payload), ("lab.execution_events", "e", &record.bytes));
        let names: Vec<&str> = message.headers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(
            names,
            [
                "content-type",
                "ce_specversion",
                "ce_id",
                "ce_source",
                "ce_type",
                "ce_subject",
                "ce_time",
                "ce_sequence",
                "ce_partitionkey",
                "traceparent",
                "ce_traceparent",
                "ce_namespace"
            ]
        );
        let dead = message.dead("too large", &Names::new("lab."));
        assert_eq!((&*dead.topic, &dead.payload), ("lab.dead_letter_queue", &record.bytes));
        assert_eq!(dead.headers[..names.len()], message.headers);
        assert_eq!(dead.headers[names.len()].0, "dlq-reason");
    }

    #[test]
    fn a_gap_is_a_message_of_the_executions_topic_and_of_no_execution() {
        let gap = Arc::new(Gap::new("epoch", NAME, 3..=7, jiff::Timestamp::UNIX_EPOCH));
        let message = Message::of(&Item::Gap(gap.clone()), &Names::new("lab."), Some("uid")).unwrap();
        assert_eq!((&*message.topic, &*message.key, message.position), ("lab.execution_events", "podherald:epoch", 7));
        assert_eq!(message.payload, gap.to_bytes());
        let header = |name: &str| message.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value);
        assert_eq!([header("ce_type"), header("ce_subject")], [Some(&b"podherald.gap"[..]), Some(b"kafka")]);
        assert_eq!([header(LEASE_HEADER), header("traceparent")], [Some(&b"uid"[..]), None]);
    }
}
