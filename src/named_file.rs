//! A file that a setting names.

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
};

/// It cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{setting} {} cannot be read: it must be a text file that podherald may read", path.display())]
pub struct Unreadable {
    /// Which setting names it.
    pub setting: Cow<'static, str>,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What it holds.
///
/// # Errors
/// The setting, the file, and what would be right.
pub async fn read(setting: impl Into<Cow<'static, str>>, path: &Path) -> Result<String, Unreadable> {
    let read = tokio::fs::read_to_string(path).await;
    read.map_err(|source| Unreadable { setting: setting.into(), path: path.to_owned(), source })
}
