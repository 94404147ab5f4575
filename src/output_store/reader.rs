//! Reading a stored stream.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{Result, Stream, blocking, failed};

/// One stored stream. It stays readable when its execution is removed meanwhile.
#[derive(Debug, Clone)]
pub struct Reader {
    file: Arc<File>,
    path: PathBuf,
    length: u64,
}

impl Reader {
    /// `None` if there is no such file, or an empty one: that is what a crash of the machine may make of a `raw` that
    /// was not waited for. Blocks.
    pub(super) fn open(path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("open", path)(e)),
        };
        let length = file.metadata().map_err(failed("open", path))?.len();
        Ok((length > 0).then(|| Self { file: Arc::new(file), path: path.to_owned(), length }))
    }

    /// The file of a stream in this directory; where there is no `raw`, the log is standard output. Blocks.
    pub(super) fn open_of(directory: &Path, stream: Stream) -> Result<Option<Self>> {
        if let Some(reader) = Self::open(&directory.join(stream.as_str()))? {
            return Ok(Some(reader));
        }
        match stream {
            Stream::Raw => Self::open(&directory.join(Stream::Stdout.as_str())),
            Stream::Stdout | Stream::Stderr => Ok(None),
        }
    }

    /// Bytes that there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes from `offset` on, `limit` of them unless the stream ends before; empty at its end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub async fn read(&self, offset: u64, limit: usize) -> Result<Bytes> {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(limit)];
        if bytes.is_empty() {
            return Ok(Bytes::new());
        }
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        blocking(move || {
            file.read_exact_at(&mut bytes, offset).map_err(failed("read", &path))?;
            Ok(bytes.into())
        })
        .await
    }
}
