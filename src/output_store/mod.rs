//! The bytes that programs printed, in `data_dir/output/<execution>/<attempt>/`.
//!
//! Not every output needs a file. The terminal event holds head and tail of both streams, and the journal keeps the event,
//! so a stream that is valid UTF-8 and fits is durable, byte for byte, without one ([`Captured::whole`]). That matters:
//! nearly all outputs are small, and waiting for a disk twice would be the larger part of an event's latency. So there is:
//!
//! | file | when | waited for |
//! |---|---|---|
//! | `stdout`, `stderr` | the event does not hold all of the stream | yes |
//! | `raw`, the log as it came | it is not standard output itself: it has a report, or frames | if it tells anything that the event and the other files do not |
//!
//! Hence, for a reader: where there is no `raw`, the log is standard output; where there is no `stdout` or `stderr`, the
//! execution's inline text is all of it. A log of more than `logs.max_bytes` is kept as its first and its last half of
//! that, without a mark between them; `bytes_total` and `bytes_kept` of the event tell.
//!
//! Where an attempt has several pods, each one's output is beside it, in `<attempt>.<digest of the pod's uid>/`, until it is
//! decided which is the attempt's. Those of the indexes of an Indexed Job stay there, and have a `stdout` whatever its size: their
//! text is not in the event.
//!
//! Of what was put into a blob store the execution's directory has a list, `blobs`: it is what retention removes there.
//!
//! Files are written before the terminal event and named by nothing but execution and attempt: a crash before the event
//! leaves files that nobody refers to, and the next collection of that attempt replaces them.
//!
//! [`Captured::whole`]: podherald_core::output::Captured::whole

mod blobs;
mod growing;
mod reader;
mod spool;
mod writer;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use podherald_core::event::EVENT_NAMESPACE;
use uuid::Uuid;

pub use blobs::Unremoved;
pub use growing::{Growing, Piece};
pub use reader::Reader;
pub use writer::Writer;

/// Why an output could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing} {path}: {source}", path = path.display())]
pub struct Error {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A result of the store.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be read of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The log as it came.
    Raw,
}

impl Stream {
    /// The name in files and queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Raw => "raw",
        }
    }
}

/// Whose output it is, where each pod of an attempt has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfPod {
    /// The execution.
    pub execution_id: String,
    /// Which attempt of it.
    pub attempt: u32,
    /// `metadata.uid` of the pod.
    pub uid: String,
}

/// The directory of all outputs; a clone is the same directory.
#[derive(Debug, Clone)]
pub struct OutputStore {
    root: Arc<Path>,
    spools: Arc<AtomicU64>,
}

impl OutputStore {
    /// Opens or makes `data_dir/output`, and clears away what unfinished collections have left. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be made or written.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let store = Self { root: data_dir.join("output").into(), spools: Arc::default() };
        let unfinished = store.unfinished();
        missing_is_fine(fs::remove_dir_all(&unfinished)).map_err(failed("clear", &unfinished))?;
        fs::create_dir_all(&unfinished).map_err(failed("make", &unfinished))?;
        for directory in [store.root.as_ref(), data_dir] {
            sync_directory(directory)?;
        }
        Ok(store)
    }

    /// A place for the log of one attempt, of which at most `max_bytes` are kept.
    pub fn writer(&self, max_bytes: u64) -> Writer {
        Writer::new(self.clone(), max_bytes)
    }

    /// A place for what a running program prints, of which at most `max_bytes` are kept.
    ///
    /// # Errors
    /// If its file cannot be made.
    pub async fn growing(&self, max_bytes: u64) -> Result<Growing> {
        let path = self.spool_path();
        blocking(move || Growing::create(path, max_bytes)).await
    }

    /// What there is in a file of one stream; `None` means that the execution's inline text is all of it.
    ///
    /// # Errors
    /// If there is a file that cannot be opened.
    pub async fn reader(&self, execution_id: &str, attempt: u32, stream: Stream) -> Result<Option<Reader>> {
        let directory = self.attempt(execution_id, attempt);
        blocking(move || Reader::open_of(&directory, stream)).await
    }

    /// The same of one of the attempt's pods, whose output was kept apart. `None`: it has no such file.
    ///
    /// # Errors
    /// If there is a file that cannot be opened.
    pub async fn reader_of_pod(
        &self,
        execution_id: &str,
        attempt: u32,
        pod: &str,
        stream: Stream,
    ) -> Result<Option<Reader>> {
        let directory = self.pod(execution_id, attempt, pod);
        blocking(move || Reader::open_of(&directory, stream)).await
    }

    /// The files that there are of an attempt, or of one of its pods whose output is kept apart.
    ///
    /// # Errors
    /// If there is a file that cannot be opened.
    pub async fn files(&self, execution_id: &str, attempt: u32, pod: Option<&str>) -> Result<Vec<(Stream, Reader)>> {
        let directory = match pod {
            Some(pod) => self.pod(execution_id, attempt, pod),
            None => self.attempt(execution_id, attempt),
        };
        let open = move |stream: Stream| {
            let reader = Reader::open(&directory.join(stream.as_str()));
            reader.map(|reader| reader.map(|reader| (stream, reader))).transpose()
        };
        blocking(move || [Stream::Stdout, Stream::Stderr, Stream::Raw].into_iter().filter_map(open).collect()).await
    }

    /// Makes the output of one of an attempt's pods that of the attempt, leaves those of `kept` pods where they are, and removes
    /// the others'. Doing it again is harmless. Says which of `kept` are not there.
    ///
    /// # Errors
    /// If the files cannot be moved or removed.
    pub async fn adopt(
        &self,
        execution_id: &str,
        attempt: u32,
        pod: Option<&str>,
        kept: &[&str],
    ) -> Result<Vec<String>> {
        let directory = self.attempt(execution_id, attempt);
        let chosen = pod.map(|pod| self.pod(execution_id, attempt, pod));
        let kept: HashMap<PathBuf, String> =
            kept.iter().map(|pod| (self.pod(execution_id, attempt, pod), (*pod).to_owned())).collect();
        blocking(move || adopt(&directory, chosen.as_deref(), kept)).await
    }

    /// Removes what pods printed that does not matter any more; that there is nothing is fine.
    ///
    /// # Errors
    /// If files stay.
    pub async fn remove_pods(&self, pods: Vec<OfPod>) -> Result<()> {
        let remove = |path: PathBuf| missing_is_fine(fs::remove_dir_all(&path)).map_err(failed("remove", &path));
        let directories: Vec<_> = pods.iter().map(|pod| self.pod(&pod.execution_id, pod.attempt, &pod.uid)).collect();
        blocking(move || directories.into_iter().map(remove).fold(Ok(()), Result::and)).await
    }

    /// Removes all files of an execution; that there are none is fine.
    ///
    /// # Errors
    /// If files stay.
    pub async fn remove(&self, execution_id: &str) -> Result<()> {
        let directory = self.execution(execution_id);
        blocking(move || missing_is_fine(fs::remove_dir_all(&directory)).map_err(failed("remove", &directory))).await
    }

    /// An execution id is any text, so its directory is named by a digest of it.
    fn execution(&self, execution_id: &str) -> PathBuf {
        self.root.join(Uuid::new_v5(&EVENT_NAMESPACE, execution_id.as_bytes()).to_string())
    }

    fn attempt(&self, execution_id: &str, attempt: u32) -> PathBuf {
        self.execution(execution_id).join(attempt.to_string())
    }

    fn pod(&self, execution_id: &str, attempt: u32, pod: &str) -> PathBuf {
        let digest = Uuid::new_v5(&EVENT_NAMESPACE, pod.as_bytes());
        self.execution(execution_id).join(format!("{attempt}.{digest}"))
    }

    fn spool_path(&self) -> PathBuf {
        self.unfinished().join(self.spools.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn unfinished(&self) -> PathBuf {
        self.root.join("unfinished")
    }
}

fn adopt(directory: &Path, chosen: Option<&Path>, mut kept: HashMap<PathBuf, String>) -> Result<Vec<String>> {
    let execution = directory.parent().expect("an attempt's directory is in its execution's");
    if let Some(chosen) = chosen.filter(|chosen| chosen.is_dir()) {
        missing_is_fine(fs::remove_dir_all(directory)).map_err(failed("replace", directory))?;
        match kept.contains_key(chosen) {
            true => link_files(chosen, directory)?,
            false => fs::rename(chosen, directory).map_err(failed("move", chosen))?,
        }
        sync_directory(execution)?;
    }
    let entries = match fs::read_dir(execution) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept.into_values().collect()),
        Err(error) => return Err(failed("read", execution)(error)),
    };
    let of_pods = format!("{}.", directory.file_name().unwrap_or_default().to_string_lossy());
    for entry in entries {
        let entry = entry.map_err(failed("read", execution))?;
        let is_kept = kept.remove(&entry.path()).is_some();
        if !is_kept && entry.file_name().to_string_lossy().starts_with(&of_pods) {
            missing_is_fine(fs::remove_dir_all(entry.path())).map_err(failed("remove", &entry.path()))?;
        }
    }
    Ok(kept.into_values().collect())
}

/// Files of an output are never changed, so two outputs may be the same files.
fn link_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).map_err(failed("make", to))?;
    for entry in fs::read_dir(from).map_err(failed("read", from))? {
        let entry = entry.map_err(failed("read", from))?;
        fs::hard_link(entry.path(), to.join(entry.file_name())).map_err(failed("link", &entry.path()))?;
    }
    sync_directory(to)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error { doing, path, source }
}

fn missing_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn sync_directory(path: &Path) -> Result<()> {
    fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("sync", path))
}

/// Runs what waits for a disk where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and will not poll this future to its end either.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
