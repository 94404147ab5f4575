#![allow(clippy::unwrap_used)]

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::{TryStreamExt, future::join_all};
use tempfile::TempDir;

use super::{
    s3_server::{BUCKET, KEY_ID, S3},
    *,
};
use crate::output_store::OutputStore;

const OWNER: Owner<'_> = Owner { execution_id: "e/1", attempt_key: "uid-1", index: Some(7) };

/// A file that a blob is to be made of.
struct Content {
    reader: Reader,
    _data: TempDir,
}

impl Content {
    async fn of(bytes: &[u8]) -> Self {
        let data = TempDir::new().unwrap();
        let store = OutputStore::open(data.path()).unwrap();
        // As it is stored: in a directory of the pod, whatever its size.
        let mut writer = store.writer(1 << 30).of_pod(Some("p".to_owned())).in_full(true);
        let mut scanner = podherald_core::output::Scanner::new(podherald_core::output::Limits::default());
        scanner.push(bytes);
        writer.write(bytes).await.unwrap();
        let scan = scanner.finish(podherald_core::output::LogEnd::Complete, None);
        writer.finish("e", 1, scan).await.1.unwrap();
        let reader = store.reader_of_pod("e", 1, "p", Stream::Stdout).await.unwrap().unwrap();
        Self { reader, _data: data }
    }
}

fn options(url: &str) -> Options {
    Options {
        url: BlobUrl::parse(url).unwrap(),
        endpoint: None,
        region: None,
        credentials_file: None,
        ca_file: None,
        timeout: Duration::from_secs(10),
        deadline: Duration::from_secs(30),
    }
}

fn credentials(directory: &TempDir, key_id: &str) -> Option<PathBuf> {
    let path = directory.path().join("credentials");
    fs::write(&path, format!("[default]\naws_access_key_id = {key_id}\naws_secret_access_key = s3cret\n")).unwrap();
    Some(path)
}

fn on_s3(s3: &S3, directory: &TempDir) -> Options {
    Options {
        endpoint: Some(s3.endpoint.clone()),
        credentials_file: credentials(directory, KEY_ID),
        ..options(&format!("s3://{BUCKET}/of/podherald"))
    }
}

async fn put(blobs: &Blobs, content: &Content) -> Option<String> {
    let uri = blobs.name(OWNER, Stream::Stdout, &content.reader).await.unwrap();
    blobs.put(&uri, &content.reader, blobs.deadline()).await.then_some(uri)
}

async fn read(blobs: &Blobs, uri: &str, range: Range<u64>) -> Vec<u8> {
    let blob = blobs.find(uri).await.unwrap().unwrap();
    let parts: Vec<Bytes> = blob.read(range).await.unwrap().try_collect().await.unwrap();
    parts.concat()
}

/// What must hold of every store. `names` gives the URIs of all that is in it.
async fn holds_what_a_store_must(blobs: &Blobs, names: impl Fn() -> Vec<String>) {
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_be_bytes).collect();
    for bytes in [b"a few words".as_slice(), &large] {
        let content = Content::of(bytes).await;
        let uri = put(blobs, &content).await.unwrap();
        assert_eq!(names(), [&*uri]);
        let length = bytes.len() as u64;
        assert_eq!(blobs.find(&uri).await.unwrap().unwrap().length(), length);
        for range in [0..length, 0..1, 3..9, length - 2..length, 4..4] {
            let expected = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            assert!(read(blobs, &uri, range.clone()).await == expected, "{range:?} of {length}");
        }
        // What comes again is the same; other bytes have another name.
        assert_eq!(put(blobs, &content).await.as_deref(), Some(&*uri));
        assert_eq!(names(), [&*uri]);
        let other = put(blobs, &Content::of(b"others").await).await.unwrap();
        assert_eq!(names().len(), 2);
        for uri in [&uri, &other, &uri] {
            assert_eq!(blobs.remove(uri).await, Ok(true));
        }
        assert!(blobs.find(&uri).await.unwrap().is_none());
    }
    for foreign in ["s3://others/key", "file:///elsewhere/key", "/executions/e/output", ""] {
        assert_eq!(blobs.remove(foreign).await, Ok(false), "{foreign}");
        assert!(blobs.find(foreign).await.unwrap().is_none(), "{foreign}");
    }
    blobs.examine(&CancellationToken::new()).await;
    assert_eq!(names(), [""; 0], "a probe leaves nothing");
    let health = blobs.health();
    assert_eq!((health.failing, health.delivered, health.retries, health.rejected), (false, 6, 0, 0), "{health:?}");
}

#[tokio::test]
async fn a_directory_holds_what_a_store_must() {
    let directory = TempDir::new().unwrap();
    let blobs = Blobs::open(options(&format!("file://{}", directory.path().display()))).unwrap();
    holds_what_a_store_must(&blobs, || files(directory.path())).await;
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "no directory is left empty");
}

/// The URIs of all files, unfinished ones among them.
fn files(directory: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![format!("file://{}", path.display())] })
        .collect()
}

#[tokio::test]
async fn an_s3_holds_what_a_store_must() {
    let (s3, directory) = (S3::start().await, TempDir::new().unwrap());
    let blobs = Blobs::open(on_s3(&s3, &directory)).unwrap();
    let names = || s3.held().objects.keys().map(|key| format!("s3://{BUCKET}/{key}")).collect();
    holds_what_a_store_must(&blobs, names).await;
    assert!(s3.held().uploads.is_empty());
    assert!(s3.held().requests.iter().any(|request| request == "POST*"), "large ones go in parts");
}

#[tokio::test]
async fn a_name_tells_whose_it_is_and_needs_no_escaping() {
    let blobs = Blobs::open(options("file:///shared")).unwrap();
    let content = Content::of(b"hello").await;
    let name = |owner, stream| {
        let (blobs, reader) = (blobs.clone(), content.reader.clone());
        async move { blobs.name(owner, stream, &reader).await.unwrap() }
    };
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let plain = Owner { execution_id: "7c1f", attempt_key: "u-1", index: None };
    assert_eq!(name(plain, Stream::Raw).await, format!("file:///shared/7c1f/u-1/raw-{digest}"));
    let odd = name(OWNER, Stream::Stdout).await;
    assert!(odd.starts_with("file:///shared/_") && odd.ends_with(&format!("/uid-1/index-7/stdout-{digest}")), "{odd}");
}

#[tokio::test]
async fn a_store_that_is_busy_is_asked_again() {
    let (s3, directory) = (S3::start().await, TempDir::new().unwrap());
    s3.held().refusals = vec![(503, "SlowDown"), (500, "InternalError")];
    let blobs = Blobs::open(on_s3(&s3, &directory)).unwrap();
    let uri = put(&blobs, &Content::of(b"hello").await).await.unwrap();
    assert_eq!(read(&blobs, &uri, 0..5).await, b"hello");
    let health = blobs.health();
    assert_eq!((health.failing, health.retries, health.lag_events), (false, 2, 0));
    assert!(health.last_error.unwrap().contains("it is busy or broken (InternalError: The server's words.)"));
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_given_up_and_leaves_nothing() {
    let (s3, directory) = (S3::start().await, TempDir::new().unwrap());
    s3.held().never_completes = true;
    let blobs = Blobs::open(Options { deadline: Duration::from_millis(500), ..on_s3(&s3, &directory) }).unwrap();
    let begun = Instant::now();
    assert_eq!(put(&blobs, &Content::of(&vec![7; PART + 1]).await).await, None);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    {
        let held = s3.held();
        assert_eq!((held.objects.len(), held.uploads.len()), (0, 0));
    }
    let health = blobs.health();
    assert_eq!((health.failing, health.rejected, health.lag_events), (true, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_mounted_late_is_found_and_never_made() {
    let parent = TempDir::new().unwrap();
    let shared = parent.path().join("shared");
    let blobs = Blobs::open(options(&format!("file://{}", shared.display()))).unwrap();
    let content = Content::of(b"hello").await;
    assert_eq!(put(&blobs, &content).await, None);
    assert!(!shared.exists());
    let stop = CancellationToken::new();
    let examined = tokio::join!(blobs.examine(&stop), async {
        sleep(EXAMINE * 2).await;
        fs::create_dir(&shared).unwrap();
    });
    assert_eq!(examined, ((), ()));
    assert!(!blobs.health().failing);
    assert!(put(&blobs, &content).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn more_than_a_few_at_a_time_wait_for_each_other() {
    let directory = TempDir::new().unwrap();
    let blobs = Blobs::open(options(&format!("file://{}", directory.path().display()))).unwrap();
    let content = Content::of(b"hello").await;
    let held = blobs.0.puts.acquire_many(u32::try_from(PUTS).unwrap()).await.unwrap();
    let begun = Instant::now();
    assert_eq!(put(&blobs, &content).await, None);
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
    drop(held);
    assert!(put(&blobs, &content).await.is_some());
}

#[tokio::test]
async fn a_store_is_believed_by_the_authority_that_is_named_and_by_no_other() {
    let directory = TempDir::new().unwrap();
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let path = directory.path().join(name);
        fs::write(&path, certificate.pem()).unwrap();
        (certificate, key, path)
    };
    let (certificate, key, right) = issue("right.pem");
    let (.., wrong) = issue("wrong.pem");
    let s3 = S3::start_tls(&certificate, &key).await;
    let probe = async |ca_file| {
        let options = Options { ca_file: Some(ca_file), ..on_s3(&s3, &directory) };
        Blobs::open(options).unwrap().probe().await
    };
    assert_eq!(probe(right).await, Ok(()));
    let fault = probe(wrong).await.unwrap_err().to_string();
    assert!(fault.contains("it cannot be reached") && fault.contains("certificate"), "{fault}");
}

/// Each holds the text of its event in memory.
#[tokio::test(start_paused = true)]
async fn while_a_store_fails_only_a_few_outputs_wait_for_it() {
    let directory = TempDir::new().unwrap();
    let url = format!("file://{}", directory.path().join("none").display());
    let blobs = Blobs::open(options(&url)).unwrap();
    let content = Content::of(b"hello").await;
    assert_eq!(put(&blobs, &content).await, None);
    let most = usize::try_from(state::MOST_IN_TROUBLE).unwrap();
    let held = blobs.0.puts.acquire_many(u32::try_from(PUTS).unwrap()).await.unwrap();
    let begun = Instant::now();
    let at_once = AtomicUsize::new(0);
    let puts = (0..most + 10).map(|_| async {
        assert_eq!(put(&blobs, &content).await, None);
        at_once.fetch_add(usize::from(begun.elapsed().is_zero()), Ordering::Relaxed);
    });
    join_all(puts).await;
    drop(held);
    assert_eq!(at_once.into_inner(), 10);
    let health = blobs.health();
    assert_eq!((health.rejected, health.lag_events), (most as u64 + 11, 0));
}

#[tokio::test]
async fn what_is_set_wrong_is_named_with_what_would_be_right() {
    let (s3, directory) = (S3::start().await, TempDir::new().unwrap());
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let right = || on_s3(&s3, &directory);
    let missing = directory.path().join("none");
    let a_file = file("file", "");
    let in_directory = |path: &std::path::Path| options(&format!("file://{}", path.display()));
    for (options, expected) in [
        (
            Options { url: BlobUrl::parse("s3://another").unwrap(), ..right() },
            "s3://another: there is no such bucket; make it",
        ),
        (
            Options {
                credentials_file: Some(file("wrong", "[default]\naws_access_key_id=x\naws_secret_access_key=s3cret")),
                ..right()
            },
            "it refuses the credentials; see blob.credentials_file, or AWS_ACCESS_KEY_ID",
        ),
        (
            Options { credentials_file: Some(missing.clone()), ..right() },
            "there are no credentials (Generic S3 error: blob.credentials_file",
        ),
        (
            Options { credentials_file: Some(file("other", "[other]")), ..right() },
            "must have `aws_access_key_id` and `aws_secret_access_key` in its section [default]",
        ),
        (
            Options { endpoint: Some("http://127.0.0.1:1".to_owned()), ..right() },
            "it cannot be reached; is blob.endpoint right",
        ),
        (in_directory(&missing), "there is no such directory; make it, or mount it"),
        (in_directory(&a_file), "it is no directory; name one"),
        (options("file:///sys/kernel"), "podherald may not write there; its user needs to"),
        (right(), "the credentials do not permit it; they need s3:PutObject"),
    ] {
        s3.held().refusals = if expected.contains("do not permit") { vec![(403, "AccessDenied")] } else { Vec::new() };
        let blobs = Blobs::open(options).unwrap();
        let fault = blobs.probe().await.unwrap_err().to_string();
        assert!(fault.starts_with("blob.url = ") && fault.contains(expected), "{expected}: {fault}");
        assert!(!fault.contains("s3cret"), "{fault}");
    }
    for ca_file in [missing, a_file] {
        let opened = Blobs::open(Options { endpoint: None, ca_file: Some(ca_file), ..right() });
        let error = opened.unwrap_err().to_string();
        assert!(error.starts_with("blob.ca_file ") && error.contains("a PEM file with certificates"), "{error}");
    }
}
