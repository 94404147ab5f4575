//! Which events there are.

use std::fmt::Write;

use podherald_core::{mapper::Policy, topic::Topic};
use serde_json::Value;

use super::types::Types;

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
    pub(super) schema: Value,
}

/// All types that podherald sends.
pub fn catalogue() -> Vec<Entry> {
    let sender = |name: &str| {
        if name.starts_with("result_") { "result-processor".to_owned() } else { Policy::default().service_name }
    };
    let entry = |(name, schema): (String, Value)| Entry {
        topic: Topic::of(&name).expect("every event has its topic: a test of core holds it"),
        sender: sender(&name),
        meaning: schema["description"].as_str().unwrap_or_default().to_owned(),
        name,
        schema,
    };
    Types::of_events().events().into_iter().map(entry).collect()
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
