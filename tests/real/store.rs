//! The store on a server that speaks MongoDB's protocol. Most tests share one, each with a database of its own; those that stop it
//! or break the way to it have their own.

#[path = "../../src/store/conformance.rs"]
pub(crate) mod conformance;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc},
};
use podherald::{
    clock::SystemClock,
    config::MongoUri,
    store::{
        Error,
        mongo::{Mongo, Options, Uri},
    },
};
pub(crate) use podherald::{
    inbox::{Incoming, Place},
    store::{
        Appended, Arrival, Attempt, DeadLetter, DeadLetterQuery, EventQuery, ExecutionQuery, Found, Listed, Outcome,
        Store, Stored,
    },
};
use podherald_core::execution::Status;
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};
use uuid::Uuid;

use self::conformance::{Run, kept, listed};
use crate::{
    cluster::variable,
    herald::{LIMIT, POLL},
    proxy::{Fault, Proxy},
};

/// A MongoDB.
pub(crate) struct Server {
    run: PathBuf,
    options: String,
    said: BTreeMap<String, String>,
    is_shared: bool,
}

impl Server {
    pub(crate) fn start(options: &str) -> Self {
        let run = tempfile::Builder::new().prefix("mongo.").tempdir().unwrap().keep();
        let mut server = Self { run, options: options.to_owned(), said: BTreeMap::new(), is_shared: false };
        server.go_on();
        server
    }

    pub(crate) async fn shared() -> &'static Self {
        static SHARED: OnceCell<Server> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                let mut server = Self::start("");
                server.is_shared = true;
                server.script(&["start", "toxiproxy"]);
                server
            })
            .await
    }

    /// Starts it where it was.
    fn go_on(&mut self) {
        let said = self.script(&["start", "mongo"]);
        let pairs = said.lines().filter_map(|line| line.split_once('='));
        self.said = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    fn script(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(variable("PODHERALD_REAL_SERVERS"));
        command.args(arguments).env("RUN", &self.run).env("MONGO_OPTIONS", &self.options).stderr(Stdio::inherit());
        let output = command.output().unwrap();
        let is_done = output.status.success() || std::thread::panicking();
        assert!(is_done, "servers.sh {} failed", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// With these credentials, `USER:PASSWORD@`, or none.
    pub(crate) fn uri(&self, credentials: &str) -> String {
        format!("mongodb://{credentials}{}/?directConnection=true", self.said["MONGO"])
    }

    pub(crate) fn proxied_uri(&self) -> String {
        format!("mongodb://{}/?directConnection=true", self.said["MONGO_PROXIED"])
    }

    pub(crate) fn start_proxy(&self) -> Proxy {
        self.script(&["start", "toxiproxy"]);
        Proxy::new("mongo", &self.said["TOXIPROXY"])
    }

    pub(crate) async fn database(&self, name: &str) -> Database {
        Client::with_uri_str(self.uri("")).await.unwrap().database(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.is_shared {
            self.script(&["stop"]);
            let _ = std::fs::remove_dir_all(&self.run);
        }
    }
}

fn new_database() -> String {
    format!("test-{}", Uuid::now_v7().simple())
}

async fn client(uri: &str, database: &str, timeout: Duration) -> Result<Mongo, Error> {
    let uri = Uri::Fixed(MongoUri::parse(uri).unwrap());
    Mongo::new(Options { uri, database: database.to_owned(), timeout }, Arc::new(SystemClock)).await
}

pub(crate) async fn store(uri: &str, database: &str) -> Mongo {
    let store = client(uri, database, Duration::from_secs(10)).await.unwrap();
    store.migrate().await.unwrap();
    store
}

async fn open() -> (Mongo, ()) {
    (store(&Server::shared().await.uri(""), &new_database()).await, ())
}

conformance::suite!(open);

mod by_way_of_the_proxy {
    async fn open() -> (super::Mongo, ()) {
        (super::store(&super::Server::shared().await.proxied_uri(), &super::new_database()).await, ())
    }

    super::conformance::suite!(open);
}

/// As a role does it: until it is acknowledged.
async fn persist<T>(mut write: impl AsyncFnMut() -> Result<T, Error>) -> (T, u32) {
    let mut failures = 0;
    let work = async {
        loop {
            match write().await {
                Ok(done) => return done,
                Err(Error::Unavailable { .. }) => failures += 1,
                Err(error) => panic!("{error}"),
            }
            sleep(POLL).await;
        }
    };
    let done = timeout(LIMIT, work).await.expect("nothing is acknowledged any more");
    (done, failures)
}

/// The life of one execution, then what it came to, both until they are acknowledged. How often they were not.
async fn store_life(store: &Mongo, id: &str) -> u32 {
    let life = Run::new(id, 1).life();
    let (_, appends) = persist(async || store.append(life.clone()).await).await;
    let (stored, results) = persist(async || store.put_result(outcome(&life)).await).await;
    assert!(matches!(stored, Stored::First | Stored::Again), "{stored:?}");
    appends + results
}

fn outcome(life: &[Arrival]) -> Outcome {
    Outcome::of(&serde_json::from_slice(&life[2].bytes).unwrap()).unwrap()
}

/// These and no others.
async fn assert_has(store: &Mongo, ids: &[String]) {
    assert_stored(store, ids).await;
    let mut ids = ids.to_vec();
    ids.sort_by(|a, b| b.cmp(a));
    assert_eq!(listed(store, ExecutionQuery::default()).await, ids);
}

async fn assert_stored(store: &Mongo, ids: &[String]) {
    for id in ids {
        let found = store.execution(id.clone()).await.unwrap().unwrap();
        assert_eq!(
            (found.execution.status, found.execution.stdout.as_deref()),
            (Status::Completed, Some("out")),
            "{id}"
        );
        let expected: Vec<_> = Run::new(id, 1).life().iter().map(|arrival| arrival.bytes.clone()).collect();
        assert_eq!(kept(store, id).await, expected, "{id}");
        assert_eq!(store.result(id.clone(), None).await.unwrap(), Some(outcome(&Run::new(id, 1).life())));
        assert_eq!(store.attempts(id.clone()).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_network_that_is_cut_or_loses_answers_or_is_slow_in_mid_write_costs_nothing_and_doubles_nothing() {
    let server = Server::start("");
    let proxy = server.start_proxy();
    let database = new_database();
    store(&server.uri(""), &database).await;
    let store = client(&server.proxied_uri(), &database, Duration::from_millis(600)).await.unwrap();
    let faults = [
        Fault::EndsAfter(3_000),
        Fault::EndsAfter(9_000),
        Fault::LosesAnswers,
        Fault::ResetsAfter(10),
        Fault::Cut,
        Fault::Slow(20),
    ];
    let mut ids = Vec::new();
    for (round, fault) in faults.into_iter().enumerate() {
        let of_round: Vec<_> = (0..12).map(|n| format!("{round}-{n}")).collect();
        proxy.break_by(fault).await;
        let heal = async {
            sleep(Duration::from_millis(900)).await;
            proxy.heal().await;
        };
        let (failures, ()) = tokio::join!(join_all(of_round.iter().map(|id| store_life(&store, id))), heal);
        let failures: u32 = failures.into_iter().sum();
        assert!(
            failures > 0 || matches!(fault, Fault::Slow(_) | Fault::EndsAfter(_) | Fault::ResetsAfter(_)),
            "{fault:?}"
        );
        ids.extend(of_round);
    }
    assert_has(&self::store(&server.uri(""), &database).await, &ids).await;
}

#[tokio::test]
async fn a_server_that_is_killed_in_mid_write_has_all_that_it_acknowledged() {
    let mut server = Server::start("");
    let (uri, database) = (server.uri(""), new_database());
    let store = store(&uri, &database).await;
    let mut ids = Vec::new();
    for kill in 0..4 {
        let mut acknowledged = 0;
        loop {
            let id = format!("{kill}-{acknowledged}");
            let life = Run::new(&id, 1).life();
            let write = async {
                store.append(life.clone()).await?;
                store.put_result(outcome(&life)).await
            };
            let killing = async {
                if acknowledged == 5 {
                    sleep(Duration::from_millis(3 * kill)).await;
                    server.script(&["kill", "mongo"]);
                }
            };
            let (written, ()) = tokio::join!(write, killing);
            if written.is_ok() {
                ids.push(id);
                acknowledged += 1;
            }
            if written.is_err() || acknowledged > 5 {
                break;
            }
        }
        server.go_on();
        persist(async || store.check().await).await;
        assert_stored(&store, &ids).await;
        // What was not acknowledged comes again.
        let interrupted = format!("{kill}-{acknowledged}");
        store_life(&store, &interrupted).await;
        ids.push(interrupted);
    }
    assert_has(&store, &ids).await;
}

#[tokio::test]
async fn what_grows_without_a_bound_is_in_a_file_and_files_that_nothing_names_go() {
    let (server, name) = (Server::shared().await, new_database());
    let store = store(&server.uri(""), &name).await;
    let mut run = Run::new("e", 1);
    let large = "x".repeat(5 << 20);
    for n in 1..=4 {
        let amended = run.amended(n, &large);
        for expected in [Appended::New, Appended::Known] {
            assert_eq!(store.append(vec![amended.clone()]).await.unwrap(), [expected]);
        }
    }
    let result = Outcome { stdout: large.into(), ..outcome(&run.life()) };
    let other = Outcome { event_id: Uuid::nil(), ..result.clone() };
    let stored =
        tokio::join!(store.put_result(result.clone()), store.put_result(result.clone()), store.put_result(other));
    assert!([stored.0, stored.1, stored.2].into_iter().filter(|stored| *stored == Ok(Stored::First)).count() == 1);
    assert_eq!(store.execution("e".to_owned()).await.unwrap().unwrap().execution.amended.len(), 4);
    assert_eq!(listed(&store, ExecutionQuery::default()).await, ["e"]);
    let files = server.database(&name).await.collection::<Document>("fs.files");
    assert_eq!(files.count_documents(doc! {}).await.unwrap(), 4 + 1 + 1, "four events, one execution, one result");
}

#[tokio::test]
async fn two_processes_that_write_the_same_leave_it_once() {
    let (uri, database) = (Server::shared().await.uri(""), new_database());
    let (one, other) = (store(&uri, &database).await, store(&uri, &database).await);
    let ids: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let mut firsts = 0;
    for id in &ids {
        let life = Run::new(id, 1).life();
        let (a, b) = tokio::join!(one.append(life.clone()), other.append(life.clone()));
        let new = a.unwrap().into_iter().chain(b.unwrap()).filter(|appended| *appended == Appended::New).count();
        assert_eq!(new, life.len());
        let (a, b) = tokio::join!(one.put_result(outcome(&life)), other.put_result(outcome(&life)));
        firsts += [a.unwrap(), b.unwrap()].into_iter().filter(|stored| *stored == Stored::First).count();
    }
    assert_eq!(firsts, ids.len());
    assert_has(&other, &ids).await;
}

#[tokio::test]
async fn every_query_of_the_store_goes_along_its_index() {
    let (store, ()) = open().await;
    for n in 0..20 {
        store.append(Run::new(&n.to_string(), 1).life()).await.unwrap();
    }
    let explained = store.explain().await.unwrap();
    assert!(explained.len() >= 9);
    for (index, explained) in explained {
        let plan = explained.get_document("queryPlanner").unwrap().get_document("winningPlan").unwrap();
        let stages = stages(plan);
        assert!(stages.iter().any(|stage| *stage == format!("IXSCAN {index}")), "{stages:?}");
        assert!(stages.iter().all(|stage| !stage.starts_with("COLLSCAN")), "{stages:?}");
    }
}

fn stages(plan: &Document) -> Vec<String> {
    let name = |key: &str| plan.get_str(key).unwrap_or_default();
    let mut found = vec![format!("{} {}", name("stage"), name("indexName"))];
    if let Ok(inner) = plan.get_document("inputStage") {
        found.extend(stages(inner));
    }
    found
}

#[tokio::test]
async fn migrations_are_applied_once_by_several_at_a_time_and_go_on_where_one_failed() {
    let server = Server::shared().await;
    let (uri, name) = (server.uri(""), new_database());
    let database = server.database(&name).await;
    // An index of the same name that somebody made otherwise.
    let other = doc! { "createIndexes": "receipts", "indexes": [{ "key": { "other": 1 }, "name": "by_role" }] };
    database.run_command(other).await.unwrap();
    let pending = client(&uri, &name, LIMIT).await.unwrap();
    let lacking = pending.check_schema().await.unwrap_err().to_string();
    assert!(lacking.contains("lacks 0001_collections.json: run `podherald migrate`"), "{lacking}");
    let failed = pending.migrate().await.unwrap_err();
    let said = failed.to_string();
    assert!(matches!(failed, Error::Refused { .. }), "{said}");
    assert!(said.contains("0001_collections.json, command") && said.contains("(createIndexes) failed"), "{said}");
    let record = database.collection::<Document>("schema_migrations").find_one(doc! {}).await.unwrap().unwrap();
    let done = record.get_i64("done").unwrap();
    assert!(done > 5 && !record.get_bool("finished").unwrap(), "{record}");
    // A process that died holds the lock, but not for ever.
    let past = mongodb::bson::DateTime::from_millis(1);
    let dead = doc! { "_id": "migrations", "holder": "dead", "expires_at": past };
    database.collection::<Document>("schema_lock").insert_one(dead).await.unwrap();
    database.run_command(doc! { "dropIndexes": "receipts", "index": "by_role" }).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(&uri, &name, LIMIT).await.unwrap());
    }
    let applied = join_all(clients.iter().map(Mongo::migrate)).await;
    let applied: usize = applied.into_iter().map(|applied| applied.unwrap().len()).sum();
    assert_eq!(applied, 1);
    pending.check_schema().await.unwrap();
    assert_eq!(pending.migrate().await.unwrap(), []);
    let indexes = database.collection::<Document>("receipts").list_index_names().await.unwrap();
    assert!(indexes.contains(&"by_role".to_owned()), "{indexes:?}");
    let refusal = database.collection("executions").insert_one(doc! { "_id": "x" }).await.unwrap_err().to_string();
    assert!(refusal.contains("failed validation"), "{refusal}");

    let newer = doc! { "_id": 99_i64, "name": "0099", "digest": "", "done": 1_i64, "finished": true };
    database.collection::<Document>("schema_migrations").insert_one(newer).await.unwrap();
    for refusal in [pending.migrate().await.err().unwrap(), pending.check_schema().await.unwrap_err()] {
        let said = refusal.to_string();
        assert!(said.contains("has schema 99") && said.contains("start the newer podherald"), "{said}");
    }
}

#[tokio::test]
async fn a_document_that_somebody_else_changed_is_named() {
    let server = Server::shared().await;
    let name = new_database();
    let (store, database) = (store(&server.uri(""), &name).await, server.database(&name).await);
    let life = Run::new("e", 1).life();
    store.append(life.clone()).await.unwrap();
    store.put_result(outcome(&life)).await.unwrap();
    let change = async |collection: &str, set: Document| {
        let collection = database.collection::<Document>(collection);
        let changed = collection.update_many(doc! {}, doc! { "$set": set }).await.unwrap();
        assert!(changed.modified_count > 0);
    };
    change("executions", doc! { "body": "{}" }).await;
    change("execution_results", doc! { "stdout": Bson::Null }).await;
    change("attempts", doc! { "status": "done" }).await;
    for (error, words) in [
        (
            store.execution("e".to_owned()).await.unwrap_err(),
            ".executions holds what podherald did not write: body: missing field",
        ),
        (store.append(vec![Run::new("e", 2).started()]).await.unwrap_err(), "missing field `execution_id`"),
        (store.result("e".to_owned(), None).await.unwrap_err(), ".execution_results holds what"),
        (store.attempts("e".to_owned()).await.unwrap_err(), "unknown variant `done`"),
    ] {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn credentials_and_rights_that_are_wrong_are_named_and_no_password_is() {
    let mut server = Server::start("");
    let admin = server.database("admin").await;
    for (user, role) in [("writer", "readWrite"), ("reader", "read")] {
        let roles = vec![doc! { "role": role, "db": "lab" }, doc! { "role": role, "db": "lab" }];
        let create = doc! { "createUser": user, "pwd": "s3cret-word", "roles": roles };
        admin.run_command(create).await.unwrap();
    }
    let grant = doc! { "role": "dbAdmin", "db": "lab" };
    admin.run_command(doc! { "grantRolesToUser": "writer", "roles": [grant] }).await.unwrap();
    drop(admin);
    server.script(&["stop", "mongo"]);
    server.options = "--auth".to_owned();
    server.go_on();
    let open = async |credentials: &str| {
        client(&server.uri(credentials), "lab", Duration::from_secs(5)).await.unwrap().migrate().await
    };
    assert_eq!(open("writer:s3cret-word@").await.unwrap().len(), 1);
    for (credentials, words) in [
        ("writer:s3cret-wrong@", "does not take the user and password of `mongo.uri`"),
        ("nobody:s3cret-word@", "does not take the user and password of `mongo.uri`"),
        ("", "lacks a right"),
    ] {
        let error = open(credentials).await.unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, Error::Refused { .. }), "{credentials}: {said}");
        assert!(said.contains(words) && !said.contains("s3cret"), "{credentials}: {said}");
    }
    let reader = client(&server.uri("reader:s3cret-word@"), "lab", Duration::from_secs(5)).await.unwrap();
    reader.check_schema().await.unwrap();
    let error = reader.append(Run::new("e", 1).life()).await.unwrap_err().to_string();
    assert!(error.contains("needs the roles readWrite and dbAdmin on the database lab"), "{error}");
}

#[tokio::test]
async fn podherald_migrate_brings_the_database_of_the_settings_up_to_date() {
    let (uri, database) = (Server::shared().await.uri(""), new_database());
    let migrate = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podherald"));
        command.args(["migrate", "--set", &format!("mongo.database={database}")]);
        command.env_clear().env("PODHERALD_MONGO__URI", &uri);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(migrate(), format!("applied 0001_collections.json\ndatabase {database} has schema 1\n"));
    assert_eq!(migrate(), format!("database {database} has schema 1\n"));
}
