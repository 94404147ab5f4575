//! Output in a blob store: named by the event once it is there, never before, and never waited for too long.

use std::{fs, path::Path, time::Duration};

use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    herald::{Herald, LIMIT, POLL, ends},
    pods::{NAMESPACE, ended},
    process::Place,
    s3_server::{BUCKET, KEY_ID, S3},
    scripted_api::log_text,
    world::World,
};

/// More than `blob.deadline`.
const PATIENCE: Duration = Duration::from_secs(60);

struct Shared {
    world: World,
    directory: TempDir,
}

impl Shared {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        let url = format!("file://{}/blobs", directory.path().display());
        fs::create_dir(directory.path().join("blobs")).unwrap();
        let settings = [settings, &[("blob.url", &url)]].concat();
        let mut world = World::new("2026-02-10T12:00:03Z", &settings);
        world.start().await;
        Self { world, directory }
    }

    fn root(&self) -> std::path::PathBuf {
        self.directory.path().join("blobs")
    }

    /// A pod prints this and ends well.
    fn run(&self, id: &str, printed: &str) {
        self.world.api.set_logs(NAMESPACE, &format!("executor-{id}"), "executor", log_text(printed));
        self.world.api.apply(ended(id, 0));
    }

    async fn end(&self, id: &str) -> Value {
        self.world.until(id, "completed", PATIENCE).await;
        let events = self.world.events().await;
        events.into_iter().find(|event| event["execution_id"] == id && ends(event)).unwrap()
    }

    /// The URIs of all blobs.
    fn blobs(&self) -> Vec<String> {
        let mut uris = files(&self.root());
        uris.retain(|uri| !uri.contains("podherald-probe"));
        uris.sort_unstable();
        uris
    }
}

fn files(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let entries = entries.map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![format!("file://{}", path.display())] })
        .collect()
}

fn read(uri: &str) -> String {
    fs::read_to_string(uri.strip_prefix("file://").unwrap()).unwrap()
}

fn long(word: &str) -> String {
    format!("{word}\n").repeat(20_000)
}

#[tokio::test(start_paused = true)]
async fn an_event_names_the_blob_of_what_it_does_not_hold_and_it_is_served_when_the_disk_has_lost_it() {
    let shared = Shared::start(&[]).await;
    shared.run("small", "hello\n");
    shared.run("large", &long("large"));
    let report = json!({"exit_code": 0, "stdout": long("out"), "stderr": "few"}).to_string();
    shared.run("report", &report);
    let small = shared.end("small").await;
    assert_eq!(small["output"].get("uri"), None, "the event holds it: {small:#}");

    let large = shared.end("large").await;
    let uri = large["output"]["uri"].as_str().unwrap();
    for field in [&large["output"]["stdout"]["uri"], &large["output"]["raw_uri"]] {
        assert_eq!(field, uri);
    }
    assert_eq!(read(uri), long("large"));
    assert!(uri.contains("/large/uid-large/stdout-"), "{uri}");
    assert!(uri.ends_with(large["output"]["stdout"]["sha256"].as_str().unwrap()), "{uri}");

    let reported = shared.end("report").await;
    let [out, raw] =
        ["/output/stdout/uri", "/output/raw_uri"].map(|at| reported.pointer(at).unwrap().as_str().unwrap());
    assert_eq!((read(out), read(raw)), (long("out"), report.clone()));
    assert_eq!(reported["output"]["uri"], out);
    assert_eq!(reported["output"]["stderr"].get("uri"), None);
    assert_eq!(shared.blobs().len(), 3);

    shared.world.lose_outputs();
    for (query, expected) in
        [("large/output", &long("large")), ("report/output", &long("out")), ("report/output?stream=raw", &report)]
    {
        let (status, text) = shared.world.text(&format!("/executions/{query}")).await;
        assert!(status == StatusCode::OK && text == *expected, "{query}: {status}, {} bytes", text.len());
    }
    let part = shared.world.ask("/executions/large/output", &[("range", "bytes=6-10")]).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 6-10/120000");
    assert_eq!(part.into_body().collect().await.unwrap().to_bytes(), "large");
    let away = shared.directory.path().join("away");
    fs::rename(shared.root(), &away).unwrap();
    let (status, problem) = shared.world.get("/executions/large/output").await;
    let expected = (StatusCode::SERVICE_UNAVAILABLE, &json!("urn:podherald:problem:blob-store-away"));
    assert_eq!((status, &problem["type"]), expected);
    fs::rename(&away, shared.root()).unwrap();
    fs::remove_file(uri.strip_prefix("file://").unwrap()).unwrap();
    let (status, problem) = shared.world.get("/executions/large/output").await;
    assert_eq!((status, problem["detail"].as_str().unwrap().contains(uri)), (StatusCode::NOT_FOUND, true), "{problem}");
}

/// T108
#[tokio::test(start_paused = true)]
async fn a_crash_between_the_blob_and_its_event_makes_neither_twice() {
    let mut shared = Shared::start(&[]).await;
    shared.world.faults.refuse_ends(true);
    shared.run("e", &long("large"));
    let begun = Instant::now();
    while shared.blobs().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no blob is made");
        sleep(Duration::from_millis(20)).await;
    }
    let before = shared.blobs();
    assert!(!shared.world.events().await.iter().any(ends));
    shared.world.kill().await;
    shared.world.faults.refuse_ends(false);
    shared.world.start().await;
    let end = shared.end("e").await;
    assert_eq!((shared.blobs(), &end["output"]["uri"]), (before.clone(), &json!(before[0])));
    assert_eq!(shared.world.events().await.iter().filter(|event| ends(event)).count(), 1);
}

/// T108: it is not there, and not named.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_holds_an_end_up_for_a_while_only_and_is_never_claimed_to_have_it() {
    let shared = Shared::start(&[]).await;
    shared.world.settle().await; // the probe at start makes what it is in the middle of
    fs::remove_dir_all(shared.root()).unwrap();
    let begun = Instant::now();
    shared.run("e", &long("large"));
    let end = shared.end("e").await;
    assert!(begun.elapsed() < Duration::from_secs(31), "{:?}", begun.elapsed());
    assert_eq!(end["output"]["uri"], "/executions/e/output");
    assert_eq!(end["output"]["stdout"].get("uri"), None);
    assert_eq!(end["output"]["stdout"]["verdict"], "complete", "podherald has it");
    assert_eq!(end.get("cause"), None, "it is no matter of the execution");
    assert_eq!(shared.world.text("/executions/e/output").await, (StatusCode::OK, long("large")));
    assert_eq!(shared.world.metric("podherald_blob_given_up_total").await, 1);
    let (status, ready) = shared.world.get("/readyz").await;
    let blob = ready["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == "blob").unwrap();
    assert_eq!((status, &blob["failing"], &blob["rejected"]), (StatusCode::OK, &json!(true), &json!(1)), "{ready}");
    let said = blob["last_error"].as_str().unwrap();
    assert!(said.starts_with("blob.url = file://") && said.contains("there is no such directory"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn retention_removes_the_blobs_that_podherald_made_once_their_store_is_back_and_no_others() {
    let shared = Shared::start(&[("journal.retention", "5m")]).await;
    shared.run("e", &long("large"));
    let end = shared.end("e").await;
    let uri = end["output"]["uri"].as_str().unwrap().to_owned();
    let others = Path::new(uri.strip_prefix("file://").unwrap()).with_file_name("of-somebody-else");
    fs::write(&others, "mine").unwrap();
    shared.world.api.delete(NAMESPACE, "executor-e");
    let away = shared.directory.path().join("away");
    fs::rename(shared.root(), &away).unwrap();
    let begun = Instant::now();
    while shared.world.execution("e").await != Value::Null {
        assert!(begun.elapsed() < Duration::from_secs(600), "retention does not take it");
        sleep(Duration::from_secs(10)).await;
    }
    sleep(Duration::from_secs(200)).await;
    fs::rename(&away, shared.root()).unwrap();
    assert!(shared.blobs().contains(&uri), "it could not be removed yet");
    sleep(Duration::from_secs(200)).await;
    assert_eq!(shared.blobs(), [format!("file://{}", others.display())]);
    assert_eq!(shared.world.metric("podherald_blob_removed_total").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_an_execution_of_the_same_id_names_again_is_not_removed_with_the_first() {
    let shared = Shared::start(&[("journal.retention", "5m")]).await;
    shared.run("e", &long("large"));
    let uri = shared.end("e").await["output"]["uri"].as_str().unwrap().to_owned();
    shared.world.api.delete(NAMESPACE, "executor-e");
    let away = shared.directory.path().join("away");
    fs::rename(shared.root(), &away).unwrap();
    let begun = Instant::now();
    while shared.world.execution("e").await != Value::Null {
        assert!(begun.elapsed() < Duration::from_secs(600), "retention does not take it");
        sleep(Duration::from_secs(10)).await;
    }
    fs::rename(&away, shared.root()).unwrap();
    let mut later = ended("e", 0);
    later["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = "2026-02-10T12:30:00Z".into();
    shared.world.api.apply(later);
    shared.world.until("e", "completed", PATIENCE).await;
    sleep(Duration::from_secs(150)).await;
    assert_eq!(shared.blobs(), [uri]);
}

/// What `/readyz` says of the store, as soon as it is this.
async fn until_store(herald: &Herald, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let ready = herald.get("/readyz").await;
        let blob = ready["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == "blob").unwrap().clone();
        if is_so(&blob) {
            return blob;
        }
        assert!(begun.elapsed() < LIMIT, "{blob}");
        sleep(POLL).await;
    }
}

/// The program itself, with what an operator sets: credentials that are wrong first, then right.
#[tokio::test]
async fn a_process_tells_what_is_wrong_with_its_s3_and_serves_all_the_same_until_it_is_righted() {
    let (s3, place) = (S3::start().await, Place::new().await);
    place.api.set_logs(NAMESPACE, "executor-e", "executor", log_text(&long("large")));
    let url = format!("s3://{BUCKET}/outputs");
    let start = async |key_id: &str| {
        let settings = [
            ("PODHERALD_BLOB__URL", &*url),
            ("PODHERALD_BLOB__ENDPOINT", &*s3.endpoint),
            ("AWS_ACCESS_KEY_ID", key_id),
            ("AWS_SECRET_ACCESS_KEY", "s3cret"),
        ];
        let mut herald = place.launch(&settings);
        herald.until_listening().await;
        herald.until_ready().await;
        herald
    };
    let herald = start("AKWRONG").await;
    let blob = until_store(&herald, |blob| blob["failing"] == true).await;
    let said = blob["last_error"].as_str().unwrap();
    assert!(
        said.starts_with(&format!("blob.url = {url}: it refuses the credentials; see blob.credentials_file")),
        "{said}"
    );
    assert_eq!(herald.get("/executions").await["items"], json!([]));
    assert!(!herald.log().contains("s3cret"));
    herald.kill().await;

    let herald = start(KEY_ID).await;
    place.api.apply(ended("e", 0));
    let execution = herald.ended("e").await;
    let uri = execution["output"]["stdout"]["uri"].as_str().unwrap();
    let key = uri.strip_prefix(&format!("s3://{BUCKET}/")).unwrap();
    assert!(key.starts_with("outputs/e/uid-e/stdout-"), "{key}");
    assert_eq!(s3.held().objects[key], long("large"));
    until_store(&herald, |blob| blob["failing"] == false && blob["delivered"] == 1).await;
}
