#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use podherald_core::output::Captured;
use tempfile::TempDir;

use super::*;

type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// One scripted answer.
enum Step {
    /// A log in these chunks.
    Log(Vec<Bytes>),
    /// A log that ends with an error after these chunks.
    Cut(Vec<Bytes>),
    /// A log that goes on for ever without a byte more.
    Hang(Vec<Bytes>),
    /// A refusal with a message, and perhaps Retry-After.
    Refuse(u16, &'static str, Option<&'static str>),
    /// The pod of that name, with this uid.
    Pod(&'static str),
    /// No connection.
    Unreachable,
    /// No answer at all.
    Silence,
}

fn log(text: &str) -> Step {
    Step::Log(chunks(text))
}

fn chunks(text: &str) -> Vec<Bytes> {
    text.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect()
}

fn refuse(status: u16, message: &'static str) -> Step {
    Step::Refuse(status, message, None)
}

fn body(chunks: Vec<Bytes>, after: Option<std::io::Error>, hang: bool) -> UnsyncBoxBody<Bytes, std::io::Error> {
    let chunks = stream::iter(chunks.into_iter().map(|chunk| Ok(Frame::data(chunk))));
    let chunks = chunks.chain(stream::iter(after.map(Err)));
    if hang {
        StreamBody::new(chunks.chain(stream::pending())).boxed_unsync()
    } else {
        StreamBody::new(chunks).boxed_unsync()
    }
}

fn answer(step: Step) -> Option<Result<Answer, std::io::Error>> {
    let lost = || std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset");
    Some(Ok(match step {
        Step::Log(chunks) => Response::new(body(chunks, None, false)),
        Step::Cut(chunks) => Response::new(body(chunks, Some(lost()), false)),
        Step::Hang(chunks) => Response::new(body(chunks, None, true)),
        Step::Refuse(status, message, retry_after) => {
            let text = serde_json::json!({"kind": "Status", "code": status, "message": message}).to_string();
            let mut response = Response::builder().status(status);
            if let Some(seconds) = retry_after {
                response = response.header("Retry-After", seconds);
            }
            response.body(body(vec![text.into()], None, false)).unwrap()
        }
        Step::Pod(uid) => {
            let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": uid}});
            Response::new(body(vec![pod.to_string().into()], None, false))
        }
        Step::Unreachable => return Some(Err(lost())),
        Step::Silence => return None,
    }))
}

struct Fixture {
    _data: TempDir,
    collector: Collector,
    metrics: Metrics,
    store: OutputStore,
    /// When each request came, and what for.
    requests: Arc<Mutex<Vec<(Instant, String)>>>,
}

/// The last step repeats.
fn fixture(steps: impl IntoIterator<Item = Step>) -> Fixture {
    fixture_with(Options::default(), steps)
}

fn fixture_with(options: Options, steps: impl IntoIterator<Item = Step>) -> Fixture {
    let steps = Arc::new(Mutex::new(steps.into_iter().collect::<VecDeque<_>>()));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let service = tower::service_fn(move |request: Request<Body>| {
        seen.lock().unwrap().push((Instant::now(), request.uri().to_string()));
        let step = steps.lock().unwrap().pop_front().expect("no more requests were expected");
        async move {
            match answer(step) {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    });
    let data = tempfile::tempdir().unwrap();
    let store = OutputStore::open(data.path()).unwrap();
    let metrics = Metrics::default();
    let client = kube::Client::new(service, "default");
    let collector = Collector::new(client, store.clone(), options, metrics.clone());
    Fixture { _data: data, collector, metrics, store, requests }
}

fn job() -> Job {
    Job {
        namespace: "ns".to_owned(),
        pod: "executor-e1".to_owned(),
        uid: "u1".to_owned(),
        node_name: Some("n1".to_owned()),
        execution_id: "e1".to_owned(),
        attempt: 1,
        attempt_key: "u1".to_owned(),
        of_job: false,
        in_full: false,
        container: Some("executor".to_owned()),
        gone: false,
        is_open: false,
        termination_message: None,
        beginning: None,
        deadline: Instant::now() + Duration::from_secs(30),
    }
}

impl Fixture {
    async fn collect(&self) -> Collected {
        self.collector.collect(job()).await
    }

    fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Asserts that a metric has a value, `podherald_logs_partial_total 1` for instance.
    fn counted(&self, line: &str) {
        let text = self.metrics.text();
        assert!(text.lines().any(|known| known == line), "no `{line}` in\n{text}");
    }
}

fn verdict(captured: &Captured) -> Verdict {
    captured.summary.verdict
}

#[tokio::test(start_paused = true)]
async fn a_log_is_read_once_by_container_and_unchanged() {
    let fixture = fixture([log("hello\nworld\n")]);
    let collected = fixture.collect().await;
    assert_eq!(collected.stdout.text, "hello\nworld\n");
    assert_eq!((verdict(&collected.stdout), collected.stderr, collected.notes.len()), (Verdict::Complete, None, 0));
    let requests = fixture.requests.lock().unwrap();
    assert_eq!(requests.len(), 1);
    let uri = requests[0].1.replace("?&", "?");
    assert_eq!(uri, "/api/v1/namespaces/ns/pods/executor-e1/log?container=executor");
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again() {
    // T21, T63, T76.
    let fixture = fixture([
        refuse(400, "container \"executor\" in pod \"p\" is waiting to start: ContainerCreating"),
        Step::Pod("u1"),
        Step::Unreachable,
        refuse(503, ""),
        refuse(401, ""),
        Step::Refuse(429, "", Some("5")),
        Step::Cut(chunks("half of")),
        log("half of it was not enough"),
    ]);
    let begun = Instant::now();
    let collected = fixture.collect().await;
    assert_eq!(
        (collected.stdout.text.as_str(), verdict(&collected.stdout)),
        ("half of it was not enough", Verdict::Complete)
    );
    let requests: Vec<_> = fixture.requests.lock().unwrap().iter().map(|(at, _)| *at - begun).collect();
    assert!(requests[1] >= Duration::from_millis(25) && requests[1] <= Duration::from_millis(60), "{requests:?}");
    assert!(requests[6] - requests[5] >= Duration::from_secs(5), "Retry-After: {requests:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    for reason in ["not_ready", "unreachable", "throttled", "broke_off"] {
        fixture.counted(&format!("podherald_logs_retries_total{{reason=\"{reason}\"}} 1"));
    }
    fixture.counted("podherald_logs_retries_total{reason=\"server_error\"} 2");
}

#[tokio::test(start_paused = true)]
async fn not_found_is_final_after_a_few_tries() {
    // T20a.
    let fixture = fixture((0..5).map(|_| refuse(404, "pods \"executor-e1\" not found")));
    let begun = Instant::now();
    let collected = fixture.collect().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!((collected.stdout.text.as_str(), verdict(&collected.stdout)), ("", Verdict::Lost));
    assert_eq!(collected.notes, ["log_lost: 404 Not Found: pods \"executor-e1\" not found", "report_unread"]);
    assert_eq!(fixture.asked(), 5, "the log, and between two tries whose the name is");
    fixture.counted("podherald_logs_lost_total{reason=\"not_found\"} 1");
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_later_pod_of_the_same_name_is_not_taken() {
    // T16.
    let (waits, nobody) =
        (|| refuse(400, "is waiting to start: PodInitializing"), || refuse(404, "pods \"executor-e1\" not found"));
    for [first, answer] in [[waits(), Step::Pod("u2")], [waits(), nobody()], [nobody(), Step::Pod("u2")]] {
        let fixture = fixture([first, answer, log("another's")]);
        let collected = fixture.collect().await;
        assert_eq!((collected.stdout.text.as_str(), verdict(&collected.stdout)), ("", Verdict::Lost));
        fixture.counted("podherald_logs_lost_total{reason=\"gone\"} 1");
    }
    let fixture = fixture([refuse(400, "is waiting to start: no logs yet"), Step::Unreachable, log("ours")]);
    assert_eq!(fixture.collect().await.stdout.text, "ours", "when in doubt, it is ours");
}

#[tokio::test(start_paused = true)]
async fn forbidden_is_final_after_a_few_tries() {
    let fixture = fixture((0..3).map(|_| refuse(403, "no")));
    let begun = Instant::now();
    let collected = fixture.collect().await;
    assert_eq!(verdict(&collected.stdout), Verdict::Lost);
    assert_eq!(collected.notes[0], "log_lost: forbidden: no");
    assert!(begun.elapsed() < Duration::from_secs(1));
    fixture.counted("podherald_logs_lost_total{reason=\"forbidden\"} 1");
}

#[tokio::test(start_paused = true)]
async fn the_servers_sentence_in_place_of_a_log_is_lost_unless_a_second_look_finds_more() {
    // T62.
    let sentence = "unable to retrieve container logs for containerd://0123abcd";
    let fixture1 = fixture([log(sentence), log(sentence)]);
    let collected = fixture1.collect().await;
    assert_eq!((collected.stdout.text.as_str(), verdict(&collected.stdout)), ("", Verdict::Lost));
    fixture1.counted("podherald_logs_lost_total{reason=\"not_retrievable\"} 1");
    let fixture2 = fixture([log(sentence), log("there it is")]);
    assert_eq!(fixture2.collect().await.stdout.text, "there it is");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_begin_as_it_did_is_partial() {
    // T66.
    let known = |bytes: &[u8]| {
        let mut beginning = Beginning::default();
        beginning.push(bytes);
        Some(beginning)
    };
    let begun = known(b"one\ntwo\n");
    for (now, expected) in [
        ("one\ntwo\n", Verdict::Complete),
        ("one\ntwo\nthree\n", Verdict::Complete),
        ("two\nthree\n", Verdict::Partial),
        ("one\n", Verdict::Partial),
        ("", Verdict::Partial),
    ] {
        let fixture = fixture([Step::Log(now.split_inclusive('o').map(|part| part.to_owned().into()).collect())]);
        let collected = fixture.collector.collect(Job { beginning: begun.clone(), ..job() }).await;
        assert_eq!((collected.stdout.text.as_str(), verdict(&collected.stdout)), (now, expected));
        fixture.counted(&format!("podherald_logs_partial_total {}", u8::from(expected == Verdict::Partial)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_cut_at_the_deadline() {
    let fixture = fixture([Step::Hang(chunks("what was said before"))]);
    let begun = Instant::now();
    let collected = fixture.collect().await;
    assert_eq!(
        (collected.stdout.text.as_str(), verdict(&collected.stdout)),
        ("what was said before", Verdict::Partial)
    );
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(collected.notes, ["report_unread"]);
    fixture.counted("podherald_logs_partial_total 1");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_costs_no_more_than_the_deadline() {
    for step in [Step::Silence, Step::Hang(vec![])] {
        let fixture = fixture([step]);
        let begun = Instant::now();
        let collected = fixture.collect().await;
        assert_eq!(verdict(&collected.stdout), Verdict::Lost);
        assert_eq!(begun.elapsed().as_secs(), 30);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_in_trouble_is_asked_until_the_deadline_and_once_shortly_before() {
    for (status, retry_after, tries) in [(503, None, 15..40), (429, Some("3600"), 2..3)] {
        let fixture = fixture((0..100).map(|_| Step::Refuse(status, "busy", retry_after)));
        let begun = Instant::now();
        let collected = fixture.collect().await;
        assert_eq!(verdict(&collected.stdout), Verdict::Lost);
        assert!((22..=30).contains(&begun.elapsed().as_secs()));
        assert!(tries.contains(&fixture.asked()), "{}", fixture.asked());
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_of_several_broken_reads_is_what_there_is() {
    let long = "x".repeat(300_000);
    let mut steps =
        vec![Step::Cut(chunks("short")), Step::Cut(vec![long.clone().into()]), Step::Cut(chunks("middling"))];
    steps.push(refuse(404, "gone meanwhile"));
    let fixture = fixture(steps);
    let collected = fixture.collect().await;
    let summary = &collected.stdout.summary;
    assert_eq!((summary.verdict, summary.bytes_kept, summary.bytes_total), (Verdict::Partial, 300_000, None));
    let reader = fixture.store.reader("e1", 1, crate::output_store::Stream::Stdout).await.unwrap().unwrap();
    assert_eq!(reader.read(0, usize::MAX).await.unwrap(), long);
}

#[tokio::test(start_paused = true)]
async fn a_report_in_a_log_that_breaks_off_is_still_a_report() {
    let line = "{\"exit_code\":3,\"stdout\":\"out\",\"stderr\":\"err\"}\nand th";
    let fixture = fixture([Step::Hang(chunks(line))]);
    let collected = fixture.collect().await;
    assert_eq!((collected.exit_code, verdict(&collected.stdout)), (Some(3), Verdict::Complete));
    assert_eq!(collected.stderr.unwrap().text, "err");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_the_log_of_a_pod_that_is_gone() {
    let fixture = fixture([]);
    let summary = "exit_code=2\nwall_seconds=1".to_owned();
    let collected = fixture.collector.collect(Job { gone: true, termination_message: Some(summary), ..job() }).await;
    assert_eq!((verdict(&collected.stdout), collected.exit_code), (Verdict::Lost, Some(2)));
    assert_eq!(collected.notes, ["log_lost: the pod is gone"]);
    fixture.counted("podherald_logs_lost_total{reason=\"gone\"} 1");
}

#[tokio::test(start_paused = true)]
async fn where_no_program_ran_there_is_nothing_to_lose() {
    let fixture = fixture([]);
    let collected = fixture.collector.collect(Job { container: None, ..job() }).await;
    assert_eq!((verdict(&collected.stdout), collected.notes.len()), (Verdict::Complete, 0));
    assert_eq!(collected.stdout.summary.bytes_total, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_log_without_a_line_end_passes_through_in_pieces() {
    let options = Options { limits: Limits { max_bytes: 1 << 20, ..Limits::default() }, ..Options::default() };
    let chunk = Bytes::from(vec![b'{'; 64 << 10]);
    let fixture = fixture_with(options, [Step::Log(vec![chunk; 160])]);
    let collected = fixture.collect().await;
    let summary = &collected.stdout.summary;
    assert_eq!(
        (summary.verdict, summary.bytes_total, summary.bytes_kept),
        (Verdict::Truncated, Some(10 << 20), 1 << 20)
    );
    assert_eq!(collected.notes, ["report_too_large"]);
    fixture.counted("podherald_logs_truncated_total 1");
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_slot_wait_no_longer_than_their_deadline() {
    let options = Options { per_node: 1, ..Options::default() };
    let fixture = fixture_with(options, [Step::Silence, log("unasked")]);
    let begun = Instant::now();
    let slow = fixture.collector.collect(Job { deadline: begun + Duration::from_secs(60), ..job() });
    let (_, waiting) = tokio::join!(slow, fixture.collect());
    assert_eq!(verdict(&waiting.stdout), Verdict::Lost);
    fixture.counted("podherald_logs_lost_total{reason=\"deadline\"} 1");
    assert_eq!(fixture.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_disk_the_event_still_goes_out() {
    let fixture = fixture([log(&"x".repeat(700_000))]);
    std::fs::remove_dir_all(fixture._data.path()).unwrap();
    let collected = fixture.collect().await;
    let summary = &collected.stdout.summary;
    assert_eq!((summary.verdict, summary.bytes_total), (Verdict::Truncated, Some(700_000)));
    assert_eq!(summary.bytes_kept, 64 << 10);
    assert_eq!(collected.notes, ["output_not_stored"]);
    fixture.counted("podherald_logs_not_stored_total 1");
}
