//! Answers in one piece.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use podherald_core::output::{Limits, LogEnd, Scanner};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Api, life::life, request};
use crate::health::{Role, SinkHealth};

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["execution_id"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_execution_is_shown_as_it_is() {
    let api = Api::new().await;
    let mut pod = life("e1").label("user-id", "ada");
    for change in [pod.scheduled(), pod.running(), pod.failed()] {
        api.append(change).await;
    }
    let execution = api.good("/executions/e1").await;
    assert_eq!(execution["status"], "failed");
    assert_eq!(execution["exit"], json!({"code": 3, "signal": null, "source": "kubelet"}));
    assert_eq!(execution["cause"]["class"], "user_code");
    assert_eq!(execution["user_id"], "ada");
    assert_eq!(execution["stdout"], "");
    assert_eq!(execution["pods"][0]["node_name"], "node-1");
    assert_eq!(execution["as_of"].as_object().unwrap().values().collect::<Vec<_>>(), [5]);
}

#[tokio::test(start_paused = true)]
async fn executions_are_listed_newest_first_by_page() {
    let api = Api::new().await;
    for n in 0..7 {
        api.append(life(&format!("e{n}")).completed("text")).await;
    }
    let mut seen = Vec::new();
    let mut path = "/executions?limit=3".to_owned();
    loop {
        let page = api.good(&path).await;
        assert!(page["items"][0].get("stdout").is_none() && page["items"][0].get("stderr").is_none());
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/executions?limit=3&after={next}");
    }
    assert_eq!(seen, ["e6", "e5", "e4", "e3", "e2", "e1", "e0"]);
    assert!(api.good("/executions?limit=7").await["next"].is_null(), "nothing comes after the last");
}

#[tokio::test(start_paused = true)]
async fn executions_are_filtered() {
    let api = Api::new().await;
    api.append(life("e1").label("team", "blue").label("user-id", "ada").failed()).await;
    api.append(life("e2").label("team", "blue").running()).await;
    api.append(life("e3").namespace("other").completed("")).await;
    for (filter, expected) in [
        ("status=failed", &["e1"][..]),
        ("status=failed,running", &["e2", "e1"]),
        ("status=failed&status=completed", &["e3", "e1"]),
        ("namespace=other", &["e3"]),
        ("label=team=blue", &["e2", "e1"]),
        ("label=team=blue&label=user-id=ada", &["e1"]),
        ("user=ada", &["e1"]),
        ("user=ada&status=running", &[]),
    ] {
        assert_eq!(ids(&api.good(&format!("/executions?{filter}")).await), expected, "{filter}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_over_when_the_execution_ends() {
    let api = Api::new().await;
    let mut pod = life("e1");
    api.append(pod.running()).await;
    let began = Instant::now();
    let later = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        api.append(pod.failed()).await;
    };
    let (execution, ()) = tokio::join!(api.good("/executions/e1?wait=60s"), later);
    assert_eq!(execution["status"], "failed");
    assert_eq!(began.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_in_vain_shows_what_there_is() {
    let api = Api::new().await;
    api.append(life("e1").running()).await;
    let began = Instant::now();
    assert_eq!(api.good("/executions/e1?wait=30s").await["status"], "running");
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_execution_is_waited_for_only_on_demand() {
    let api = Api::new().await;
    let began = Instant::now();
    assert_eq!(api.get("/executions/e1").await.status, StatusCode::NOT_FOUND);
    assert_eq!(began.elapsed().as_secs(), 0);
    assert_eq!(api.get("/executions/e1?wait=20s").await.status, StatusCode::NOT_FOUND);
    assert_eq!(began.elapsed().as_secs(), 20);
    let later = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        api.append(life("e1").completed("")).await;
    };
    let (execution, ()) = tokio::join!(api.good("/executions/e1?wait=20s"), later);
    assert_eq!(execution["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn past_events_come_oldest_first_by_page() {
    let api = Api::new().await;
    let (mut one, mut two) = (life("e1"), life("e2"));
    for change in [one.running(), two.running(), one.failed(), two.failed()] {
        api.append(change).await;
    }
    for (list, count) in
        [("/executions/e1/events?limit=2", 4), ("/events?limit=2", 8), ("/events?execution=e2&limit=3", 4)]
    {
        let mut seen = Vec::new();
        let mut path = list.to_owned();
        loop {
            let page = api.good(&path).await;
            seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["event_id"].to_string()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("{list}&after={next}");
        }
        let mut distinct = seen.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((seen.len(), distinct.len()), (count, count), "{list}");
    }
    let page = api.good("/executions/e1/events?limit=4").await;
    assert_eq!(page["items"][3]["event_type"], "execution_failed");
    assert!(page["next"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_cursor_of_another_journal_is_gone() {
    let other = Api::new().await;
    other.append(life("e1").running()).await;
    let next = other.good("/events?limit=1").await["next"].as_str().unwrap().to_owned();
    let answer = Api::new().await.get(&format!("/events?after={next}")).await;
    assert_eq!(answer.status, StatusCode::GONE);
    assert_eq!(answer.json()["type"], "urn:podherald:problem:history-gone");
}

#[tokio::test(start_paused = true)]
async fn pods_are_shown_with_what_keeps_them() {
    let api = Api::new().await;
    let (mut one, mut two, mut three) = (life("e1"), life("e2"), life("e3").namespace("other"));
    for change in [one.stuck(), two.running(), three.failed()] {
        api.append(change).await;
    }
    let page = api.good("/pods?limit=2").await;
    assert_eq!(ids(&page), ["e3", "e1"], "by namespace and name");
    let next = page["next"].as_str().unwrap();
    let rest = api.good(&format!("/pods?limit=2&after={next}")).await;
    assert_eq!((ids(&rest), &rest["next"]), (vec!["e2"], &Value::Null));

    let pod = api.good("/pods/runs/executor-e1-1").await;
    assert_eq!(pod["pending"]["reason"], "Unschedulable");
    assert_eq!((&pod["phase"], &pod["state"]), (&json!("Pending"), &json!("tracked")));
    assert_eq!(api.good("/pods?execution=e3").await["items"][0]["state"], "ended");
    assert_eq!(ids(&api.good("/pods?namespace=runs").await), ["e1", "e2"]);

    api.append(three.deleted()).await;
    assert_eq!(ids(&api.good("/pods?namespace=other").await), [""; 0]);
    assert_eq!(api.good("/pods/other/executor-e3-1").await["state"], "ended");
    assert_eq!(api.get("/pods/runs/nobody").await.json()["type"], "urn:podherald:problem:pod-not-found");
}

#[tokio::test(start_paused = true)]
async fn inline_output_is_read_by_offset() {
    let api = Api::new().await;
    let mut pod = life("e1");
    api.append(pod.running()).await;
    let early = api.get("/executions/e1/output").await;
    assert_eq!(early.json()["type"], "urn:podherald:problem:output-not-found");
    api.append(pod.completed("héllo <script>")).await;
    for (query, text, next) in [
        ("", "héllo <script>", "15"),
        ("?stream=raw", "héllo <script>", "15"),
        ("?offset=3&limit=4", "llo ", "7"),
        ("?offset=7", "<script>", "15"),
        ("?offset=15", "", "15"),
    ] {
        let answer = api.get(&format!("/executions/e1/output{query}")).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, text), "{query}");
        assert_eq!(answer.header("podherald-next-offset"), next, "{query}");
        assert_eq!(answer.header("podherald-kept-bytes"), "15");
        assert_eq!(answer.header("podherald-verdict"), "complete");
        assert_eq!(answer.header("content-length"), text.len().to_string());
    }
    assert_eq!(api.get("/executions/e1/output").await.header("podherald-total-bytes"), "15");
    let lost = api.get("/executions/e1/output?stream=stderr").await;
    assert_eq!(
        (lost.status, lost.text().contains("nothing of this stream could be read")),
        (StatusCode::NOT_FOUND, true)
    );
}

#[tokio::test]
async fn stored_output_is_read_by_offset_and_cannot_run_in_a_browser() {
    let api = Api::new().await;
    let log: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
    let limits = Limits { inline_bytes: 16, max_report_bytes: 1 << 20, max_bytes: 1 << 20 };
    let mut scanner = Scanner::new(limits);
    let mut writer = api.state.outputs.writer(limits.max_bytes);
    scanner.push(&log);
    writer.write(&log).await.unwrap();
    writer.finish("e1", 1, scanner.finish(LogEnd::Complete, None)).await.1.unwrap();
    api.append(life("e1").completed("0000")).await;

    let whole = api.get("/executions/e1/output").await;
    assert!(whole.body == log, "{} bytes", whole.body.len());
    assert_eq!(whole.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(whole.header("content-security-policy"), "default-src 'none'; sandbox");
    assert_eq!(whole.header("x-content-type-options"), "nosniff");
    assert_eq!(whole.header("content-disposition"), "inline; filename=\"stdout.txt\"");
    let part = request("/executions/e1/output?stream=raw&offset=100000&limit=200000");
    let part = api.send(part.header(header::ACCEPT, "application/octet-stream").body(Body::empty()).unwrap()).await;
    assert!(part.body == log[100_000..300_000], "{} bytes", part.body.len());
    assert_eq!(part.header("podherald-next-offset"), "300000");
    assert_eq!(part.header("podherald-kept-bytes"), log.len().to_string());
    assert_eq!(part.header("content-type"), "application/octet-stream");
    assert_eq!(part.header("content-disposition"), "attachment; filename=\"raw.txt\"");

    let ask = async |path: &str, headers: &[(&str, &str)]| {
        let request = headers.iter().fold(request(path), |request, (name, value)| request.header(*name, *value));
        api.send(request.body(Body::empty()).unwrap()).await
    };
    let path = "/executions/e1/output";
    let tag = whole.header("etag");
    assert_eq!((whole.header("accept-ranges"), tag), ("bytes", "\"1-stdout-800000\""));
    for (range, bytes, content_range) in [
        ("bytes=100-199", 100..200, "bytes 100-199/800000"),
        ("bytes=799990-", 799_990..800_000, "bytes 799990-799999/800000"),
        ("bytes=-1", 799_999..800_000, "bytes 799999-799999/800000"),
    ] {
        let answer = ask(path, &[("range", range), ("if-range", tag)]).await;
        assert_eq!((answer.status, answer.header("content-range")), (StatusCode::PARTIAL_CONTENT, content_range));
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert!(answer.body == log[bytes], "{range}");
    }
    let beyond = ask(path, &[("range", "bytes=800000-")]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */800000"));
    assert_eq!(beyond.json()["type"], "urn:podherald:problem:range-not-satisfiable");
    for (path, if_range) in [("/executions/e1/output", "\"2-stdout-800000\""), ("/executions/e1/output?offset=0", tag)]
    {
        let answer = ask(path, &[("range", "bytes=1-2"), ("if-range", if_range)]).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, log.len()), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_is_told_by_role() {
    let api = Api::new().await;
    api.state.readiness.register(Role::Monitor, "watch", Arc::new(|| Err("silent for 80 s".to_owned())));
    api.state.readiness.register(Role::Api, "journal", Arc::new(|| Ok(())));
    assert_eq!(api.good("/readyz?role=api").await["checks"], json!(["journal"]));
    let elsewhere = api.get("/readyz?role=result_processor").await;
    assert_eq!(elsewhere.json()["detail"], "role: this process does not run it");
    for path in ["/readyz", "/readyz?role=monitor"] {
        let answer = api.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json()["detail"], "watch: silent for 80 s");
    }
    api.good("/livez").await;
    api.state.readiness.drain();
    assert_eq!(api.get("/readyz?role=api").await.json()["type"], "urn:podherald:problem:shutting-down");
    api.good("/livez").await;
}

#[tokio::test(start_paused = true)]
async fn sinks_are_told_whether_ready_or_not_and_decide_nothing() {
    let api = Api::new().await;
    let sink =
        SinkHealth { name: "redis", failing: true, last_error: Some("away".to_owned()), ..SinkHealth::default() };
    api.state.readiness.register_sink(Arc::new(move || sink.clone()));
    let told = json!([{"name": "redis", "required": false, "failing": true, "lag_events": 0, "lag_seconds": 0.0, "delivered": 0,
        "retries": 0, "rejected": 0, "result_unproven": 0, "missed": 0, "last_error": "away"}]);
    assert_eq!(api.good("/readyz").await["sinks"], told);
    api.state.readiness.register(Role::Monitor, "watch", Arc::new(|| Err("silent".to_owned())));
    let answer = api.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["sinks"], told);
}

#[tokio::test(start_paused = true)]
async fn metrics_count_answers_by_route() {
    let api = Api::new().await;
    api.get("/executions/a").await;
    api.get("/executions/b").await;
    let _stream = api.stream("/events").await;
    let answer = api.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let text = answer.text();
    for line in [
        r#"podherald_http_answers_total{route="/executions/{id}",status="404"} 2"#,
        "podherald_http_streams 1",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is missing in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_there_is_not_is_a_problem() {
    let api = Api::new().await;
    for (request, status, kind) in [
        (request("/nowhere"), StatusCode::NOT_FOUND, "no-route"),
        (request("/executions/e1/nothing"), StatusCode::NOT_FOUND, "no-route"),
        (request("/executions/%FF"), StatusCode::NOT_FOUND, "no-route"),
        (request("/executions").method(Method::POST), StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
        (request("/executions").method(Method::OPTIONS), StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
        (request("/executions").header(header::HOST, "evil.example"), StatusCode::FORBIDDEN, "forbidden"),
        (request("/executions").header(header::ORIGIN, "http://evil.example"), StatusCode::FORBIDDEN, "forbidden"),
        (Request::get("/executions"), StatusCode::FORBIDDEN, "forbidden"),
        (
            request("/executions").header(header::CONTENT_LENGTH, 2 << 20),
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
        ),
    ] {
        let shown = format!("{request:?}");
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, status, "{shown}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert!(answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
        assert_eq!(answer.json()["type"], format!("urn:podherald:problem:{kind}"), "{shown}");
        assert_eq!(answer.json()["status"], status.as_u16());
    }
}
