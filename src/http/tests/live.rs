//! What a program prints, while it does and after.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::StatusCode;

use super::{
    Api, Frame, Stream,
    life::{Life, life},
};

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
    let tap = api.state.live.tap("e1", 1, 0).await.unwrap().unwrap();
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
    let tap = api.state.live.tap("e1", 1, 0).await.unwrap().unwrap();
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
    let mut tap = api.state.live.tap("e1", 1, 0).await.unwrap().unwrap();
    tap.append(Bytes::from_static(b"before")).await.unwrap();
    let before = stream.expect("output").await;
    tap.begin(1).await.unwrap();
    tap.append(Bytes::from_static(b"after")).await.unwrap();
    let after = stream.expect("output").await;
    assert_eq!((&before.data["run"], &before.data["offset"]), (&0.into(), &0.into()));
    assert_eq!(
        (&after.data["run"], &after.data["offset"], &after.data["text"]),
        (&1.into(), &0.into(), &"after".into())
    );
}

// T77
#[tokio::test(start_paused = true)]
async fn one_follow_too_many_is_refused_and_said_to_the_reader() {
    let api = Api::new().await;
    running(&api).await;
    let mut taps = Vec::new();
    for number in 0..64 {
        taps.push(api.state.live.tap(&format!("other-{number}"), 1, 0).await.unwrap().unwrap());
    }
    let mut stream = api.stream("/executions/e1/output").await;
    assert!(api.state.live.tap("e1", 1, 0).await.unwrap().is_none());
    let frame = stream.expect("output").await;
    assert!(frame.data["missing"].as_str().unwrap().contains("logs.max_follows"), "{frame:?}");
    taps.pop();
    assert!(api.state.live.tap("e1", 1, 0).await.unwrap().is_some());
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
