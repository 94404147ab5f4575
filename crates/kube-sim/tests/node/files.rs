use std::os::fd::AsRawFd;

use serde_json::{Value, json};

use crate::world::{World, mount, phase, pod, terminated};

#[tokio::test]
async fn a_program_gets_its_environment_and_nothing_of_ours() {
    let world = World::new();
    world.create_config_map("settings", &json!({"COLOUR": "blue", "SIZE": "7"}));
    let mut told = pod("p", "env | grep -v -e ^PWD= -e ^OLDPWD= -e ^SHLVL= -e ^_= -e ^HOME= | sort; echo $0 $1");
    told["metadata"]["labels"] = json!({"app": "demo"});
    told["spec"]["containers"][0]["args"] = json!(["name-$(NAME)", "$(NOBODY)"]);
    told["spec"]["containers"][0]["envFrom"] = json!([{"prefix": "S_", "configMapRef": {"name": "settings"}}]);
    told["spec"]["containers"][0]["env"] = json!([
        {"name": "PLAIN", "value": "a b"},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "COLOUR"}}},
        {"name": "BOTH", "value": "$(PLAIN), $(COLOUR), $$(NAME)"},
    ]);
    world.run(told).await;
    let expected = "\
APP=demo
BOTH=a b, blue, $(NAME)
COLOUR=blue
HOSTNAME=p
NAME=p
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PLAIN=a b
S_COLOUR=blue
S_SIZE=7
name-p $(NOBODY)
";
    assert_eq!(world.log_text("p").await, expected);
}

#[tokio::test]
async fn a_program_gets_none_of_our_open_files() {
    let world = World::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = [format!("/proc/self/fd/{}", file.as_raw_fd()), format!("/proc/self/fd/{}", listener.as_raw_fd())];
    world.run(pod("p", "ls -l /proc/$$$$/fd")).await;
    let text = world.log_text("p").await;
    assert!(text.contains("/dev/null"), "{text}");
    for target in ours.map(|path| std::fs::read_link(path).unwrap()) {
        assert!(!text.contains(target.to_str().unwrap()), "{text}");
    }
}

#[tokio::test]
async fn mount_paths_stand_for_the_volumes() {
    let world = World::new();
    world.create_config_map("scripts", &json!({"main.sh": "echo from a script: $1", "other": "x"}));
    let mut mounted = pod("p", "");
    let container = &mut mounted["spec"]["containers"][0];
    container["command"] = json!(["sh", "/scripts/run.sh", "/scratch"]);
    container["volumeMounts"] =
        json!([{"name": "scripts", "mountPath": "/scripts"}, {"name": "scratch", "mountPath": "/scratch"}]);
    mounted["spec"]["volumes"] = json!([
        {"name": "scripts", "configMap": {"name": "scripts", "items": [{"key": "main.sh", "path": "run.sh"}]}},
        {"name": "scratch", "emptyDir": {}},
    ]);
    world.run(mounted).await;
    let volumes = world.directory.path().canonicalize().unwrap().join("node");
    let text = world.log_text("p").await;
    assert!(text.starts_with("from a script: ") && text.trim_end().ends_with("/volumes/scratch"), "{text}");
    assert!(text.contains(volumes.to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn what_is_missing_is_waited_for() {
    let world = World::new();
    let mut early = pod("p", "echo $COLOUR");
    early["spec"]["containers"][0]["env"] =
        json!([{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "COLOUR"}}}]);
    let mut story = world.create(early);
    let reason = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
    let waiting = story.until(|pod| reason(pod) == "CreateContainerConfigError").await;
    let message = &waiting["status"]["containerStatuses"][0]["state"]["waiting"]["message"];
    assert_eq!(message, r#"configmap "settings" not found"#);
    world.create_config_map("settings", &json!({"COLOUR": "blue"}));
    story.until_over().await;
    assert_eq!(world.log_text("p").await, "blue\n");
}

#[tokio::test]
async fn a_pods_files_go_with_it() {
    let world = World::new();
    let mut story = world.run(pod("p", "echo hi > file")).await;
    let directory = world.directory.path().join("node").join(story.last()["metadata"]["uid"].as_str().unwrap());
    assert!(directory.is_dir());
    world.delete("p", 30).await;
    story.until_gone().await;
    crate::world::until(|| !directory.exists()).await;
}

#[tokio::test]
async fn a_volume_whose_config_map_is_missing_is_waited_for() {
    let world = World::new();
    let mut early = pod("p", "cat /settings/COLOUR");
    mount(&mut early, &json!({"name": "v", "configMap": {"name": "settings"}}), "/settings");
    let mut story = world.create(early);
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let message = r#"MountVolume.SetUp failed for volume "v" : configmap "settings" not found"#;
    let pending = story.until(|pod| waiting(pod)["message"] == message).await;
    assert_eq!((phase(&pending), &waiting(&pending)["reason"]), ("Pending", &json!("ContainerCreating")));
    assert_eq!(world.events(), [("FailedMount".to_owned(), message.to_owned())]);
    world.create_config_map("settings", &json!({"COLOUR": "blue"}));
    story.until_over().await;
    assert_eq!(world.log_text("p").await, "blue");
}

#[tokio::test]
async fn a_working_directory_is_made_in_a_volume_and_nowhere_else() {
    let world = World::new();
    let elsewhere = world.directory.path().join("elsewhere");
    for (name, directory, code) in [("volume", "/work/a/b", 0), ("host", elsewhere.to_str().unwrap(), 128)] {
        let mut working = pod(name, "pwd");
        working["spec"]["containers"][0]["workingDir"] = json!(directory);
        mount(&mut working, &json!({"name": "work", "emptyDir": {}}), "/work");
        let story = world.run(working).await;
        let end = terminated(story.last(), 0);
        assert_eq!(end["exitCode"], code, "{end}");
        if code == 128 {
            let why =
                format!("chdir to cwd ({directory:?}) set in config.json failed: no such file or directory: unknown");
            assert_eq!(end["reason"], "StartError");
            assert!(end["message"].as_str().unwrap().ends_with(&why), "{end}");
        }
    }
    assert!(world.log_text("volume").await.ends_with("/volumes/work/a/b\n"));
    assert!(!elsewhere.exists());
}
