//! A real API server at its limits: it drops a reader that is too slow, and no longer takes a token.

use std::{fs, path::Path, time::Duration};

use futures::{StreamExt, stream};
use http::Request;
use k8s_openapi::{
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{Secret, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use rustix::process::Signal;
use serde_json::json;
use tempfile::tempdir;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Play, has_ended, is_gone},
    herald::{Herald, LIMIT, POLL, assert_in_order},
};

/// Changes of one pod, each of an annotation: more than all buffers on the way take.
const CHANGES: usize = 400;
const BYTES: usize = 100 << 10;

/// T12a: a podherald that is stopped reads nothing. The API server closes its watch and sends no more of it.
#[tokio::test]
async fn a_reader_that_the_api_server_dropped_for_being_slow_misses_nothing() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let herald = Herald::start(&cluster.kubeconfig(), &data, &[("PODHERALD_KUBE__NAMESPACES", &namespace.name)]).await;
    let [noisy, ends, deleted] = ["noisy", "ends", "deleted"].map(|name| namespace.id(name));
    for id in [&noisy, &ends, &deleted] {
        namespace.create(id, &Play::runs()).await;
        herald.until_running(id).await;
    }

    let dropped = dropped_watches(&cluster.admin).await;
    herald.signal(Signal::STOP);
    let noise = |n: usize| {
        let text = n.to_string().repeat(BYTES / n.to_string().len());
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"noise": text}}}));
        let (pods, name) = (&namespace.pods, format!("executor-{noisy}"));
        async move {
            let _: k8s_openapi::api::core::v1::Pod = pods.patch(&name, &PatchParams::default(), &patch).await.unwrap();
        }
    };
    stream::iter(0..CHANGES).for_each_concurrent(8, noise).await;
    namespace.end(&ends, 3).await;
    namespace.until(&ends, has_ended).await;
    namespace.force_delete(&deleted).await;
    namespace.until(&deleted, is_gone).await;
    let deadline = Instant::now() + LIMIT;
    while dropped_watches(&cluster.admin).await == dropped {
        assert!(Instant::now() < deadline, "the API server is more patient than that");
        sleep(POLL).await;
    }
    herald.signal(Signal::CONT);

    assert_eq!(herald.ended(&ends).await["exit"]["code"], 3);
    assert_eq!(herald.ended(&deleted).await["cause"]["class"], "deleted");
    assert_eq!(herald.get(&format!("/executions/{noisy}")).await["status"], "running");
    namespace.end(&noisy, 0).await;
    assert_eq!(herald.ended(&noisy).await["status"], "completed");
    assert_in_order(&herald.pages("/events?limit=100").await, &[noisy, ends, deleted]);
}

/// Watches of pods that the API server closed because their readers were too slow.
async fn dropped_watches(admin: &Client) -> f64 {
    let metrics = admin.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    let lines = metrics.lines().filter(|line| line.starts_with("apiserver_terminated_watchers_total{"));
    let of_pods = lines.filter(|line| line.contains("resource=\"pods\""));
    of_pods.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// T17a: the old token's end is that of what it is bound to.
#[tokio::test]
async fn a_token_that_is_revoked_is_replaced_by_that_in_its_file() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let [old, new] = [
        bound_token(&cluster.admin, &namespace.id("old")).await,
        bound_token(&cluster.admin, &namespace.id("new")).await,
    ];
    let (kubeconfig, file) = (data.path().join("kubeconfig"), data.path().join("token"));
    write_kubeconfig(&cluster.kubeconfig(), &kubeconfig, &file);
    fs::write(&file, old).unwrap();
    let settings = [("PODHERALD_KUBE__NAMESPACES", namespace.name.as_str()), ("PODHERALD_KUBE__WATCH_TIMEOUT", "1s")];
    let mut herald = Herald::start(&kubeconfig, &data, &settings).await;
    let [ends, deleted] = ["ends", "deleted"].map(|name| namespace.id(name));
    for id in [&ends, &deleted] {
        namespace.create(id, &Play::runs()).await;
        herald.until_running(id).await;
    }

    let secrets: Api<Secret> = Api::namespaced(cluster.admin.clone(), "podherald");
    secrets.delete(&namespace.id("old"), &DeleteParams::default()).await.unwrap();
    let deadline = Instant::now() + LIMIT;
    loop {
        let (_, readiness) = herald.try_get("/readyz?role=monitor", "application/json").await.unwrap();
        if String::from_utf8_lossy(&readiness).contains("(401): Unauthorized") {
            break;
        }
        assert!(Instant::now() < deadline, "the API server takes the old token");
        sleep(POLL).await;
    }
    namespace.end(&ends, 3).await;
    namespace.until(&ends, has_ended).await;
    namespace.force_delete(&deleted).await;
    fs::write(&file, new).unwrap();
    let written = Instant::now();
    assert_eq!(herald.ended(&ends).await["exit"]["code"], 3);
    herald.ended(&deleted).await;
    herald.until_ready().await;
    // kube alone reads the file again 50 s after it did.
    assert!(written.elapsed() < Duration::from_secs(25), "{:?}", written.elapsed());
    assert_in_order(&herald.pages("/events?limit=100").await, &[ends, deleted]);
}

/// A token of podherald's service account that is good for as long as a Secret of this name is there.
async fn bound_token(admin: &Client, name: &str) -> String {
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), "podherald");
    let secret =
        Secret { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..Secret::default() };
    let secret = secrets.create(&PostParams::default(), &secret).await.unwrap();
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        name: secret.metadata.name,
        uid: secret.metadata.uid,
    };
    let spec = TokenRequestSpec { bound_object_ref: Some(bound), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "podherald");
    let made = accounts.create_token_request("podherald", &PostParams::default(), &request).await.unwrap();
    made.status.unwrap().token
}

/// The kubeconfig `of`, but with the token in this file.
fn write_kubeconfig(of: &Path, to: &Path, token: &Path) {
    let mut config = Kubeconfig::read_from(of).unwrap();
    let user = config.auth_infos[0].auth_info.as_mut().unwrap();
    user.token = None;
    user.token_file = Some(token.display().to_string());
    // JSON is YAML.
    fs::write(to, serde_json::to_string(&config).unwrap()).unwrap();
}
