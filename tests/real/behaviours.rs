//! The behaviours that the scripted API server of tests/it has been given, seen on a real one. A test that is true on the
//! script alone proves nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use crate::cluster;

#[path = "../it/behaviours.rs"]
mod shared;

use shared::{Cluster, for_each_behaviour};

/// A namespace of the real cluster, in which nothing schedules the pods of this test.
struct Real<'a> {
    cluster: &'a cluster::Cluster,
    client: Client,
    namespace: String,
    pods: Api<Pod>,
}

impl Cluster for Real<'_> {
    fn client(&self) -> Client {
        self.client.clone()
    }

    fn namespace(&self) -> &str {
        &self.namespace
    }

    async fn create(&self, name: &str, labels: &[(&str, &str)]) {
        let pod = json!({
            "metadata": {"name": name, "labels": owned(labels)},
            "spec": {
                "schedulerName": "nobody",
                "containers": [{"name": "main", "image": "none"}, {"name": "side", "image": "none"}],
            },
        });
        self.pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }

    async fn relabel(&self, name: &str, labels: &[(&str, &str)]) {
        let mut pod = self.pods.get(name).await.unwrap();
        pod.metadata.labels = Some(owned(labels));
        self.pods.replace(name, &PostParams::default(), &pod).await.unwrap();
    }

    async fn delete(&self, name: &str) {
        self.pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
    }

    async fn forget_history(&self) {
        // The watch cache begins anew with the server.
        self.cluster.script(&["stop", "apiserver"]).await;
        self.cluster.script(&["start", "core"]).await;
    }
}

impl<'a> Real<'a> {
    async fn of(cluster: &'a cluster::Cluster) -> Self {
        let namespace = cluster.namespace().await;
        Real { cluster, client: cluster.as_podherald().await, namespace: namespace.name, pods: namespace.pods }
    }
}

fn owned(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

macro_rules! on_the_real_server {
    ($($behaviour:ident,)*) => {$(
        #[tokio::test]
        async fn $behaviour() {
            let cluster = cluster::Cluster::shared().await;
            shared::$behaviour(&Real::of(&cluster).await).await;
        }
    )*};
}
for_each_behaviour!(on_the_real_server);

#[tokio::test]
async fn a_watch_from_before_the_history_gets_an_error_frame() {
    let cluster = cluster::Cluster::own().await;
    shared::a_watch_from_before_the_history_gets_an_error_frame(&Real::of(&cluster).await).await;
}
