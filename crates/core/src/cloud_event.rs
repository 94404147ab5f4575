//! An event as a CloudEvent 1.0: the attributes that stand beside its bytes, wherever it is sent.
//!
//! The data of the CloudEvent are the event's own bytes, unchanged. `subject` and `partitionkey` are the execution, the
//! extension `sequence` is `seq` in 20 digits (it must sort as text), `traceparent` is made from the ids, so that an event
//! that comes again is the same to the last byte.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// `datacontenttype` of every event.
pub const DATA_CONTENT_TYPE: &str = "application/json";
/// Media type of [`Envelope::structured`].
pub const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json";

/// What the attributes are, in the order of [`Envelope::attributes`].
pub const ATTRIBUTES: [(&str, &str); 9] = [
    ("specversion", "Always 1.0."),
    ("id", "`event_id`: an event that comes again has it again."),
    ("source", "`source`."),
    ("type", "`event_type`."),
    ("subject", "`execution_id`."),
    ("time", "`timestamp`."),
    ("sequence", "`seq` in 20 digits, so that it sorts as text."),
    ("partitionkey", "`execution_id`."),
    ("traceparent", "W3C Trace Context, made of ids: that of the correlation id where it names a trace."),
];

/// What of an event's bytes the attributes are made of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Envelope<'a> {
    /// `event_id`.
    pub event_id: Uuid,
    /// `event_type`.
    #[serde(borrow)]
    pub event_type: Cow<'a, str>,
    /// `timestamp`, as it is written.
    #[serde(borrow)]
    pub timestamp: Cow<'a, str>,
    /// `execution_id`.
    #[serde(borrow)]
    pub execution_id: Cow<'a, str>,
    /// `source`.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// `seq`.
    pub seq: u64,
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    correlation_id: Option<Cow<'a, str>>,
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of an event.
    ///
    /// # Errors
    /// The bytes are no event.
    pub fn parse(event: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(event)
    }

    /// Name and value of each attribute, names without any prefix; `datacontenttype` is not among them.
    pub fn attributes(&self) -> [(&'static str, Cow<'_, str>); ATTRIBUTES.len()] {
        [
            ("specversion", Cow::Borrowed("1.0")),
            ("id", Cow::Owned(self.event_id.to_string())),
            ("source", Cow::Borrowed(&*self.source)),
            ("type", Cow::Borrowed(&*self.event_type)),
            ("subject", Cow::Borrowed(&*self.execution_id)),
            ("time", Cow::Borrowed(&*self.timestamp)),
            ("sequence", Cow::Owned(format!("{:020}", self.seq))),
            ("partitionkey", Cow::Borrowed(&*self.execution_id)),
            ("traceparent", Cow::Owned(self.traceparent())),
        ]
    }

    /// The CloudEvent as one JSON object, with these bytes (those that were parsed) as its `data`.
    ///
    /// # Errors
    /// The bytes are no JSON.
    pub fn structured(&self, event: &'a [u8]) -> Result<Vec<u8>, serde_json::Error> {
        structured(&self.attributes(), event)
    }

    /// W3C Trace Context. The trace is that of the correlation id where it names one (32 hex digits or a `traceparent`),
    /// else the execution's own; not sampled, for podherald itself sends no spans.
    fn traceparent(&self) -> String {
        let named = self.metadata.correlation_id.as_deref().and_then(trace_id);
        let trace = named.unwrap_or_else(|| {
            Uuid::new_v5(&crate::event::EVENT_NAMESPACE, self.execution_id.as_bytes()).simple().to_string()
        });
        let span = self.event_id.simple().to_string();
        format!("00-{trace}-{}-00", &span[16..])
    }
}

/// A CloudEvent with these attributes as one JSON object, with these bytes as its `data`.
///
/// # Errors
/// The bytes are no JSON.
pub fn structured(attributes: &[(&str, Cow<'_, str>)], data: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Structured<'a> {
        #[serde(flatten)]
        attributes: Attributes<'a>,
        datacontenttype: &'static str,
        data: &'a RawValue,
    }
    let (attributes, data) = (Attributes(attributes), serde_json::from_slice(data)?);
    serde_json::to_vec(&Structured { attributes, datacontenttype: DATA_CONTENT_TYPE, data })
}

struct Attributes<'a>(&'a [(&'a str, Cow<'a, str>)]);

impl Serialize for Attributes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn trace_id(correlation_id: &str) -> Option<String> {
    let id = match correlation_id.split('-').collect::<Vec<_>>()[..] {
        [id] | ["00", id, _, _] => id,
        _ => return None,
    };
    let is_hex = id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (id.len() == 32 && is_hex && id.bytes().any(|byte| byte != b'0')).then(|| id.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(correlation_id: Option<&str>) -> Vec<u8> {
        let event = json!({
            "event_id": "d893f9ae-d80c-593e-9ed1-c3d00c7cd966",
            "event_type": "execution_started",
            "event_version": "1.0",
            "timestamp": "2026-11-25T21:59:19.000000Z",
            "execution_id": "e\"1",
            "attempt": 1,
            "source": "pod-monitor:019a",
            "seq": 3,
            "metadata": {"service_name": "pod-monitor", "correlation_id": correlation_id},
        });
        serde_json::to_vec(&event).unwrap()
    }

    #[test]
    fn the_attributes_are_those_of_the_envelope() {
        let bytes = event(None);
        let attributes = Envelope::parse(&bytes).unwrap();
        let attributes = attributes.attributes();
        let told: Vec<(&str, &str)> = attributes.iter().map(|(name, value)| (*name, &**value)).collect();
        let trace = Uuid::new_v5(&crate::event::EVENT_NAMESPACE, b"e\"1").simple().to_string();
        let traceparent = format!("00-{trace}-9ed1c3d00c7cd966-00");
        let expected = [
            ("specversion", "1.0"),
            ("id", "d893f9ae-d80c-593e-9ed1-c3d00c7cd966"),
            ("source", "pod-monitor:019a"),
            ("type", "execution_started"),
            ("subject", "e\"1"),
            ("time", "2026-11-25T21:59:19.000000Z"),
            ("sequence", "00000000000000000003"),
            ("partitionkey", "e\"1"),
            ("traceparent", &traceparent),
        ];
        assert_eq!(told, expected);
        assert_eq!(ATTRIBUTES.map(|(name, _)| name), expected.map(|(name, _)| name));
    }

    #[test]
    fn the_structured_form_holds_the_event_as_it_is() {
        let bytes = event(None);
        let structured = Envelope::parse(&bytes).unwrap().structured(&bytes).unwrap();
        let text = str::from_utf8(&structured).unwrap();
        assert!(text.contains(str::from_utf8(&bytes).unwrap()), "{text}");
        let value: Value = serde_json::from_slice(&structured).unwrap();
        assert_eq!(value["specversion"], "1.0");
        assert_eq!(value["datacontenttype"], "application/json");
        assert_eq!(value["data"]["seq"], 3);
    }

    #[test]
    fn a_correlation_id_that_is_a_trace_is_continued() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("00-{trace}-00f067aa0ba902b7-01");
        for correlation_id in [trace, &parent] {
            let bytes = event(Some(correlation_id));
            assert!(Envelope::parse(&bytes).unwrap().traceparent().starts_with(&format!("00-{trace}-9ed1")));
        }
        let of_execution = Envelope::parse(&event(None)).unwrap().traceparent();
        for no_trace in ["order-7", "4BF92F3577B34DA6A3CE929D0E0E4736", &"0".repeat(32), "é"] {
            assert_eq!(Envelope::parse(&event(Some(no_trace))).unwrap().traceparent(), of_execution, "{no_trace}");
        }
    }
}
