//! Events of pods, as a kubelet writes them.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::status::time;
use crate::cluster::{Cluster, Kind};

/// Writes a warning about a pod. The cluster bounds its events; one that it does not take is its to tell of.
pub(super) fn warn(cluster: &Cluster, pod: &Value, reason: &str, message: &str, now: Timestamp) {
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
        tracing::debug!(%error, reason, "an event was not written");
    }
}
