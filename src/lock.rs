//! One process owns a data directory: whoever holds the lock on `data_dir/lock`, from before the journal opens.
//!
//! The lock is the system's: it goes with the process, however that ends, and leaves nothing to clean up.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often a standby looks.
const RETRY: Duration = Duration::from_millis(500);

/// Why a data directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be created.
    #[error("data_dir {} cannot be created; it must be a directory that podherald may write to", path.display())]
    Create {
        /// `data_dir`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The lock's file cannot be created or locked.
    #[error("data_dir {} cannot be locked; it must be a directory that podherald may write to", path.display())]
    Lock {
        /// `data_dir`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A data directory that this process owns, for as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// What became of the attempt to own a data directory.
#[derive(Debug)]
pub enum Acquired {
    /// It is ours.
    Owned(DataDir),
    /// Another process has it.
    Busy,
}

impl DataDir {
    /// Creates the directory if need be, for this user only, and takes its lock if nobody has it.
    ///
    /// # Errors
    /// The directory cannot be created or written.
    pub fn acquire(path: &Path) -> Result<Acquired, Error> {
        // One that exists keeps the mode that somebody gave it.
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|source| Error::Create { path: path.to_owned(), source })?;
        let failed = |source| Error::Lock { path: path.to_owned(), source };
        let lock = File::options().create(true).append(true).open(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Acquired::Owned(Self { path: path.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(Acquired::Busy),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// A standby's wait: tries twice a second until the directory is ours. Dropping it ends the wait.
    ///
    /// # Errors
    /// As [`DataDir::acquire`].
    pub async fn wait(path: &Path) -> Result<Self, Error> {
        loop {
            match Self::acquire(path)? {
                Acquired::Owned(owned) => return Ok(owned),
                Acquired::Busy => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// `data_dir`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tokio::time::Instant;

    use super::*;

    fn own(path: &Path) -> DataDir {
        match DataDir::acquire(path).unwrap() {
            Acquired::Owned(owned) => owned,
            Acquired::Busy => panic!("{} is busy", path.display()),
        }
    }

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = own(dir.path());
        assert!(matches!(DataDir::acquire(dir.path()).unwrap(), Acquired::Busy));
        drop(first);
        own(dir.path());
    }

    #[test]
    fn a_new_directory_is_for_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        assert_eq!(own(&path).path(), path);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn an_unusable_directory_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().join("data");
        let error = DataDir::acquire(&path).unwrap_err().to_string();
        let expected = format!("data_dir {} cannot be created; it must be a directory", path.display());
        assert!(error.starts_with(&expected), "{error}");

        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lock")).unwrap();
        let error = DataDir::acquire(dir.path()).unwrap_err().to_string();
        let expected = format!("data_dir {} cannot be locked; it must be a directory", dir.path().display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_standby_takes_over_within_half_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let first = own(dir.path());
        let start = Instant::now();
        let (second, ()) = tokio::join!(DataDir::wait(dir.path()), async {
            tokio::time::sleep(Duration::from_millis(9_900)).await;
            drop(first);
        });
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        let _second = second.unwrap();
        assert!(matches!(DataDir::acquire(dir.path()).unwrap(), Acquired::Busy));
    }
}
