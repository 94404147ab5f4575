//! Whatever a program does to stay, it goes: with its container, its pod, its node, and the process around that.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::world::{PROCESS, World, is_alive, pids, pod, terminated, until};

/// Writes the ids of a child, of one in a session of its own, and of one whose parent is gone; then goes on for ever, or ends.
fn script(pids: &Path, last: &str) -> String {
    let stay = format!("trap '' TERM HUP; echo \\$\\$ >> {}; exec sleep 1000", pids.display());
    format!(r#"sh -c "{stay}" & setsid sh -c "{stay}" & (setsid sh -c "{stay}" &); {last}"#)
}

const STAY: &str = "exec sleep 1000";

async fn begun(world: &World, name: &str, last: &str) -> Vec<u32> {
    let path = world.directory.path().join(name);
    world.create(pod(name, &script(&path, last)));
    let pids = pids(&path, 3).await;
    assert_eq!(pids.len(), 3);
    pids
}

async fn until_dead(pids: &[u32]) {
    until(|| !pids.iter().any(|pid| is_alive(*pid))).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let world = World::new();
    let path = world.directory.path().join("pids");
    let wait = format!("while test $(cat {} | wc -l) -lt 3; do sleep 0.01; done", path.display());
    let mut story = world.create(pod("p", &script(&path, &wait)));
    story.until_over().await;
    // Not soon: when its end is told.
    assert!(!pids(&path, 3).await.into_iter().any(is_alive));
}

#[tokio::test]
async fn daemons_go_with_their_pod() {
    let world = World::new();
    let pids = begun(&world, "p", STAY).await;
    world.delete("p", 30).await;
    until_dead(&pids).await;
}

#[tokio::test]
async fn daemons_go_with_a_pod_that_is_removed_by_force() {
    let world = World::new();
    let pids = begun(&world, "p", STAY).await;
    world.delete_by_force("p");
    until_dead(&pids).await;
}

#[tokio::test]
async fn daemons_go_with_their_node() {
    let world = World::new();
    let pids = begun(&world, "p", STAY).await;
    world.shut_down().await;
    assert!(!pids.into_iter().any(is_alive));
}

#[tokio::test]
async fn nothing_outlives_a_killed_process_with_a_node() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pids");
    let pod = pod("p", &script(&path, STAY)).to_string();
    let mut host = Command::new(PROCESS)
        .arg("host")
        .arg(directory.path().join("node"))
        .arg(pod)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let pids = pids(&path, 3).await;
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    // By SIGKILL.
    host.kill().unwrap();
    host.wait().unwrap();
    until_dead(&pids).await;
}

#[tokio::test]
async fn what_cannot_be_killed_is_counted_and_does_not_hold_its_pod() {
    let directory = tempfile::tempdir().unwrap();
    let (shim, pids_file) = (directory.path().join("shim"), directory.path().join("pids"));
    // A shim that gives one process up, which goes on to hold the output.
    let script = r#"read -r spec
        echo '"Started"' >&2
        sleep 60 2> /dev/null < /dev/null &
        echo $! > PIDS
        echo "{\"Left\":{\"pids\":[$!]}}" >&2
        echo '{"Ended":{"code":137,"excess":null}}' >&2
    "#;
    std::fs::write(&shim, script.replace("PIDS", pids_file.to_str().unwrap())).unwrap();
    let world = World::with(|options| {
        options.shim = "sh".into();
        options.shim_arguments = vec![shim.to_str().unwrap().to_owned()];
    });
    let story = world.run(pod("p", "")).await;
    let left = pids(&pids_file, 1).await[0];
    assert!(is_alive(left));
    Command::new("kill").arg(left.to_string()).status().unwrap();
    assert_eq!(terminated(story.last(), 0)["exitCode"], 137);
    assert_eq!((world.counters.left_processes(), world.counters.held_outputs()), (1, 1));
}

/// A program whose first thread ends while another one stays, deaf to SIGTERM, with so many MiB as its argument says.
const HEADLESS: &str = r#"
    #include <pthread.h>
    #include <signal.h>
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>
    static void *stay(void *mebibytes) {
        size_t size = (size_t)atol(mebibytes) << 20;
        char *held = malloc(size + 1);
        memset(held, 1, size);
        for (;;) { pause(); held[size] = held[0]; }
    }
    int main(int count, char **arguments) {
        pthread_t thread;
        signal(SIGTERM, SIG_IGN);
        alarm(60);
        pthread_create(&thread, NULL, stay, arguments[count - 1]);
        pthread_exit(NULL);
    }
"#;

/// Compiles it: no safe Rust ends the thread that it began with. Whoever builds these tests has a C compiler.
fn headless(world: &World) -> PathBuf {
    let (source, program) = (world.directory.path().join("headless.c"), world.directory.path().join("headless"));
    std::fs::write(&source, HEADLESS).unwrap();
    let compiled = Command::new("cc").arg("-pthread").arg("-o").args([&program, &source]).status().unwrap();
    assert!(compiled.success());
    program
}

#[tokio::test]
async fn a_daemon_whose_first_thread_has_ended_goes_with_its_pod() {
    let world = World::new();
    let pids_file = world.directory.path().join("pids");
    // Each $$ is a $ to a container.
    let daemon = format!("echo $$$$ > {}; exec {} 0", pids_file.display(), headless(&world).display());
    let mut story = world.create(pod("p", &format!("setsid sh -c '{daemon}' & {STAY}")));
    let first = pids(&pids_file, 1).await[0];
    // That is what it looks like.
    until(|| !is_alive(first)).await;
    world.delete("p", 30).await;
    story.until_gone().await;
    assert!(!Path::new(&format!("/proc/{first}")).exists());
}

#[tokio::test]
async fn the_memory_of_a_program_whose_first_thread_has_ended_counts() {
    let world = World::new();
    let mut greedy = pod("p", &format!("exec {} 96", headless(&world).display()));
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "48Mi"}});
    let story = world.run(greedy).await;
    assert_eq!(terminated(story.last(), 0)["reason"], "OOMKilled");
}
