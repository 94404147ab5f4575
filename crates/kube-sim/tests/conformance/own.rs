//! What is the embedded cluster's own: it says what it does not do, where the real server does it, answers with a reason
//! where that one gives a bare 500, and has the controller that takes a namespace away.

use http::Method;
use serde_json::{Value, json};

use crate::{
    place,
    place::{MERGE, assert_refused, job, pod, text},
};

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[tokio::test(start_paused = true)]
async fn what_it_does_not_take_it_refuses_with_a_sentence_that_says_what_it_takes() {
    let at = crate::place();
    at.pod("a", &json!({})).await;
    for (method, rest, content_type, taken) in [
        (Method::PATCH, "pods/a", STRATEGIC, "application/json-patch+json, application/merge-patch+json"),
        (
            Method::PATCH,
            "pods/a?fieldManager=kubectl",
            APPLY,
            "application/json-patch+json, application/merge-patch+json",
        ),
        (Method::POST, "pods", YAML, "application/json;"),
        (Method::POST, "pods", PROTOBUF, "application/json;"),
        (Method::PUT, "pods/a", YAML, "application/json;"),
        (Method::DELETE, "pods/a", YAML, "application/json;"),
    ] {
        let answer = at.ask_bytes(method, rest, content_type, b"{}".to_vec()).await;
        assert_refused(&answer, 415, "UnsupportedMediaType");
        let message = text(&answer.1, "/message");
        assert!(message.contains(&format!("accepted media types include: {taken}")), "{message}");
        assert!(message.contains(content_type) && message.contains("no strategic merge patch, no apply"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_is_refused_and_changes_nothing() {
    let at = crate::place();
    at.pod("a", &json!({})).await;
    for answer in [
        at.post("pods?dryRun=All", &pod("b", &json!({}))).await,
        at.patch("pods/a?dryRun=All", MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await,
        at.delete("pods/a?dryRun=All", &Value::Null).await,
        at.delete("pods/a", &json!({"dryRun": ["All"]})).await,
    ] {
        assert_refused(&answer, 400, "BadRequest");
        assert_eq!(answer.1["message"], "dryRun: the embedded cluster has no dry run");
    }
    assert_eq!(at.names("").await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn where_the_real_server_fails_without_a_reason_it_gives_one() {
    let at = crate::place();
    at.pod("a", &json!({})).await;
    let mut old = pod("b", &json!({}));
    old["metadata"]["resourceVersion"] = "5".into();
    for (answer, said) in [
        (at.post("pods", &old).await, "resourceVersion should not be set"),
        (at.get("pods?watch=1&resourceVersion=x").await, "resourceVersion: Invalid value: \"x\""),
        (at.delete("pods/a", &json!({"gracePeriodSeconds": "x"})).await, "gracePeriodSeconds"),
        (at.delete("pods/a", &json!({"preconditions": 7})).await, "preconditions"),
        (at.delete("pods/a", &json!([])).await, "DeleteOptions"),
    ] {
        assert_refused(&answer, 400, "BadRequest");
        assert!(text(&answer.1, "/message").contains(said), "{}", answer.1);
    }
    assert_eq!(at.names("").await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_the_last_of_what_is_in_it() {
    let at = crate::place();
    at.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    let there = place::Place { client: at.client.clone(), namespace: "n".to_owned() };
    there.bound_pod("held", &json!(["example.com/hold"])).await;
    there.pod("free", &json!({})).await;
    at.delete("/api/v1/namespaces/n", &Value::Null).await;
    assert_eq!(there.names("").await, ["held"]);
    there.delete("pods/held", &json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(at.get("/api/v1/namespaces/n").await.1["status"]["phase"], "Terminating");
    there.patch("pods/held", MERGE, &json!({"metadata": {"finalizers": null}})).await;
    assert_refused(&at.get("/api/v1/namespaces/n").await, 404, "NotFound");
}

#[tokio::test(start_paused = true)]
async fn whoever_makes_a_job_is_told_that_nothing_makes_its_pods() {
    let at = crate::place();
    let (warnings, made) = at.warnings_of("jobs", &job("j")).await;
    assert_eq!(text(&made, "/metadata/name"), "j", "{made}");
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("no Job controller"), "{warning}");
    assert!(at.warnings(&pod("a", &json!({})), "Warn").await.0.is_empty());
}
