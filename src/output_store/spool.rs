//! A log in the course of being read: its first and its last half of the limit, in memory while small, else in a file.

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use podherald_core::output::{kept_parts, within};

/// A log of any length in a file of bounded length: the head, then the tail as a ring. Removed when dropped.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    path: PathBuf,
    head: u64,
    ring: u64,
    total: u64,
}

impl Spool {
    pub(super) fn create(path: PathBuf, max_bytes: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { file, path, head: max_bytes / 2, ring: max_bytes - max_bytes / 2, total: 0 })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let Some((at, room)) = self.place(self.total) else {
                self.total += bytes.len() as u64;
                return Ok(());
            };
            let taken = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
            self.file.write_all_at(&bytes[..taken], at)?;
            self.total += taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Where in the file a byte of the log goes, and how many after it go next to it.
    fn place(&self, offset: u64) -> Option<(u64, u64)> {
        match offset.checked_sub(self.head) {
            None => Some((offset, self.head - offset)),
            Some(_) if self.ring == 0 => None,
            Some(past) => Some((self.head + past % self.ring, self.ring - past % self.ring)),
        }
    }

    /// Bytes written so far, kept or not.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes from `offset` on, at most `limit`; empty if that byte is not kept.
    pub(super) fn read(&self, offset: u64, limit: usize, max_bytes: u64) -> io::Result<Vec<u8>> {
        let kept = kept_parts(self.total, max_bytes);
        let Some(part) = kept.iter().find(|part| part.contains(&offset)) else { return Ok(Vec::new()) };
        let end = part.end.min(offset.saturating_add(limit as u64));
        let mut bytes = Vec::new();
        self.copy(offset..end, &mut bytes)?;
        Ok(bytes)
    }

    fn copy(&self, mut part: Range<u64>, out: &mut impl Write) -> io::Result<()> {
        let length = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
        let mut buffer = vec![0; length.min(256 << 10)];
        while part.start < part.end {
            let Some((at, room)) = self.place(part.start) else { return Ok(()) };
            let length = room.min(part.end - part.start).min(buffer.len() as u64);
            let bytes = &mut buffer[..usize::try_from(length).expect("no longer than the buffer")];
            self.file.read_exact_at(bytes, at)?;
            out.write_all(bytes)?;
            part.start += length;
        }
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // What stays is cleared at the next start; there is nobody to tell, and nothing to be done.
        let _ = fs::remove_file(&self.path);
    }
}

/// A log that was read.
#[derive(Debug)]
pub(super) enum Log {
    Memory(Vec<u8>),
    File(Spool),
}

impl Log {
    /// Writes the kept bytes of these parts of the log, in order.
    pub(super) fn copy_parts(&self, parts: &[Range<u64>], max_bytes: u64, out: &mut impl Write) -> io::Result<()> {
        let kept = kept_parts(self.total(), max_bytes);
        for range in parts.iter().flat_map(|part| within(part, &kept)) {
            match self {
                Self::Memory(bytes) => {
                    let index = |offset| usize::try_from(offset).expect("the log is in memory");
                    out.write_all(&bytes[index(range.start)..index(range.end)])?;
                }
                Self::File(spool) => spool.copy(range, out)?,
            }
        }
        Ok(())
    }

    /// Makes the log itself a file.
    pub(super) fn copy_all(&self, max_bytes: u64, to: &Path) -> io::Result<File> {
        if let Self::File(spool) = self
            && spool.total <= max_bytes
        {
            // Nothing has wrapped around: the file is the log already. The other name goes when the spool is dropped.
            fs::hard_link(&spool.path, to)?;
            return spool.file.try_clone();
        }
        let mut file = File::create(to)?;
        self.copy_parts(std::slice::from_ref(&(0..self.total())), max_bytes, &mut file)?;
        Ok(file)
    }

    fn total(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(spool) => spool.total,
        }
    }
}
