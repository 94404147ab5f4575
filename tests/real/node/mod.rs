//! podherald and the real node: a kubelet, containerd, and programs that really run.

mod case;
mod matrix;
mod record;

use std::path::Path;

use bytes::Bytes;
use futures::{StreamExt, stream};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, ContainerStatus, Pod},
};
use kube::{
    Api,
    api::{EvictParams, LogParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};
use tokio::time::{Instant, sleep};

use self::{
    case::{Act, Case, Prints, shell, with, with_container},
    record::Recorder,
};
use crate::{
    cluster::{Namespace, Node, has_ended, is_gone},
    herald::{Herald, LIMIT, POLL, assert_in_order, ends},
};

/// `logs.max_bytes` of these tests, the default.
const KEPT: usize = 16 << 20;

#[tokio::test]
async fn every_end_on_a_real_node_is_told_as_it_was() {
    let node = Node::start("256Mi").await;
    let namespace = node.cluster.namespace().await;
    let data = tempdir().unwrap();
    let herald = start(&node, &namespace, &data, &[]).await;
    let cases = [matrix::cases(), outputs(&node, &namespace).await].concat();
    let recorder = Recorder::from_environment();

    let all = stream::iter(&cases).map(|case| tell(&herald, &namespace, case)).buffered(cases.len());
    let told: Vec<Told> = recorder.during(&namespace.pods, all.collect()).await;
    let wrong: Vec<_> = told.iter().filter_map(|told| told.difference.as_deref()).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let ids: Vec<_> = cases.iter().map(|case| namespace.id(case.name)).collect();
    assert_in_order(&herald.pages("/events?limit=100").await, &ids);
    for (case, told) in cases.iter().zip(&told) {
        recorder.save(case, &namespace.id(case.name), &told.events);
    }
    namespace.clear().await;
}

#[tokio::test]
async fn a_kubelet_that_was_dead_for_a_while_changes_nothing() {
    let node = Node::start("256Mi").await;
    let namespace = node.cluster.namespace().await;
    let data = tempdir().unwrap();
    let herald = start(&node, &namespace, &data, &[]).await;
    let shared = tempdir().unwrap();
    let ends_meanwhile = Case::new(
        "ends-meanwhile",
        sharing(&shared, "echo started; until [ -e /shared/dead ]; do sleep 0.1; done; touch /shared/ended; exit 4"),
    );
    let ends_afterwards = Case::new(
        "ends-afterwards",
        sharing(&shared, "echo started; until [ -e /shared/back ]; do sleep 0.1; done; echo done"),
    );
    let deleted = Case::new("deleted-meanwhile", shell("echo started; sleep 600"));
    let cases = [
        ends_meanwhile.prints("started\n").fails(Some(4), "user_code"),
        ends_afterwards.prints("started\ndone\n"),
        deleted.prints_unless_lost("started\n").fails(None, "deleted"),
    ];
    for case in &cases {
        make(&namespace, case).await;
    }
    for case in &cases {
        until_prints(&namespace, &namespace.id(case.name)).await;
    }

    node.cluster.script(&["stop", "kubelet"]).await;
    std::fs::write(shared.path().join("dead"), "").unwrap();
    until_exists(&shared.path().join("ended")).await;
    namespace.force_delete(&namespace.id("deleted-meanwhile")).await;
    node.cluster.script(&["start", "kubelet"]).await;
    std::fs::write(shared.path().join("back"), "").unwrap();

    for case in &cases {
        let told = check(&herald, &namespace, case).await;
        assert_eq!(told.difference, None);
    }
    let ids: Vec<_> = cases.iter().map(|case| namespace.id(case.name)).collect();
    assert_in_order(&herald.pages("/events?limit=100").await, &ids);
}

#[tokio::test]
async fn a_finalizer_keeps_the_log_of_a_pod_that_had_ended_and_loses_that_of_one_that_ran() {
    let node = Node::start("256Mi").await;
    let namespace = node.cluster.namespace().await;
    let data = tempdir().unwrap();
    let herald = start(&node, &namespace, &data, &[]).await;
    let finalizers = json!({"finalizers": ["podherald.dev/test"]});
    let ended = Case::new("ended", shell("echo done")).prints("done\n");
    let ran = Case::new("ran", shell("echo started; sleep 600"));
    let ran = ran.prints_unless_lost("started\n").fails(Some(137), "deleted");
    let ids = [&ended, &ran].map(|case| namespace.id(case.name));
    for case in [&ended, &ran] {
        make_with(&namespace, case, &finalizers).await;
    }
    namespace.until(&ids[0], has_ended).await;
    until_prints(&namespace, &ids[1]).await;

    for id in &ids {
        namespace.delete(id).await;
    }
    namespace.until(&ids[1], has_ended).await;
    // In place of the log comes a sentence of the kubelet's (T62), or an error.
    until(async || log(&namespace, &ids[1]).await.is_none_or(|log| !log.starts_with("started"))).await;
    assert_eq!(log(&namespace, &ids[0]).await.as_deref(), Some("done\n"), "the log of the ended pod");
    for case in [&ended, &ran] {
        assert_eq!(check(&herald, &namespace, case).await.difference, None);
    }
    for id in &ids {
        let nothing = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        namespace.pods.patch(&format!("executor-{id}"), &PatchParams::default(), &nothing).await.unwrap();
        namespace.until(id, is_gone).await;
    }
}

#[tokio::test]
async fn a_log_that_the_kubelet_has_begun_anew_is_partial_to_whoever_followed_it() {
    let node = Node::start("64Ki").await;
    let namespace = node.cluster.namespace().await;
    let (data, data_of_follower) = (tempdir().unwrap(), tempdir().unwrap());
    let herald = start(&node, &namespace, &data, &[("PODHERALD_LOGS__FOLLOW", "never")]).await;
    let follower = start(&node, &namespace, &data_of_follower, &[("PODHERALD_LOGS__FOLLOW", "all")]).await;
    let shared = tempdir().unwrap();
    let script = "
        echo first; yes before | head -c 6993; until [ -e /shared/followed ]; do sleep 0.1; done
        yes before | head -c 140000; until [ -e /shared/anew ]; do sleep 0.1; done; echo after";
    let case = Case::new("begun-anew", sharing(&shared, script));
    make(&namespace, &case).await;
    let id = namespace.id(case.name);
    until(async || follower.counter("podherald_live_bytes_total").await == 6999).await;
    std::fs::write(shared.path().join("followed"), "").unwrap();
    until(async || log(&namespace, &id).await.is_some_and(|log| !log.starts_with("first"))).await;
    std::fs::write(shared.path().join("anew"), "").unwrap();

    // T66: to whoever did not follow it, nothing tells.
    for (herald, verdict) in [(&herald, "complete"), (&follower, "partial")] {
        let execution = herald.ended(&id).await;
        let stdout = execution["stdout"].as_str().unwrap();
        assert!(stdout.ends_with("after\n") && !stdout.contains("first"), "{execution}");
        assert_eq!(execution["output"]["stdout"]["verdict"], verdict, "{execution}");
    }
}

async fn start(node: &Node, namespace: &Namespace<'_>, data: &TempDir, more: &[(&str, &str)]) -> Herald {
    let settings = [
        ("PODHERALD_KUBE__NAMESPACES", namespace.name.as_str()),
        ("PODHERALD_MONITOR__IMAGE_PULL_GRACE", "3s"),
        ("PODHERALD_MONITOR__CONFIG_ERROR_GRACE", "3s"),
        ("PODHERALD_LOGS__DEADLINE", "60s"),
    ];
    Herald::start(&node.cluster.kubeconfig(), data, &[&settings, more].concat()).await
}

/// Outputs that a text in a table cannot show.
async fn outputs(node: &Node, namespace: &Namespace<'_>) -> Vec<Case> {
    // Every byte, a line that the container runtime cuts into many, and no final newline.
    let every_byte = (0..=u8::MAX).cycle().take(16 << 10);
    let binary: Bytes = every_byte.chain(std::iter::repeat_n(b'y', 300 << 10)).chain(*b"\n\r\0\xff").collect();
    let data = ConfigMap {
        metadata: serde_json::from_value(json!({"name": "binary"})).unwrap(),
        binary_data: Some([("bytes".to_owned(), ByteString(binary.to_vec()))].into()),
        ..ConfigMap::default()
    };
    let config_maps: Api<ConfigMap> = Api::namespaced(node.cluster.admin.clone(), &namespace.name);
    config_maps.create(&PostParams::default(), &data).await.unwrap();
    let cat =
        with_container(shell("cat /data/bytes"), json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]}));
    let cat = with(cat, json!({"volumes": [{"name": "data", "configMap": {"name": "binary"}}]}));
    let line = format!("{:01023}\n", 7);
    vec![
        Case::new("binary", cat).prints(binary),
        // The container runtime writes lines, and takes a carriage return before the line's end for a part of it (T72a).
        Case::new("carriage-returns", shell(r"printf 'a\r\n\r\nb\rc\r'")).prints("a\n\nb\rc\r"),
        Case::new("hundred-mebibytes", shell("yes $(printf %01023d 7) | head -c 104857600"))
            .prints(line.repeat((100 << 20) / line.len())),
    ]
}

/// What was told of a case.
struct Told {
    events: Vec<Value>,
    difference: Option<String>,
}

/// One case from the pod's birth to the comparison.
async fn tell(herald: &Herald, namespace: &Namespace<'_>, case: &Case) -> Told {
    make(namespace, case).await;
    act(namespace, case).await;
    check(herald, namespace, case).await
}

async fn make(namespace: &Namespace<'_>, case: &Case) {
    make_with(namespace, case, &json!({})).await;
}

/// The same with these metadata.
async fn make_with(namespace: &Namespace<'_>, case: &Case, metadata: &Value) {
    let id = namespace.id(case.name);
    let spec = json!({
        "nodeSelector": {"type": "real"},
        "restartPolicy": "Never",
        // The shell takes no notice of a request to end.
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
    });
    let name = json!({
        "name": format!("executor-{id}"),
        "labels": {"execution-id": id},
        "annotations": case.annotations,
    });
    let pod = json!({"metadata": with(name, metadata.clone()), "spec": with(spec, case.spec.clone())});
    namespace.pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
}

async fn act(namespace: &Namespace<'_>, case: &Case) {
    let id = namespace.id(case.name);
    match case.act {
        Act::Nothing => return,
        Act::DeleteInCrashLoop => namespace.until(&id, is_in_crash_loop).await,
        Act::LimitInCrashLoop => {
            namespace.until(&id, |pod| is_in_crash_loop(pod) && restarts(pod) == 2).await;
        }
        Act::Evict | Act::Delete | Act::ForceDelete => until_prints(namespace, &id).await,
    }
    match case.act {
        Act::Nothing => {}
        Act::Evict => {
            namespace.pods.evict(&format!("executor-{id}"), &EvictParams::default()).await.unwrap();
        }
        Act::Delete | Act::DeleteInCrashLoop => namespace.delete(&id).await,
        Act::ForceDelete => namespace.force_delete(&id).await,
        Act::LimitInCrashLoop => limit(namespace, &id).await,
    }
}

/// Lowers the pod's deadline to 4 s after its program's last end.
async fn limit(namespace: &Namespace<'_>, id: &str) {
    let name = format!("executor-{id}");
    let pod = namespace.pods.get(&name).await.unwrap();
    let started = pod.status.as_ref().unwrap().start_time.as_ref().unwrap();
    let last_end = first_container(Some(&pod)).unwrap().last_state.clone().unwrap().terminated.unwrap();
    let seconds = last_end.finished_at.unwrap().0.duration_since(started.0).as_secs() + 4;
    let spec = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": seconds}}));
    namespace.pods.patch(&name, &PatchParams::default(), &spec).await.unwrap();
}

/// Waits for the end and compares what is told of it.
async fn check(herald: &Herald, namespace: &Namespace<'_>, case: &Case) -> Told {
    let id = namespace.id(case.name);
    herald.ended(&id).await;
    let events = herald.events(&id).await;
    let terminal = events.iter().find(|event| ends(event)).unwrap();
    let difference = match case.difference(terminal) {
        Some(difference) => Some(difference),
        None => output_difference(herald, &id, terminal, &case.prints).await,
    };
    let difference = difference.map(|difference| format!("{}: {difference}: {}", case.name, shortened(terminal)));
    Told { difference, events }
}

async fn output_difference(herald: &Herald, id: &str, terminal: &Value, prints: &Prints) -> Option<String> {
    let summary = &terminal["output"]["stdout"];
    let expected = prints.bytes();
    if matches!(prints, Prints::AllUnlessLost(_)) && summary["verdict"] == "lost" {
        return None;
    }
    let is_kept = expected.len() <= KEPT;
    let verdict = if is_kept { "complete" } else { "truncated" };
    let told = [&summary["verdict"], &summary["bytes_total"], &summary["sha256"]];
    let told_as_expected = [&json!(verdict), &json!(expected.len()), &json!(digest(expected))];
    if told != told_as_expected {
        return Some(format!("the output is {told:?} instead of {told_as_expected:?}"));
    }
    let output = herald.try_get(&format!("/executions/{id}/output?stream=stdout"), "*/*").await.unwrap().1;
    (is_kept && output != *expected).then(|| format!("the output is {output:?} instead of {expected:?}"))
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shortened(event: &Value) -> String {
    let text = event.to_string();
    text.chars().take(2000).collect()
}

/// A pod whose program sees this directory as `/shared`.
fn sharing(directory: &TempDir, script: &str) -> Value {
    let mount = json!({"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]});
    let volume = json!({"name": "shared", "hostPath": {"path": directory.path(), "type": "Directory"}});
    with(with_container(shell(script), mount), json!({"volumes": [volume]}))
}

fn is_in_crash_loop(pod: Option<&Pod>) -> bool {
    let waiting = first_container(pod).and_then(|container| container.state.as_ref()?.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
}

fn restarts(pod: Option<&Pod>) -> i32 {
    first_container(pod).map_or(0, |container| container.restart_count)
}

fn first_container(pod: Option<&Pod>) -> Option<&ContainerStatus> {
    pod?.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// Waits until the program of this execution has printed something.
async fn until_prints(namespace: &Namespace<'_>, id: &str) {
    until(async || !log(namespace, id).await.unwrap_or_default().is_empty()).await;
}

async fn until_exists(file: &Path) {
    until(async || file.exists()).await;
}

async fn until(holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < deadline, "it did not come to pass in time");
        sleep(POLL).await;
    }
}

/// The log as the kubelet gives it; none if it gives none.
async fn log(namespace: &Namespace<'_>, id: &str) -> Option<String> {
    namespace.pods.logs(&format!("executor-{id}"), &LogParams::default()).await.ok()
}
