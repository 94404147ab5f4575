//! One pod's patch: read, compared, tried, and read again if somebody was faster.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::PartialObjectMeta,
};
use podherald_core::hold::{Marks, Wish, patch};
use serde_json::Value;
use tokio::time::timeout;

use super::Metrics;
use crate::{crash, leadership::Leads, wording};

/// What a failure means.
pub(super) const TROUBLE: &str =
    "a pod's finalizer cannot be changed, trying again; it needs the right to patch pods, which deploy/hold.yaml gives";
/// Reads and patches in a row until others are given time.
const TRIES: u32 = 5;
/// A request that takes longer is made again.
const PATIENCE: Duration = Duration::from_secs(15);

/// A pod without what no patch depends on.
pub(super) type Meta = PartialObjectMeta<Pod>;

/// Which pod.
#[derive(Debug, Clone)]
pub(in crate::monitor) struct Target {
    pub(in crate::monitor) namespace: String,
    pub(in crate::monitor) name: String,
    pub(in crate::monitor) uid: String,
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// The finalizer is on now.
    Held,
    /// It is off now.
    Released,
    /// It was so already, or cannot be.
    Nothing,
    /// The pod is there no more.
    Gone,
}

/// Does what is wished of the pod.
///
/// # Errors
/// Why it could not be done now.
pub(super) async fn fulfil(
    client: &Client,
    leads: &Leads,
    target: &Target,
    wish: Wish,
    metrics: &Metrics,
) -> Result<Done, String> {
    let pods = Api::<Meta>::namespaced(client.clone(), &target.namespace);
    for _ in 0..TRIES {
        let found = in_time(pods.get_opt(&target.name)).await.map_err(|error| wording::of(&error))?;
        let Some(pod) = found.filter(|pod| pod.metadata.uid.as_deref() == Some(&target.uid)) else {
            return Ok(Done::Gone);
        };
        let Some(operations) = operations(wish, &pod) else { return Ok(Done::Nothing) };
        if !leads.now() {
            return Err("another podherald leads".to_owned());
        }
        crash::at(crash::Point::Hold);
        let operations = serde_json::from_value(Value::Array(operations)).map_err(|error| error.to_string())?;
        let patched =
            in_time(pods.patch_metadata(&target.name, &PatchParams::default(), &Patch::Json::<()>(operations))).await;
        crash::at(crash::Point::Hold);
        match patched {
            Ok(_) if wish == Wish::Hold => return Ok(Done::Held),
            Ok(_) => return Ok(Done::Released),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Done::Gone),
            // What it names is not so any more.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => metrics.retries.inc(),
            Err(error) => return Err(wording::of(&error)),
        };
    }
    Err("others change the pod again and again".to_owned())
}

fn operations(wish: Wish, pod: &Meta) -> Option<Vec<Value>> {
    let meta = &pod.metadata;
    let marks = Marks {
        uid: meta.uid.as_deref().unwrap_or_default(),
        version: meta.resource_version.as_deref().unwrap_or_default(),
        finalizers: meta.finalizers.as_deref(),
        is_annotated: meta.annotations.is_some(),
        is_deleted: meta.deletion_timestamp.is_some(),
    };
    patch(wish, &marks)
}

async fn in_time<T>(answer: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    let late = |_| kube::Error::Service(format!("no answer within {} s", PATIENCE.as_secs()).into());
    timeout(PATIENCE, answer).await.map_err(late)?
}
