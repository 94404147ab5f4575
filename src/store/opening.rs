//! Which store the settings mean, and how it is opened or only brought up to date.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Error, Result, Store,
    mongo::{self, Mongo},
    sqlite::{self, Sqlite},
};
use crate::{
    clock::Clock,
    config::Config,
    lock::{Acquired, DataDir},
};

/// Within the data directory.
const FILE: &str = "store.db";

/// Which of the two.
enum Place {
    Mongo(mongo::Options),
    /// The file.
    Embedded(PathBuf),
}

fn place(config: &Config, data_dir: &Path) -> Place {
    let section = &config.mongo;
    let fixed = section.uri.clone().map(mongo::Uri::Fixed);
    match fixed.or_else(|| section.uri_file.clone().map(mongo::Uri::File)) {
        Some(uri) => Place::Mongo(mongo::Options {
            uri,
            database: section.database.as_str().to_owned(),
            timeout: section.timeout,
        }),
        None => Place::Embedded(data_dir.join(FILE)),
    }
}

/// Opens the store that the settings mean. The caller owns the data directory.
///
/// # Errors
/// It is away, newer, or, with `store.migrate_at_start = false`, older; the settings are wrong, or not enough.
pub async fn open(config: &Config, data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>> {
    match place(config, data_dir) {
        Place::Embedded(path) => Ok(Arc::new(Sqlite::open(&path).await?)),
        Place::Mongo(options) => {
            let mongo = Mongo::new(options, clock).await?;
            if config.store.migrate_at_start {
                mongo.migrate().await?;
            } else {
                mongo.check_schema().await?;
            }
            Ok(Arc::new(mongo))
        }
    }
}

/// Brings the store up to date, and says what that took.
///
/// # Errors
/// As [`open`]; and where a running podherald owns the data directory of an embedded store.
pub async fn migrate(config: &Config, clock: Arc<dyn Clock>) -> Result<String> {
    match place(config, &config.data_dir) {
        Place::Embedded(path) => {
            let refused = |reason: String| Error::Refused { doing: "be brought up to date", reason };
            let owned = DataDir::acquire(&config.data_dir).map_err(|error| refused(crate::wording::of(&error)))?;
            let Acquired::Owned(_owned) = owned else {
                let place = config.data_dir.display();
                return Err(refused(format!(
                    "a running podherald owns data_dir {place}; it does so itself when it opens its store"
                )));
            };
            Sqlite::open(&path).await?;
            Ok(format!("{} has schema {}\n", path.display(), sqlite::SCHEMA))
        }
        Place::Mongo(options) => {
            let database = options.database.clone();
            let applied = Mongo::new(options, clock).await?.migrate().await?;
            let lines: String = applied.iter().map(|migration| format!("applied {}\n", migration.name)).collect();
            Ok(format!("{lines}database {database} has schema {}\n", mongo::SCHEMA))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn an_embedded_store_is_made_and_brought_up_to_date_unless_somebody_owns_it() {
        let dir = TempDir::new().unwrap();
        let config = Config::of(&[("data_dir", dir.path().to_str().unwrap())]).unwrap();
        let migrate = async || migrate(&config, Arc::new(SystemClock)).await;
        for _ in 0..2 {
            assert!(migrate().await.unwrap().ends_with("store.db has schema 1\n"));
        }
        open(&config, &config.data_dir, Arc::new(SystemClock)).await.unwrap().check().await.unwrap();
        let _owned = DataDir::acquire(dir.path()).unwrap();
        let refusal = migrate().await.unwrap_err().to_string();
        assert!(refusal.contains("a running podherald owns data_dir"), "{refusal}");
    }

    #[tokio::test]
    async fn a_mongo_that_cannot_be_had_is_refused_by_the_setting_that_is_wrong() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("uri");
        std::fs::write(&file, "mongodb://app:s%40crt@\n").unwrap();
        let missing = dir.path().join("missing");
        let (file, missing) = (file.to_str().unwrap(), missing.to_str().unwrap());
        let rows: [(&[(&str, &str)], &str); 4] = [
            (&[("mongo.uri_file", missing)], "`mongo.uri_file`"),
            (&[("mongo.uri_file", file)], "must hold a connection string such as mongodb://host"),
            (&[("mongo.uri", "mongodb://127.0.0.1:1")], "no server of `mongo.uri` answers"),
            (&[("mongo.uri", "mongodb://127.0.0.1:1/?tls=true&tlsCAFile=/no/ca.pem")], "`mongo.uri`"),
        ];
        for (settings, words) in rows {
            let settings = [settings, &[("mongo.timeout", "400ms")]].concat();
            let config = Config::of(&settings).unwrap();
            for error in [
                open(&config, &config.data_dir, Arc::new(SystemClock)).await.err().unwrap(),
                migrate(&config, Arc::new(SystemClock)).await.unwrap_err(),
            ] {
                let said = error.to_string();
                assert!(said.contains(words) && !said.contains("crt"), "{settings:?}: {said}");
            }
        }
    }
}
