//! The journal against its contract, a model, and what may befall its file.

mod crash;
mod file;
mod groups;
mod model;
mod retention;

mod contract {
    use std::sync::Arc;

    use tempfile::TempDir;

    use crate::journal::{Journal as _, Sqlite, conformance::suite};

    async fn open() -> (Arc<Sqlite>, TempDir) {
        let dir = TempDir::new().unwrap();
        (super::open_in(&dir).await, dir)
    }

    suite!(open);
}

use std::{path::Path, sync::Arc};

use super::{Options, Sqlite};

async fn open_in(dir: impl AsRef<Path>) -> Arc<Sqlite> {
    Sqlite::open(options_in(dir)).await.unwrap()
}

fn options_in(dir: impl AsRef<Path>) -> Options {
    Options { path: dir.as_ref().join("journal.db"), ..Options::default() }
}

/// The file as a crash at this moment would leave it: nobody writes while this runs.
fn copy_journal(from: &Path, to: &Path) {
    for name in ["journal.db", "journal.db-wal"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}
