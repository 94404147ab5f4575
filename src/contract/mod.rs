//! The contract of events, generated from the types that make them: a JSON Schema for each type (`schema`), and the
//! AsyncAPI document that says where they are sent (`asyncapi`). The routes have theirs beside them, in `http`.

mod asyncapi;
mod catalogue;
mod schema;
mod types;

pub use asyncapi::{DEAD_LETTER_HEADERS, document as asyncapi_document};
pub use catalogue::{ALL, Entry, catalogue, table};
pub use schema::{of_all, of_type};

use serde_json::Value;

/// As it is printed, served and committed.
pub fn pretty(document: &Value) -> String {
    let mut text = format!("{document:#}");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
