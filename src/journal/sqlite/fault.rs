//! What can go wrong inside, and what is said of it outside.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::journal::Error;

/// A failure before it is known what was being done, and to which file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// SQLite's own.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// A row that this program did not write like this.
    #[error("a row cannot be read: {0}")]
    Row(String),
    /// `journal.max_bytes` would be passed.
    #[error("it would take more than journal.max_bytes")]
    Full,
    /// A change that contradicts itself.
    #[error("{0}")]
    Refused(String),
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Row(error.to_string())
    }
}

impl Fault {
    /// The error that the caller sees.
    pub(super) fn explain(self, path: &Path, doing: &'static str) -> Error {
        let code = match &self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            Self::Row(_) => Some(ErrorCode::DatabaseCorrupt),
            Self::Full => Some(ErrorCode::DiskFull),
            Self::Refused(_) => None,
        };
        match code {
            Some(ErrorCode::DiskFull) => Error::Full(format!(
                "{} can grow no further: journal.max_bytes is reached, or its disk is full; retention, a larger \
                 journal.max_bytes or a larger disk make room",
                path.display()
            )),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Error::Corrupt { path: path.display().to_string(), reason: self.to_string() }
            }
            _ => Error::Io { doing, reason: format!("{}: {self}", path.display()) },
        }
    }
}
