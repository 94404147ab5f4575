//! Keeps example pods coming, so that there is something to see.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use rand::RngExt;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::wording;

/// In the order in which they come.
const EXAMPLES: [&str; 8] = [
    include_str!("../examples/hello.yaml"),
    include_str!("../examples/progress.yaml"),
    include_str!("../examples/fails.yaml"),
    include_str!("../examples/out-of-memory.yaml"),
    include_str!("../examples/report.yaml"),
    include_str!("../examples/times-out.yaml"),
    include_str!("../examples/binary.yaml"),
    include_str!("../examples/flood.yaml"),
];
/// From one pod to the next.
const PAUSE: Duration = Duration::from_secs(3);
/// Marks the demo's own pods.
const LABEL: &str = "podherald.dev/demo";
/// Ended pods that stay to be looked at; older ones are deleted.
const KEPT: usize = 16;

/// Makes pods until cancelled.
pub async fn run(client: kube::Client, stop: CancellationToken) {
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for example in EXAMPLES.into_iter().cycle() {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let step = async {
            pods.create(&PostParams::default(), &example_pod(example)).await?;
            tidy(&pods).await
        };
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = step => done,
        };
        if let Err(error) = done {
            tracing::warn!(error = wording::of(&error), "the demo could not make or delete a pod; trying again later");
        }
    }
}

/// The example under a name and an execution id that nobody has had, not even before a restart.
fn example_pod(manifest: &str) -> Pod {
    let mut pod: Pod = serde_saphyr::from_str(manifest).expect("a test reads all examples");
    let tail: String =
        (0..5).map(|_| char::from(rand::rng().sample(rand::distr::Alphanumeric)).to_ascii_lowercase()).collect();
    let execution_id = format!("{}-{tail}", pod.labels()["execution-id"]);
    pod.metadata.name = Some(format!("executor-{execution_id}"));
    pod.labels_mut().extend([("execution-id".to_owned(), execution_id), (LABEL.to_owned(), "true".to_owned())]);
    pod
}

async fn tidy(pods: &Api<Pod>) -> kube::Result<()> {
    let mut ended = pods.list(&ListParams::default().labels(LABEL)).await?.items;
    ended.retain(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed")) && pod.metadata.deletion_timestamp.is_none()
    });
    ended.sort_by_key(|pod| std::cmp::Reverse(pod.creation_timestamp()));
    for pod in ended.iter().skip(KEPT) {
        pods.delete(&pod.name_any(), &DeleteParams::default()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_pod_that_any_cluster_takes_and_podherald_watches() {
        for manifest in EXAMPLES {
            let pod = example_pod(manifest);
            assert!(pod.labels()["execution-id"].len() > 6, "{manifest}");
            assert_ne!(pod.name_any(), example_pod(manifest).name_any());
            let spec = pod.spec.as_ref().expect("a spec");
            assert_eq!(spec.restart_policy.as_deref(), Some("Never"), "{manifest}");
            assert!(spec.containers[0].command.is_some(), "the embedded cluster has no images: {manifest}");
        }
    }
}
