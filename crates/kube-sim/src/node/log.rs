//! A container's log as a kubelet keeps it: lines with the time they came, in a file that is begun anew when it is full.
//!
//! Each line of the file is `TIME stdout F TEXT`, or `P` for a part that no newline ended (T69, T72): what is read back is
//! byte for byte what was printed. Both streams come down one pipe, so `stdout` stands for either (T71).

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

use super::counters::Counters;
use crate::logs::{LogRequest, LogStream};

/// A longer line is written in parts.
const PART: usize = 16 << 10;
/// Read from the file at a time.
const CHUNK: usize = 64 << 10;

/// One run of one container, as the one who writes its log sees it.
pub(super) struct Writer {
    log: Log,
    file: File,
    written: u64,
    bounds: Bounds,
}

/// How long a log may get, and who hears of one that is longer.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) max_bytes: u64,
    pub(super) counters: Counters,
    /// `NAMESPACE/POD/CONTAINER`.
    pub(super) container: String,
}

/// The same for those who read it.
#[derive(Clone)]
pub(super) struct Log {
    path: Arc<Path>,
    state: watch::Receiver<State>,
    tell: Arc<Mutex<watch::Sender<State>>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    /// Bytes in the file.
    length: u64,
    /// Times that the file was begun anew.
    rotations: u64,
    has_ended: bool,
}

impl Writer {
    pub(super) async fn create(path: PathBuf, bounds: Bounds) -> io::Result<Self> {
        let file = anew(&path).await?;
        let (tell, state) = watch::channel(State::default());
        let log = Log { path: path.into(), state, tell: Arc::new(Mutex::new(tell)) };
        Ok(Self { log, file, written: 0, bounds })
    }

    pub(super) fn log(&self) -> Log {
        self.log.clone()
    }

    /// What came at this time.
    pub(super) async fn write(&mut self, text: &[u8], now: Timestamp) -> io::Result<()> {
        let time = written(now);
        let mut entries = Vec::with_capacity(text.len() + text.len() / 16 + 64);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let (line, tag) = line.strip_suffix(b"\n").map_or((line, 'P'), |line| (line, 'F'));
            let mut parts = line.chunks(PART).peekable();
            if parts.peek().is_none() {
                entries.extend_from_slice(format!("{time} stdout {tag} \n").as_bytes());
            }
            while let Some(part) = parts.next() {
                let tag = if parts.peek().is_some() { 'P' } else { tag };
                entries.extend_from_slice(format!("{time} stdout {tag} ").as_bytes());
                entries.extend_from_slice(part);
                entries.push(b'\n');
            }
        }
        if self.written > 0 && self.written + entries.len() as u64 > self.bounds.max_bytes {
            self.rotate().await?;
        }
        self.file.write_all(&entries).await?;
        self.file.flush().await?;
        self.written += entries.len() as u64;
        self.log.tell(|state| state.length = self.written);
        Ok(())
    }

    /// T66: only the newest file is ever read; the one before stays for whoever is reading it.
    async fn rotate(&mut self) -> io::Result<()> {
        self.file = anew(&self.log.path).await?;
        let Bounds { max_bytes, counters, container } = &self.bounds;
        counters.count_rotation(self.written);
        if self.log.state.borrow().rotations == 0 {
            tracing::warn!(container, max_bytes, "a log is full: it is begun anew now and whenever it is full again");
        }
        self.written = 0;
        self.log.tell(|state| (state.length, state.rotations) = (0, state.rotations + 1));
        Ok(())
    }
}

/// An empty file in the place of one that may be read still, or be opened at this moment.
async fn anew(path: &Path) -> io::Result<File> {
    let next = path.with_extension("next");
    let file = File::create(&next).await?;
    tokio::fs::rename(&next, path).await?;
    Ok(file)
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.log.tell(|state| state.has_ended = true);
    }
}

impl Log {
    fn tell(&self, change: impl FnOnce(&mut State)) {
        self.tell.lock().unwrap_or_else(PoisonError::into_inner).send_modify(change);
    }

    /// Reads it as it was asked for.
    pub(super) async fn open(&self, request: &LogRequest) -> io::Result<LogStream> {
        let skip = match request.tail_lines {
            Some(wanted) => self.count_lines().await?.saturating_sub(wanted),
            None => 0,
        };
        let selection = Selection {
            entries: Entries::open(self, request.follow).await?,
            skip,
            since: request.since.map(written),
            timestamps: request.timestamps,
            left: request.limit_bytes.unwrap_or(u64::MAX),
            begins_line: true,
        };
        Ok(stream::try_unfold(selection, |mut selection| async move {
            let chunk = selection.next().await?;
            Ok(chunk.map(|chunk| (chunk, selection)))
        })
        .boxed())
    }

    async fn count_lines(&self) -> io::Result<u64> {
        let mut entries = Entries::open(self, false).await?;
        let (mut lines, mut begins_line) = (0, true);
        loop {
            while let Some(entry) = entries.take() {
                lines += u64::from(begins_line);
                begins_line = entry.ends_line;
            }
            if !entries.fill().await? {
                return Ok(lines);
            }
        }
    }
}

/// A time as it stands in the file: of one length, so that texts compare as times do.
fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// Bytes before the text of an entry: a time, ` stdout F `.
const HEAD: usize = 40;

struct Entry {
    time: Bytes,
    ends_line: bool,
    text: Bytes,
}

/// The file, entry by entry.
struct Entries {
    log: Log,
    file: File,
    buffer: BytesMut,
    rotations: u64,
    follow: bool,
}

impl Entries {
    async fn open(log: &Log, follow: bool) -> io::Result<Self> {
        let log = log.clone();
        let rotations = log.state.borrow().rotations;
        let file = File::open(&log.path).await?;
        Ok(Self { log, file, buffer: BytesMut::new(), rotations, follow })
    }

    /// The next entry, if it is here in whole.
    fn take(&mut self) -> Option<Entry> {
        let end = self.buffer.iter().position(|byte| *byte == b'\n');
        // A line that is too short to have a head is not of our writing.
        let mut line = self.buffer.split_to(end? + 1).freeze();
        line.truncate(line.len() - 1);
        let mut head = line.split_to(HEAD.min(line.len()));
        let ends_line = head.get(HEAD - 2) == Some(&b'F');
        head.truncate(HEAD - 10);
        Some(Entry { time: head, ends_line, text: line })
    }

    /// Reads on; false at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        loop {
            // What ended before we looked has written all there is.
            let state = *self.log.state.borrow_and_update();
            self.buffer.reserve(CHUNK);
            if self.file.read_buf(&mut self.buffer).await? > 0 {
                return Ok(true);
            }
            if state.rotations != self.rotations {
                self.rotations = state.rotations;
                self.file = File::open(&self.log.path).await?;
                continue;
            }
            if !self.follow || state.has_ended || self.log.state.changed().await.is_err() {
                return Ok(false);
            }
        }
    }
}

/// What was asked for of the entries.
struct Selection {
    entries: Entries,
    /// Lines to leave out.
    skip: u64,
    since: Option<String>,
    timestamps: bool,
    left: u64,
    begins_line: bool,
}

impl Selection {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let mut chunk = BytesMut::new();
            while chunk.len() < CHUNK
                && let Some(entry) = self.entries.take()
            {
                self.select(&entry, &mut chunk);
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk.freeze()));
            }
            if self.left == 0 || !self.entries.fill().await? {
                return Ok(None);
            }
        }
    }

    fn select(&mut self, entry: &Entry, chunk: &mut BytesMut) {
        let begins_line = std::mem::replace(&mut self.begins_line, entry.ends_line);
        if self.skip > 0 {
            self.skip -= u64::from(entry.ends_line);
            return;
        }
        if self.since.as_ref().is_some_and(|since| entry.time < since.as_bytes()) {
            return;
        }
        // T69: a real kubelet also puts a time before each part of a long line.
        if self.timestamps && (begins_line || !entry.text.is_empty()) {
            self.put(&entry.time, chunk);
            self.put(b" ", chunk);
        }
        self.put(&entry.text, chunk);
        if entry.ends_line {
            self.put(b"\n", chunk);
        }
    }

    fn put(&mut self, bytes: &[u8], chunk: &mut BytesMut) {
        let taken = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        chunk.extend_from_slice(&bytes[..taken]);
        self.left -= taken as u64;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::TryStreamExt;
    use tempfile::TempDir;

    use super::*;

    const NOON: &str = "2026-03-01T12:00:00Z";

    fn bounds(max_bytes: u64) -> Bounds {
        Bounds { max_bytes, counters: Counters::default(), container: "default/p/c".into() }
    }

    fn request() -> LogRequest {
        LogRequest {
            namespace: "default".into(),
            pod: "p".into(),
            uid: "u".into(),
            container: "c".into(),
            previous: false,
            follow: false,
            timestamps: false,
            since: None,
            tail_lines: None,
            limit_bytes: None,
        }
    }

    async fn read(log: &Log, request: &LogRequest) -> Vec<u8> {
        log.open(request).await.unwrap().try_collect::<Vec<_>>().await.unwrap().concat()
    }

    async fn written_log(parts: &[&[u8]], max_bytes: u64) -> (Log, TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(directory.path().join("log"), bounds(max_bytes)).await.unwrap();
        let noon: Timestamp = NOON.parse().unwrap();
        for (second, part) in (0..).zip(parts) {
            writer.write(part, noon + jiff::SignedDuration::from_secs(second)).await.unwrap();
        }
        (writer.log(), directory)
    }

    // T72
    #[tokio::test]
    async fn a_log_is_read_back_byte_for_byte() {
        let long = "x".repeat(3 * PART + 5);
        for parts in [
            vec![&b""[..]],
            vec![b"one\ntwo\n"],
            vec![b"no newline"],
            vec![b"in ", b"parts\n", b"\n", b"\n"],
            vec![b"\xff\0\r\x1b[31m\r\n", b"\xfe"],
            vec![long.as_bytes(), b"\n", long.as_bytes()],
        ] {
            let (log, _directory) = written_log(&parts, u64::MAX).await;
            assert_eq!(read(&log, &request()).await, parts.concat());
        }
    }

    #[tokio::test]
    async fn tail_since_limit_and_timestamps_select() {
        let (log, _directory) = written_log(&[b"a\n", b"b\nc\n", b"d"], u64::MAX).await;
        let tail = LogRequest { tail_lines: Some(2), ..request() };
        assert_eq!(read(&log, &tail).await, b"c\nd");
        let limit = LogRequest { limit_bytes: Some(3), ..request() };
        assert_eq!(read(&log, &limit).await, b"a\nb");
        let since = LogRequest { since: Some("2026-03-01T12:00:02Z".parse().unwrap()), ..request() };
        assert_eq!(read(&log, &since).await, b"d");
        let timed = LogRequest { timestamps: true, tail_lines: Some(1), ..request() };
        assert_eq!(read(&log, &timed).await, b"2026-03-01T12:00:02.000000000Z d");
    }

    #[tokio::test]
    async fn a_follower_gets_what_comes_and_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(directory.path().join("log"), bounds(u64::MAX)).await.unwrap();
        let now: Timestamp = NOON.parse().unwrap();
        let mut following = writer.log().open(&LogRequest { follow: true, ..request() }).await.unwrap();
        for text in [&b"first\n"[..], b"second"] {
            writer.write(text, now).await.unwrap();
            assert_eq!(following.try_next().await.unwrap().unwrap(), text);
        }
        drop(writer);
        assert_eq!(following.try_next().await.unwrap(), None);
    }

    // T66
    #[tokio::test]
    async fn a_full_log_is_begun_anew_and_only_the_newest_is_read() {
        let (log, _directory) = written_log(&[&[b'a'; 100], b"\n", &[b'b'; 100]], 200).await;
        assert_eq!(read(&log, &request()).await, [b'b'; 100]);
    }
}
