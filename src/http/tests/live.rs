//! What a program prints, while it does and after.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::StatusCode;
use podherald_core::evidence::{JobFacts, PodOfJob, Subject};

use super::{
    Api, Frame, Stream,
    life::{Life, life},
};
use crate::{journal::Change, live_output::Tap};

const EVENTS: &str = "/executions/e1/events";

/// The bytes of an output frame.
fn bytes(frame: &Frame) -> Vec<u8> {
    match frame.data["text"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => BASE64_STANDARD.decode(frame.data["base64"].as_str().unwrap()).unwrap(),
    }
}

async fn running(api: &Api) -> Life {
    let mut pod = life("e1");
    api.append(pod.scheduled()).await;
    api.append(pod.running()).await;
    pod
}

/// The first log of this execution's first pod.
async fn tap(api: &Api, execution_id: &str) -> Tap {
    tap_of(api, execution_id, &life(execution_id).evidence.uid, 0).await.unwrap()
}

async fn tap_of(api: &Api, execution_id: &str, uid: &str, restarts: u32) -> Option<Tap> {
    let tap = api.state.live.tap(execution_id, 1, uid).await.unwrap();
    tap.inspect(|tap| tap.begin(Some(restarts)))
}

fn of_job(job: &str) -> Subject {
    Subject::PodOfJob(Box::new(PodOfJob { job: job.to_owned(), ..PodOfJob::default() }))
}

/// The Job with uid `job`, whose output is this pod's.
fn job_that_chose(uid: &str) -> Change {
    let mut job = life("e1");
    job.evidence.uid = "job".to_owned();
    let facts = JobFacts { chosen: Some(uid.to_owned()), ..JobFacts::default() };
    job.evidence.subject = Subject::Job(Box::new(facts));
    job.seen()
}

async fn to_the_end(stream: &mut Stream) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = stream.next().await {
        frames.push(frame);
    }
    frames
}

fn output_of(frames: &[Frame]) -> Vec<u8> {
    frames.iter().filter(|frame| frame.name == "output").flat_map(bytes).collect()
}

// T72
#[tokio::test(start_paused = true)]
async fn output_is_resumed_from_any_frame_without_hole_or_repeat_before_the_end_and_after() {
    let printed = "one\ntwö\n\u{1f980} three";
    let api = Api::new().await;
    let mut pod = running(&api).await;
    let mut stream = api.stream(EVENTS).await;
    stream.expect("snapshot").await;
    stream.events(4).await;
    let tap = tap(&api, "e1").await;
    let mut frames = Vec::new();
    // In pieces that end within characters.
    for piece in printed.as_bytes().chunks(7) {
        tap.append(Bytes::copy_from_slice(piece)).await.unwrap();
        frames.push(stream.expect("output").await);
    }
    drop(tap);
    api.append(pod.completed(printed)).await;
    frames.extend(to_the_end(&mut stream).await);
    assert_eq!(output_of(&frames), printed.as_bytes());
    assert_eq!(frames.last().unwrap().name, "end");
    assert!(frames.iter().all(|frame| frame.name != "output" || frame.data["text"].is_string()), "all of it is text");

    for (index, from) in frames.iter().enumerate().filter(|(_, frame)| frame.name == "output") {
        let mut again = api.resume(EVENTS, from.id.as_deref()).await.unwrap_or_else(|_| panic!("{from:?}"));
        assert_eq!(output_of(&to_the_end(&mut again).await), output_of(&frames[index + 1..]), "{from:?}");
    }
    let end = frames.last().unwrap().id.as_deref();
    assert_eq!(api.resume(EVENTS, end).await.err().unwrap().status, StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_text_come_as_base64() {
    let api = Api::new().await;
    running(&api).await;
    let mut stream = api.stream("/executions/e1/output").await;
    let tap = tap(&api, "e1").await;
    tap.append(Bytes::from_static(b"a\xff\0b")).await.unwrap();
    let mut output = Vec::new();
    while output.len() < 4 {
        let frame = stream.expect("output").await;
        assert_eq!(frame.data["offset"], output.len());
        output.extend(bytes(&frame));
        assert_eq!(frame.data["next"], output.len());
    }
    assert_eq!(output, b"a\xff\0b");
}

// T66
#[tokio::test(start_paused = true)]
async fn a_log_that_is_begun_anew_is_another_run_from_its_first_byte() {
    let api = Api::new().await;
    running(&api).await;
    let mut stream = api.stream("/executions/e1/output").await;
    let mut tap = tap(&api, "e1").await;
    tap.append(Bytes::from_static(b"before")).await.unwrap();
    let before = stream.expect("output").await;
    tap.begin_anew(Some(0)).await.unwrap();
    tap.append(Bytes::from_static(b"after")).await.unwrap();
    let after = stream.expect("output").await;
    assert_eq!((&before.data["run"], &before.data["offset"]), (&0.into(), &0.into()));
    assert_eq!(
        (&after.data["run"], &after.data["offset"], &after.data["text"]),
        (&1.into(), &0.into(), &"after".into())
    );
}

#[tokio::test(start_paused = true)]
async fn every_log_that_is_followed_is_a_run_of_its_own_and_greater_than_those_before() {
    let api = Api::new().await;
    running(&api).await;
    let mut stream = api.stream("/executions/e1/output").await;
    let mut runs = Vec::new();
    // Of two pods of a Job, and of one of them again.
    for (uid, restarts) in [("a", 1), ("b", 0), ("a", 1), ("a", 2)] {
        let tap = tap_of(&api, "e1", uid, restarts).await.unwrap();
        tap.append(Bytes::from_static(b"printed")).await.unwrap();
        let frame = stream.expect("output").await;
        assert_eq!((&frame.data["offset"], &frame.data["text"]), (&0.into(), &"printed".into()));
        runs.push(frame.data["run"].as_u64().unwrap());
    }
    assert!(runs.is_sorted_by(|a, b| a < b), "{runs:?}");
}

// T53
#[tokio::test(start_paused = true)]
async fn a_reader_of_one_log_gets_another_that_was_stored_only_after_it_is_told_and_from_the_first_byte() {
    type Turn = fn(&mut Life);
    let is_restarted: Turn = |pod| pod.evidence.restart_count = 1;
    let is_not_chosen: Turn = |pod| pod.evidence.subject = of_job("job");
    let cases = [("the container was restarted", is_restarted), ("the Job chose another pod", is_not_chosen)];
    for (case, change) in cases {
        let api = Api::new().await;
        let mut pod = running(&api).await;
        let mut stream = api.stream("/executions/e1/output").await;
        let tap = tap(&api, "e1").await;
        tap.append(Bytes::from_static(b"before")).await.unwrap();
        stream.expect("output").await;
        drop(tap);
        change(&mut pod);
        api.append(job_that_chose("other")).await;
        api.append(pod.completed("another log")).await;
        let frames = to_the_end(&mut stream).await;
        let [missing, stored, end] = &frames[..] else { panic!("{case}: {frames:?}") };
        assert_eq!((&missing.data["offset"], &missing.data["next"]), (&6.into(), &serde_json::Value::Null), "{case}");
        assert!(missing.data["missing"].is_string(), "{case}: {missing:?}");
        assert_eq!((&stored.data["offset"], &stored.data["text"]), (&0.into(), &"another log".into()), "{case}");
        assert!(stored.data["run"].as_u64() > missing.data["run"].as_u64(), "{case}");
        assert_eq!(end.name, "end", "{case}");
        for (from, rest) in [(missing, "another log"), (stored, "")] {
            let mut again = api.resume("/executions/e1/output", from.id.as_deref()).await.unwrap();
            assert_eq!(output_of(&to_the_end(&mut again).await), rest.as_bytes(), "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_in_a_run_of_an_earlier_process_is_none_in_what_was_stored() {
    let api = Api::new().await;
    let mut pod = running(&api).await;
    tap(&api, "e1").await;
    api.append(pod.completed("all of it")).await;
    let mut stream = api.resume("/executions/e1/output", Some("0@1.7.3")).await.unwrap();
    let frames = to_the_end(&mut stream).await;
    assert!(frames[0].data["missing"].is_string(), "{frames:?}");
    assert_eq!((&frames[1].data["offset"], &frames[1].data["text"]), (&0.into(), &"all of it".into()));
}

// T77
#[tokio::test(start_paused = true)]
async fn one_log_of_an_execution_is_followed_at_a_time() {
    let api = Api::new().await;
    running(&api).await;
    let mut stream = api.stream("/executions/e1/output").await;
    let first = tap_of(&api, "e1", "a", 0).await.unwrap();
    assert!(tap_of(&api, "e1", "b", 0).await.is_none());
    assert!(!api.state.live.wants("e1"));
    first.append(Bytes::from_static(b"first")).await.unwrap();
    assert_eq!(stream.expect("output").await.data["text"], "first", "the reader is not told of a refusal");
    drop(first);
    assert!(api.state.live.wants("e1"));
    assert!(tap_of(&api, "e1", "b", 0).await.is_some());
}

// T77
#[tokio::test(start_paused = true)]
async fn one_follow_too_many_is_refused_and_said_to_the_reader() {
    let api = Api::new().await;
    running(&api).await;
    let mut taps = Vec::new();
    for number in 0..64 {
        taps.push(tap(&api, &format!("other-{number}")).await);
    }
    let mut stream = api.stream("/executions/e1/output").await;
    assert!(tap_of(&api, "e1", "uid", 0).await.is_none());
    let frame = stream.expect("output").await;
    assert!(frame.data["missing"].as_str().unwrap().contains("logs.max_follows"), "{frame:?}");
    taps.pop();
    assert!(tap_of(&api, "e1", "uid", 0).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn only_who_wants_output_watches() {
    let api = Api::new().await;
    running(&api).await;
    assert!(!api.state.live.wants("e1"));
    let events_only = api.stream("/executions/e1/events?output=false").await;
    assert!(!api.state.live.wants("e1"));
    let both = api.stream(EVENTS).await;
    assert!(api.state.live.wants("e1"));
    assert_eq!(api.state.live.wanted().len(), 1);
    drop((events_only, both));
    assert!(!api.state.live.wants("e1"));
}
