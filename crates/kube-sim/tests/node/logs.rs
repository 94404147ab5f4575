use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use kube_sim::logs::LogRequest;
use serde_json::json;

use crate::world::{World, in_time, pod, until};

#[tokio::test]
async fn whoever_follows_gets_lines_as_they_come_and_then_the_end() {
    let world = World::new();
    let gate = world.directory.path().join("gate");
    let script = format!("echo one; while ! test -e {}; do sleep 0.01; done; printf two", gate.display());
    let mut story = world.create(pod("p", &script));
    story.until_running().await;
    let request = LogRequest { follow: true, ..world.request("p") };
    let mut log = world.open(request).await.unwrap();
    assert_eq!(in_time(log.try_next()).await.unwrap().unwrap(), "one\n");
    std::fs::write(gate, "").unwrap();
    assert_eq!(in_time(log.try_next()).await.unwrap().unwrap(), "two");
    assert_eq!(in_time(log.try_next()).await.unwrap(), None);
    story.until_over().await;
}

// T71, T72
#[tokio::test]
async fn any_bytes_on_either_stream_come_back_as_they_were() {
    let world = World::new();
    let script =
        r"printf 'a\377\000\r\n'; printf 'b' >&2; printf '\033[1m'; head -c 100000 /dev/zero; printf '\n\nend' >&2";
    world.run(pod("p", script)).await;
    let expected = [&b"a\xff\0\r\nb\x1b[1m"[..], &[0; 100_000], b"\n\nend"].concat();
    assert!(world.log("p").await == expected);
}

// T64
#[tokio::test]
async fn the_log_of_the_run_before_is_kept_and_those_before_it_are_not() {
    let world = World::new();
    let mut twice = pod(
        "p",
        "touch /state/count; echo run $(cat /state/count); echo x >> /state/count; test $(wc -l < /state/count) -gt 1",
    );
    twice["spec"]["restartPolicy"] = json!("OnFailure");
    twice["spec"]["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    twice["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
    let mut story = world.create(twice);
    story.until_running().await;
    story.until_over().await;
    assert_eq!(world.log_text("p").await, "run x\n");
    let previous = world.open(LogRequest { previous: true, ..world.request("p") }).await.unwrap();
    assert_eq!(in_time(previous.map(Result::unwrap).collect::<Vec<_>>()).await.concat(), b"run\n");
}

#[tokio::test]
async fn there_is_no_previous_log_of_a_first_run() {
    let world = World::new();
    world.run(pod("p", "echo hi")).await;
    let refused = world.open(LogRequest { previous: true, ..world.request("p") }).await.err().unwrap();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.message, r#"previous terminated container "main" in pod "p" not found"#);
}

// T63
#[tokio::test]
async fn a_log_before_the_start_is_a_refusal() {
    let world = World::new();
    let mut gated = pod("p", "echo hi");
    gated["spec"]["volumes"] = json!([{"name": "late", "configMap": {"name": "late"}}]);
    let mut story = world.create(gated);
    story.until(|pod| pod["status"]["containerStatuses"].is_array()).await;
    let refused = world.open(world.request("p")).await.err().unwrap();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.message, r#"container "main" in pod "p" is waiting to start: ContainerCreating"#);
}

#[tokio::test]
async fn a_log_goes_with_its_pod() {
    let world = World::new();
    let mut story = world.run(pod("p", "echo hi")).await;
    let request = world.request("p");
    world.delete("p", 30);
    story.until_gone().await;
    let mut is_gone = false;
    while !is_gone {
        is_gone = world.open(request.clone()).await.is_err();
        let mut polled = false;
        until(|| std::mem::replace(&mut polled, true)).await;
    }
}
