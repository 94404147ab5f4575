//! What a person can get wrong, at the program itself: it says in one line what is wrong and what would be right, and goes
//! on as soon as it is righted. More settings are in `config.rs`; more requests beside the routes.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use http::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    herald::{Herald, LIMIT, POLL},
    pods,
    process::Place,
};

/// Starts with these settings, which must not do; gives the line that says why and the exit code.
async fn refused(place: &Place, settings: &[(&str, &str)]) -> (String, i32) {
    let mut herald = place.launch(settings);
    let status = herald.end().await;
    let log = herald.log();
    let said: Vec<_> = log.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).collect();
    let [said] = said[..] else { panic!("{settings:?}: not one line but {log}") };
    (said.to_owned(), status.code().unwrap_or_else(|| panic!("{settings:?}: {status}")))
}

/// Beside what is tried nothing is wrong.
async fn starts(place: &Place) {
    let herald = place.start().await;
    assert_eq!(herald.get("/executions").await["items"], json!([]));
    herald.kill().await;
}

#[tokio::test]
async fn a_start_that_cannot_be_says_why_and_the_next_one_succeeds() {
    let place = Place::new().await;
    let file = |name: &str, text: &[u8]| {
        let path = place.data.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let none = place.data.path().join("none").to_str().unwrap().to_owned();
    let unclosed = file("unclosed", b"clusters: {");
    let binary = file("binary", b"\x80clusters");
    let empty = file("empty", b"kind: Config");
    let below = format!("{}/data", file("file", b""));
    let unknown_key = file("unknown.toml", b"[kube]\nlabel_selector = [\"a\"]");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    const CLUSTER: &str = "no usable cluster: KUBECONFIG (or ~/.kube/config) must name a readable kubeconfig, or podherald \
                           must run in a pod with a service account; ";
    const DATA_DIR: &str = "it must be a directory that podherald may write to: Not a directory (os error 20)";
    let no_file = "cannot be read: No such file or directory (os error 2)";
    for (settings, expected, code) in [
        (vec![("KUBECONFIG", &*none)], format!("{CLUSTER}{none} {no_file}"), 1),
        (vec![("KUBECONFIG", &*binary)], format!("{CLUSTER}{binary} cannot be read: Invalid UTF-8"), 1),
        (vec![("KUBECONFIG", &*unclosed)], format!("{CLUSTER}failed to parse kubeconfig YAML: "), 1),
        (vec![("KUBECONFIG", &*empty)], format!("{CLUSTER}failed to determine current context"), 1),
        (
            vec![("PODHERALD_KUBE__LABEL_SELECTORS", "app=a;b c")],
            "kube.label_selectors is [\"app=a\", \"b c\"] (PODHERALD_KUBE__LABEL_SELECTORS), but must be a list, each \
             element a label selector such as "
                .to_owned(),
            2,
        ),
        (
            vec![("PODHERALD_CONFIG", &*unknown_key)],
            format!("there is no setting kube.label_selector ({unknown_key}); did you mean kube.label_selectors?"),
            2,
        ),
        (
            vec![("PODHERALD_KAFKA__BROKERS", "kafka://localhost")],
            "kafka.brokers is \"kafka://localhost\" (PODHERALD_KAFKA__BROKERS), but must be `off`, or brokers such as"
                .to_owned(),
            2,
        ),
        (
            vec![("PODHERALD_KAFKA__PROPERTIES", "linger.ms=5;ssl.key.pasword=s3cret")],
            "kafka.properties is [\"linger.ms=5\", \"ssl.key.pasword=s3cret\"] (PODHERALD_KAFKA__PROPERTIES), but must be \
             properties that librdkafka knows: No such configuration property: \"ssl.key.pasword\""
                .to_owned(),
            2,
        ),
        (
            vec![("PODHERALD_KAFKA__BROKERS", "localhost:1"), ("PODHERALD_KAFKA__TLS", "true"), ("PODHERALD_KAFKA__CA_FILE", &*none)],
            format!("kafka.ca_file {none} cannot be read: it must be a text file that podherald may read: No such file"),
            1,
        ),
        (
            vec![("PODHERALD_KAFKA__BROKERS", "localhost:1"), ("PODHERALD_KAFKA__TLS", "true"), ("PODHERALD_KAFKA__CA_FILE", &*empty)],
            "kafka.ca_file, kafka.tls and kafka.properties make no client: ".to_owned(),
            1,
        ),
        (
            vec![("PODHERALD_REDIS__URL", "redis//app:s3cret@localhost")],
            "redis.url is \"***\" (PODHERALD_REDIS__URL), but must be `off`, or a URL such as `redis://".to_owned(),
            2,
        ),
        (
            vec![("PODHERALD_REDIS__URL_FILE", &*none)],
            format!(
                "redis.url_file {none} cannot be read: it must be a text file that podherald may read: No such file"
            ),
            1,
        ),
        (
            vec![("PODHERALD_REDIS__URL_FILE", &*empty)],
            format!("redis.url_file {empty} does not hold a URL such as `redis://"),
            1,
        ),
        (
            vec![("PODHERALD_MONGO__URI", "mongodb://app:s3cret@")],
            "mongo.uri is \"mongodb://***\" (PODHERALD_MONGO__URI), but must be `off`, or a connection string such as `mongodb://"
                .to_owned(),
            2,
        ),
        (
            vec![("PODHERALD_MONGO__URI", "mongodb://app:s3cret@db"), ("PODHERALD_MONGO__URI_FILE", &*none)],
            format!("mongo.uri_file is \"{none}\" (PODHERALD_MONGO__URI_FILE), but must be `off` while `mongo.uri` is set"),
            2,
        ),
        (
            vec![("PODHERALD_MONGO__DATABASE", "a.b")],
            "mongo.database is \"a.b\" (PODHERALD_MONGO__DATABASE), but must be a name of at most 63 bytes".to_owned(),
            2,
        ),
        (
            vec![("PODHERALD_MONGO__TIMEOUT", "0s")],
            "mongo.timeout is \"0s\" (PODHERALD_MONGO__TIMEOUT), but must be".to_owned(),
            2,
        ),
        (
            vec![("PODHERALD_BLOB__URL", "gs://results")],
            "blob.url is \"gs://results\" (PODHERALD_BLOB__URL), but must be `off`, or `file:///DIRECTORY` or `s3://"
                .to_owned(),
            2,
        ),
        (
            vec![("PODHERALD_BLOB__URL", "s3://results"), ("PODHERALD_BLOB__CA_FILE", &*empty)],
            format!("blob.ca_file {empty} cannot be read: it must be a PEM file with certificates"),
            1,
        ),
        (
            vec![("PODHERALD_HTTP__LISTEN", &*address)],
            format!(
                "http.listen = {address} cannot be listened on; choose a free address and port: Address already in use"
            ),
            1,
        ),
        (vec![("PODHERALD_DATA_DIR", &*below)], format!("data_dir {below} cannot be created; {DATA_DIR}"), 1),
        // One error does not hide behind the other: first what is nearest.
        (
            vec![("PODHERALD_DATA_DIR", &*below), ("KUBECONFIG", &*none)],
            format!("data_dir {below} cannot be created; {DATA_DIR}"),
            1,
        ),
    ] {
        let (said, exit_code) = refused(&place, &settings).await;
        assert!(said.starts_with(&format!("podherald: {expected}")), "{settings:?}: {said}");
        assert_eq!(exit_code, code, "{said}");
        starts(&place).await;
    }
}

#[tokio::test]
async fn a_redis_that_cannot_be_reached_is_named_and_everything_else_goes_on() {
    let place = Place::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("redis://app:s3cret@{nobody}");
    let mut herald = place.launch(&[("PODHERALD_REDIS__URL", &*url)]);
    herald.until_listening().await;
    herald.until_ready().await;
    place.api.apply(pods::ended("a", 3));
    assert_eq!(herald.ended("a").await["status"], "failed");
    let name = format!("redis.url = redis://app:***@{nobody}: it cannot be reached; is it running there?");
    let deadline = Instant::now() + LIMIT;
    for role in ["monitor", "api"] {
        let sink = loop {
            let sink = herald.get(&format!("/readyz?role={role}")).await["sinks"][0].clone();
            if sink["failing"] == true && sink["lag_events"].as_u64() > Some(0) {
                break sink;
            }
            assert!(Instant::now() < deadline, "{sink}");
            tokio::time::sleep(POLL).await;
        };
        assert!(sink["last_error"].as_str().unwrap().starts_with(&name), "{sink}");
    }
    let metrics = herald.text("/metrics").await;
    assert!(metrics.contains("podherald_sink_failing{sink=\"redis\"} 1"), "{metrics}");
    herald.signal(Signal::TERM);
    let asked = Instant::now();
    let status = herald.end().await;
    assert!(status.success() && asked.elapsed() < Duration::from_secs(5), "{status}, {:?}", asked.elapsed());
    let log = herald.log();
    assert!(log.contains(&name) && !log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn a_kafka_that_cannot_be_reached_is_named_and_everything_else_goes_on() {
    let place = Place::new().await;
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = [("PODHERALD_KAFKA__BROKERS", &*nobody.to_string()), ("PODHERALD_KAFKA__TIMEOUT", "1s")];
    let mut herald = place.launch(&settings);
    herald.until_listening().await;
    herald.until_ready().await;
    place.api.apply(pods::ended("a", 3));
    assert_eq!(herald.ended("a").await["status"], "failed");
    let deadline = Instant::now() + LIMIT;
    let sink = loop {
        let sink = herald.get("/readyz").await["sinks"][0].clone();
        if sink["failing"] == true && sink["lag_events"].as_u64() > Some(0) {
            break sink;
        }
        assert!(Instant::now() < deadline, "{sink}");
        tokio::time::sleep(POLL).await;
    };
    let name = format!("kafka.brokers = {nobody}: it cannot be reached; is it running there");
    assert!(sink["last_error"].as_str().unwrap().starts_with(&name), "{sink}");
    assert_eq!(sink["required"], true, "nothing is to be lost");
    assert_eq!(herald.get("/dead-letters?sink=kafka").await, json!({"items": [], "next": null}));
    herald.signal(Signal::TERM);
    let asked = Instant::now();
    let status = herald.end().await;
    assert!(status.success() && asked.elapsed() < Duration::from_secs(5), "{status}, {:?}", asked.elapsed());
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_left_alone_and_a_new_one_begins_once_it_is_moved_away() {
    let place = Place::new().await;
    let directory = place.data.path().join("data");
    let journal = directory.join("journal.db");
    let shown = journal.display();
    let damaged = format!("podherald: the journal {shown} is damaged: ");
    let newer = format!(
        "podherald: the journal {shown} has format 99, this podherald knows formats up to 7: start the newer podherald"
    );
    let spoilt: [(Spoil, &str); 4] = [
        (|journal| fs::write(journal, [7; 8192]).unwrap(), &damaged),
        (|journal| tear(journal), &damaged),
        (|journal| change(journal, "DROP TABLE meta"), &damaged),
        (|journal| change(journal, "UPDATE meta SET value = 99 WHERE name = 'format'"), &newer),
    ];
    for (spoil, expected) in spoilt {
        starts(&place).await;
        // The write-ahead log of a killed process holds what the file does not.
        change(&journal, "PRAGMA wal_checkpoint(TRUNCATE)");
        spoil(&journal);
        let before = fs::read(&journal).unwrap();
        let (said, exit_code) = refused(&place, &[]).await;
        assert!(said.starts_with(expected), "{said}");
        assert_eq!(exit_code, 1);
        assert!(fs::read(&journal).unwrap() == before, "podherald changed a journal that it does not understand");
        fs::remove_dir_all(&directory).unwrap();
    }
    starts(&place).await;
}

type Spoil = fn(&Path);

fn change(journal: &Path, sql: &str) {
    rusqlite::Connection::open(journal).unwrap().execute_batch(sql).unwrap();
}

/// Overwrites the middle, as a disk does that loses a block.
fn tear(journal: &Path) {
    let mut bytes = fs::read(journal).unwrap();
    let pages = bytes.len() / 4096;
    assert!(pages > 4);
    bytes[4096 * 2..4096 * (pages - 1)].fill(0xa5);
    fs::write(journal, bytes).unwrap();
}

/// A watch that sends rubbish: what is readable counts, before and after.
#[tokio::test]
async fn frames_that_cannot_be_read_cost_nothing_but_themselves() {
    let place = Place::new().await;
    place.api.apply(pods::running("before"));
    let herald = place.start().await;
    herald.until_running("before").await;
    let garbage: [&dyn Fn(); 6] = [
        &|| place.api.send_line("<html>504 Gateway Timeout</html>"),
        &|| place.api.send_line("{\"type\":\"MODIFIED\",\"object\":"),
        &|| place.api.send_line("\0\0\0"),
        &|| place.api.send_raw("ADDED", &json!(["no", "pod"])),
        &|| place.api.send_raw("MODIFIED", &json!({"kind": "Pod", "metadata": {"name": 5}})),
        &|| place.api.send_raw("ADDED", &json!({"metadata": {"name": "x", "namespace": "y"}, "status": 7})),
    ];
    for (number, send) in garbage.into_iter().enumerate() {
        send();
        let id = format!("after-{number}");
        place.api.apply(pods::ended(&id, 3));
        assert_eq!(herald.ended(&id).await["exit"]["code"], 3);
    }
    // Fields of the wrong type are taken as absent, which is a state, and counted.
    let mut odd = pods::running("odd");
    odd["spec"]["nodeName"] = json!({"not": "a name"});
    place.api.apply(odd);
    herald.until_running("odd").await;
    let metrics = herald.text("/metrics").await;
    assert!(metrics.contains("podherald_monitor_malformed_fields_total{field=\"spec.nodeName\"} 1"), "{metrics}");

    place.api.apply(pods::ended("before", 0));
    assert_eq!(herald.ended("before").await["status"], "completed");
    assert_no_debug(&herald);
}

/// kube's own texts hold dumps of whole objects; none may reach a person.
fn assert_no_debug(herald: &Herald) {
    let log = herald.log();
    for dump in ["Status {", "Some(", "ListMeta", "panicked", "Error("] {
        assert!(!log.contains(dump), "{dump} in {log}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_api_server_is_told_in_its_own_words() {
    let place = Place::new().await;
    place.api.forbid();
    let mut herald = place.launch(&[]);
    herald.until_listening().await;
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !herald.log().contains("list: pods is forbidden") {
        assert!(tokio::time::Instant::now() < deadline, "{}", herald.log());
        tokio::task::yield_now().await;
    }
    // Another watch may have logged it first.
    let told = "the API server refuses the watch of pods `execution-id` (403): pods is forbidden";
    loop {
        let (status, body) = herald.try_get("/readyz?role=monitor", "*/*").await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let detail = problem["detail"].as_str().unwrap();
        if detail.contains(told) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{detail}");
        tokio::time::sleep(POLL).await;
    }
    assert!(herald.log().contains("failed to perform initial object list: pods is forbidden"), "{}", herald.log());
    assert_no_debug(&herald);

    place.api.restore();
    herald.until_ready().await;
}

#[tokio::test]
async fn a_bad_request_is_answered_by_a_problem_and_the_next_one_is_served() {
    const PROBLEM: &str = "urn:podherald:problem:";
    let place = Place::new().await;
    place.api.apply(pods::running("a"));
    let herald = place.start().await;
    herald.until_running("a").await;
    let long = "x".repeat(17 << 10);
    let stream = ("accept", "text/event-stream");
    for (path, header, status, kind, parameter) in [
        ("/executions", ("accept", "text/html"), 406, "not-acceptable", None),
        ("/executions/a/events", ("accept", "image/png"), 406, "not-acceptable", None),
        ("/executions", ("x-long", &*long), 431, "headers-too-large", None),
        ("/executions/nobody", ("accept", "*/*"), 404, "execution-not-found", None),
        ("/pods/ns/nobody", ("accept", "*/*"), 404, "pod-not-found", None),
        ("/nowhere", ("accept", "*/*"), 404, "no-route", None),
        ("/executions?after=7", ("accept", "*/*"), 400, "invalid-parameter", Some("after")),
        ("/events?after=zzz", ("accept", "*/*"), 400, "invalid-parameter", Some("after")),
        ("/executions/a?wait=soon", ("accept", "*/*"), 400, "invalid-parameter", Some("wait")),
        ("/executions/a?wait=2h", ("accept", "*/*"), 400, "invalid-parameter", Some("wait")),
        ("/executions/a/events", ("last-event-id", "a b"), 400, "invalid-parameter", Some("Last-Event-ID")),
        ("/events", ("last-event-id", "7"), 400, "invalid-parameter", Some("Last-Event-ID")),
        ("/executions", ("host", "example.com"), 403, "forbidden", None),
    ] {
        let headers = if header.0 == "last-event-id" { vec![stream, header] } else { vec![header] };
        let (answered, body) = herald.try_get_with(path, &headers).await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{path}: {body:?}"));
        assert_eq!(answered.as_u16(), status, "{path}: {problem}");
        assert_eq!(problem["type"], format!("{PROBLEM}{kind}"), "{path}: {problem}");
        assert_eq!(problem["parameter"].as_str(), parameter, "{path}: {problem}");
        assert_eq!(herald.get("/executions/a").await["status"], "running", "after {path}");
    }

    // Beyond 64 KiB nobody reads on to find out what was wanted.
    let mut stream = TcpStream::connect(herald.address()).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\n\r\n", "x".repeat(66 << 10));
    // It may hang up before it was told everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = [0; 12];
    timeout(LIMIT, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    assert_eq!(herald.get("/executions/a").await["status"], "running");
}

/// Runs `podherald explain` on a text.
fn explain(arguments: &[&str], text: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podherald"));
    command.arg("explain").args(arguments).env_clear().current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It need not read what it was told not to.
    let _ = child.stdin.take().unwrap().write_all(text);
    child.wait_with_output().unwrap()
}

#[test]
fn what_cannot_be_explained_is_said_in_one_line() {
    const WANTED: &str =
        "give pods, Jobs, a list of them or watch events, as `kubectl get pod NAME -o json` prints them";
    for (arguments, text, expected) in [
        (&[][..], &b"{\"kind\":"[..], "standard input is neither JSON nor YAML (EOF while parsing"),
        (&[], b"a: [1\nb: }", "standard input is neither JSON nor YAML (error: line 2 column "),
        (&[], b"\xff\xfe\x00\x01", "standard input is neither JSON nor YAML ("),
        (&[], b"", &format!("standard input holds no pod or Job; {WANTED}")),
        (&[], b"{\"kind\":\"List\",\"items\":[]}", &format!("standard input holds no pod or Job; {WANTED}")),
        (&[], b"{\"kind\":\"Service\"}", &format!("standard input holds no pod or Job; {WANTED}")),
        (&["no/such.json"], b"", "no/such.json cannot be read: No such file or directory (os error 2)"),
        (&["src"], b"", "src cannot be read: Is a directory (os error 21)"),
    ] {
        let output = explain(arguments, text);
        let said = String::from_utf8(output.stderr).unwrap();
        let errors: Vec<_> = said.lines().filter(|line| !line.starts_with("skipped ")).collect();
        let [error] = errors[..] else { panic!("not one line but {said}") };
        assert!(error.starts_with(&format!("podherald: {expected}")), "{said}");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty(), "{said}");
    }
    let output = explain(&[], pods::ended("a", 3).to_string().as_bytes());
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"execution_failed\""));
}
