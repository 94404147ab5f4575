//! What a pod's volumes take of the disk, and whether that is more than they may.

use std::{
    collections::HashSet,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::environment::Volumes;
use crate::quantity;

/// Files that are counted in one volume: this bounds what a look costs.
const MAX_FILES: usize = 10_000;
/// Of what a file's metadata counts in.
const BLOCK: u64 = 512;

/// An `emptyDir` with a `sizeLimit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    volume: String,
    directory: PathBuf,
    bytes: u64,
    /// As the pod has it.
    written: String,
}

/// What a look at the limits found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Why the pod has to go, in a kubelet's words.
    pub(super) excess: Option<String>,
    /// Volumes with more files than are counted.
    pub(super) uncounted: Vec<String>,
}

/// The limits that a pod sets its volumes. A limit of nothing is none, as a kubelet has it.
pub(super) fn limits(pod: &Value, volumes: &Volumes) -> Vec<Limit> {
    let declared = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let limit = |volume: &Value| {
        let name = volume["name"].as_str()?;
        let written = &volume["emptyDir"]["sizeLimit"];
        Some(Limit {
            volume: name.to_owned(),
            directory: volumes.get(name)?.clone(),
            bytes: quantity::bytes(written).filter(|bytes| *bytes > 0)?,
            written: written.as_str().map_or_else(|| written.to_string(), str::to_owned),
        })
    };
    declared.filter_map(limit).collect()
}

/// Measures the volumes. The files may come and go meanwhile: what cannot be read takes nothing.
pub(super) fn look(limits: &[Limit]) -> Found {
    let mut found = Found::default();
    for limit in limits {
        let (bytes, is_whole) = usage(&limit.directory, MAX_FILES);
        if !is_whole {
            found.uncounted.push(limit.volume.clone());
        }
        if bytes > limit.bytes && found.excess.is_none() {
            let Limit { volume, written, .. } = limit;
            found.excess = Some(format!("Usage of EmptyDir volume {volume:?} exceeds the limit {written:?}. "));
        }
    }
    found
}

/// Bytes on the disk below a directory, and whether all of it was counted.
fn usage(directory: &Path, max_files: usize) -> (u64, bool) {
    let (mut bytes, mut files) = (0, 0);
    let mut linked = HashSet::new();
    let mut to_visit = vec![directory.to_owned()];
    while let Some(directory) = to_visit.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if files == max_files {
                return (bytes, false);
            }
            files += 1;
            // Of a link itself, not of what it names.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                to_visit.push(entry.path());
            }
            if is_first_of_its_links(&metadata, &mut linked) {
                bytes += metadata.blocks() * BLOCK;
            }
        }
    }
    (bytes, true)
}

fn is_first_of_its_links(metadata: &Metadata, linked: &mut HashSet<(u64, u64)>) -> bool {
    metadata.is_dir() || metadata.nlink() < 2 || linked.insert((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_on_the_disk_is_counted_once_and_only_there() {
        let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, below) = (directory.path().join("file"), directory.path().join("a/b"));
        fs::create_dir_all(&below).unwrap();
        let empty = usage(directory.path(), MAX_FILES).0;
        fs::write(&file, vec![1; 1 << 16]).unwrap();
        fs::hard_link(&file, below.join("link")).unwrap();
        fs::write(elsewhere.path().join("big"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), below.join("away")).unwrap();
        let (bytes, is_whole) = usage(directory.path(), MAX_FILES);
        assert!(is_whole);
        assert!((1 << 16..1 << 17).contains(&(bytes - empty)), "{bytes}");
        assert!(!usage(directory.path(), 4).1, "five files are more than four");
    }

    #[test]
    fn only_an_empty_dir_with_a_size_has_a_limit() {
        let pod = json!({"spec": {"volumes": [
            {"name": "a", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "b", "emptyDir": {"sizeLimit": 2048, "medium": "Memory"}},
            {"name": "c", "emptyDir": {"sizeLimit": "0"}}, {"name": "d", "emptyDir": {}}, {"name": "e", "configMap": {"name": "x"}},
        ]}});
        let volumes: Volumes = ["a", "b", "c", "d", "e"].map(|name| (name.to_owned(), PathBuf::from(name))).into();
        let limits = limits(&pod, &volumes);
        let limits: Vec<_> =
            limits.iter().map(|limit| (limit.volume.as_str(), limit.bytes, limit.written.as_str())).collect();
        assert_eq!(limits, [("a", 1 << 20, "1Mi"), ("b", 2048, "2048")]);
    }
}
