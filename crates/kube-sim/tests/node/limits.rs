use std::fs;

use serde_json::json;

use crate::world::{World, is_alive, mount, phase, pids, pod, terminated, until};

#[tokio::test]
async fn a_container_with_too_much_memory_is_killed_for_it() {
    let world = World::new();
    let mut greedy = pod("p", r#"awk 'BEGIN { text = "x"; while (1) text = text text text }'"#);
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "48Mi"}});
    let story = world.run(greedy).await;
    let end = terminated(story.last(), 0);
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(137), &json!("OOMKilled")));
}

#[tokio::test]
async fn a_container_that_forks_for_ever_is_stopped_and_nothing_of_it_is_left() {
    let world = World::with(|options| options.max_processes = 30);
    let pids_file = world.directory.path().join("pids");
    // Each starts another and stays: in sessions of their own, so that no group holds them.
    let script = format!("echo $$ >> {0}; setsid sh {1} & sleep 1000", pids_file.display(), "$SELF");
    let bomb = world.directory.path().join("bomb.sh");
    fs::write(&bomb, script).unwrap();
    let mut forking = pod("p", &format!("export SELF={0}; exec sh {0}", bomb.display()));
    forking["spec"]["terminationGracePeriodSeconds"] = json!(1);
    let story = world.run(forking).await;
    let end = terminated(story.last(), 0);
    assert_eq!((&end["exitCode"], &end["reason"]), (&json!(137), &json!("Error")));
    assert_eq!(end["message"], "killed: it had more than 30 processes, the most that a container here may have");
    let pids = pids(&pids_file, 15).await;
    assert_eq!(pids.iter().filter(|pid| is_alive(**pid)).count(), 0);
}

#[tokio::test]
async fn a_pod_with_too_large_a_volume_is_evicted() {
    let world = World::new();
    for (name, medium) in [("disk", ""), ("memory", "Memory")] {
        let mut hoarding = pod(name, "head -c 3000000 /dev/zero > /scratch/big; exec sleep 1000");
        mount(&mut hoarding, &json!({"name": "small", "emptyDir": {"sizeLimit": "10Mi", "medium": medium}}), "/small");
        mount(&mut hoarding, &json!({"name": "x", "emptyDir": {"sizeLimit": "1Mi", "medium": medium}}), "/scratch");
        let story = world.run(hoarding).await;
        let status = &story.last()["status"];
        let message = r#"Usage of EmptyDir volume "x" exceeds the limit "1Mi". "#;
        assert_eq!((phase(story.last()), &status["reason"]), ("Failed", &json!("Evicted")));
        assert_eq!(status["message"], message);
        assert_eq!(terminated(story.last(), 0)["exitCode"], 143);
        assert_eq!(world.events().pop().unwrap(), ("Evicted".to_owned(), message.to_owned()));
    }
}

#[tokio::test]
async fn a_flood_of_output_does_not_fill_the_disk() {
    const MAX: u64 = 1 << 20;
    let world = World::with(|options| options.max_log_bytes = MAX);
    let mut story = world.create(pod("p", "yes $(head -c 1000 /dev/zero | tr '\\0' y)"));
    story.until_running().await;
    let uid = story.last()["metadata"]["uid"].as_str().unwrap().to_owned();
    let directory = world.directory.path().join("node").join(uid).join("containers");
    let rotated = || fs::read_dir(&directory).unwrap().flatten().filter_map(|entry| entry.metadata().ok());
    until(|| world.counters.rotated_logs() > 1).await;
    assert!(world.counters.rotated_log_bytes() > MAX);
    assert!(rotated().filter(|file| file.is_file()).map(|file| file.len()).sum::<u64>() <= MAX);
    world.delete("p", 30).await;
    story.until_gone().await;
    assert_eq!(phase(story.last()), "Failed");
}
