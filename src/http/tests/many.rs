//! The stream of many executions.

use http::StatusCode;

use super::{Api, life::life};

#[tokio::test(start_paused = true)]
async fn a_visitor_gets_a_snapshot_and_then_what_is_new() {
    let api = Api::new().await;
    let (mut one, mut two) = (life("e1"), life("e2"));
    api.append(one.running()).await;
    api.append(two.scheduled()).await;
    let mut stream = api.stream("/events").await;
    let snapshot = stream.expect("snapshot").await;
    assert_eq!(snapshot.id, Some(format!("{}:4", api.journal.epoch())));
    assert_eq!(snapshot.data["truncated"], false);
    let ids: Vec<_> = snapshot.data["executions"].as_array().unwrap().iter().map(|e| &e["execution_id"]).collect();
    assert_eq!(ids, ["e2", "e1"], "newest first");
    assert!(snapshot.data["executions"][0].get("stdout").is_none());

    api.append(one.completed("hello")).await;
    api.append(two.running()).await;
    let types = stream.events(4).await;
    assert_eq!(types, ["execution_completed", "execution_started", "pod_running", "execution_running"]);
    assert_eq!(stream.last_id, format!("{}:8", api.journal.epoch()));
    assert!(stream.is_silent().await, "it never ends by itself");
}

#[tokio::test(start_paused = true)]
async fn resuming_from_any_id_gives_exactly_the_rest() {
    let api = Api::new().await;
    for id in ["e1", "e2", "e3"] {
        let mut pod = life(id);
        api.append(pod.running()).await;
        api.append(pod.failed()).await;
    }
    let mut stream = api.resume("/events", Some("0")).await.unwrap();
    let mut frames = vec![stream.expect("snapshot").await];
    for _ in 0..12 {
        frames.push(stream.expect("").await);
    }
    for (index, from) in frames.iter().enumerate() {
        let mut stream = api.resume("/events", from.id.as_deref()).await.unwrap();
        assert_eq!(stream.expect("snapshot").await.id, from.id);
        for expected in &frames[index + 1..] {
            assert_eq!(stream.next().await.as_ref(), Some(expected));
        }
        assert!(stream.is_silent().await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_of_another_journal_or_of_the_future_is_reset() {
    let api = Api::new().await;
    api.append(life("e1").running()).await;
    let epoch = api.journal.epoch().to_owned();
    for id in ["another-epoch:1".to_owned(), format!("{epoch}:99")] {
        let mut stream = api.resume("/events", Some(&id)).await.unwrap();
        assert_eq!(stream.expect("reset").await.id, Some(format!("{epoch}:3")), "{id}");
        assert_eq!(stream.expect("snapshot").await.id, Some(format!("{epoch}:3")));
        assert!(stream.is_silent().await);
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_below_what_retention_took_is_reset() {
    let api = Api::new().await;
    let (mut old, mut young) = (life("e1"), life("e2"));
    api.append(old.running()).await;
    let id = format!("{}:2", api.journal.epoch());
    let page = api.good("/events?limit=1").await;
    api.append(old.failed()).await;
    api.append(young.running()).await;
    let mut open = api.resume("/events", Some("0")).await.unwrap();
    api.prune_all().await;

    let mut stream = api.resume("/events", Some(&id)).await.unwrap();
    stream.expect("reset").await;
    let snapshot = stream.expect("snapshot").await;
    assert_eq!(snapshot.data["executions"].as_array().unwrap().len(), 1);
    assert_eq!(snapshot.id, Some(format!("{}:7", api.journal.epoch())));
    let next = page["next"].as_str().unwrap();
    assert_eq!(api.get(&format!("/events?after={next}")).await.status, StatusCode::GONE);
    assert_eq!(api.good("/events").await["items"].as_array().unwrap().len(), 3, "what is left is shown");
    let mut stream = api.resume("/events", Some("0")).await.unwrap();
    stream.expect("snapshot").await;
    assert_eq!(stream.events(3).await[0], "execution_started");

    // It began before and has read nothing yet.
    open.expect("snapshot").await;
    open.expect("reset").await;
    open.expect("snapshot").await;
    assert!(open.is_silent().await);
}

// T121: many executions on one stream.
#[tokio::test(start_paused = true)]
async fn filters_choose_executions_and_events() {
    let api = Api::new().await;
    let mut one = life("e1").label("team", "blue");
    let mut two = life("e2").label("team", "red").namespace("other");
    let all = [one.running(), two.running(), one.failed(), two.completed("")];
    for change in all {
        api.append(change).await;
    }
    for (filter, executions, events) in [
        ("execution=e1", "e1", 4),
        ("execution=e1&execution=e2", "e1 e2", 8),
        ("namespace=other", "e2", 4),
        ("label=team%3Dblue", "e1", 4),
        ("label=team=blue&namespace=other", "", 0),
        ("status=failed", "e1", 1),
        ("status=failed,completed", "e1 e2", 2),
        ("status=running", "", 4),
    ] {
        let mut stream = api.resume(&format!("/events?{filter}"), Some("0")).await.unwrap();
        let snapshot = stream.expect("snapshot").await;
        let executions: Vec<&str> = executions.split_whitespace().collect();
        let mut shown: Vec<_> = snapshot.data["executions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["execution_id"].as_str().unwrap())
            .collect();
        shown.sort_unstable();
        assert_eq!(shown, executions, "{filter}");
        assert_eq!(stream.events(events).await.len(), events, "{filter}");
        assert!(stream.is_silent().await, "{filter}");
        let page = api.good(&format!("/events?{filter}")).await;
        assert_eq!(page["items"].as_array().unwrap().len(), events, "{filter}");
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_carry_a_filtered_reader_forward() {
    let api = Api::new().await;
    let mut stream = api.stream("/events?execution=none").await;
    stream.expect("snapshot").await;
    api.append(life("e1").running()).await;
    let id = stream.expect("heartbeat").await.id.unwrap();
    assert_eq!(id, format!("{}:3", api.journal.epoch()));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_bounded_and_says_so() {
    let api = Api::new().await;
    let changes = (0..501).map(|n| life(&format!("e{n}")).seen()).collect();
    api.journal.append(changes).await.unwrap();
    let snapshot = api.stream("/events").await.expect("snapshot").await;
    assert_eq!(snapshot.data["executions"].as_array().unwrap().len(), 500);
    assert_eq!(snapshot.data["truncated"], true);
    assert_eq!(snapshot.data["executions"][0]["execution_id"], "e500");
}

// T118
#[tokio::test(start_paused = true)]
async fn a_reader_that_lags_misses_nothing() {
    let api = Api::new().await;
    let mut stream = api.stream("/events").await;
    stream.expect("snapshot").await;
    let mut pod = life("e1");
    for _ in 0..10 {
        let changes = (0..500).map(|_| pod.amended()).collect();
        api.journal.append(changes).await.unwrap();
    }
    for number in 1..=5_000 {
        let frame = stream.expect("").await;
        assert_eq!(frame.data["evidence"][0], format!("late fact {number}"));
    }
    assert!(api.state.metrics.counts().2 > 0, "the test must make it lag");
    api.append(pod.completed("")).await;
    assert_eq!(stream.events(1).await, ["execution_completed"]);
}
