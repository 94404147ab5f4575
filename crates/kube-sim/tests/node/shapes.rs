//! The whole status of a pod in each of its ends, as a kubelet of Kubernetes 1.34 on containerd writes it.
//!
//! Conditions as its `pkg/kubelet/status/generate.go` has them, containers as `convertToAPIContainerStatuses`. On purpose it
//! differs in this: there are no images and no users, so that `imageID` is empty and `user` absent; a container that waits for
//! a volume says why, and not only in an event. `lastProbeTime` is absent where a real one is null.

use serde_json::{Value, json};

use crate::world::{World, container, pod};

struct Case {
    pod: Value,
    /// Ends with it.
    is_last: fn(&Value) -> bool,
    expected: Value,
}

#[tokio::test]
async fn each_end_has_the_fields_that_a_kubelet_gives_it() {
    let world = World::new();
    for Case { pod, is_last, expected } in cases() {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let mut story = world.create(pod);
        let last = story.until(is_last).await;
        let mut status = last["status"].clone();
        normalise(&mut status, last["metadata"]["uid"].as_str().unwrap());
        assert_eq!(status, expected, "{name}: {status:#}");
    }
}

fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn is_in_crash_loop(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
}

fn cases() -> Vec<Case> {
    let mut greedy = pod("out-of-memory", r#"awk 'BEGIN { text = "x"; while (1) text = text text text }'"#);
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "48Mi"}});
    let mut slow = pod("deadline", "exec sleep 1000");
    slow["spec"]["activeDeadlineSeconds"] = json!(1);
    let mut uninitialized = pod("init-fails", "echo never");
    uninitialized["spec"]["initContainers"] = json!([container("init", "exit 7"), container("after", "exit 0")]);
    let mut absent = pod("start-error", "");
    absent["spec"]["containers"][0]["command"] = json!(["/no/such/program"]);
    let mut looping = pod("crash-loop", "exit 1");
    looping["spec"]["restartPolicy"] = json!("Always");

    let completed = [
        ("Initialized", "True", "PodCompleted", ""),
        ("Ready", "False", "PodCompleted", ""),
        ("ContainersReady", "False", "PodCompleted", ""),
    ];
    let failed = [
        ("Initialized", "True", "", ""),
        ("Ready", "False", "PodFailed", ""),
        ("ContainersReady", "False", "PodFailed", ""),
    ];
    let mut not_initialized = failed;
    not_initialized[0] =
        ("Initialized", "False", "ContainersNotInitialized", "containers with incomplete status: [init after]");
    let unready = "containers with unready status: [main]";
    let not_ready = [
        ("Initialized", "True", "", ""),
        ("Ready", "False", "ContainersNotReady", unready),
        ("ContainersReady", "False", "ContainersNotReady", unready),
    ];

    let main = |state: Value| ran("main", state);
    vec![
        over(pod("succeeds", "exit 0"), &completed, json!({"containerStatuses": [main(ended(0, "Completed"))]})),
        over(pod("fails", "exit 3"), &failed, json!({"containerStatuses": [main(ended(3, "Error"))]})),
        over(greedy, &failed, {
            let mut killed = main(ended(137, "OOMKilled"));
            killed["resources"] = json!({"limits": {"memory": "48Mi"}});
            json!({"containerStatuses": [killed], "qosClass": "Burstable"})
        }),
        over(
            slow,
            &failed,
            json!({
                "containerStatuses": [main(ended(143, "Error"))],
                "reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the specified deadline",
            }),
        ),
        over(
            uninitialized,
            &not_initialized,
            json!({
                "initContainerStatuses": [ran("init", ended(7, "Error")), waits("after")], "containerStatuses": [waits("main")],
            }),
        ),
        over(absent, &failed, {
            let mut state = ended(128, "StartError");
            state["terminated"]["startedAt"] = json!("1970-01-01T00:00:00Z");
            state["terminated"]["message"] = json!(
                "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: \
                 unable to start container process: exec: \"/no/such/program\": no such file or directory: unknown"
            );
            json!({"containerStatuses": [main(state)]})
        }),
        Case {
            pod: looping,
            is_last: is_in_crash_loop,
            expected: status("Running", "True", &not_ready, {
                let message = "back-off 10s restarting failed container=main pod=crash-loop_default(UID)";
                let mut waiting = main(json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}}));
                waiting["restartCount"] = json!(1);
                waiting["lastState"] = ended(1, "Error");
                json!({"containerStatuses": [waiting]})
            }),
        },
    ]
}

type Condition = (&'static str, &'static str, &'static str, &'static str);

fn over(pod: Value, conditions: &[Condition], rest: Value) -> Case {
    let phase = if conditions[1].2 == "PodCompleted" { "Succeeded" } else { "Failed" };
    Case { pod, is_last: is_over, expected: status(phase, "False", conditions, rest) }
}

fn status(phase: &str, has_sandbox: &'static str, conditions: &[Condition], rest: Value) -> Value {
    let both = [("PodScheduled", "True", "", ""), ("PodReadyToStartContainers", has_sandbox, "", "")];
    let conditions = both.iter().chain(conditions).map(|(kind, status, reason, message)| {
        let mut condition = json!({
            "type": kind, "status": status, "lastTransitionTime": "TIME", "observedGeneration": 1,
        });
        for (field, text) in [("reason", reason), ("message", message)] {
            if !text.is_empty() {
                condition[field] = json!(text);
            }
        }
        condition
    });
    let mut status = json!({
        "phase": phase, "observedGeneration": 1, "startTime": "TIME", "qosClass": "BestEffort",
        "hostIP": "127.0.0.1", "hostIPs": [{"ip": "127.0.0.1"}], "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}],
        "conditions": conditions.collect::<Vec<_>>(),
    });
    let Value::Object(rest) = rest else { panic!("fields are an object") };
    status.as_object_mut().unwrap().extend(rest);
    status
}

fn ended(code: i32, reason: &str) -> Value {
    json!({"terminated": {
        "exitCode": code, "reason": reason, "startedAt": "TIME", "finishedAt": "TIME", "containerID": "embedded://ID",
    }})
}

/// A container that does not run now.
fn waits(name: &str) -> Value {
    json!({
        "name": name, "image": "none", "imageID": "", "ready": false, "started": false, "restartCount": 0, "lastState": {},
        "state": {"waiting": {"reason": "PodInitializing"}},
    })
}

/// The same, of one that has run.
fn ran(name: &str, state: Value) -> Value {
    let mut container = waits(name);
    container["state"] = state;
    container["containerID"] = json!("embedded://ID");
    container["resources"] = json!({});
    container
}

/// Puts words in the place of what differs from run to run, and is of the right form.
fn normalise(value: &mut Value, uid: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| normalise(item, uid)),
        Value::Object(fields) => fields.values_mut().for_each(|field| normalise(field, uid)),
        Value::String(text) => {
            let is_time = text.len() == "2026-03-01T12:00:00Z".len() && text.parse::<jiff::Timestamp>().is_ok();
            if is_time && text != "1970-01-01T00:00:00Z" {
                *text = "TIME".to_owned();
            } else if text.starts_with("embedded://") {
                *text = "embedded://ID".to_owned();
            } else {
                *text = text.replace(uid, "UID");
            }
        }
        _ => {}
    }
}
