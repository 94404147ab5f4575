//! The ends that programs come to on a real node.

use std::path::Path;

use serde_json::json;

use super::case::{Act, Case, container, shell, with, with_container};

/// Takes memory until there is none.
const EAT: &str = "x=x; while :; do x=$x$x; done";

pub(super) fn cases() -> Vec<Case> {
    [programs(), signals(), memory(), deadlines(), never_started(), restarts(), companions(), from_outside()].concat()
}

/// Ends of their own.
fn programs() -> Vec<Case> {
    vec![
        Case::new("exits-0", shell("echo hello; exit 0")).prints("hello\n"),
        Case::new("exits-3", shell("echo no rows >&2; exit 3")).prints("no rows\n").fails(Some(3), "user_code"),
        Case::new("exits-126", shell("/etc/passwd"))
            .prints("/bin/sh: /etc/passwd: Permission denied\n")
            .fails(Some(126), "user_code")
            .with(json!({"error_type": "permission_denied"})),
        Case::new("exits-127", shell("no-such-program"))
            .prints("/bin/sh: no-such-program: not found\n")
            .fails(Some(127), "user_code"),
        Case::new("no-final-newline", shell("printf abc")).prints("abc"),
        Case::new("silent", shell("true")),
    ]
}

/// The program is not the first process of its namespace here: that one would be spared what it sends itself.
fn signals() -> Vec<Case> {
    let by =
        |signal: &str| with(shell(&format!("echo ready; kill -{signal} $$")), json!({"shareProcessNamespace": true}));
    vec![
        Case::new("signal-term", by("TERM")).prints("ready\n").fails(Some(143), "user_code"),
        Case::new("signal-segv", by("SEGV")).prints("ready\n").fails(Some(139), "user_code"),
        Case::new("signal-kill", by("KILL"))
            .prints("ready\n")
            .fails(Some(137), "unknown")
            .with(json!({"cause": {"reason": "Killed"}})),
    ]
}

fn memory() -> Vec<Case> {
    let limited = |script: &str| with_container(shell(script), json!({"resources": {"limits": {"memory": "24Mi"}}}));
    let out = |case: Case| {
        case.fails(Some(137), "resource_limit")
            .with(json!({"cause": {"reason": "OOMKilled"}, "oom": {"seen": true, "fatal": true}}))
    };
    let child = Case::new("oom-of-a-child", limited(&format!("sh -c '{EAT}' 2>/dev/null; echo child: $?")));
    // With the newer control groups a kubelet has the kernel kill all processes of a container together.
    let child = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        out(child)
    } else {
        child.prints("child: 137\n").with(json!({"oom": {"seen": true, "fatal": false}}))
    };
    vec![out(Case::new("oom", limited(&format!("echo loading; {EAT}"))).prints("loading\n")), child]
}

fn deadlines() -> Vec<Case> {
    let within = |seconds: u32, script: &str| with(shell(script), json!({"activeDeadlineSeconds": seconds}));
    vec![
        Case::new("deadline", within(3, "echo started; sleep 600")).prints("started\n").ends(
            "execution_timeout",
            json!({
                "timeout_seconds": 3,
                "exit": {"code": 137, "signal": null, "source": "kubelet"},
                "cause": {"class": "timeout", "reason": "DeadlineExceeded"},
            }),
        ),
        Case::new("deadline-but-saved", within(3, "trap 'echo saved; exit 0' TERM; echo started; sleep 600 & wait"))
            .prints("started\nsaved\n")
            .with(json!({"cause": {"class": "timeout", "reason": "DeadlineExceeded"}})),
    ]
}

fn never_started() -> Vec<Case> {
    let image = |image: &str| with_container(shell("true"), json!({"image": image}));
    let never = |case: Case, reason: &str| case.fails(None, "never_started").with(json!({"cause": {"reason": reason}}));
    vec![
        never(Case::new("image-name-wrong", image("Not/An:Image:Name")), "InvalidImageName"),
        never(
            Case::new("image-missing", with_container(image("localhost/none:1"), json!({"imagePullPolicy": "Never"}))),
            "ErrImageNeverPull",
        ),
        // Its registry would be a port on this machine that nobody listens on.
        Case::new("image-pull-fails", image("localhost:1/none:1")).fails(None, "never_started"),
        never(
            Case::new(
                "configuration-missing",
                with_container(shell("true"), json!({"envFrom": [{"configMapRef": {"name": "none"}}]})),
            ),
            "CreateContainerConfigError",
        ),
        Case::new("command-missing", with_container(shell("true"), json!({"command": ["/no/such/program"]})))
            .fails(Some(128), "never_started")
            .with(json!({"cause": {"reason": "StartError"}})),
        Case::new(
            "init-fails",
            with(shell("echo never"), json!({"initContainers": [container("fetch", "echo no data; exit 4")]})),
        )
        .prints("no data\n")
        .fails(Some(4), "never_started")
        .with(json!({"cause": {"reason": "InitContainerFailed"}})),
    ]
}

fn restarts() -> Vec<Case> {
    let state = json!({
        "restartPolicy": "OnFailure",
        "volumes": [{"name": "state", "emptyDir": {}}],
    });
    let mount = json!({"volumeMounts": [{"name": "state", "mountPath": "/state"}]});
    let second = with_container(
        shell("if [ -e /state/once ]; then echo second; else echo first; touch /state/once; exit 1; fi"),
        mount,
    );
    vec![
        Case::new("second-run-succeeds", with(second, state)).prints("second\n"),
        Case::new("crash-loop-until-deleted", with(shell("echo again; exit 2"), json!({"restartPolicy": "Always"})))
            .act(Act::DeleteInCrashLoop)
            .prints_unless_lost("again\n")
            .fails(Some(2), "user_code"),
        // What there is of the log is the last run's.
        Case::new(
            "crash-loop-until-deadline",
            with(shell("echo again; exit 2"), json!({"restartPolicy": "OnFailure", "activeDeadlineSeconds": 600})),
        )
        .act(Act::LimitInCrashLoop)
        .prints("again\n")
        .fails(Some(2), "user_code"),
    ]
}

fn companions() -> Vec<Case> {
    let sidecar = container("aside", "sleep 600");
    let mut beside = shell("echo done; exit 5");
    // First in the spec, and first by name.
    beside["containers"].as_array_mut().unwrap().insert(0, sidecar.clone());
    vec![
        Case::new(
            "native-sidecar",
            with(shell("echo done"), json!({"initContainers": [with(sidecar, json!({"restartPolicy": "Always"}))]})),
        )
        .prints("done\n"),
        Case::new("sidecar-outlives", beside).prints("done\n").fails(Some(5), "user_code"),
    ]
}

fn from_outside() -> Vec<Case> {
    let sleeps = || shell("echo started; sleep 600");
    let intent = json!({"podherald.dev/intent": json!({"reason": "enough", "by": "u1"}).to_string()});
    vec![
        Case::new("evicted", sleeps())
            .act(Act::Evict)
            .prints_unless_lost("started\n")
            .fails(Some(137), "evicted")
            .with(json!({"cause": {"reason": "EvictionByEvictionAPI"}})),
        Case::new("deleted", sleeps())
            .act(Act::Delete)
            .prints_unless_lost("started\n")
            .fails(Some(137), "deleted"),
        Case::new("deleted-and-ends-by-itself", shell("trap 'echo bye; exit 7' TERM; echo started; sleep 600 & wait"))
            .act(Act::Delete)
            .prints_unless_lost("started\nbye\n")
            .fails(Some(7), "user_code"),
        Case::new("cancelled", sleeps())
            .annotated(intent)
            .act(Act::Delete)
            .prints_unless_lost("started\n")
            .ends(
                "execution_cancelled",
                json!({"reason": "enough", "cancelled_by": "u1", "exit": {"code": 137, "signal": null, "source": "kubelet"}}),
            ),
        Case::new("force-deleted", sleeps())
            .act(Act::ForceDelete)
            .prints_unless_lost("started\n")
            .fails(None, "deleted"),
    ]
}
