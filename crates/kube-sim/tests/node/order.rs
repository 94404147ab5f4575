use http::StatusCode;
use serde_json::{Value, json};

use crate::world::{World, container, phase, pod, terminated};

#[tokio::test]
async fn init_containers_run_one_after_another_before_the_others() {
    let world = World::new();
    let mut staged = pod("p", "cat /work/trace; echo main");
    let init = |name: &str| {
        let mut init = container(name, &format!("echo {name} >> /work/trace; sleep 0.05"));
        init["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
        init
    };
    staged["spec"]["initContainers"] = json!([init("second-by-name"), init("first-by-name")]);
    staged["spec"]["volumes"] = json!([{"name": "work", "emptyDir": {}}]);
    staged["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "work", "mountPath": "/work"}]);
    let story = world.run(staged).await;
    assert_eq!(world.log_text("p").await, "second-by-name\nfirst-by-name\nmain\n");
    let initializing = |pod: &&std::sync::Arc<Value>| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"
    };
    assert!(story.versions.iter().filter(initializing).count() > 1);
    assert_eq!(story.last()["status"]["initContainerStatuses"][1]["state"]["terminated"]["exitCode"], 0);
}

// T28
#[tokio::test]
async fn a_failed_init_container_fails_the_pod_and_the_program_never_starts() {
    let world = World::new();
    let mut doomed = pod("p", "echo never");
    doomed["spec"]["initContainers"] = json!([container("init", "exit 7"), container("after", "exit 0")]);
    let story = world.run(doomed).await;
    let status = &story.last()["status"];
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 7);
    assert!(status["initContainerStatuses"][1]["state"]["terminated"].is_null());
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    let refused = world.open(world.request("p")).await.err().unwrap();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}

// T40, T41
#[tokio::test]
async fn what_fails_is_started_anew_and_the_run_before_is_the_last_state() {
    let world = World::new();
    let mut flaky = pod("p", "echo run; test -e /state/once && exit 0; touch /state/once; exit 5");
    flaky["spec"]["restartPolicy"] = json!("OnFailure");
    flaky["spec"]["volumes"] = json!([{"name": "state", "emptyDir": {}}]);
    flaky["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "state", "mountPath": "/state"}]);
    let story = world.run(flaky).await;
    let status = &story.last()["status"]["containerStatuses"][0];
    assert_eq!(phase(story.last()), "Succeeded");
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 5);
    assert_eq!(terminated(story.last(), 0)["exitCode"], 0);
    assert_ne!(status["containerID"], status["lastState"]["terminated"]["containerID"]);
    let phases: Vec<_> = story.versions.iter().map(|pod| phase(pod)).filter(|phase| *phase == "Failed").collect();
    assert!(phases.is_empty(), "it is not over before the last run");
}

#[tokio::test]
async fn what_fails_again_waits_before_its_next_start() {
    let world = World::new();
    let mut hopeless = pod("p", "exit 1");
    hopeless["spec"]["restartPolicy"] = json!("Always");
    let mut story = world.create(hopeless);
    let waits = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let waiting = story.until(waits).await;
    let status = &waiting["status"]["containerStatuses"][0];
    let uid = waiting["metadata"]["uid"].as_str().unwrap();
    let expected = format!("back-off 10s restarting failed container=main pod=p_default({uid})");
    assert_eq!(status["state"]["waiting"]["message"], expected);
    assert_eq!(status["restartCount"], 1);
    assert_eq!(phase(&waiting), "Running");
    world.delete("p", 30);
    story.until_gone().await;
    assert_eq!(terminated(story.last(), 0), &Value::Null);
}

#[tokio::test]
async fn a_pod_that_does_not_fit_waits_and_says_why() {
    let world = World::new();
    let mut picky = pod("picky", "echo never");
    picky["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    let mut gated = pod("gated", "echo at last");
    gated["spec"]["schedulingGates"] = json!([{"name": "later"}]);
    for (pod, reason) in [(picky, "Unschedulable"), (gated, "SchedulingGated")] {
        let waiting = world.create(pod).until(|pod| pod["status"]["conditions"].is_array()).await;
        let condition = &waiting["status"]["conditions"][0];
        assert_eq!((&condition["type"], &condition["status"]), (&json!("PodScheduled"), &json!("False")));
        assert_eq!(condition["reason"], reason);
        assert!(waiting["spec"]["nodeName"].is_null());
    }
}

#[tokio::test]
async fn a_pod_too_many_waits_for_a_place() {
    let world = World::with(|options| options.max_pods = 1);
    let mut first = world.create(pod("first", "exec sleep 1000"));
    first.until_running().await;
    let mut second = world.create(pod("second", "exit 0"));
    second.until(|pod| pod["spec"]["nodeName"].is_string()).await;
    assert_eq!(phase(second.last()), "Pending");
    world.delete("first", 30);
    second.until_over().await;
    assert_eq!(phase(second.last()), "Succeeded");
}
