//! A pod as podherald sees it: the few facts of `v1.Pod` that decide an outcome.
//!
//! How these facts are read from the wire (leniently) is the server's business; here they are already plain values.
//! Every field but the identity may be missing, because a real status may be.

use jiff::Timestamp;
use litemap::LiteMap;
use serde::{Deserialize, Serialize};

/// Annotation that our K8s worker sets: the attempt's key.
pub const ATTEMPT_ANNOTATION: &str = "podherald.dev/attempt";
/// Annotation that whoever deletes a pod on a user's behalf sets first.
pub const INTENT_ANNOTATION: &str = "podherald.dev/intent";
/// The field's convention for naming the container that matters.
pub const DEFAULT_CONTAINER_ANNOTATION: &str = "kubectl.kubernetes.io/default-container";

/// Labels or annotations, by key. Pods have few of them and memory holds many pods: a sorted list is a fraction of a tree.
pub type Labels = LiteMap<String, String>;

/// Types of the conditions that decide something.
pub const CONDITIONS: [&str; 2] = ["PodScheduled", "DisruptionTarget"];

/// One observed state of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`; never empty.
    pub uid: String,
    /// `metadata.resourceVersion`, where it is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// `metadata.creationTimestamp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// `metadata.deletionTimestamp`: an intent, not an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Timestamp>,
    /// `metadata.deletionGracePeriodSeconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_grace_seconds: Option<i64>,
    /// `metadata.finalizers` has ours.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_held: bool,
    /// `metadata.labels`.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// `metadata.annotations`.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
    /// The Job that controls the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRef>,
    /// `spec.nodeName`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// `spec.restartPolicy`.
    pub restart_policy: RestartPolicy,
    /// `spec.activeDeadlineSeconds`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// `spec.containers`, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    /// `spec.initContainers`, in the order of the spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// `status.phase`.
    pub phase: Phase,
    /// `status.reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `status.message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `status.startTime`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// `status.conditions`; of none but [`CONDITIONS`] anything follows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// `status.containerStatuses`, in the order of the status (sorted by name, not as in the spec).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    /// `status.initContainerStatuses`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
}

impl Pod {
    /// The condition of this type, if the status has it.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// The status of the container with this name.
    pub fn status_of(&self, container: &str) -> Option<&ContainerStatus> {
        self.container_statuses.iter().find(|s| s.name == container)
    }
}

/// The index of an Indexed Job that a pod is to complete.
pub const INDEX_ANNOTATION: &str = "batch.kubernetes.io/job-completion-index";

/// The owner reference of a Job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobRef {
    /// Its `name`, in the pod's namespace.
    pub name: String,
    /// Its `uid`.
    pub uid: String,
}

/// A container as the spec names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `name`.
    pub name: String,
    /// The container's own `restartPolicy`; on an init container `Always` makes it a native sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// `restartPolicyRules`, which outrank every restart policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart_rules: Vec<RestartRule>,
    /// `resources.limits.memory`, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
}

/// One of a container's own restart rules (Kubernetes 1.34).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRule {
    /// Exit codes that the rule names.
    pub codes: Vec<i32>,
    /// True: the rule matches the codes named; false: all others.
    pub within: bool,
    /// What a match does; only `Restart` and `RestartAllContainers` restart.
    pub restarts: bool,
}

/// `restartPolicy` of a pod or of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// The API server's default for a pod that names none.
    #[default]
    Always,
    /// Restart unless the code is 0.
    OnFailure,
    /// Never restart.
    Never,
}

/// `status.phase`, a summary only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Phase {
    /// Not yet running.
    #[default]
    Pending,
    /// At least one container was started.
    Running,
    /// All containers ended with 0.
    Succeeded,
    /// All containers ended, one not with 0, or the pod was ended from outside.
    Failed,
    /// The node did not answer; not an end by itself.
    Unknown,
}

impl Phase {
    /// True for the phases that a pod never leaves.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// One of `status.conditions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// `type`.
    pub kind: String,
    /// `status == "True"`; `"False"` and `"Unknown"` are both false.
    pub is_true: bool,
    /// `reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `message`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `lastTransitionTime`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// One of the container statuses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// `name`.
    pub name: String,
    /// `ready`.
    pub ready: bool,
    /// `restartCount`.
    pub restart_count: u32,
    /// `containerID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// `state`.
    pub state: ContainerState,
    /// `lastState`.
    pub last_state: ContainerState,
}

/// `state` or `lastState` of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// None of the three is set.
    #[default]
    Unknown,
    /// `waiting`.
    Waiting {
        /// `reason`.
        reason: Option<String>,
        /// `message`.
        message: Option<String>,
    },
    /// `running`.
    Running {
        /// `startedAt`.
        started_at: Option<Timestamp>,
    },
    /// `terminated`.
    Terminated(Termination),
}

impl ContainerState {
    /// The end that this state tells of.
    pub fn terminated(&self) -> Option<&Termination> {
        match self {
            Self::Terminated(t) => Some(t),
            _ => None,
        }
    }

    /// When the container started, where the state says so.
    pub fn started_at(&self) -> Option<Timestamp> {
        match self {
            Self::Running { started_at } => *started_at,
            Self::Terminated(t) => t.started_at,
            _ => None,
        }
    }
}

/// How a container ended, as the kubelet tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// `exitCode`; none where the kubelet could not know it (T42).
    pub code: Option<i32>,
    /// `signal`, only where the runtime reported one; never inferred from the code (T43).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `message`: the termination message, at most 4 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `startedAt`; none for the zero times of T42.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// `finishedAt`; whole seconds (T50).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// `containerID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
}

/// The kubelet's word for an end that it did not see itself.
pub const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";

impl Termination {
    /// True if the kubelet lost the container and made the code up (T42).
    pub fn is_lost(&self) -> bool {
        self.reason.as_deref() == Some(STATUS_UNKNOWN)
    }
}
