//! What a caller can get wrong: each is told what, where, and what would be right, and the next request is served.

use axum::body::Body;
use http::{StatusCode, header};

use super::{Api, life::life, request};

struct Case {
    path: &'static str,
    accept: &'static str,
    header: Option<(&'static str, String)>,
    status: StatusCode,
    /// `parameter` of the problem.
    names: Option<&'static str>,
    /// In the detail.
    says: &'static str,
}

fn case(path: &'static str, names: &'static str, says: &'static str) -> Case {
    Case { path, accept: "*/*", header: None, status: StatusCode::BAD_REQUEST, names: Some(names), says }
}

fn stream(path: &'static str, id: &str) -> Case {
    Case {
        accept: "text/event-stream",
        header: Some(("last-event-id", id.to_owned())),
        ..case(path, "Last-Event-ID", "must be the id of an earlier frame of this stream, or 0 for its beginning")
    }
}

#[tokio::test(start_paused = true)]
async fn bad_input_is_named_and_the_next_request_is_served() {
    const STATUSES: &str =
        "must be one of pending, queued, scheduled, running, completed, failed, timeout, cancelled, not";
    const CURSOR: &str = "must be the `next` of an earlier page of this list";
    let refused = |path, accept, status, says| Case { path, accept, header: None, status, names: None, says };
    let cases = [
        refused("/executions", "text/html", StatusCode::NOT_ACCEPTABLE, "Accept must admit application/json"),
        refused("/executions", "text/event-stream", StatusCode::NOT_ACCEPTABLE, "Accept must admit application/json"),
        refused(
            "/executions/e1/events",
            "image/png",
            StatusCode::NOT_ACCEPTABLE,
            "Accept must admit application/json or text/event-stream",
        ),
        refused("/events", "application/xml", StatusCode::NOT_ACCEPTABLE, "application/json or text/event-stream"),
        Case {
            header: Some(("x-padding", "x".repeat(17 << 10))),
            ..refused("/executions", "*/*", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "16 KiB")
        },
        refused("/executions/e9", "*/*", StatusCode::NOT_FOUND, "\"e9\""),
        refused("/executions/e9/events", "*/*", StatusCode::NOT_FOUND, "\"e9\""),
        case("/executions?after=7", "after", CURSOR),
        case("/executions/e1/events?after=zzz", "after", CURSOR),
        case("/events?after=", "after", CURSOR),
        case("/pods?after=ZXZlbnRz", "after", CURSOR),
        case("/executions?limit=0", "limit", "must be a whole number from 1 to 500, not \"0\""),
        case("/events?limit=many", "limit", "must be a whole number from 1 to 500, not \"many\""),
        stream("/executions/e1/events", "7"),
        stream("/executions/e1/events", "0192-epoch:7"),
        stream("/executions/e1/events", "pod-monitor:0192=-7"),
        stream("/events", "pod-monitor:0192=7"),
        stream("/events", "7"),
        Case { header: None, ..Case { names: Some("last_event_id"), ..stream("/events?last_event_id=7", "") } },
        case("/executions/e1?wait=30", "wait", "must be a duration of at most 60s, like 30s or 500ms, not \"30\""),
        case("/executions/e1?wait=90s", "wait", "at most 60s"),
        case("/executions/e1?wait=1s&wait=2s", "wait", "may be given once"),
        case("/executions?status=broken", "status", STATUSES),
        case("/executions?status=failed,broken", "status", "not \"broken\""),
        case("/events?status=", "status", STATUSES),
        case("/executions?label=team", "label", "must be key=value, like app=executor, not \"team\""),
        case("/executions?namespace=", "namespace", "must not be empty"),
        case(
            "/executions?state=failed",
            "state",
            "is no parameter here; what may be asked for is status, namespace, label, user, after, limit",
        ),
        case("/executions/e1?verbose=1", "verbose", "is no parameter here; what may be asked for is wait"),
        case("/executions/e1/output?stream=stdin", "stream", "must be stdout, stderr or raw, not \"stdin\""),
        case("/executions/e1/output?offset=-1", "offset", "must be a whole number from 0 on, not \"-1\""),
        case("/executions/e2/output?offset=4", "offset", "must be at most 3, the bytes that there are"),
        refused(
            "/executions/e1/output",
            "image/png",
            StatusCode::NOT_ACCEPTABLE,
            "text/plain or application/octet-stream",
        ),
        case("/cleanup?limit=0", "limit", "must be a whole number from 1 to 500"),
        case("/cleanup?after=x", "after", "must be the `next` of an earlier page"),
        Case {
            status: StatusCode::NOT_FOUND,
            names: None,
            ..case("/cleanup", "", "it needs the role resource_cleaner")
        },
        case("/readyz?role=king", "role", "must be monitor, api, result_processor or resource_cleaner, not \"king\""),
    ];
    let api = Api::new().await;
    api.append(life("e1").failed()).await;
    api.append(life("e2").completed("abc")).await;
    for Case { path, accept, header, status, names, says } in cases {
        let mut request = request(path).header(header::ACCEPT, accept);
        if let Some((name, value)) = &header {
            request = request.header(*name, value);
        }
        let answer = api.send(request.body(Body::empty()).unwrap()).await;
        let shown = format!("{path} with {accept} and {header:?}: {}", answer.text());
        assert_eq!(answer.status, status, "{shown}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{shown}");
        let problem = answer.json();
        assert_eq!(problem["status"], status.as_u16(), "{shown}");
        assert_eq!(problem.get("parameter").and_then(|name| name.as_str()), names, "{shown}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{says:?} is not in {shown}");
        assert!(names.is_none_or(|name| detail.contains(name)), "{shown}");
        assert_eq!(api.good("/executions/e1").await["status"], "failed", "after {shown}");
    }
}
