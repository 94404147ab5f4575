//! Events of pods, as a kubelet writes them.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{counters::Counters, status::time};
use crate::cluster::{Cluster, Kind};

/// Writes a warning about a pod. The cluster bounds its events, and takes none where the pod's namespace goes.
pub(super) fn warn(cluster: &Cluster, counters: &Counters, pod: &Value, reason: &str, message: &str, now: Timestamp) {
    let metadata = &pod["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let (node, unique) = (&pod["spec"]["nodeName"], Uuid::new_v4().simple().to_string());
    let event = json!({
        "metadata": {"name": format!("{}.{}", text("name"), &unique[..16])},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": text("namespace"), "name": text("name"), "uid": text("uid"),
        },
        "type": "Warning", "reason": reason, "message": message, "count": 1,
        "firstTimestamp": time(now), "lastTimestamp": time(now),
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet", "reportingInstance": node,
    });
    if let Err(error) = cluster.create(Kind::Event, text("namespace"), event) {
        counters.count_refused_event();
        tracing::warn!(%error, namespace = text("namespace"), pod = text("name"), reason, "an event was not written");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cluster::Options;

    #[test]
    fn an_event_that_is_not_taken_is_counted() {
        let cluster = Cluster::new(Options { clock: Arc::new(|| Timestamp::UNIX_EPOCH), seed: Some(1) });
        let counters = Counters::default();
        for namespace in ["default", "none"] {
            let pod = json!({"metadata": {"namespace": namespace, "name": "p", "uid": "u"}, "spec": {"nodeName": "n"}});
            warn(&cluster, &counters, &pod, "FailedMount", "it is not there", Timestamp::UNIX_EPOCH);
        }
        assert_eq!((cluster.list(Kind::Event, "").len(), counters.refused_events()), (1, 1));
    }
}
