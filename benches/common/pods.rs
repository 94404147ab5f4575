//! Pods on an embedded cluster, made as kubectl would.

use std::path::Path;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

/// Requests at a time.
const CONCURRENCY: usize = 16;

/// The pods of one cluster.
pub(crate) struct Pods(Api<Pod>);

impl Pods {
    /// Of the cluster that a podherald with this data directory has made.
    pub(crate) async fn of(data: &Path) -> Self {
        let kubeconfig = Kubeconfig::read_from(data.join("kubeconfig")).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Self(Api::default_namespaced(Client::try_from(config).unwrap()))
    }

    /// One pod an execution, all running this command.
    pub(crate) async fn create(&self, executions: &[String], command: &[&str]) {
        self.each(executions, |id| async move {
            let pod = json!({
                "metadata": {"name": format!("executor-{id}"), "labels": {"execution-id": id}},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "executor", "image": "none", "command": command}],
                },
            });
            self.0.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.map(|_| ())
        })
        .await;
    }

    pub(crate) async fn delete(&self, executions: &[String]) {
        self.each(executions, |id| async move {
            self.0.delete(&format!("executor-{id}"), &DeleteParams::default()).await.map(|_| ())
        })
        .await;
    }

    async fn each<'a, F>(&self, executions: &'a [String], step: impl Fn(&'a str) -> F)
    where
        F: Future<Output = kube::Result<()>>,
    {
        stream::iter(executions.iter().map(|id| step(id)))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await
            .unwrap();
    }
}

/// Ids that nobody has had.
pub(crate) fn executions(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n:04}")).collect()
}
