//! Many pods at once.

use futures::{StreamExt, stream};
use tempfile::tempdir;

use crate::{
    cluster::{Cluster, Play},
    herald::{Herald, assert_in_order},
};

/// `just soak` has more.
const PODS: usize = 1000;

#[expect(clippy::disallowed_methods, reason = "it is no setting of podherald")]
fn pods() -> usize {
    std::env::var("PODHERALD_PODS").map_or(PODS, |pods| pods.parse().expect("PODHERALD_PODS is a number"))
}

#[tokio::test]
async fn thousands_of_pods_at_once_end_once_each() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let data = tempdir().unwrap();
    let settings = [("PODHERALD_KUBE__NAMESPACES", namespace.name.as_str())];
    let herald = Herald::start(&cluster.kubeconfig(), &data, &settings).await;
    let ids: Vec<_> = (0..pods()).map(|n| format!("{}-{n}", namespace.name)).collect();
    let code = |n: usize| i32::from(n.is_multiple_of(10));
    let plays = [Play::exits(0), Play::exits(1)];
    let play = |n: usize| &plays[usize::from(code(n) == 1)];
    stream::iter(ids.iter().enumerate()).for_each_concurrent(16, |(n, id)| namespace.create(id, play(n))).await;

    for (n, id) in ids.iter().enumerate() {
        let execution = herald.ended(id).await;
        assert_eq!(execution["exit"]["code"], code(n), "{execution}");
        assert_eq!(execution["attempts"], 1, "{execution}");
        assert_eq!(execution["output"]["stdout"]["verdict"], "complete", "{execution}");
    }
    assert_eq!(herald.pages("/executions?limit=100").await.len(), ids.len());
    assert_in_order(&herald.pages("/events?limit=100").await, &ids);
}
