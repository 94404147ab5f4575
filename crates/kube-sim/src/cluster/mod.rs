//! The objects, their versions and their history: what etcd and the API server's storage are.
//!
//! Whoever plays a part of the control plane or a node works on it directly, with plain JSON; everybody else through
//! [`crate::api`].

use std::sync::{Arc, Mutex};

use futures::stream::BoxStream;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use crate::logs::Logs;

/// The sorts of objects that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `v1` Pod.
    Pod,
    /// `v1` ConfigMap.
    ConfigMap,
    /// `v1` Event.
    Event,
    /// `coordination.k8s.io/v1` Lease.
    Lease,
}

/// Where a cluster's time and names come from: the machine, or a test.
#[derive(Clone)]
pub struct Options {
    /// The time of day.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Makes `metadata.uid`s; random unless it is given a seed.
    pub seed: Option<u64>,
}

/// A cluster. Clones are the same one.
#[derive(Clone)]
pub struct Cluster {
    _inner: Arc<Mutex<()>>,
}

/// Why something was not done, as a `Status` says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub code: StatusCode,
    /// `reason` of the `Status`: `NotFound`, `Conflict`, `AlreadyExists`, `Invalid`, `Expired`...
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What happened to an object.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is there, new or from before.
    Added(Arc<Value>),
    /// It is another now.
    Modified(Arc<Value>),
    /// It is gone; this is its last state.
    Deleted(Arc<Value>),
}

/// What a node or a controller in this process asks of a cluster.
impl Cluster {
    /// An empty cluster, but for the namespace `default`.
    pub fn new(_options: Options) -> Self {
        todo!()
    }

    /// The time of day in this cluster.
    pub fn now(&self) -> Timestamp {
        todo!()
    }

    /// From now on the log endpoint asks here.
    pub fn set_logs(&self, _logs: Arc<dyn Logs>) {
        todo!()
    }

    /// One object.
    pub fn get(&self, _kind: Kind, _namespace: &str, _name: &str) -> Option<Arc<Value>> {
        todo!()
    }

    /// Makes one, with all that the API server fills in.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, and 404 for a namespace that is not there.
    pub fn create(&self, _kind: Kind, _namespace: &str, _object: Value) -> Result<Arc<Value>, Refusal> {
        todo!()
    }

    /// Changes one under the cluster's lock, status and all; nothing happens to its version if it stays the same.
    ///
    /// # Errors
    /// `NotFound`; with `uid`, `Conflict` if it is another's by now.
    pub fn update(
        &self,
        _kind: Kind,
        _namespace: &str,
        _name: &str,
        _uid: Option<&str>,
        _change: impl FnOnce(&mut Value),
    ) -> Result<Arc<Value>, Refusal> {
        todo!()
    }

    /// Takes a pod away as a kubelet does when its containers have ended (grace 0): finalizers still hold it.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is another's by now.
    pub fn remove(&self, _kind: Kind, _namespace: &str, _name: &str, _uid: &str) -> Result<(), Refusal> {
        todo!()
    }

    /// All objects of a kind that are there, then everything that happens to them; never ends.
    pub fn follow(&self, _kind: Kind) -> BoxStream<'static, Change> {
        todo!()
    }
}
