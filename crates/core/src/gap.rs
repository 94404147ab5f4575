//! A gap: events that were gone before a sink had them.
//!
//! It is told in the place of what is missing, as a CloudEvent of a type of its own: it belongs to no execution, and nobody knows to
//! which those belonged that are gone.

use std::{borrow::Cow, ops::RangeInclusive};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    event::{EVENT_NAMESPACE, EVENT_VERSION},
    topic::Topic,
};

/// `event_type` of every gap.
pub const EVENT_TYPE: &str = "podherald.gap";

/// Where it is published, also if what is missing may have belonged elsewhere.
pub const TOPIC: Topic = Topic::ExecutionEvents;

/// What the attributes of its CloudEvent are, in the order of [`Gap::attributes`].
pub const ATTRIBUTES: [(&str, &str); 7] = [
    ("specversion", "Always 1.0."),
    ("id", "`event_id`: a gap that comes again has it again."),
    ("source", "`source`."),
    ("type", "`event_type`."),
    ("subject", "`sink`."),
    ("time", "`timestamp`."),
    ("partitionkey", "`source`."),
];

/// Retention took events before this sink had them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Gap {
    /// Derived from the source, the sink and what is missing, so that a gap that comes again has it again.
    #[cfg_attr(feature = "schema", schema(value_type = String, format = "uuid"))]
    pub event_id: Uuid,
    /// What happened.
    #[cfg_attr(feature = "schema", schema(value_type = String))]
    pub event_type: Type,
    /// Of the contract.
    pub event_version: String,
    /// When it was found. RFC 3339, UTC, microseconds.
    #[serde(with = "crate::time")]
    #[cfg_attr(feature = "schema", schema(value_type = String, format = DateTime))]
    pub timestamp: Timestamp,
    /// `podherald:` and the epoch of the journal, in which the source of every event ends that the journal's podherald has made.
    pub source: String,
    /// Who lacks them: `kafka`, `redis`, or `webhook:` and the endpoint's name.
    pub sink: String,
    /// How many are missing.
    #[cfg_attr(feature = "schema", schema(minimum = 1))]
    pub missed: u64,
    /// Place in the journal of the first that is missing, ...
    #[cfg_attr(feature = "schema", schema(minimum = 1))]
    pub first: u64,
    /// ... and of the last.
    #[cfg_attr(feature = "schema", schema(minimum = 1))]
    pub last: u64,
    /// `timestamp` of the event before them, where that is known.
    #[serde(with = "crate::time::option", skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub since: Option<Timestamp>,
    /// `timestamp` of the event after them, where there is one yet.
    #[serde(with = "crate::time::option", skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "schema", schema(value_type = Option<String>, format = DateTime))]
    pub until: Option<Timestamp>,
}

/// The only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    /// [`EVENT_TYPE`].
    #[serde(rename = "podherald.gap")]
    Gap,
}

impl Gap {
    /// That these places of the journal with this epoch were empty when the sink came to them.
    pub fn new(epoch: &str, sink: &str, places: RangeInclusive<u64>, found: Timestamp) -> Self {
        let source = format!("podherald:{epoch}");
        let (first, last) = (*places.start(), *places.end());
        let name = format!("{EVENT_TYPE}\0{source}\0{sink}\0{first}\0{last}");
        Self {
            event_id: Uuid::new_v5(&EVENT_NAMESPACE, name.as_bytes()),
            event_type: Type::Gap,
            event_version: EVENT_VERSION.to_owned(),
            timestamp: found,
            source,
            sink: sink.to_owned(),
            missed: last - first + 1,
            first,
            last,
            since: None,
            until: None,
        }
    }

    /// True of the bytes of any gap, of a later podherald's too.
    pub fn is_in(bytes: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Tagged<'a> {
            #[serde(borrow)]
            event_type: Cow<'a, str>,
        }
        serde_json::from_slice::<Tagged<'_>>(bytes).is_ok_and(|tagged| tagged.event_type == EVENT_TYPE)
    }

    /// Its JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a gap holds only strings and numbers")
    }

    /// Name and value of each attribute as a CloudEvent, names without any prefix.
    pub fn attributes(&self) -> [(&'static str, Cow<'_, str>); ATTRIBUTES.len()] {
        [
            ("specversion", Cow::Borrowed("1.0")),
            ("id", Cow::Owned(self.event_id.to_string())),
            ("source", Cow::Borrowed(&*self.source)),
            ("type", Cow::Borrowed(EVENT_TYPE)),
            ("subject", Cow::Borrowed(&*self.sink)),
            ("time", Cow::Owned(format!("{:.6}", self.timestamp))),
            ("partitionkey", Cow::Borrowed(&*self.source)),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::event::EVENT_TYPES;

    fn gap(places: RangeInclusive<u64>) -> Gap {
        Gap::new("019a", "kafka", places, "2026-03-01T12:00:02.5Z".parse().unwrap())
    }

    #[test]
    fn a_gap_says_who_lacks_how_much_from_where_to_where() {
        let since = Some("2026-03-01T12:00:00Z".parse().unwrap());
        let gap = Gap { since, ..gap(8..=10) };
        let said: Value = serde_json::from_slice(&gap.to_bytes()).unwrap();
        let expected = json!({
            "event_id": gap.event_id, "event_type": "podherald.gap", "event_version": "1.0",
            "timestamp": "2026-03-01T12:00:02.500000Z", "source": "podherald:019a", "sink": "kafka",
            "missed": 3, "first": 8, "last": 10, "since": "2026-03-01T12:00:00.000000Z",
        });
        assert_eq!(said, expected);
        let attributes = gap.attributes();
        assert_eq!(attributes.each_ref().map(|(name, _)| *name), ATTRIBUTES.map(|(name, _)| name));
        let time = attributes.iter().find(|(name, _)| *name == "time");
        assert_eq!(time.map(|(_, time)| &**time), said["timestamp"].as_str());
        assert_eq!(serde_json::from_value::<Gap>(said).unwrap(), gap);
    }

    #[test]
    fn the_same_gap_has_the_same_id_and_another_has_another() {
        let one = gap(1..=5);
        assert_eq!(Gap::new("019a", "kafka", 1..=5, Timestamp::UNIX_EPOCH).event_id, one.event_id);
        let others = [
            gap(1..=6),
            gap(2..=5),
            Gap::new("019a", "redis", 1..=5, one.timestamp),
            Gap::new("019b", "kafka", 1..=5, one.timestamp),
        ];
        assert!(others.iter().all(|other| other.event_id != one.event_id));
    }

    #[test]
    fn a_gap_is_known_by_its_type_and_is_no_event_of_the_catalogue() {
        assert!(Gap::is_in(&gap(1..=1).to_bytes()));
        assert!(Gap::is_in(br#"{"of_a_later_version":{},"event_type":"podherald.gap"}"#));
        for other in ["{}", "noise", r#"{"event_type":"pod_deleted"}"#, r#"{"event_type":7}"#] {
            assert!(!Gap::is_in(other.as_bytes()), "{other}");
        }
        assert!(!EVENT_TYPES.contains(&EVENT_TYPE));
    }
}
