//! Jobs under the real controller-manager, their pods played by KWOK. The T-numbers are those of docs/TRAPS.md.

use std::{os::unix::process::ExitStatusExt, path::PathBuf};

use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Pod, ResourceQuota},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Namespace, has_ended, is_gone, runs, variable},
    herald::{Herald, LIMIT, POLL, ends, types},
};

/// What KWOK's pods print.
const PRINTED: &str = "played by KWOK\n";

/// A namespace with Jobs, and podherald that watches it.
struct Scene<'a> {
    cluster: &'a Cluster,
    namespace: Namespace<'a>,
    jobs: Api<Job>,
    data: TempDir,
    herald: Herald,
}

impl<'a> Scene<'a> {
    async fn open(cluster: &'a Cluster) -> Self {
        let namespace = cluster.namespace().await;
        let jobs = Api::namespaced(cluster.admin.clone(), &namespace.name);
        let data = tempdir().unwrap();
        let herald = herald(cluster, &namespace, &data).await;
        Self { cluster, namespace, jobs, data, herald }
    }

    /// Makes a Job of this execution whose pods are played by these annotations.
    async fn create(&self, name: &str, spec: Value, annotations: Value) -> String {
        let id = self.namespace.id(name);
        let mut job = json!({
            "metadata": {"name": name, "labels": {"execution-id": id}},
            "spec": {
                "backoffLimit": 0,
                "template": {
                    "metadata": {"labels": {"execution-id": id}, "annotations": annotations},
                    "spec": {
                        "nodeSelector": {"type": "kwok"}, "restartPolicy": "Never",
                        "containers": [{"name": "executor", "image": "none"}],
                    },
                },
            },
        });
        merge(&mut job["spec"], spec);
        self.jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap()).await.unwrap();
        id
    }

    async fn suspend(&self, job: &str, suspend: bool) {
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        self.jobs.patch(job, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn delete(&self, job: &str) {
        self.jobs.delete(job, &DeleteParams::background()).await.unwrap();
    }

    /// The execution at its end, of which there is one, under whatever number of pods.
    async fn end_of(&self, id: &str, status: &str) -> Value {
        let execution = self.herald.ended(id).await;
        assert_eq!(
            (execution["status"].as_str().unwrap(), &execution["attempts"]),
            (status, &json!(1)),
            "{execution:#}"
        );
        let events = self.herald.events(id).await;
        assert_eq!(events.iter().filter(|event| ends(event)).count(), 1, "{:?}", types(&events));
        let starts = types(&events).iter().filter(|kind| **kind == "execution_started").count();
        assert!(starts <= 1, "{:?}", types(&events));
        execution
    }
}

/// The Job's pods that run, in the order of their names, as soon as there are so many.
async fn running(namespace: &Namespace<'_>, job: &str, count: usize) -> Vec<Pod> {
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    let deadline = Instant::now() + LIMIT;
    loop {
        let mut pods = namespace.pods.list(&of_job).await.unwrap().items;
        pods.retain(|pod| runs(Some(pod)) && pod.metadata.deletion_timestamp.is_none());
        if pods.len() >= count {
            pods.sort_by_key(Pod::name_any);
            return pods;
        }
        assert!(Instant::now() < deadline, "{job} has no {count} running pods");
        sleep(POLL).await;
    }
}

/// Has KWOK end a pod with this code, and waits until it has ended or is gone.
async fn end(namespace: &Namespace<'_>, pod: &Pod, code: i32) {
    let annotation = json!({"metadata": {"annotations": {"test/exit-code": code.to_string()}}});
    let name = pod.name_any();
    namespace.pods.patch(&name, &PatchParams::default(), &Patch::Merge(annotation)).await.unwrap();
    let is_over = |pod: Option<&Pod>| is_gone(pod) || has_ended(pod);
    let over = kube::runtime::wait::await_condition(namespace.pods.clone(), &name, is_over);
    tokio::time::timeout(LIMIT, over).await.unwrap().unwrap();
}

async fn herald(cluster: &Cluster, namespace: &Namespace<'_>, data: &TempDir) -> Herald {
    Herald::start(&cluster.kubeconfig(), data, &[("PODHERALD_KUBE__NAMESPACES", &namespace.name)]).await
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

/// T53, T54, T58: the Job tries again, and what its last pod did is what became of it.
#[tokio::test]
async fn a_job_that_retries_is_one_attempt_that_ends_as_its_last_pod_did() {
    let cluster = Cluster::shared().await;
    let scene = Scene::open(&cluster).await;
    let gives_up = scene.create("gives-up", json!({"backoffLimit": 1}), json!({"test/exit-code": "3"})).await;
    let succeeds = scene.create("succeeds", json!({"backoffLimit": 1}), json!({})).await;
    let first = running(&scene.namespace, "succeeds", 1).await;
    end(&scene.namespace, &first[0], 4).await;
    let second = running(&scene.namespace, "succeeds", 1).await;
    end(&scene.namespace, &second[0], 0).await;

    let execution = scene.end_of(&gives_up, "failed").await;
    assert_eq!((&execution["exit"]["code"], &execution["stdout"]), (&json!(3), &json!(PRINTED)), "{execution:#}");
    assert_eq!(execution["cause"]["class"], "user_code");
    assert!(execution["cause"]["message"].as_str().unwrap().contains("BackoffLimitExceeded"), "{execution:#}");
    assert_eq!(execution["pods"].as_array().unwrap().len(), 2);
    let execution = scene.end_of(&succeeds, "completed").await;
    assert_eq!((&execution["exit"]["code"], &execution["stdout"]), (&json!(0), &json!(PRINTED)), "{execution:#}");
    assert_eq!(execution["pods"].as_array().unwrap().len(), 2);
}

/// T52: the Job's deadline deletes its pods; that of a pod only fails it, which the kubelet says.
#[tokio::test]
async fn both_sorts_of_deadline_are_timeouts() {
    let cluster = Cluster::shared().await;
    let scene = Scene::open(&cluster).await;
    let of_job = scene.create("of-job", json!({"activeDeadlineSeconds": 3}), json!({})).await;
    let of_pod = scene.create("of-pod", json!({"template": {"spec": {"activeDeadlineSeconds": 600}}}), json!({})).await;
    let pod = running(&scene.namespace, "of-pod", 1).await.remove(0);
    let status = json!({"status": {"phase": "Failed", "reason": "DeadlineExceeded"}});
    scene.namespace.pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    end(&scene.namespace, &pod, 137).await;

    let execution = scene.end_of(&of_job, "timeout").await;
    assert_eq!((&execution["timeout_seconds"], &execution["cause"]["class"]), (&json!(3), &json!("timeout")));
    let execution = scene.end_of(&of_pod, "timeout").await;
    assert_eq!((&execution["timeout_seconds"], &execution["cause"]["class"]), (&json!(600), &json!("timeout")));
}

/// T55: the policy ignores code 42, so the Job makes another pod although it may not retry.
#[tokio::test]
async fn a_pod_failure_that_the_jobs_policy_ignores_ends_nothing() {
    let cluster = Cluster::shared().await;
    let scene = Scene::open(&cluster).await;
    let ignore = json!({"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}});
    let id = scene.create("ignores", json!({"podFailurePolicy": {"rules": [ignore]}}), json!({})).await;
    let first = running(&scene.namespace, "ignores", 1).await;
    end(&scene.namespace, &first[0], 42).await;
    let second = running(&scene.namespace, "ignores", 1).await;
    end(&scene.namespace, &second[0], 0).await;
    let execution = scene.end_of(&id, "completed").await;
    assert_eq!((&execution["exit"]["code"], &execution["cause"]), (&json!(0), &Value::Null), "{execution:#}");
}

/// T57: Jobs that run for a moment and are deleted as soon as they have ended, pods and all.
#[tokio::test]
async fn a_job_that_is_gone_as_soon_as_it_has_ended_is_not_missed() {
    let cluster = Cluster::shared().await;
    let scene = Scene::open(&cluster).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        let annotations = json!({"test/exit-code": if number % 2 == 0 { "0" } else { "7" }});
        ids.push(scene.create(&format!("moment-{number}"), json!({"ttlSecondsAfterFinished": 0}), annotations).await);
    }
    for (number, id) in ids.iter().enumerate() {
        let (status, code) = if number % 2 == 0 { ("completed", 0) } else { ("failed", 7) };
        let execution = scene.end_of(id, status).await;
        assert_eq!(
            (&execution["exit"]["code"], &execution["stdout"]),
            (&json!(code), &json!(PRINTED)),
            "{execution:#}"
        );
    }
}

/// T59: each index has a pod of its own; the one that failed is what the attempt is told by.
#[tokio::test]
async fn an_indexed_job_ends_once_and_by_the_index_that_failed() {
    let cluster = Cluster::shared().await;
    let scene = Scene::open(&cluster).await;
    let indexed = json!({
        "completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimit": 6, "backoffLimitPerIndex": 0,
    });
    let id = scene.create("indexed", indexed, json!({})).await;
    for pod in running(&scene.namespace, "indexed", 3).await {
        let index = pod.annotations()["batch.kubernetes.io/job-completion-index"].clone();
        end(&scene.namespace, &pod, if index == "1" { 5 } else { 0 }).await;
    }
    let execution = scene.end_of(&id, "failed").await;
    assert_eq!(execution["exit"]["code"], 5, "{execution:#}");
    assert!(execution["cause"]["message"].as_str().unwrap().contains("FailedIndexes"), "{execution:#}");
    assert_eq!(execution["pods"].as_array().unwrap().len(), 3);
}

/// What the pods of an Indexed Job printed becomes the Job's, and podherald is killed just before that and just after.
#[tokio::test]
async fn a_kill_while_a_job_takes_over_what_its_pods_printed_costs_none_of_it() {
    let cluster = Cluster::shared().await;
    let mut scene = Scene::open(&cluster).await;
    let binary = PathBuf::from(variable("PODHERALD_CRASH_BINARY"));
    for point in ["adopt:1", "adopt:2"] {
        let settings = [("PODHERALD_KUBE__NAMESPACES", &*scene.namespace.name), ("PODHERALD_CRASH_AT", point)];
        let doomed = Herald::launch(&binary, &cluster.kubeconfig(), &scene.data, &settings);
        std::mem::replace(&mut scene.herald, doomed).kill().await;
        scene.herald.until_listening().await;
        scene.herald.until_ready().await;
        let name = point.replace(':', "-");
        let indexed = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2});
        let id = scene.create(&name, indexed, json!({})).await;
        for pod in running(&scene.namespace, &name, 2).await {
            end(&scene.namespace, &pod, 0).await;
        }
        let status = scene.herald.end().await;
        assert_eq!(status.signal(), Some(9), "{point}: {status}\n{}", scene.herald.log());
        assert!(scene.herald.log().contains("dying at a crash point"), "{point}:\n{}", scene.herald.log());
        // Whatever is read after this has gone through the crash.
        scene.jobs.delete(&name, &DeleteParams::background()).await.unwrap();
        scene.herald = herald(scene.cluster, &scene.namespace, &scene.data).await;
        let execution = scene.end_of(&id, "completed").await;
        assert_eq!(execution["stdout"], PRINTED, "{execution:#}");
        let outputs = execution["output"]["indexes"]["outputs"].as_array().unwrap();
        assert_eq!(outputs.len(), 2, "{execution:#}");
        for output in outputs {
            assert_eq!(output["stdout"]["verdict"], "complete", "{execution:#}");
            assert_eq!(scene.herald.text(output["uri"].as_str().unwrap()).await, PRINTED);
        }
        assert_eq!(scene.herald.text(&format!("/executions/{id}/output")).await, PRINTED);
    }
}

/// T60: a quota of none, or a service account that is not there: the Job makes no pod, and nothing is ever seen of one.
#[tokio::test]
async fn a_job_that_may_make_no_pod_ends_by_its_deadline_or_its_deletion() {
    let cluster = Cluster::shared().await;
    let scene = Scene::open(&cluster).await;
    let missing = json!({"template": {"spec": {"serviceAccountName": "missing"}}});
    let mut with_deadline = missing.clone();
    with_deadline["activeDeadlineSeconds"] = 3.into();
    let timed_out = scene.create("timed-out", with_deadline, json!({})).await;
    let deleted = scene.create("deleted", missing, json!({})).await;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    let quotas: Api<ResourceQuota> = Api::namespaced(scene.cluster.admin.clone(), &scene.namespace.name);
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    // Before the controller has counted, nothing is refused.
    kube::runtime::wait::await_condition(quotas, "none", |quota: Option<&ResourceQuota>| {
        quota.and_then(|quota| quota.status.as_ref()?.used.as_ref()).is_some()
    })
    .await
    .unwrap();
    let quota = scene.create("quota", json!({"activeDeadlineSeconds": 3}), json!({})).await;

    for id in [&timed_out, &quota] {
        let execution = scene.end_of(id, "timeout").await;
        assert!(execution["cause"]["message"].as_str().unwrap().contains("made no pod"), "{execution:#}");
        assert_eq!(execution["pods"], json!([]));
    }
    scene.delete("deleted").await;
    let execution = scene.end_of(&deleted, "failed").await;
    assert_eq!(execution["cause"]["class"], "deleted", "{execution:#}");
}

/// T61: a suspended Job's pods are deleted, and that is no failure.
#[tokio::test]
async fn a_suspended_job_waits_and_goes_on_when_it_is_resumed() {
    let cluster = Cluster::shared().await;
    let scene = Scene::open(&cluster).await;
    let id = scene.create("suspended", json!({}), json!({})).await;
    let first = running(&scene.namespace, "suspended", 1).await.remove(0);
    scene.suspend("suspended", true).await;
    let name = first.name_any();
    let gone = kube::runtime::wait::await_condition(scene.namespace.pods.clone(), &name, is_gone);
    tokio::time::timeout(LIMIT, gone).await.unwrap().unwrap();
    let deadline = Instant::now() + LIMIT;
    while !types(&scene.herald.events(&id).await).contains(&"pod_deleted") {
        assert!(Instant::now() < deadline, "the pod's deletion is not told");
        sleep(POLL).await;
    }
    assert!(!scene.herald.events(&id).await.iter().any(ends), "waiting is no failure");
    scene.suspend("suspended", false).await;
    let second = running(&scene.namespace, "suspended", 1).await;
    end(&scene.namespace, &second[0], 0).await;
    scene.end_of(&id, "completed").await;
}

/// What ended while podherald was down is told by what is left; a Job deleted under its program is deleted, not failed.
#[tokio::test]
async fn jobs_that_ended_retried_or_went_while_podherald_was_down_end_once() {
    let cluster = Cluster::shared().await;
    let mut scene = Scene::open(&cluster).await;
    let ended = scene.create("ended", json!({}), json!({})).await;
    let retried = scene.create("retried", json!({"backoffLimit": 1}), json!({})).await;
    let deleted = scene.create("deleted", json!({}), json!({})).await;
    let seen = scene.create("deleted-before-our-eyes", json!({}), json!({})).await;
    for id in [&ended, &retried, &deleted, &seen] {
        scene.herald.until_running(id).await;
    }
    scene.delete("deleted-before-our-eyes").await;
    let execution = scene.end_of(&seen, "failed").await;
    assert_eq!(execution["cause"]["class"], "deleted", "{execution:#}");

    scene.herald.kill().await;
    for (job, code) in [("ended", 0), ("retried", 3)] {
        let pods = running(&scene.namespace, job, 1).await;
        end(&scene.namespace, &pods[0], code).await;
    }
    scene.jobs.delete("deleted", &DeleteParams::background()).await.unwrap();
    kube::runtime::wait::await_condition(scene.jobs.clone(), "ended", |job: Option<&Job>| {
        job.and_then(|job| job.status.as_ref()?.completion_time.as_ref()).is_some()
    })
    .await
    .unwrap();
    scene.herald = herald(scene.cluster, &scene.namespace, &scene.data).await;
    let again = running(&scene.namespace, "retried", 1).await;
    end(&scene.namespace, &again[0], 0).await;
    scene.end_of(&ended, "completed").await;
    scene.end_of(&retried, "completed").await;
    let execution = scene.end_of(&deleted, "failed").await;
    assert!(matches!(execution["cause"]["class"].as_str(), Some("deleted" | "unknown")), "{execution:#}");
}
