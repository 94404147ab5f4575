//! Init containers that stay.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::world::{World, container, phase, pod, terminated, until};

/// A pod whose containers write what they do to one file.
struct Traced {
    world: World,
    trace: PathBuf,
}

impl Traced {
    fn new() -> Self {
        let world = World::new();
        let trace = world.directory.path().join("trace");
        fs::write(&trace, "").unwrap();
        Self { world, trace }
    }

    fn lines(&self) -> String {
        fs::read_to_string(&self.trace).unwrap()
    }

    fn say(&self, word: &str) -> String {
        format!("echo {word} >> {}", self.trace.display())
    }

    fn await_word(&self, word: &str) -> String {
        format!("until grep -q {word} {}; do sleep 0.01; done", self.trace.display())
    }

    /// Says that it is up, and when it is asked to end, that it is down.
    fn server(&self, name: &str) -> String {
        let (up, down) = (self.say(&format!("{name}-up")), self.say(&format!("{name}-down")));
        format!("trap '{down}; exit 0' TERM; {up}; while true; do sleep 0.01; done")
    }
}

fn sidecar(name: &str, script: &str) -> Value {
    let mut sidecar = container(name, script);
    sidecar["restartPolicy"] = json!("Always");
    sidecar
}

fn state<'a>(pod: &'a Value, list: &str, index: usize) -> &'a Value {
    &pod["status"][list][index]["state"]
}

#[tokio::test]
async fn a_sidecar_is_there_before_the_others_and_ends_after_them() {
    let traced = Traced::new();
    let mut served = pod("p", &traced.say("main"));
    let init = format!("{}; {}", traced.await_word("proxy-up"), traced.say("init"));
    served["spec"]["initContainers"] = json!([sidecar("proxy", &traced.server("proxy")), container("init", &init)]);
    let story = traced.world.run(served).await;
    assert_eq!(traced.lines(), "proxy-up\ninit\nmain\nproxy-down\n");
    assert_eq!(phase(story.last()), "Succeeded");
    assert_eq!(state(story.last(), "initContainerStatuses", 0)["terminated"]["exitCode"], 0);
    let serves_nobody = |pod: &Value| {
        terminated(pod, 0)["exitCode"] == 0 && !state(pod, "initContainerStatuses", 0)["running"].is_null()
    };
    let late = story.versions.iter().find(|pod| serves_nobody(pod)).unwrap();
    assert_eq!(phase(late), "Running", "the pod is not over before its sidecar is");
}

#[tokio::test]
async fn a_sidecar_that_ends_is_started_anew_and_decides_nothing() {
    let traced = Traced::new();
    let mut served = pod("p", &traced.await_word("again"));
    let ends_once = format!("grep -q once {} || {{ {}; exit 1; }}", traced.trace.display(), traced.say("once"));
    let script = format!("{ends_once}; {}; exec sleep 1000", traced.say("again"));
    served["spec"]["initContainers"] = json!([sidecar("flaky", &script)]);
    let story = traced.world.run(served).await;
    let status = &story.last()["status"]["initContainerStatuses"][0];
    assert_eq!(phase(story.last()), "Succeeded");
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(status["state"]["terminated"]["exitCode"], 143);
}

#[tokio::test]
async fn sidecars_of_a_deleted_pod_end_last_in_their_order_backwards() {
    let traced = Traced::new();
    let mut served = pod("p", &traced.server("main"));
    let sidecars = ["first", "second"].map(|name| sidecar(name, &traced.server(name)));
    served["spec"]["initContainers"] = json!(sidecars);
    let mut story = traced.world.create(served);
    until(|| traced.lines().lines().count() == 3).await;
    traced.world.delete("p", 30).await;
    story.until_gone().await;
    assert!(traced.lines().ends_with("main-down\nsecond-down\nfirst-down\n"), "{}", traced.lines());
}

#[tokio::test]
async fn a_sidecar_ends_with_a_pod_whose_init_container_failed() {
    let traced = Traced::new();
    let mut doomed = pod("p", &traced.say("never"));
    let init = format!("{}; exit 7", traced.await_word("proxy-up"));
    doomed["spec"]["initContainers"] = json!([sidecar("proxy", &traced.server("proxy")), container("init", &init)]);
    let story = traced.world.run(doomed).await;
    assert_eq!(phase(story.last()), "Failed");
    assert_eq!(traced.lines(), "proxy-up\nproxy-down\n");
}

#[tokio::test]
async fn nothing_starts_behind_a_sidecar_that_cannot() {
    let world = World::new();
    let mut stuck = pod("p", "echo never");
    let mut absent = sidecar("absent", "");
    absent["command"] = json!(["/no/such/program"]);
    stuck["spec"]["initContainers"] = json!([absent]);
    let mut story = world.create(stuck);
    let waits = |pod: &Value| state(pod, "initContainerStatuses", 0)["waiting"]["reason"] == "CrashLoopBackOff";
    let waiting = story.until(waits).await;
    assert_eq!(waiting["status"]["initContainerStatuses"][0]["lastState"]["terminated"]["reason"], "StartError");
    assert_eq!(
        (phase(&waiting), &state(&waiting, "containerStatuses", 0)["waiting"]["reason"]),
        ("Pending", &json!("PodInitializing"))
    );
    world.delete("p", 30).await;
    story.until_gone().await;
}
