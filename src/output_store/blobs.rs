//! Which blobs were made of an execution's output: a line each, written before the blob is.
//!
//! When the execution goes, its list goes into `unremoved/` first and stays there until all of them are removed: a blob store
//! that is away then is asked again.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{OutputStore, Result, blocking, failed, missing_is_fine, sync_directory};

const LIST: &str = "blobs";

/// Blobs that are to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unremoved {
    path: PathBuf,
    /// Their URIs, each once.
    pub uris: BTreeSet<String>,
}

impl OutputStore {
    /// Notes durably that there may be a blob of this execution under this URI.
    ///
    /// # Errors
    /// If that cannot be written.
    pub async fn note_blob(&self, execution_id: &str, uri: &str) -> Result<()> {
        // On a line of its own, whatever a crash left of the one before.
        let (directory, line) = (self.execution(execution_id), format!("\n{uri}\n"));
        blocking(move || append(&directory, &line)).await
    }

    /// Keeps in mind what blobs there are of an execution that is about to be removed; that there are none is fine.
    ///
    /// # Errors
    /// If that cannot be written.
    pub async fn leave_blobs(&self, execution_id: &str) -> Result<()> {
        let (list, unremoved) = (self.execution(execution_id).join(LIST), self.unremoved());
        blocking(move || {
            if !list.exists() {
                return Ok(());
            }
            fs::create_dir_all(&unremoved).map_err(failed("make", &unremoved))?;
            // Under the execution's own name, which may be left a second time before the first is done.
            let name = list.parent().and_then(Path::file_name).expect("an execution has a directory");
            let free = (0_u32..).map(|n| unremoved.join(format!("{}.{n}", name.to_string_lossy())));
            let to = free.into_iter().find(|path| !path.exists()).expect("there are more numbers than files");
            fs::rename(&list, &to).map_err(failed("move", &list))?;
            sync_directory(&unremoved)
        })
        .await
    }

    /// The lists of blobs of executions that are gone.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub async fn unremoved_blobs(&self) -> Result<Vec<PathBuf>> {
        let directory = self.unremoved();
        blocking(move || {
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(failed("read", &directory)(error)),
            };
            entries.map(|entry| Ok(entry.map_err(failed("read", &directory))?.path())).collect()
        })
        .await
    }

    /// What is in such a list, but for what the same execution has come to name again.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn read_unremoved(&self, list: PathBuf) -> Result<Unremoved> {
        let root = self.root.clone();
        blocking(move || {
            let mut unremoved = read(&list)?;
            let name = list.file_stem().unwrap_or_default();
            let current = root.join(name).join(LIST);
            if current.exists() {
                let named = read(&current)?.uris;
                unremoved.uris.retain(|uri| !named.contains(uri));
            }
            Ok(unremoved)
        })
        .await
    }

    /// They are removed, all of them.
    ///
    /// # Errors
    /// If that cannot be written.
    pub async fn forget_blobs(&self, unremoved: Unremoved) -> Result<()> {
        let Unremoved { path, .. } = unremoved;
        blocking(move || missing_is_fine(fs::remove_file(&path)).map_err(failed("remove", &path))).await
    }

    fn unremoved(&self) -> PathBuf {
        self.root.join("unremoved")
    }
}

fn append(directory: &Path, line: &str) -> Result<()> {
    fs::create_dir_all(directory).map_err(failed("make", directory))?;
    let path = directory.join(LIST);
    let is_new = !path.exists();
    let written = File::options().create(true).append(true).open(&path).and_then(|mut file| {
        file.write_all(line.as_bytes())?;
        file.sync_data()
    });
    written.map_err(failed("write", &path))?;
    if is_new {
        sync_directory(directory)?;
        directory.parent().map_or(Ok(()), sync_directory)?;
    }
    Ok(())
}

/// A line that a crash has cut names no blob.
fn read(path: &Path) -> Result<Unremoved> {
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let uris = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Ok(Unremoved { path: path.to_owned(), uris })
}
