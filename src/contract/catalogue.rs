//! Which events there are.

use std::fmt::Write;

use podherald_core::{cloud_event, gap, mapper::Policy, topic::Topic};
use serde_json::Value;

use super::types::{self, Types};

/// What [`of_type`](super::of_type)'s command line calls all types at once.
pub const ALL: &str = "all";

/// One type of event.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// `event_type`.
    pub name: String,
    /// Where it is published, before any prefix.
    pub topic: Topic,
    /// `metadata.service_name` of who sends it.
    pub sender: String,
    /// In a line.
    pub meaning: String,
    /// Of its CloudEvent: names and meanings.
    pub(super) attributes: &'static [(&'static str, &'static str)],
    pub(super) schema: Value,
}

/// All types that podherald sends.
pub fn catalogue() -> Vec<Entry> {
    let sender = |name: &str| {
        if name.starts_with("result_") { "result-processor".to_owned() } else { Policy::default().service_name }
    };
    let event = |(name, schema): (String, Value)| Entry {
        topic: Topic::of(&name).expect("every event has its topic: a test of core holds it"),
        sender: sender(&name),
        meaning: meaning(&schema),
        name,
        attributes: &cloud_event::ATTRIBUTES,
        schema,
    };
    Types::of_events().events().into_iter().map(event).chain([gap()]).collect()
}

/// It belongs to no execution, and is told by whoever carries.
fn gap() -> Entry {
    let schema = types::of_gap();
    Entry {
        name: gap::EVENT_TYPE.to_owned(),
        topic: gap::TOPIC,
        sender: "podherald".to_owned(),
        meaning: meaning(&schema),
        attributes: &gap::ATTRIBUTES,
        schema,
    }
}

fn meaning(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().to_owned()
}

/// The catalogue for people.
pub fn table() -> String {
    let entries = catalogue();
    let rows = entries.iter().map(|it| [it.name.as_str(), it.topic.name(), &it.sender, &it.meaning]);
    let rows: Vec<_> = std::iter::once(["TYPE", "TOPIC", "SENT BY", "WHEN"]).chain(rows).collect();
    let widest = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (first, second, third) = (widest(0), widest(1), widest(2));
    rows.iter().fold(String::new(), |mut text, [name, topic, sender, meaning]| {
        writeln!(text, "{name:first$}  {topic:second$}  {sender:third$}  {meaning}").expect("a string takes all");
        text
    })
}
