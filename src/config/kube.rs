//! `[kube]`: which cluster, and which of its pods.

use std::time::Duration;

use podherald_core::identity::Place;

use super::{
    Error,
    names::{ContainerName, LabelSelector, Namespace},
    setting::settings,
    source::Effective,
    value::choice,
};

/// The index keeps which watches show a pod as bits of one number.
pub(crate) const MAX_WATCHES: usize = 64;
/// kube refuses watches of 295 s and more.
const LONGEST_WATCH: Duration = Duration::from_secs(290);

settings! {
    /// Which cluster is watched, and which of its pods run somebody's code.
    pub struct Kube in "kube." {
        /// `embedded`: a cluster inside podherald, see `[embedded]`. `cluster`: the one that KUBECONFIG or the pod's own
        /// service account names.
        /// `PODHERALD_KUBE__MODE`, default `"embedded"`.
        mode: Mode = "embedded",
        /// Label selectors of the pods to watch, each with a watch of its own; a pod that several admit counts once.
        /// In the variable they are separated by `;`.
        /// `PODHERALD_KUBE__LABEL_SELECTORS`, default `["execution-id", "eval-id"]`.
        label_selectors: Vec<LabelSelector> = ["execution-id", "eval-id"],
        /// Namespaces to watch; an empty list means all.
        /// `PODHERALD_KUBE__NAMESPACES`, default `[]`.
        namespaces: Vec<Namespace> = [],
        /// Whether Jobs are watched too, by the same selectors: then a Job is one attempt, whatever number of pods it makes.
        /// Without it each pod of a Job is an attempt of its own, and the role needs no `jobs`.
        /// `PODHERALD_KUBE__JOBS`, default `true`.
        jobs: bool = true,
        /// Whether pods are watched too that carry none of the labels but belong to a Job that does. It costs a watch of all
        /// pods of all Jobs.
        /// `PODHERALD_KUBE__JOB_PODS`, default `false`.
        job_pods: bool = false,
        /// Name of the container that decides, where the pod's annotation `kubectl.kubernetes.io/default-container` does
        /// not say; a pod without such a container is judged by its first.
        /// `PODHERALD_KUBE__CONTAINER`, default `"executor"`.
        container: ContainerName = "executor",
        /// How long the API server may keep one watch request open; a watch silent for longer is taken for dead.
        /// `PODHERALD_KUBE__WATCH_TIMEOUT`, default `"60s"`.
        watch_timeout: Duration = "60s",
        /// Where a pod's execution id is read, the first that is there: `label:KEY`, `annotation:KEY`, or
        /// `prefix:TEXT` for the rest of a pod name that begins so.
        /// `PODHERALD_KUBE__EXECUTION_ID`, default `["label:execution-id", "label:eval-id", "annotation:integr8s.io/execution-id", "prefix:executor-", "prefix:exec-"]`.
        execution_id: Vec<Place> = ["label:execution-id", "label:eval-id", "annotation:integr8s.io/execution-id", "prefix:executor-", "prefix:exec-"],
    }
}

choice! {
    /// Which cluster.
    pub enum Mode {
        /// The one that KUBECONFIG or the service account names.
        Cluster = "cluster",
        /// The one inside podherald.
        Embedded = "embedded",
    }
}

impl Kube {
    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        if self.label_selectors.is_empty() {
            return Err(effective.refuse("kube.label_selectors", "at least one label selector, such as `execution-id`"));
        }
        if self.job_pods && !self.jobs {
            return Err(effective.refuse("kube.job_pods", "`false`, or `kube.jobs = true` beside it"));
        }
        let selectors = self.label_selectors.len() * (1 + usize::from(self.jobs)) + usize::from(self.job_pods);
        let watches = selectors * self.namespaces.len().max(1);
        if watches > MAX_WATCHES {
            let right = format!(
                "fewer namespaces, or none for all: at most {MAX_WATCHES} watches are kept, and these settings need \
                 {watches}, {selectors} for each namespace"
            );
            return Err(effective.refuse("kube.namespaces", &right));
        }
        if self.execution_id.is_empty() {
            return Err(effective.refuse("kube.execution_id", "at least one source, such as `label:execution-id`"));
        }
        if self.watch_timeout < Duration::from_secs(1) || self.watch_timeout > LONGEST_WATCH {
            return Err(effective.refuse("kube.watch_timeout", "a duration from `1s` to `290s`"));
        }
        Ok(())
    }
}
