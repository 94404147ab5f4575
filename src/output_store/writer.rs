//! Writing an attempt's output.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::Arc,
    thread,
};

use podherald_core::output::{Collected, Scan, Source};

use super::{
    OutputStore, Result, Stream, blocking, failed, missing_is_fine,
    spool::{Log, Spool},
};

/// Bytes that go to the disk at once; a log below this costs no file of its own while it is read.
const BATCH: usize = 256 << 10;

/// Takes a log as it is read. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    store: OutputStore,
    pod: Option<String>,
    in_full: bool,
    max_bytes: u64,
    buffer: Vec<u8>,
    spool: Option<Spool>,
}

impl Writer {
    pub(super) fn new(store: OutputStore, max_bytes: u64) -> Self {
        Self { store, pod: None, in_full: false, max_bytes, buffer: Vec::new(), spool: None }
    }

    /// The output is one pod's, and it is not decided yet whether it will be the attempt's.
    #[must_use]
    pub fn of_pod(self, uid: Option<String>) -> Self {
        Self { pod: uid, ..self }
    }

    /// No event will hold any of it, so there is a file of each stream, whatever its size.
    #[must_use]
    pub fn in_full(self, in_full: bool) -> Self {
        Self { in_full, ..self }
    }

    /// Takes the next bytes of the log. Holds at most a batch and these in memory.
    ///
    /// # Errors
    /// If they cannot be written; the writer is of no use afterwards.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let spool = self.spool.take();
        let path = self.store.spool_path();
        let max_bytes = self.max_bytes;
        let (spool, mut buffer) = blocking(move || {
            let mut spool = match spool {
                Some(spool) => spool,
                None => Spool::create(path.clone(), max_bytes).map_err(failed("make", &path))?,
            };
            spool.write(&buffer).map_err(failed("write", &path))?;
            Ok((spool, buffer))
        })
        .await?;
        buffer.clear();
        (self.spool, self.buffer) = (Some(spool), buffer);
        Ok(())
    }

    /// Makes durable what the event does not hold, in place of anything that an earlier collection of the attempt left.
    /// Returns what the event may say: without the disk, no more than what it holds itself.
    pub async fn finish(mut self, execution_id: &str, attempt: u32, scan: Scan) -> (Collected, Result<()>) {
        if self.spool.is_some()
            && let Err(e) = self.flush().await
        {
            return (scan.into_inline_only(), Err(e));
        }
        let log = self.spool.take().map_or_else(|| Log::Memory(std::mem::take(&mut self.buffer)), Log::File);
        let directory = match &self.pod {
            Some(pod) => self.store.pod(execution_id, attempt, pod),
            None => self.store.attempt(execution_id, attempt),
        };
        let scan = Arc::new(scan);
        let shared = Arc::clone(&scan);
        let (max_bytes, in_full) = (self.max_bytes, self.in_full);
        let done = blocking(move || persist(&directory, &log, max_bytes, in_full, &shared)).await;
        let scan = Arc::unwrap_or_clone(scan);
        match done {
            Ok(()) => (scan.collected, done),
            Err(_) => (scan.into_inline_only(), done),
        }
    }
}

fn persist(directory: &Path, log: &Log, max_bytes: u64, in_full: bool, scan: &Scan) -> Result<()> {
    missing_is_fine(fs::remove_dir_all(directory)).map_err(failed("replace", directory))?;
    let stdout = (in_full || !scan.collected.stdout.whole).then_some(&scan.stdout);
    let stderr = scan.collected.stderr.as_ref().filter(|stderr| in_full || !stderr.whole).map(|_| &scan.stderr);
    let raw = matches!(scan.stdout, Source::Parts(_) | Source::Text(_)) || matches!(scan.stderr, Source::Text(_));
    let raw = raw.then_some(&Source::Log);
    let files = [(Stream::Stdout, stdout), (Stream::Stderr, stderr), (Stream::Raw, raw)];
    if files.iter().all(|(_, source)| source.is_none()) {
        return Ok(());
    }
    let mut to_sync = make_directories(directory)?;
    for (stream, source) in files {
        let Some(source) = source else { continue };
        let path = directory.join(stream.as_str());
        to_sync.push(write_stream(log, source, max_bytes, &path).map_err(failed("write", &path))?);
    }
    if scan.told && stdout.is_none() && stderr.is_none() {
        return Ok(());
    }
    sync(&to_sync).map_err(failed("sync", directory))
}

/// The directory, its parents as far as they are new, and the last old one: whatever a new name was put into.
fn make_directories(directory: &Path) -> Result<Vec<File>> {
    let open = |path: &Path| File::open(path).map_err(failed("open", path));
    let mut new = vec![directory];
    match fs::create_dir(directory) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = directory.parent().expect("an attempt's directory is in its execution's");
            fs::create_dir_all(parent).map_err(failed("make", parent))?;
            fs::create_dir(directory).map_err(failed("make", directory))?;
            new.push(parent);
        }
        Err(e) => return Err(failed("make", directory)(e)),
    }
    let above = new.last().and_then(|path| path.parent());
    new.into_iter().chain(above).map(open).collect()
}

fn write_stream(log: &Log, source: &Source, max_bytes: u64, path: &Path) -> io::Result<File> {
    match source {
        Source::Log => log.copy_all(max_bytes, path),
        Source::Nothing => File::create(path),
        Source::Parts(parts) => {
            let mut file = File::create(path)?;
            log.copy_parts(parts, max_bytes, &mut file)?;
            Ok(file)
        }
        Source::Text(text) => {
            let mut file = File::create(path)?;
            file.write_all(text.as_bytes())?;
            Ok(file)
        }
    }
}

/// Waits for all of them at once: they share one commit of the file system, where one after the other costs one each.
fn sync(files: &[File]) -> io::Result<()> {
    thread::scope(|scope| {
        let others: Vec<_> = files.iter().skip(1).map(|file| scope.spawn(|| file.sync_all())).collect();
        let first = files.first().map_or(Ok(()), File::sync_all);
        others.into_iter().map(|other| other.join().expect("sync_all does not panic")).fold(first, io::Result::and)
    })
}
