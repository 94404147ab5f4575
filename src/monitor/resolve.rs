//! Is this pod or Job really gone? Only a GET past every cache can say (T7, T20), and of several API servers behind one address
//! one may be behind: a 404 does not say of when it is, so a list of that one name says it too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use kube::{
    Api, Client, Resource,
    api::{GetParams, ListParams},
    core::Request,
};
use podherald_core::{pod::JobRef, silence::Node};
use tokio::sync::Semaphore;

use crate::wording;

use super::{
    api::{Activity, attentive},
    metrics::Metrics,
    reconciler::list_all,
    wire::{self, Facts, version},
};

/// Label of every pod of a Job: the Job's uid.
const CONTROLLER_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// GETs at a time.
const CONCURRENCY: usize = 16;
/// A GET that takes longer is asked again.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the API server says of a pod or Job.
#[derive(Debug)]
pub(super) enum Answer {
    /// None of that name, or another one, in this version of the cluster; none: whatever the version.
    Absent(Option<u64>),
    /// The pod is there, and this of its node where that was asked for.
    Pod(Box<wire::Pod>, Option<Node>),
    /// The Job is there.
    Job(Box<wire::Job>),
    /// It did not say.
    Failed,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// Whether it matters of when an absence is.
    pub(super) is_doubtful: bool,
    /// The node to ask for as well, if the pod is there.
    pub(super) node: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    Job,
}

/// What the API server says of a Job that a pod names.
#[derive(Debug)]
pub(super) enum Owner {
    /// It is there, and the selector with this number admits it.
    Admitted(usize, Box<wire::Job>),
    /// It is there, and no selector admits it.
    Stranger,
    /// It is there no more, so nobody can say whether it was ours.
    Gone,
}

/// Asks for single objects.
#[derive(Clone)]
pub(super) struct Resolver {
    client: Client,
    places: Arc<Semaphore>,
    metrics: Metrics,
    /// The last answer about a node was that we may not ask.
    is_forbidden: Arc<AtomicBool>,
}

impl Resolver {
    pub(super) fn new(base: &Client, metrics: Metrics) -> Self {
        Self {
            client: attentive(base, Activity::begin()),
            places: Arc::new(Semaphore::new(CONCURRENCY)),
            metrics,
            is_forbidden: Arc::default(),
        }
    }

    pub(super) async fn ask(&self, object: &Object) -> Answer {
        let Ok(_place) = self.places.acquire().await else { return Answer::Failed };
        self.metrics.resolutions.inc();
        let asked = match object.kind {
            Kind::Pod => self.get(object, |pod: wire::Pod| Answer::Pod(Box::new(pod), None)).await,
            Kind::Job => self.get(object, |job: wire::Job| Answer::Job(Box::new(job))).await,
        };
        let asked = match (asked, &object.node) {
            (Ok(Answer::Pod(pod, _)), Some(node)) => self.node(node).await.map(|node| Answer::Pod(pod, Some(node))),
            (asked, _) => asked,
        };
        asked.unwrap_or_else(|failure| {
            self.metrics.resolution_failures.inc();
            let Object { namespace, name, uid, .. } = object;
            tracing::warn!(namespace, name, uid, failure, "cannot tell what became of it, will ask again");
            Answer::Failed
        })
    }

    async fn get<F: Facts>(
        &self,
        object: &Object,
        present: impl Fn(wire::Object<F>) -> Answer,
    ) -> Result<Answer, String> {
        let api = Api::<wire::Object<F>>::namespaced(self.client.clone(), &object.namespace);
        let Some(found) = in_time(api.get_opt(&object.name)).await? else {
            return if object.is_doubtful { self.list(&api, object, present).await } else { Ok(Answer::Absent(None)) };
        };
        match found.meta().uid.as_deref() {
            Some(uid) if uid == object.uid => Ok(present(found)),
            // The same name, another one (T16).
            Some(_) => Ok(Answer::Absent(version(found.meta().resource_version.as_deref()))),
            None => Err("the answer has no identity".to_owned()),
        }
    }

    /// What a node says of itself, or is said of it.
    async fn node(&self, name: &str) -> Result<Node, String> {
        self.metrics.resolutions.inc();
        let request =
            Request::new("/api/v1/nodes").get(name, &GetParams::default()).map_err(|error| wording::of(&error))?;
        let asked = in_time(async {
            match self.client.request::<wire::Node>(request).await {
                Ok(wire::Node(readiness)) => Ok(Node::There(readiness)),
                Err(kube::Error::Api(status)) if status.code == StatusCode::NOT_FOUND => Ok(Node::Gone),
                Err(kube::Error::Api(status)) if status.code == StatusCode::FORBIDDEN => Ok(Node::Forbidden),
                Err(error) => Err(error),
            }
        });
        let node = asked.await?;
        let is_forbidden = node == Node::Forbidden;
        if is_forbidden && !self.is_forbidden.swap(is_forbidden, Ordering::Relaxed) {
            tracing::warn!(
                node = name,
                "nodes may not be asked for, so that one is lost will stay unknown; deploy/nodes.yaml has the right to get them"
            );
        }
        self.is_forbidden.store(is_forbidden, Ordering::Relaxed);
        Ok(node)
    }

    async fn list<F: Facts>(
        &self,
        api: &Api<wire::Object<F>>,
        object: &Object,
        present: impl Fn(wire::Object<F>) -> Answer,
    ) -> Result<Answer, String> {
        self.metrics.resolutions.inc();
        let params = ListParams::default().fields(&format!("metadata.name={}", object.name));
        let list = in_time(api.list(&params)).await?;
        let found = list.items.into_iter().find(|found| has_uid(found, &object.uid));
        Ok(found.map_or(Answer::Absent(version(list.metadata.resource_version.as_deref())), present))
    }

    /// All pods of a Job that these selectors admit, each with the number of its selector.
    ///
    /// # Errors
    /// Why the API server did not say.
    pub(super) async fn pods_of_job(
        &self,
        selectors: &[(usize, String)],
        namespace: &str,
        uid: &str,
    ) -> Result<Vec<(usize, wire::Pod)>, String> {
        let Ok(_place) = self.places.acquire().await else { return Err("closing".to_owned()) };
        let api = Api::<wire::Pod>::namespaced(self.client.clone(), namespace);
        let mut pods = Vec::new();
        for (number, selector) in selectors {
            self.metrics.resolutions.inc();
            let selector = format!("{selector},{CONTROLLER_LABEL}={uid}");
            in_time(list_all(&api, &selector, |pod| pods.push((*number, pod)))).await?;
        }
        Ok(pods)
    }

    /// What became of the Job that a pod names, and whether any of these selectors admits it.
    ///
    /// # Errors
    /// Why the API server did not say.
    pub(super) async fn find_job(
        &self,
        selectors: &[(usize, String)],
        namespace: &str,
        job: &JobRef,
    ) -> Result<Owner, String> {
        let Ok(_place) = self.places.acquire().await else { return Err("closing".to_owned()) };
        let api = Api::<wire::Job>::namespaced(self.client.clone(), namespace);
        // What a list lacks is not absent (T7, T20): only a list no older than the Job itself can tell that nobody admits it.
        let present =
            async || in_time(api.get_opt(&job.name)).await.map(|found| found.filter(|it| has_uid(it, &job.uid)));
        let Some(found) = present().await? else { return Ok(Owner::Gone) };
        let least = version(found.meta().resource_version.as_deref());
        for (number, selector) in selectors {
            self.metrics.resolutions.inc();
            let params = ListParams::default().labels(selector).fields(&format!("metadata.name={}", job.name));
            let list = in_time(api.list(&params)).await?;
            let version = version(list.metadata.resource_version.as_deref());
            if let Some(found) = list.items.into_iter().find(|found| has_uid(found, &job.uid)) {
                return Ok(Owner::Admitted(*number, Box::new(found)));
            }
            if version < least {
                return Err("the API server's list is older than what it has already told".to_owned());
            }
        }
        // A list lacks one that went meanwhile, too.
        Ok(present().await?.map_or(Owner::Gone, |_| Owner::Stranger))
    }
}

fn has_uid<F: Facts>(object: &wire::Object<F>, uid: &str) -> bool {
    object.meta().uid.as_deref() == Some(uid)
}

async fn in_time<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|error| wording::of(&error)),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}
