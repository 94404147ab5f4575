//! What can be wrong with a configuration.

use std::{io, path::PathBuf};

use super::Origin;

/// Longest value that an error repeats.
const LONGEST_SHOWN: usize = 120;

/// Why podherald does not start with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the configuration file {} (named by {origin})", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Who named it.
        origin: Origin,
        /// What failed.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {} is not TOML (line {line}): {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A key, variable or flag that names no setting.
    #[error("there is no setting {what} ({origin}); {}", hint(like.as_deref()))]
    Unknown {
        /// The key or variable as it was written.
        what: String,
        /// Where.
        origin: Origin,
        /// What may have been meant.
        like: Option<String>,
    },
    /// A value of the wrong type, out of bounds, or impossible together with another.
    #[error("{key} is {found} ({origin}), but must be {right}")]
    Invalid {
        /// The setting.
        key: String,
        /// Who set it.
        origin: Origin,
        /// The value.
        found: String,
        /// What would be right.
        right: String,
    },
}

fn hint(like: Option<&str>) -> String {
    match like {
        Some(like) => format!("did you mean {like}?"),
        None => "`podherald config` lists all settings".into(),
    }
}

/// The value as TOML, cut where it gets long.
pub(super) fn brief(value: &toml::Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
