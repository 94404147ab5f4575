//! What a running program prints: written by one, read by many while it grows.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use podherald_core::output::kept_parts;

use super::{Result, blocking, failed, spool::Spool};

/// A log in a file of bounded size, of which the first and the last half of the limit are kept. Removed when dropped.
#[derive(Debug, Clone)]
pub struct Growing {
    spool: Arc<Mutex<Spool>>,
    path: PathBuf,
    max_bytes: u64,
}

/// What there is at an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// Nothing any more; there is again from this offset on.
    Missing(u64),
    /// Nothing yet.
    Nothing,
}

impl Growing {
    pub(super) fn create(path: PathBuf, max_bytes: u64) -> Result<Self> {
        let spool = Spool::create(path.clone(), max_bytes).map_err(failed("make", &path))?;
        Ok(Self { spool: Arc::new(Mutex::new(spool)), path, max_bytes })
    }

    /// Adds to it; returns its length then.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn append(&self, bytes: Bytes) -> Result<u64> {
        let growing = self.clone();
        blocking(move || {
            let mut spool = growing.lock();
            spool.write(&bytes).map_err(failed("write", &growing.path))?;
            Ok(spool.total())
        })
        .await
    }

    /// At most `limit` bytes from `offset` on.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn read(&self, offset: u64, limit: usize) -> Result<Piece> {
        let growing = self.clone();
        blocking(move || {
            let spool = growing.lock();
            if offset >= spool.total() {
                return Ok(Piece::Nothing);
            }
            let bytes = spool.read(offset, limit, growing.max_bytes).map_err(failed("read", &growing.path))?;
            if !bytes.is_empty() {
                return Ok(Piece::Bytes(bytes.into()));
            }
            let [_, tail] = kept_parts(spool.total(), growing.max_bytes);
            Ok(Piece::Missing(tail.start))
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_grows_is_read_from_any_place_and_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let growing = Growing::create(directory.path().join("log"), 8).unwrap();
        assert_eq!(growing.read(0, 4).await.unwrap(), Piece::Nothing);
        assert_eq!(growing.append(Bytes::from_static(b"abcdef")).await.unwrap(), 6);
        assert_eq!(growing.read(1, 2).await.unwrap(), Piece::Bytes(Bytes::from_static(b"bc")));
        assert_eq!(growing.read(6, 2).await.unwrap(), Piece::Nothing);
        growing.append(Bytes::from_static(b"ghijkl")).await.unwrap();
        assert_eq!(growing.read(2, 99).await.unwrap(), Piece::Bytes(Bytes::from_static(b"cd")));
        assert_eq!(growing.read(4, 99).await.unwrap(), Piece::Missing(8));
        assert_eq!(growing.read(8, 99).await.unwrap(), Piece::Bytes(Bytes::from_static(b"ijkl")));
    }
}
