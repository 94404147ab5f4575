//! The schema of the database: the commands of `migrations/`, in their order, each at least once.
//!
//! `schema_migrations` says which are done, and how far one came that was cut off. Every command can be repeated, so nothing
//! depends on the lock but that two processes do not do the same work: it ends by itself when its holder dies.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use mongodb::bson::{Document, doc};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, interval, sleep};
use uuid::Uuid;

use super::{
    Act, Mongo, documents,
    fault::{self, Fault},
};
use crate::store::{Error, Result};

/// File and contents. One that was published is never changed; see migrations/README.md.
const MIGRATIONS: [(&str, &str); 1] =
    [("0001_collections.json", include_str!("../../../migrations/0001_collections.json"))];

/// The newest schema that this program knows, and the one it makes.
pub const SCHEMA: i64 = MIGRATIONS.len() as i64;

const RECORDS: &str = "schema_migrations";
const LOCK: &str = "schema_lock";
const LOCK_ID: &str = "migrations";
/// After this the lock of a process that died is anybody's.
const LOCK_EXPIRY: SignedDuration = SignedDuration::from_secs(30);
/// Before that it is renewed, several times over.
const LOCK_RENEWAL: Duration = Duration::from_secs(5);
/// From one try to take it to the next.
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// "NamespaceExists".
const EXISTS: i32 = 48;

/// A migration that this call finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its place in the order, from 1.
    pub number: i64,
    /// Its file.
    pub name: &'static str,
}

/// One file.
#[derive(Debug, Clone, PartialEq)]
struct Migration {
    number: i64,
    name: &'static str,
    digest: String,
    commands: Vec<Document>,
}

/// What the database says of one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    digest: String,
    /// Commands that are done.
    done: usize,
    is_finished: bool,
}

fn migrations() -> Vec<Migration> {
    #[derive(serde::Deserialize)]
    struct File {
        commands: Vec<Document>,
    }
    let read = |(number, (name, text)): (i64, (&'static str, &str))| {
        let File { commands } = serde_json::from_str(text).expect("a test reads each of them");
        let digest = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        Migration { number, name, digest, commands }
    };
    (1..).zip(MIGRATIONS).map(read).collect()
}

/// Which are to be done, each from which command on.
fn pending<'a>(
    migrations: &'a [Migration],
    records: &BTreeMap<i64, Record>,
    database: &str,
) -> Result<Vec<(&'a Migration, usize)>> {
    let known = migrations.last().map_or(0, |last| last.number);
    if let Some(found) = records.keys().next_back().copied().filter(|found| *found > known) {
        return Err(Error::Newer { place: database.to_owned(), found, known });
    }
    let mut pending = Vec::new();
    for migration in migrations {
        match records.get(&migration.number) {
            Some(record) if record.is_finished && record.digest != migration.digest => {
                return Err(Error::Refused {
                    doing: "bring the database up to date",
                    reason: format!(
                        "{} is not what was applied to the database {database} under this number: the database is of another \
                         podherald, set `mongo.database`",
                        migration.name
                    ),
                });
            }
            Some(record) if record.is_finished => {}
            // One that was repaired since it failed begins anew: all can be repeated.
            Some(record) if record.digest == migration.digest => pending.push((migration, record.done)),
            _ => pending.push((migration, 0)),
        }
    }
    Ok(pending)
}

impl Mongo {
    /// Brings the database up to date, unless it is. Several processes may do this at the same time.
    ///
    /// # Errors
    /// [`Error::Newer`]; [`Error::Refused`] with the migration and command that failed: what came before stays done, and the next
    /// call goes on there.
    pub async fn migrate(&self) -> Result<Vec<Applied>> {
        self.told("bring the database up to date", self.apply_all()).await
    }

    /// Whether the database is up to date.
    ///
    /// # Errors
    /// [`Error::Newer`]; [`Error::Refused`] where it is older.
    pub async fn check_schema(&self) -> Result<()> {
        let check = async {
            let migrations = migrations();
            match pending(&migrations, &self.records().await?, &self.wording.database)?.first() {
                None => Ok(()),
                Some((first, _)) => {
                    let reason = format!(
                        "the database {} lacks {}: run `podherald migrate`, or set `store.migrate_at_start`",
                        self.wording.database, first.name
                    );
                    Err(Error::Refused { doing: "use a database that is not up to date", reason }.into())
                }
            }
        };
        self.told("read its schema", check).await
    }

    async fn apply_all(&self) -> Act<Vec<Applied>> {
        let migrations = migrations();
        if pending(&migrations, &self.records().await?, &self.wording.database)?.is_empty() {
            return Ok(Vec::new());
        }
        let holder = Uuid::now_v7().to_string();
        self.lock(&holder).await?;
        let result = self.apply_locked(&migrations, &holder).await;
        // A lock that stays is anybody's soon.
        let locks = self.collection(LOCK);
        let unlock = locks.delete_one(doc! { "_id": LOCK_ID, "holder": &holder });
        if let Err(fault) = self.within(unlock).await {
            let reason = self.wording.explain(fault, "give the lock back").to_string();
            tracing::warn!(reason, "the lock of the migrations ends by itself");
        }
        result
    }

    async fn apply_locked(&self, migrations: &[Migration], holder: &str) -> Act<Vec<Applied>> {
        // Read again: who held the lock before may have done it.
        let records = self.records().await?;
        let mut applied = Vec::new();
        for (migration, from) in pending(migrations, &records, &self.wording.database)? {
            for (done, command) in migration.commands.iter().enumerate().skip(from) {
                self.record(migration, done, false).await?;
                self.run_holding(holder, command).await.map_err(|fault| self.name(fault, migration, done))?;
            }
            self.record(migration, migration.commands.len(), true).await?;
            tracing::info!(
                migration = migration.name,
                database = self.wording.database,
                "the database has been brought up to date"
            );
            applied.push(Applied { number: migration.number, name: migration.name });
        }
        Ok(applied)
    }

    /// An error that says which command it was.
    fn name(&self, fault: Fault, migration: &Migration, done: usize) -> Fault {
        let command = migration.commands.get(done).and_then(|command| command.keys().next());
        let place = format!("{}, command {} ({})", migration.name, done + 1, command.map_or("", |name| name));
        let (is_for_ever, said) = match fault {
            Fault::Driver(error) => {
                (fault::code(&error).is_some(), self.wording.explain(error.into(), "run it").to_string())
            }
            other => (false, self.wording.explain(other, "run it").to_string()),
        };
        let reason = format!("{place} failed: {said}; what came before it is done, and the next try goes on with it");
        let doing = "bring the database up to date";
        Fault::Told(if is_for_ever { Error::Refused { doing, reason } } else { Error::Unavailable { doing, reason } })
    }

    async fn records(&self) -> Act<BTreeMap<i64, Record>> {
        let mut records = BTreeMap::new();
        for document in self.all(self.collection(RECORDS).find(Document::new())).await? {
            let (number, record) = Self::read(RECORDS, read_record(&document))?;
            records.insert(number, record);
        }
        Ok(records)
    }

    async fn record(&self, migration: &Migration, done: usize, is_finished: bool) -> Act<()> {
        let record = doc! {
            "name": migration.name,
            "digest": &migration.digest,
            "done": documents::number(done as u64),
            "finished": is_finished,
            "at": date(self.clock.now()),
        };
        let records = self.collection(RECORDS);
        let update = records.update_one(doc! { "_id": migration.number }, doc! { "$set": record });
        self.within(update.upsert(true)).await?;
        Ok(())
    }

    /// However long an index takes to be built: the lock is renewed meanwhile, and a command is not ended by `mongo.timeout`.
    async fn run_holding(&self, holder: &str, command: &Document) -> Act<()> {
        let mut renewals = interval(LOCK_RENEWAL);
        let run = self.run_repeatable(command);
        tokio::pin!(run);
        loop {
            tokio::select! {
                done = &mut run => return done,
                _ = renewals.tick() => self.renew(holder).await?,
            }
        }
    }

    async fn run_repeatable(&self, command: &Document) -> Act<()> {
        let Err(error) = self.database.run_command(command.clone()).await else { return Ok(()) };
        match (fault::code(&error), command.get("create"), command.get("validator")) {
            (Some(EXISTS), Some(_), None) => Ok(()),
            (Some(EXISTS), Some(name), Some(validator)) => {
                self.database.run_command(doc! { "collMod": name, "validator": validator }).await?;
                Ok(())
            }
            _ => Err(error.into()),
        }
    }

    async fn lock(&self, holder: &str) -> Act<()> {
        let deadline = Instant::now() + 2 * LOCK_EXPIRY.unsigned_abs() + self.timeout;
        loop {
            let now = self.clock.now();
            let free = doc! { "_id": LOCK_ID, "expires_at": { "$lt": date(now) } };
            let ours = doc! { "$set": { "holder": holder, "expires_at": date(now + LOCK_EXPIRY) } };
            match self.within(self.collection(LOCK).update_one(free, ours).upsert(true)).await {
                Ok(_) => return Ok(()),
                Err(Fault::Driver(error)) if fault::is_duplicate(&error) => {}
                Err(fault) => return Err(fault),
            }
            if Instant::now() >= deadline {
                let reason = "another podherald holds the lock of the migrations all the time".to_owned();
                return Err(Error::Unavailable { doing: "bring the database up to date", reason }.into());
            }
            sleep(LOCK_PAUSE).await;
        }
    }

    async fn renew(&self, holder: &str) -> Act<()> {
        let later = doc! { "$set": { "expires_at": date(self.clock.now() + LOCK_EXPIRY) } };
        let locks = self.collection(LOCK);
        let renewal = locks.update_one(doc! { "_id": LOCK_ID, "holder": holder }, later);
        if self.within(renewal).await?.matched_count == 0 {
            let reason = "another podherald has taken over the migrations, for this one was too slow".to_owned();
            return Err(Error::Unavailable { doing: "bring the database up to date", reason }.into());
        }
        Ok(())
    }
}

fn date(at: Timestamp) -> mongodb::bson::DateTime {
    mongodb::bson::DateTime::from_millis(at.as_millisecond())
}

fn read_record(document: &Document) -> documents::Reading<(i64, Record)> {
    let number = document.get_i64("_id").map_err(|error| error.to_string())?;
    let done = usize::try_from(documents::unsigned(document, "done")?).map_err(|error| error.to_string())?;
    let is_finished = document.get_bool("finished").map_err(|error| error.to_string())?;
    Ok((number, Record { digest: documents::text(document, "digest")?.to_owned(), done, is_finished }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    #[test]
    fn every_file_of_migrations_is_embedded_in_its_order_and_can_be_repeated() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let files: BTreeSet<String> = files.filter(|name| name.ends_with(".json")).collect();
        let embedded: Vec<_> = MIGRATIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(files.into_iter().collect::<Vec<_>>(), embedded);
        for migration in migrations() {
            assert!(migration.name.starts_with(&format!("{:04}_", migration.number)), "{}", migration.name);
            for command in &migration.commands {
                let name = command.keys().next().unwrap();
                assert!(["create", "createIndexes", "collMod"].contains(&&**name), "{name} may not be repeatable");
            }
        }
    }

    #[test]
    fn what_is_pending_goes_on_where_it_was_cut_off_and_nothing_foreign_is_touched() {
        let migration =
            |number, name, digest: &str| Migration { number, name, digest: digest.to_owned(), commands: vec![] };
        let migrations = [migration(1, "0001_a", "a"), migration(2, "0002_b", "b")];
        let record = |digest: &str, done, is_finished| Record { digest: digest.to_owned(), done, is_finished };
        let go = |records: Vec<(i64, Record)>| {
            let pending = pending(&migrations, &records.into_iter().collect(), "lab");
            pending.map(|pending| pending.iter().map(|(of, from)| (of.number, *from)).collect::<Vec<_>>())
        };
        assert_eq!(go(vec![]).unwrap(), [(1, 0), (2, 0)]);
        assert_eq!(go(vec![(1, record("a", 3, true))]).unwrap(), [(2, 0)]);
        assert_eq!(go(vec![(1, record("a", 2, false))]).unwrap(), [(1, 2), (2, 0)]);
        assert_eq!(go(vec![(1, record("broken", 2, false))]).unwrap(), [(1, 0), (2, 0)], "repaired since");
        let newer = go(vec![(3, record("c", 1, false))]).unwrap_err().to_string();
        assert!(newer.contains("lab has schema 3, this podherald knows schemas up to 2: start the newer"), "{newer}");
        let foreign = go(vec![(1, record("x", 1, true))]).unwrap_err().to_string();
        assert!(
            foreign.contains("0001_a is not what was applied") && foreign.contains("`mongo.database`"),
            "{foreign}"
        );
    }
}
