//! Is this pod really gone? Only a GET past every cache can say (T7, T20).

use std::{sync::Arc, time::Duration};

use kube::{Api, Client};
use tokio::sync::Semaphore;

use crate::wording;

use super::{
    api::{Activity, attentive},
    metrics::Metrics,
    wire,
};

/// GETs at a time.
const CONCURRENCY: usize = 16;
/// A GET that takes longer is asked again.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the API server says of a pod.
#[derive(Debug)]
pub(super) enum Answer {
    /// No pod of that name, or another one.
    Gone,
    /// It is there.
    Present(Box<wire::Pod>),
    /// It did not say.
    Failed,
}

/// Asks for single pods.
#[derive(Clone)]
pub(super) struct Resolver {
    client: Client,
    places: Arc<Semaphore>,
    metrics: Metrics,
}

impl Resolver {
    pub(super) fn new(base: &Client, metrics: Metrics) -> Self {
        Self { client: attentive(base, Activity::begin()), places: Arc::new(Semaphore::new(CONCURRENCY)), metrics }
    }

    pub(super) async fn ask(&self, namespace: &str, name: &str, uid: &str) -> Answer {
        let Ok(_place) = self.places.acquire().await else { return Answer::Failed };
        let api = Api::<wire::Pod>::namespaced(self.client.clone(), namespace);
        self.metrics.resolutions.inc();
        let failure = match tokio::time::timeout(PATIENCE, api.get_opt(name)).await {
            Ok(Ok(None)) => return Answer::Gone,
            Ok(Ok(Some(found))) => match &found.pod {
                Some(pod) if pod.uid == uid => return Answer::Present(Box::new(found)),
                Some(_) => return Answer::Gone, // the same name, another pod (T16)
                None => "the answer has no identity".to_owned(),
            },
            Ok(Err(error)) => wording::of(&error),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        self.metrics.resolution_failures.inc();
        tracing::warn!(namespace, name, uid, failure, "cannot tell whether the pod is gone, will ask again");
        Answer::Failed
    }
}
