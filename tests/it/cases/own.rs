//! More stories in the same grammar, for the steps and traps that the fixture does not have.

use serde_json::{Value, json};

use super::grammar::Case;
use crate::pods::{NAMESPACE, ended, pending, running};

/// The stories.
pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "reconcile-end",
            json!([added(running("e")), {"op": "reconcile", "pods": [ended("e", 3)], "logs": text("late\n")}]),
            &[
                event("execution_running", json!({})),
                event("execution_failed", json!({"exit_code": 3, "stdout": "late\n"})),
            ],
            1,
        ),
        case(
            "reconcile-gone",
            json!([added(running("e")), {"op": "reconcile", "pods": []}]),
            &[event("execution_failed", json!({"cause.class": "unknown"})), event("pod_deleted", json!({}))],
            1,
        ),
        case(
            "append-fails",
            json!([added(running("e")), {"op": "publish_fault", "count": 3}, modified(ended("e", 0))]),
            &[event("execution_running", json!({})), event("execution_completed", json!({}))],
            1,
        ),
        case(
            "append-fails-and-restart",
            json!([
                added(running("e")),
                {"op": "publish_fault", "count": 2},
                logged("MODIFIED", ended("e", 4), text("x")),
                {"op": "restart"},
                {"op": "relist", "pods": [ended("e", 4)]},
            ]),
            &[event("execution_failed", json!({"exit_code": 4, "stdout": "x"}))],
            1,
        ),
        case(
            "standby",
            json!([added(running("e")), {"op": "second_monitor"}, modified(ended("e", 0)), {"op": "second_monitor"}]),
            &[event("execution_completed", json!({}))],
            1,
        ),
        case(
            "noise",
            json!([
                added(running("e")),
                {"op": "watch_raw", "type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "2"}}},
                {"op": "watch_disconnect"},
                {"op": "watch_raw", "type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 500,
                    "reason": "InternalError", "message": "etcdserver: leader changed"}},
                {"op": "watch_disconnect"},
                modified(ended("e", 0)),
            ]),
            &[event("execution_running", json!({})), event("execution_completed", json!({}))],
            1,
        ),
        // T16
        case(
            "namesake",
            json!([added(running("e")), modified(under(running("f"), "executor-e"))]),
            &[event("execution_failed", json!({"execution_id": "e"}))],
            1,
        ),
        // T24
        case(
            "deadline-then-code",
            json!([added(running("e")), modified(cut_off("e")), {"op": "tick", "seconds": 5}, modified(late("e", 0))]),
            &[event("execution_completed", json!({"exit_code": 0}))],
            1,
        ),
        case(
            "deadline-without-code",
            json!([added(running("e")), modified(cut_off("e")), {"op": "tick", "seconds": 11}]),
            &[event("execution_timeout", json!({"exit.code": null, "timeout_seconds": 5}))],
            1,
        ),
        case(
            "deadline-code-too-late",
            json!([added(running("e")), modified(cut_off("e")), {"op": "tick", "seconds": 60}, modified(late("e", 0))]),
            &[event("execution_timeout", json!({})), event("execution_amended", json!({"exit.code": 0}))],
            1,
        ),
        case(
            "image-may-still-come",
            json!([added(waiting("e", "ImagePullBackOff")), {"op": "tick", "seconds": 240}]),
            &[event("pod_scheduled", json!({}))],
            0,
        ),
        case(
            "image-never-comes",
            json!([added(waiting("e", "ImagePullBackOff")), {"op": "tick", "seconds": 400}]),
            &[event("execution_failed", json!({"cause.class": "never_started", "error_type": "system_error"}))],
            1,
        ),
        // T63
        case(
            "log-not-yet",
            json!([logged(
                "ADDED",
                ended("e", 0),
                json!({"executor": [
                    {"error": {"status": 400, "message": "container \"executor\" in pod \"executor-e\" is waiting to start: ContainerCreating"}},
                    {"error": {"status": 500, "message": "tls: handshake failure"}},
                    {"parts": [{"text": "at "}, {"text": "last"}]},
                ]})
            )]),
            &[event("execution_completed", json!({"stdout": "at last", "output.stdout.verdict": "complete"}))],
            1,
        ),
        case(
            "log-never",
            json!([logged("ADDED", ended("e", 0), json!({"executor": [{"error": {"status": 500, "message": "no"}}]}))]),
            &[event("execution_completed", json!({"stdout": "", "output.stdout.verdict": "lost"}))],
            1,
        ),
        // T62
        case(
            "log-lost-with-200",
            json!([logged(
                "ADDED",
                ended("e", 0),
                text("unable to retrieve container logs for containerd://0123abcd")
            )]),
            &[event("execution_completed", json!({"stdout": "", "output.stdout.verdict": "lost"}))],
            1,
        ),
        // T2: the log goes with the pod.
        case(
            "end-in-the-deleted-object",
            json!([added(running("e")), watch("DELETED", ended("e", 0))]),
            &[
                event("execution_completed", json!({"exit_code": 0, "output.stdout.verdict": "lost"})),
                event("pod_deleted", json!({})),
            ],
            1,
        ),
        // T27
        case(
            "mesh",
            json!([added(pending("e")), logged("MODIFIED", meshed("e"), text("out")), modified(meshed("e"))]),
            &[event("execution_completed", json!({"exit_code": 0, "stdout": "out"}))],
            1,
        ),
        // T37
        with_types(
            case(
                "cancel",
                json!([added(running("e")), modified(cancelled("e")), watch("DELETED", cancelled("e"))]),
                &[event("execution_cancelled", json!({"reason": "user"})), event("pod_deleted", json!({}))],
                1,
            ),
            &["execution_cancelled", "execution_failed", "execution_completed", "execution_timeout"],
        ),
        case(
            "two-attempts",
            json!([added(ended("e", 1)), added(again("e"))]),
            &[event("execution_failed", json!({"attempt": 1})), event("execution_completed", json!({"attempt": 2}))],
            2,
        ),
    ]
}

fn case(name: &str, steps: Value, required: &[Value], terminal_events: usize) -> Case {
    let case = json!({
        "id": format!("own-{name}"), "title": name.replace('-', " "), "tier": 1, "tags": [], "steps": steps,
        "expect": {
            "required_in_order": required, "forbidden": [], "terminal_events": terminal_events,
            "max_per_type_and_uid": 1,
        },
    });
    serde_json::from_value(case).unwrap()
}

fn with_types(mut case: Case, types: &[&str]) -> Case {
    case.expect.terminal_types = types.iter().map(|name| (*name).to_owned()).collect();
    case
}

fn event(event_type: &str, fields: Value) -> Value {
    json!({"event_type": event_type, "fields": fields})
}

fn watch(kind: &str, pod: Value) -> Value {
    json!({"op": "watch", "type": kind, "pod": pod})
}

fn added(pod: Value) -> Value {
    watch("ADDED", pod)
}

fn modified(pod: Value) -> Value {
    watch("MODIFIED", pod)
}

fn logged(kind: &str, pod: Value, logs: Value) -> Value {
    json!({"op": "watch", "type": kind, "pod": pod, "logs": logs})
}

fn text(log: &str) -> Value {
    json!({"executor": [{"parts": [{"text": log}]}]})
}

fn under(mut pod: Value, name: &str) -> Value {
    assert_eq!(pod["metadata"]["namespace"], NAMESPACE);
    pod["metadata"]["name"] = name.into();
    pod
}

/// Past its deadline, while the container still runs.
fn cut_off(id: &str) -> Value {
    let mut pod = running(id);
    pod["spec"]["activeDeadlineSeconds"] = 5.into();
    pod["status"]["phase"] = "Failed".into();
    pod["status"]["reason"] = "DeadlineExceeded".into();
    pod["status"]["message"] = "Pod was active on the node longer than the specified deadline".into();
    pod["status"]["startTime"] = "2026-02-10T12:00:00Z".into();
    pod
}

/// The same, with the container's end.
fn late(id: &str, code: i32) -> Value {
    let mut pod = cut_off(id);
    pod["status"]["containerStatuses"] = ended(id, code)["status"]["containerStatuses"].clone();
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = "2026-02-10T12:00:06Z".into();
    pod
}

fn waiting(id: &str, reason: &str) -> Value {
    let mut pod = pending(id);
    pod["status"]["containerStatuses"] = json!([{
        "name": "executor", "ready": false, "restartCount": 0, "image": "none", "imageID": "",
        "state": {"waiting": {"reason": reason, "message": format!("{reason} for image none")}},
    }]);
    pod
}

/// The program has ended, its companion has not.
fn meshed(id: &str) -> Value {
    let mut pod = ended(id, 0);
    pod["spec"]["containers"] = json!([{"name": "executor"}, {"name": "mesh"}]);
    pod["status"]["phase"] = "Running".into();
    let mesh = json!({"name": "mesh", "ready": true, "restartCount": 0, "image": "mesh", "imageID": "",
        "state": {"running": {"startedAt": "2026-02-10T12:00:00Z"}}});
    pod["status"]["containerStatuses"].as_array_mut().unwrap().push(mesh);
    pod
}

fn cancelled(id: &str) -> Value {
    let mut pod = running(id);
    pod["metadata"]["annotations"] = json!({"podherald.dev/intent": "{\"reason\": \"user\"}"});
    pod["metadata"]["deletionTimestamp"] = "2026-02-10T12:00:30Z".into();
    pod
}

/// A second pod of the same execution.
fn again(id: &str) -> Value {
    let mut pod = under(ended(id, 0), "executor-again");
    pod["metadata"]["uid"] = "uid-again".into();
    pod
}
