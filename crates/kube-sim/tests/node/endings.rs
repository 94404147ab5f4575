use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{World, container, phase, pod, terminated, until};

#[tokio::test]
async fn a_pod_goes_through_its_phases_one_version_each() {
    let world = World::new();
    let story = world.run(pod("p", "echo hi")).await;
    let seen: Vec<_> = story
        .versions
        .iter()
        .map(|pod| {
            let state = pod["status"]["containerStatuses"][0]["state"].as_object();
            let state = state.and_then(|state| state.keys().next()).map_or("", String::as_str);
            (pod["spec"]["nodeName"].as_str().unwrap_or_default(), phase(pod), state)
        })
        .collect();
    let expected = [
        ("", "Pending", ""),
        ("embedded", "Pending", ""),
        ("embedded", "Pending", "waiting"),
        ("embedded", "Running", "running"),
        ("embedded", "Succeeded", "terminated"),
    ];
    assert_eq!(seen, expected);
    assert_eq!(world.log_text("p").await, "hi\n");
}

#[tokio::test]
async fn a_signal_is_128_and_its_number() {
    let world = World::new();
    // Of two dollar signs Kubernetes leaves one.
    let story = world.run(pod("p", "kill -KILL $$$$")).await;
    let end = terminated(story.last(), 0);
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(137), &json!("Error")));
}

#[tokio::test]
async fn a_deadline_ends_the_pod_and_says_so() {
    let world = World::new();
    let mut slow = pod("p", "exec sleep 1000");
    slow["spec"]["activeDeadlineSeconds"] = json!(1);
    let begun = Instant::now();
    let story = world.run(slow).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let status = &story.last()["status"];
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["reason"], "DeadlineExceeded");
    assert_eq!(status["message"], "Pod was active on the node longer than the specified deadline");
    assert_eq!(terminated(story.last(), 0)["exitCode"], 143);
}

#[tokio::test]
async fn a_program_that_ignores_the_wish_is_killed_after_the_grace() {
    let world = World::new();
    let mut story = world.create(pod("p", "trap '' TERM; echo ready; while true; do sleep 0.05; done"));
    story.until_running().await;
    ready(&world).await;
    world.delete("p", 1).await;
    let begun = Instant::now();
    story.until_gone().await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(terminated(story.last(), 0)["exitCode"], 137);
    assert_eq!(phase(story.last()), "Failed");
}

#[tokio::test]
async fn a_program_may_end_well_when_its_pod_is_deleted() {
    let world = World::new();
    let mut story = world.create(pod("p", "trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 0.05; done"));
    ready(&world).await;
    world.delete("p", 30).await;
    story.until_gone().await;
    assert_eq!(terminated(story.last(), 0)["exitCode"], 0);
    assert_eq!(phase(story.last()), "Succeeded");
}

// T47
#[tokio::test]
async fn a_command_that_is_not_there_is_a_start_error() {
    let world = World::new();
    for (name, command, why) in [
        ("a", "no-such-program", r#"exec: "no-such-program": executable file not found in $PATH"#),
        ("b", "/no/such/program", r#"exec: "/no/such/program": no such file or directory"#),
        ("c", "/etc/passwd", r#"exec: "/etc/passwd": permission denied"#),
    ] {
        let mut absent = pod(name, "");
        absent["spec"]["containers"][0]["command"] = json!([command]);
        let story = world.run(absent).await;
        let end = terminated(story.last(), 0);
        assert_eq!((&end["exitCode"], &end["reason"]), (&json!(128), &json!("StartError")), "{name}");
        assert!(
            end["message"].as_str().unwrap().ends_with(&format!(": unable to start container process: {why}: unknown")),
            "{end}"
        );
        assert_eq!(end["startedAt"], "1970-01-01T00:00:00Z");
    }
}

#[tokio::test]
async fn without_a_command_there_is_nothing_to_run() {
    let world = World::new();
    let mut imaginary = pod("p", "");
    imaginary["spec"]["containers"][0].as_object_mut().unwrap().remove("command");
    let mut story = world.create(imaginary);
    let waits = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImagePull";
    let waiting = story.until(waits).await;
    let message = &waiting["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, "the embedded cluster has no images: give the container a command");
    assert_eq!(phase(&waiting), "Pending");
    world.delete("p", 30).await;
    story.until_gone().await;
}

#[tokio::test]
async fn last_words_are_kept() {
    let world = World::new();
    let story = world.run(pod("a", "echo sorry > /dev/termination-log; exit 1")).await;
    assert_eq!(terminated(story.last(), 0)["message"], "sorry\n");

    let mut falling_back = pod("b", "echo first; echo last; exit 1");
    falling_back["spec"]["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let story = world.run(falling_back).await;
    assert_eq!(terminated(story.last(), 0)["message"], "first\nlast\n");
}

// T51
#[tokio::test]
async fn last_words_are_short_and_a_trap_in_their_place_is_none() {
    let world = World::new();
    let story =
        world.run(pod("a", "yes | head -c 100000 > /dev/termination-log; echo end >> /dev/termination-log")).await;
    let words = terminated(story.last(), 0)["message"].as_str().unwrap();
    assert_eq!(words.len(), 4096);
    assert!(words.ends_with("end\n"));

    let story = world.run(pod("b", "rm -f /dev/termination-log; mkfifo /dev/termination-log")).await;
    assert_eq!(terminated(story.last(), 0)["message"], Value::Null);
}

#[tokio::test]
async fn a_pod_fails_if_one_of_its_containers_does() {
    let world = World::new();
    let mut two = pod("p", "exit 0");
    two["spec"]["containers"].as_array_mut().unwrap().push(container("also", "exit 4"));
    let story = world.run(two).await;
    assert_eq!(phase(story.last()), "Failed");
    // T26: by name, whatever the order in the spec.
    let names: Vec<_> =
        story.last()["status"]["containerStatuses"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["also", "main"]);
    assert_eq!(terminated(story.last(), 0)["exitCode"], 4);
    assert_eq!(terminated(story.last(), 1)["exitCode"], 0);
}

async fn ready(world: &World) {
    loop {
        let request = world.request("p");
        if let Ok(log) = world.open(request).await {
            let text: Vec<_> = futures::TryStreamExt::try_collect::<Vec<_>>(log).await.unwrap();
            if text.concat().starts_with(b"ready\n") {
                return;
            }
        }
        let mut polled = false;
        until(|| std::mem::replace(&mut polled, true)).await;
    }
}
