//! Results that stay: what an attempt came to is stored, and then said to be.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    pods::{NAMESPACE, ended, running},
    scripted_api::log_text,
    world::World,
};

const LIMIT: Duration = Duration::from_secs(20);

async fn world() -> World {
    let mut world = World::new("2026-02-10T12:00:03Z", &[("roles", "api,monitor,result_processor")]);
    world.start().await;
    world
}

async fn until_stored(world: &World, id: &str) -> Value {
    let path = format!("/executions/{id}/result");
    for _ in 0..1000 {
        if let (StatusCode::OK, result) = world.get(&path).await {
            return result;
        }
        tokio::time::sleep(crate::world::MOMENT).await;
    }
    panic!("{id} has no result: {:?}", world.get(&path).await);
}

fn of_type<'a>(events: &'a [Value], event_type: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event_type"] == event_type).collect()
}

#[tokio::test(start_paused = true)]
async fn what_an_attempt_came_to_is_stored_and_then_told_once() {
    let mut world = world().await;
    world.api.set_logs(NAMESPACE, "executor-e1", "executor", log_text("forty-two\n"));
    world.api.apply(ended("e1", 3));
    world.until("e1", "failed", LIMIT).await;
    let result = until_stored(&world, "e1").await;
    assert_eq!(
        (&result["status"], &result["exit"]["code"], &result["stdout"]),
        (&json!("failed"), &json!(3), &json!("forty-two\n"))
    );
    assert_eq!(result["cause"]["class"], "user_code");
    world.settle().await;

    let events = world.events().await;
    let told = of_type(&events, "result_stored");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["result_of"], of_type(&events, "execution_failed")[0]["event_id"]);
    assert_eq!((&told[0]["stdout"], &told[0]["size_bytes"]), (&json!("forty-two\n"), &json!(10)));
    assert_eq!(told[0]["metadata"]["service_name"], "result-processor");
    let (status, by_path) = world.get(told[0]["storage_path"].as_str().unwrap()).await;
    assert_eq!((status, by_path), (StatusCode::OK, result.clone()));

    // A restart finds all of it done.
    world.kill().await;
    world.start().await;
    world.settle().await;
    assert_eq!(world.events().await, events);
    assert_eq!(until_stored(&world, "e1").await, result);
    assert_eq!(world.get("/executions/e1").await.1["result"], "stored");
}

#[tokio::test(start_paused = true)]
async fn how_near_a_program_came_to_its_memory_limit_is_told_and_counted() {
    let world = world().await;
    let report = r#"{"exit_code":0,"resource_usage":{"peak_memory_kb":49152},"stdout":"","stderr":""}"#;
    for (id, limit) in [("e1", json!("64Mi")), ("e2", json!(null))] {
        world.api.set_logs(NAMESPACE, &format!("executor-{id}"), "executor", log_text(&format!("{report}\n")));
        let mut pod = ended(id, 0);
        pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": limit}});
        world.api.apply(pod);
        world.until(id, "completed", LIMIT).await;
    }
    let (with_limit, without) = (until_stored(&world, "e1").await, until_stored(&world, "e2").await);
    assert_eq!(with_limit["resource_usage"]["memory_limit_kb"], 65536, "{with_limit}");
    assert_eq!(without["resource_usage"]["peak_memory_kb"], 49152, "{without}");
    assert_eq!(without["resource_usage"].get("memory_limit_kb"), None);
    let (_, metrics) = world.text("/metrics").await;
    for line in [
        "podherald_results_peak_memory_to_limit_ratio_bucket{le=\"0.5\",language=\"unknown\"} 0",
        "podherald_results_peak_memory_to_limit_ratio_bucket{le=\"0.75\",language=\"unknown\"} 1",
        "podherald_results_peak_memory_bytes_count{language=\"unknown\"} 2",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_not_there_is_a_404_that_says_why() {
    let world = world().await;
    world.api.apply(running("e1"));
    world.until("e1", "running", LIMIT).await;
    for (path, expected) in [
        ("/executions/nobody/result", "nobody"),
        ("/executions/e1/result", "it has not ended: its status is running"),
        ("/executions/e1/result?attempt=0", "attempt: must be a number from 1 on"),
        ("/executions/e1/result?attempt=x", "attempt: must be a number from 1 on"),
    ] {
        let (status, problem) = world.get(path).await;
        assert!(matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST), "{path}: {status}");
        assert!(problem["detail"].as_str().unwrap().contains(expected), "{path}: {problem}");
    }
    let mut without = World::new("2026-02-10T12:00:03Z", &[]);
    without.start().await;
    let (status, problem) = without.get("/executions/e1/result").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(problem["detail"].as_str().unwrap().contains("role result_processor"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn the_audit_adds_up() {
    let world = world().await;
    world.api.apply(ended("e1", 0));
    world.api.apply(running("e2"));
    world.until("e1", "completed", LIMIT).await;
    world.until("e2", "running", LIMIT).await;
    let (_, audit) = world.get("/audit").await;
    assert_eq!(audit, json!({"attempts": 2, "ended": 1, "live": 1, "unaccounted": 0, "conflicts": 0, "items": []}));
    let (status, problem) = world.get("/audit?limit=0").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
}

#[tokio::test(start_paused = true)]
async fn what_the_store_has_as_open_ends_when_its_pod_is_gone_though_the_journal_is_lost() {
    let mut world = world().await;
    for id in ["gone", "there"] {
        world.api.apply(running(id));
        world.until(id, "running", LIMIT).await;
    }
    let told = world.events().await;
    let kept = format!("podherald_inbox_acknowledged_total{{group=\"event-store\"}} {}", told.len());
    for _ in 0..1000 {
        if world.text("/metrics").await.1.contains(&kept) {
            break;
        }
        tokio::time::sleep(crate::world::MOMENT).await;
    }
    assert!(world.text("/metrics").await.1.contains(&kept), "the store has not got all of {told:?}");
    world.kill().await;
    world.lose_journal();
    world.api.delete(NAMESPACE, "executor-gone");
    world.start().await;
    let ended = world.until("gone", "failed", LIMIT).await;
    assert_eq!((&ended["attempt"], &ended["cause"]["class"]), (&json!(1), &json!("unknown")), "{ended}");
    assert_eq!(world.metric("podherald_monitor_expected_attempts_total").await, 1);
    until_stored(&world, "gone").await;
    assert_eq!(world.execution("there").await["status"], "running");
    let events = world.events().await;
    let of_gone: Vec<_> = events.iter().filter(|event| event["execution_id"] == "gone").collect();
    assert!(
        of_type(&events, "execution_failed").len() == 1 && of_gone[0]["event_type"] != "pod_scheduled",
        "{of_gone:?}"
    );
    // The next start knows it by itself.
    world.kill().await;
    world.start().await;
    world.settle().await;
    assert_eq!(world.metric("podherald_monitor_expected_attempts_total").await, 0);
    assert_eq!(world.events().await.len(), events.len());
}
