//! The stream of one execution.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout};

use super::{
    Api, SOON, adopted,
    life::{Life, life},
};
use crate::http::{Access, Options};

const EVENTS: &str = "/executions/e1/events";

// T117: nothing is missing between the snapshot and what follows. T120: 204 stops a browser.
#[tokio::test(start_paused = true)]
async fn a_visitor_gets_snapshot_past_present_and_end() {
    let api = Api::new().await;
    let mut pod = life("e1");
    api.append(pod.scheduled()).await;
    let mut stream = api.stream(EVENTS).await;
    assert_eq!(stream.headers["cache-control"], "no-cache, no-transform");
    assert_eq!(stream.headers["x-accel-buffering"], "no");

    let snapshot = stream.expect("snapshot").await;
    assert_eq!(snapshot.id.as_deref(), Some("0"), "a break right after the snapshot must lose nothing");
    assert_eq!(snapshot.data["execution"]["status"], "scheduled");
    assert!(snapshot.data["result"].is_null());
    assert_eq!(stream.events(1).await, ["pod_scheduled"]);

    api.append(pod.running()).await;
    assert_eq!(stream.events(3).await, ["execution_started", "pod_running", "execution_running"]);
    api.append(pod.completed("hello")).await;
    let last = stream.expect("").await;
    assert_eq!(last.data["stdout"], "hello");
    let end = stream.expect("end").await;
    assert_eq!(end.data["status"], "completed");
    assert!(stream.next().await.is_none());

    let again = api.resume(EVENTS, end.id.as_deref()).await.err().unwrap();
    assert_eq!((again.status, again.body.len()), (StatusCode::NO_CONTENT, 0));
}

#[tokio::test(start_paused = true)]
async fn a_visitor_of_a_finished_execution_gets_all_of_it() {
    let api = Api::new().await;
    let mut pod = life("e1");
    for change in [pod.scheduled(), pod.running(), pod.failed(), pod.deleted()] {
        api.append(change).await;
    }
    let mut stream = api.stream(EVENTS).await;
    assert_eq!(stream.expect("snapshot").await.data["execution"]["status"], "failed");
    assert_eq!(stream.events(6).await[4..], ["execution_failed", "pod_deleted"]);
    stream.expect("end").await;
    assert!(stream.next().await.is_none());
}

/// Where podheralds take turns, events of several writers are in one journal, and of each some may have come from another.
#[tokio::test(start_paused = true)]
async fn a_gap_that_another_writer_filled_is_none_to_a_reader() {
    let api = Api::new().await;
    let mut pod = life("e1");
    let changes = [pod.scheduled(), pod.running(), pod.completed("hello"), pod.deleted()];
    let drafts = changes.iter().flat_map(|change| change.events.iter().cloned());
    let adopted = (1..).zip(drafts).map(|(seq, draft)| adopted(draft, "pod-monitor:other", seq));
    api.append(changes[1].clone()).await;
    api.state.journal.adopt(adopted.collect(), vec![]).await.unwrap();
    let mut stream = api.stream(EVENTS).await;
    let mut frames = vec![stream.expect("snapshot").await];
    for _ in 0..6 {
        frames.push(stream.expect("").await);
    }
    stream.expect("end").await;
    for (index, from) in frames.iter().enumerate() {
        let mut stream = api.resume(EVENTS, from.id.as_deref()).await.unwrap();
        stream.expect("snapshot").await;
        assert_eq!(stream.events(frames.len() - 1 - index).await.len(), frames.len() - 1 - index, "{from:?}");
        stream.expect("end").await;
    }
}

#[tokio::test(start_paused = true)]
async fn resuming_from_any_frame_gives_exactly_the_rest() {
    let api = Api::new().await;
    let mut pod = life("e1");
    for change in [pod.scheduled(), pod.running(), pod.failed(), pod.deleted()] {
        api.append(change).await;
    }
    let mut stream = api.stream(EVENTS).await;
    let mut frames = Vec::new();
    while let Some(frame) = stream.next().await {
        frames.push(frame);
    }
    for (index, from) in frames.iter().enumerate().filter(|(_, frame)| frame.name != "end") {
        let mut stream = api.resume(EVENTS, from.id.as_deref()).await.unwrap_or_else(|_| panic!("{from:?}"));
        assert_eq!(stream.expect("snapshot").await.id, from.id);
        for expected in &frames[index + 1..] {
            assert_eq!(stream.next().await.as_ref(), Some(expected));
        }
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn the_data_of_a_frame_is_the_item_of_the_page() {
    let api = Api::new().await;
    let mut pod = life("e1");
    api.append(pod.running()).await;
    let page = api.get(EVENTS).await;
    let mut stream = api.stream(EVENTS).await;
    stream.expect("snapshot").await;
    for _ in 0..3 {
        let frame = stream.expect("").await;
        assert!(page.text().contains(&frame.bytes), "{}", frame.bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn the_query_resumes_like_the_header_and_the_header_outranks_it() {
    let api = Api::new().await;
    let mut pod = life("e1");
    api.append(pod.running()).await;
    let mut stream = api.stream(EVENTS).await;
    stream.expect("snapshot").await;
    let first = stream.expect("").await.id.unwrap();
    stream.events(2).await;
    let last = stream.last_id.clone();

    let mut stream = api.stream(&format!("{EVENTS}?last_event_id={first}")).await;
    stream.expect("snapshot").await;
    assert_eq!(stream.events(2).await, ["pod_running", "execution_running"]);
    let mut stream = api.resume(&format!("{EVENTS}?last_event_id={first}"), Some(&last)).await.unwrap();
    stream.expect("snapshot").await;
    assert!(stream.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn an_id_from_another_history_is_reset() {
    let api = Api::new().await;
    let mut pod = life("e1");
    api.append(pod.running()).await;
    let epoch = api.journal.epoch().to_owned();
    for id in ["pod-monitor:another-epoch=2".to_owned(), format!("pod-monitor:{epoch}=99")] {
        let mut stream = api.resume(EVENTS, Some(&id)).await.unwrap();
        assert_eq!(stream.expect("reset").await.id.as_deref(), Some("0"), "{id}");
        assert_eq!(stream.expect("snapshot").await.id.as_deref(), Some("0"));
        assert_eq!(stream.events(3).await.len(), 3);
    }
    let mut stream = api.resume("/executions/unknown/events", Some("pod-monitor:another-epoch=2")).await.unwrap();
    stream.expect("reset").await;
    assert!(stream.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn an_id_below_what_retention_took_is_reset() {
    let api = Api::new().await;
    let (mut first, mut second) = (life("e1"), Life::new("e1", 2));
    api.append(first.running()).await;
    let mut stream = api.stream(EVENTS).await;
    stream.expect("snapshot").await;
    let id = stream.expect("").await.id;
    api.append(first.failed()).await;
    api.prune_all().await;
    api.append(second.running()).await;
    let mut stream = api.resume(EVENTS, id.as_deref()).await.unwrap();
    stream.expect("snapshot").await;
    stream.expect("reset").await;
    assert_eq!(stream.expect("snapshot").await.id.as_deref(), Some("0"));
    assert_eq!(stream.events(3).await[0], "execution_started");
    let mut stream = api.resume(EVENTS, Some(&stream.last_id)).await.unwrap();
    stream.expect("snapshot").await;
    assert!(stream.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_heartbeats() {
    let api = Api::new().await;
    let mut pod = life("e1");
    api.append(pod.scheduled()).await;
    let mut stream = api.stream(EVENTS).await;
    stream.expect("snapshot").await;
    stream.events(1).await;
    let id = stream.last_id.clone();
    let quiet_since = Instant::now();
    for beat in 1..=3 {
        assert_eq!(stream.expect("heartbeat").await.id, None);
        assert_eq!(quiet_since.elapsed().as_secs(), 15 * beat);
    }
    assert_eq!(stream.last_id, id);

    tokio::time::advance(Duration::from_secs(10)).await;
    api.append(pod.running()).await;
    stream.events(3).await;
    assert!(stream.is_silent().await, "a frame puts the heartbeat off");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_execution_is_waited_for() {
    let api = Api::new().await;
    let mut stream = api.stream(EVENTS).await;
    stream.expect("heartbeat").await;
    let mut pod = life("e1");
    api.append(pod.seen()).await;
    let snapshot = stream.expect("snapshot").await;
    assert_eq!(snapshot.data["execution"]["status"], "pending");
    api.append(pod.scheduled()).await;
    assert_eq!(stream.events(1).await, ["pod_scheduled"]);
}

#[tokio::test(start_paused = true)]
async fn a_later_attempt_keeps_the_stream_open() {
    let api = Api::new().await;
    let (mut first, mut second) = (life("e1"), Life::new("e1", 2));
    for change in [first.running(), second.seen(), first.failed()] {
        api.append(change).await;
    }
    let mut stream = api.stream(EVENTS).await;
    assert_eq!(stream.expect("snapshot").await.data["execution"]["attempt"], 2);
    assert_eq!(stream.events(4).await[3], "execution_failed");
    assert!(stream.is_silent().await, "the second attempt has not ended");
    api.append(second.running()).await;
    stream.events(3).await;
    api.append(second.completed("")).await;
    assert_eq!(stream.events(1).await, ["execution_completed"]);
    assert_eq!(stream.expect("end").await.data["attempt"], 2);
}

// T118
#[tokio::test(start_paused = true)]
async fn a_reader_that_lags_misses_nothing() {
    let api = Api::new().await;
    let mut pod = life("e1");
    api.append(pod.running()).await;
    let mut stream = api.stream(EVENTS).await;
    stream.expect("snapshot").await;
    stream.events(3).await;
    for _ in 0..300 {
        api.append(pod.amended()).await;
    }
    api.append(pod.completed("")).await;
    for number in 1..=300 {
        let frame = stream.expect("").await;
        assert_eq!(frame.data["evidence"][0], format!("late fact {number}"));
    }
    assert_eq!(stream.events(1).await, ["execution_completed"]);
    stream.expect("end").await;
    let (_, _, lagged) = api.state.metrics.counts();
    assert!(lagged > 0, "the test must make it lag");
}

// T125
#[tokio::test(start_paused = true)]
async fn a_get_is_never_older_than_a_frame() {
    let api = Api::new().await;
    let mut pod = life("e1");
    api.append(pod.running()).await;
    let mut stream = api.stream(EVENTS).await;
    stream.expect("snapshot").await;
    stream.events(3).await;
    api.append(pod.failed()).await;
    assert_eq!(stream.events(1).await, ["execution_failed"]);
    assert_eq!(api.good("/executions/e1").await["status"], "failed");
}

// T124
#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_ends_streams_and_counts() {
    let api = Api::new().await;
    let mut waiting = api.stream("/executions/nobody/events").await;
    let mut following = api.stream("/events").await;
    following.expect("snapshot").await;
    assert_eq!(api.state.metrics.counts().1, 2);
    api.state.closing.cancel();
    assert!(timeout(SOON, waiting.next()).await.unwrap().is_none());
    assert!(timeout(SOON, following.next()).await.unwrap().is_none());
    drop((waiting, following));
    assert_eq!(api.state.metrics.counts().1, 0);
}

/// Where results are stored, a stream waits for what became of them, and not for ever.
#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_result_or_half_a_minute_without() {
    let options = Options { ends_on_result: true, ..Options::new(Access::Loopback) };
    let api = Api::with(options).await;
    let mut pod = life("e1");
    api.append(pod.completed("hello")).await;
    let mut stream = api.stream(EVENTS).await;
    assert_eq!(stream.expect("snapshot").await.data["result"], "pending");
    stream.events(1).await;
    let begun = Instant::now();
    let end = loop {
        let frame = stream.next().await.unwrap();
        if frame.name == "end" {
            break frame;
        }
    };
    assert_eq!((end.data["result"].as_str(), begun.elapsed().as_secs()), (Some("pending"), 30));

    let mut stream = api.stream(EVENTS).await;
    stream.expect("snapshot").await;
    stream.events(1).await;
    api.append(pod.deleted()).await;
    assert_eq!(stream.events(1).await, ["pod_deleted"]);
    api.state.journal.tell(vec![pod.result_stored()]).await.unwrap();
    assert_eq!(stream.expect("").await.data["stdout"], "hello");
    assert_eq!(stream.expect("end").await.data["result"], "stored");
    let mut late = api.stream(EVENTS).await;
    assert_eq!(late.expect("snapshot").await.data["result"], "stored");
    late.events(3).await;
    assert_eq!(late.expect("end").await.data["result"], "stored");
}

#[tokio::test]
async fn a_stream_ends_when_the_result_can_never_be_kept() {
    let api = Api::with(Options { ends_on_result: true, ..Options::new(Access::Loopback) }).await;
    let mut pod = life("e1");
    api.append(pod.completed("hello")).await;
    let mut stream = api.stream(EVENTS).await;
    assert_eq!(stream.expect("snapshot").await.data["result"], "pending");
    stream.events(1).await;
    api.state.journal.tell(vec![pod.result_failed()]).await.unwrap();
    assert_eq!(stream.events(1).await, ["result_failed"]);
    assert_eq!(stream.expect("end").await.data["result"], "failed");
}

/// The wait for the first attempt's result is over, and the stream goes on.
#[tokio::test(start_paused = true)]
async fn a_later_attempt_ends_the_wait_for_the_result_of_the_first() {
    let options = Options { ends_on_result: true, ..Options::new(Access::Loopback) };
    let api = Api::with(options).await;
    let mut stream = {
        api.append(life("e1").completed("hello")).await;
        api.stream(EVENTS).await
    };
    stream.expect("snapshot").await;
    stream.events(1).await;
    let mut second = Life::new("e1", 2);
    api.append(second.running()).await;
    stream.events(3).await;
    let begun = Instant::now();
    // Beyond the patience with a result there are heartbeats, one after the other.
    for _ in 0..4 {
        stream.expect("heartbeat").await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(55), "{:?}", begun.elapsed());
}
