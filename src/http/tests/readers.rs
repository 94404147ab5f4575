//! A process that watches nothing: what it has, what it asks the monitor for, and lists as lines.

use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Api, Frame, SOON, Stream, adopted, life::life, request, router, state};
use crate::{
    http::{Access, Monitor, Options, State, serve},
    journal::Adopted,
    upstream::{FORWARDED, Upstream},
};

/// A monitor that listens, and a reader of the same journal that asks it.
struct Pair {
    monitor: Api,
    reader: Api,
    stop: CancellationToken,
    _serving: JoinSet<std::io::Result<()>>,
}

impl Pair {
    async fn new() -> Self {
        let monitor = Api::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, monitor.state.clone(), stop.clone()));
        let url = format!("http://{address}").parse().unwrap();
        let reader = reader(&monitor, Monitor::At(Arc::new(Upstream::new(url).unwrap())));
        Self { monitor, reader, stop, _serving: serving }
    }
}

fn reader(monitor: &Api, at: Monitor) -> Api {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { hears_late: true, ..Options::new(Access::Loopback) };
    let made = Arc::into_inner(state(monitor.journal.clone(), &directory, options)).unwrap();
    let state = Arc::new(State { monitor: at, ..made });
    Api { journal: monitor.journal.clone(), router: router(state.clone()), state, _directory: directory }
}

fn text(frames: &[Frame]) -> String {
    frames.iter().filter(|frame| frame.name == "output").filter_map(|frame| frame.data["text"].as_str()).collect()
}

async fn frames_until(stream: &mut Stream, name: &str) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        frames.push(stream.next().await.unwrap());
        if frames.last().unwrap().name == name {
            return frames;
        }
    }
}

#[tokio::test]
async fn live_output_comes_from_the_monitor_under_the_monitors_ids() {
    let pair = Pair::new().await;
    let mut pod = life("e1");
    pair.monitor.append(pod.scheduled()).await;
    pair.monitor.append(pod.running()).await;
    let path = "/executions/e1/events";
    let mut stream = pair.reader.stream(path).await;
    let mut frames = Vec::new();
    let tap = pair.monitor.state.live.tap("e1", 1, &life("e1").evidence.uid).await.unwrap().unwrap();
    tap.begin(Some(0));
    for piece in ["one\n", "two\n", "three\n"] {
        tap.append(Bytes::from_static(piece.as_bytes())).await.unwrap();
        frames.extend(frames_until(&mut stream, "output").await);
    }
    drop(tap);
    pair.monitor.append(pod.completed("one\ntwo\nthree\n")).await;
    frames.extend(frames_until(&mut stream, "end").await);
    assert_eq!(text(&frames), "one\ntwo\nthree\n");
    // Whoever goes on elsewhere has the rest, and no more.
    for from in frames.iter().filter(|frame| frame.name == "output") {
        let read = text(&frames[..=frames.iter().position(|frame| frame == from).unwrap()]);
        for api in [&pair.monitor, &pair.reader] {
            let mut again = api.resume(path, from.id.as_deref()).await.unwrap();
            let rest = text(&frames_until(&mut again, "end").await);
            assert_eq!(format!("{read}{rest}"), "one\ntwo\nthree\n", "{from:?}");
        }
    }
}

#[tokio::test]
async fn a_monitor_that_is_away_costs_the_end_of_a_stream_a_moment_and_is_named() {
    let pair = Pair::new().await;
    let mut pod = life("e1");
    pair.monitor.append(pod.scheduled()).await;
    pair.monitor.append(pod.running()).await;
    pair.stop.cancel();
    let answer = pair.reader.get("/pods").await;
    let mut away = answer.status == StatusCode::BAD_GATEWAY;
    // Its listener may still take what comes in the moment of its end.
    while !away {
        away = pair.reader.get("/pods").await.status == StatusCode::BAD_GATEWAY;
    }
    let mut stream = pair.reader.stream("/executions/e1/events").await;
    pair.monitor.append(pod.completed("out")).await;
    let frames = timeout(2 * SOON, frames_until(&mut stream, "end")).await.unwrap();
    let missing: Vec<_> = frames.iter().filter(|frame| frame.name == "output").collect();
    assert_eq!(missing.len(), 1, "{frames:?}");
    assert!(missing[0].data["missing"].as_str().unwrap().contains("the monitor does not give the rest"));
}

#[tokio::test(start_paused = true)]
async fn what_only_a_monitor_has_is_a_clear_problem_where_nobody_knows_one() {
    let monitor = Api::new().await;
    monitor.append(life("e1").scheduled()).await;
    let alone = reader(&monitor, Monitor::Unknown);
    for path in ["/pods", "/pods/runs/executor-e1-1", "/audit"] {
        let answer = alone.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(answer.text().contains("http.monitor_url"), "{}", answer.text());
    }
    let answer = alone.resume("/executions/e1/output", None).await.unwrap_err();
    assert_eq!(answer.json()["type"], "urn:podherald:problem:not-here");
    // The rest needs none.
    assert_eq!(alone.good("/executions/e1").await["status"], "scheduled");
    let mut stream = alone.stream("/executions/e1/events").await;
    stream.expect("snapshot").await;
    assert_eq!(stream.events(1).await, ["pod_scheduled"]);
    let far = Monitor::At(Arc::new(Upstream::new("http://127.0.0.1:1".parse().unwrap()).unwrap()));
    for (api, status) in [(&monitor, StatusCode::OK), (&reader(&monitor, far.clone()), StatusCode::NOT_FOUND)] {
        assert_eq!(api.get("/pods/runs/executor%2De1-1").await.status, status, "no path means another at the monitor");
    }
    let passed_on = request("/pods").header(FORWARDED, "1").body(axum::body::Body::empty()).unwrap();
    let answer = reader(&monitor, far).send(passed_on).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "it goes in no circle");
}

/// Another replica may have been faster.
#[tokio::test(start_paused = true)]
async fn a_reader_that_has_more_than_is_here_yet_is_waited_for_and_then_reset() {
    let monitor = Api::new().await;
    let mut pod = life("e1");
    monitor.append(pod.scheduled()).await;
    let replica = reader(&monitor, Monitor::Unknown);
    let source = format!("pod-monitor:{}", monitor.journal.epoch());
    let place = format!("{source}=3");
    let (resumed, ()) = tokio::join!(replica.resume("/executions/e1/events", Some(&place)), async {
        tokio::task::yield_now().await;
        monitor.append(pod.running()).await;
    });
    let mut stream = resumed.unwrap();
    stream.expect("snapshot").await;
    assert_eq!(stream.events(1).await, ["execution_running"]);
    let never = format!("{source}=33");
    let mut stream = replica.resume("/executions/e1/events", Some(&never)).await.unwrap();
    stream.expect("reset").await;
}

/// What others tell comes by several partitions, and one may be late.
#[tokio::test(start_paused = true)]
async fn an_event_that_comes_after_a_later_one_of_its_source_is_shown_and_an_old_one_is_no_news() {
    let monitor = Api::new().await;
    let replica = reader(&monitor, Monitor::Unknown);
    let mut pod = life("e1");
    let drafts: Vec<_> = [pod.scheduled(), pod.running()].iter().flat_map(|change| change.events.to_vec()).collect();
    let adopted = |seq: usize, recalled: bool| Adopted {
        recalled,
        ..adopted(drafts[seq - 1].clone(), "pod-monitor:other", seq as u64)
    };
    let mut early = replica.stream("/executions/e1/events").await;
    let mut all = replica.stream("/events").await;
    all.expect("snapshot").await;
    for (seq, recalled) in [(2, false), (4, false), (3, false), (1, true)] {
        monitor.journal.adopt(vec![adopted(seq, recalled)], vec![]).await.unwrap();
    }
    let expected = ["execution_started", "execution_running", "pod_running", "pod_scheduled"];
    early.expect("snapshot").await;
    assert_eq!(early.events(4).await, expected);
    let mut late = replica.stream("/executions/e1/events").await;
    late.expect("snapshot").await;
    assert_eq!(late.events(4).await, expected);
    assert_eq!(all.events(3).await, expected[..3], "what is recalled happens to nobody now");
    assert!(all.is_silent().await);
    assert_eq!(replica.good("/events").await["items"].as_array().unwrap().len(), 3);
    assert_eq!(replica.good("/executions/e1/events").await["items"].as_array().unwrap().len(), 4);
}

/// Of two topics the one that is ahead differs from process to process.
#[tokio::test(start_paused = true)]
async fn what_a_faster_process_has_told_is_not_told_again_after_an_event_that_came_before_it_here() {
    let monitor = Api::new().await;
    let replica = reader(&monitor, Monitor::Unknown);
    let mut pod = life("e1");
    let drafts: Vec<_> = [pod.scheduled(), pod.running()].iter().flat_map(|change| change.events.to_vec()).collect();
    for (draft, source, seq) in [(0, "one:x", 1), (1, "other:x", 1), (2, "one:x", 2)] {
        monitor.journal.adopt(vec![adopted(drafts[draft].clone(), source, seq)], vec![]).await.unwrap();
    }
    let mut stream = replica.resume("/executions/e1/events", Some("one:x=2")).await.unwrap();
    stream.expect("snapshot").await;
    let frame = stream.next().await.unwrap();
    assert_eq!(frame.data["source"], "other:x");
    let mut again = replica.resume("/executions/e1/events", frame.id.as_deref()).await.unwrap();
    again.expect("snapshot").await;
    assert!(again.is_silent().await, "it has all there is: {:?}", frame.id);
}

#[tokio::test(start_paused = true)]
async fn long_lists_come_as_lines_all_of_them() {
    let api = Api::new().await;
    for n in 0..1200 {
        api.append(life(&format!("e{n}")).scheduled()).await;
    }
    for (path, field, newest_first) in [("/executions", "execution_id", true), ("/events", "execution_id", false)] {
        let answer = lines(&api, path).await;
        assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/x-ndjson"));
        let ids: Vec<String> = answer
            .text()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()[field].as_str().unwrap().to_owned())
            .collect();
        let mut expected: Vec<_> = (0..1200).map(|n| format!("e{n}")).collect();
        if newest_first {
            expected.reverse();
        }
        assert_eq!(ids, expected, "{path}");
    }
    let bytes = api.journal.execution_events("e7".to_owned(), 0, 9).await.unwrap()[0].bytes.clone();
    assert_eq!(lines(&api, "/executions/e7/events").await.body, [&*bytes, b"\n"].concat());
    assert_eq!(lines(&api, "/executions/e9999/events").await.status, StatusCode::NOT_FOUND);
    assert_eq!(lines(&api, "/executions?limit=5").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(lines(&api, "/executions?status=failed").await.text(), "");
}

async fn lines(api: &Api, path: &str) -> super::Answer {
    let request = request(path).header(header::ACCEPT, "application/x-ndjson");
    api.send(request.body(axum::body::Body::empty()).unwrap()).await
}
