//! A pod as it stands on the wire, read leniently.
//!
//! A status is written by many hands. A field of the wrong type becomes "not there" and is named in
//! [`Object::malformed`]; it never costs the frame, let alone a page of a list. Only the identity is required. Fields that
//! nobody needs (managedFields, env, volumes) are skipped by the parser and never kept (T14).

mod object;

use std::{fmt, marker::PhantomData, str::FromStr};

use jiff::Timestamp;
use kube_sim::quantity;
use podherald_core::{
    hold::FINALIZER,
    pod::{
        CONDITIONS, Condition, Container, ContainerState, ContainerStatus, JobRef, Labels, Phase, RestartPolicy,
        RestartRule, Termination,
    },
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use self::object::Meta;
pub use self::{
    job::Job,
    node::Node,
    object::{Facts, Object},
};

/// A `v1.Pod`.
pub type Pod = Object<podherald_core::pod::Pod>;

/// Annotations longer than this are dropped: none that podherald reads is longer.
const MAX_ANNOTATION_BYTES: usize = 1024;

impl Facts for podherald_core::pod::Pod {
    const KIND: &'static str = "Pod";
    const GROUP: &'static str = "";
    const PLURAL: &'static str = "pods";

    fn created(&self) -> Option<Timestamp> {
        self.created
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pod, D::Error> {
        let mut reader = Reader::default();
        let raw: RawPod = reader.take("object", Field::deserialize(deserializer)?).unwrap_or_default();
        Ok(reader.pod(raw))
    }
}

/// `resourceVersion` for a comparison within one type (T8); none where it is no number.
pub(super) fn version(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

/// A value that may be missing, or be something else than it should be.
#[derive(Debug, Default)]
enum Field<T> {
    #[default]
    Absent,
    Value(T),
    Malformed,
}

impl<T> From<Option<T>> for Field<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Malformed, Self::Value)
    }
}

/// What a type can be read from; whatever it does not override makes the field malformed.
trait Lenient: Sized {
    fn text(_: &str) -> Option<Self> {
        None
    }
    fn number(_: i64) -> Option<Self> {
        None
    }
    fn flag(_: bool) -> Option<Self> {
        None
    }
    fn sequence<'de, A: SeqAccess<'de>>(mut items: A) -> Result<Option<Self>, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
    fn object<'de, A: MapAccess<'de>>(mut entries: A) -> Result<Option<Self>, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

struct FieldVisitor<T>(PhantomData<T>);

impl<'de, T: Lenient> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(T::text(text).into())
    }
    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(T::number(number).into())
    }
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).ok().and_then(T::number).into())
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Field::Malformed)
    }
    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(T::flag(flag).into())
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }
    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        T::sequence(items).map(Into::into)
    }
    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        T::object(entries).map(Into::into)
    }
}

impl<'de, T: Lenient> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

impl Lenient for String {
    fn text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Lenient for i64 {
    fn number(number: i64) -> Option<Self> {
        Some(number)
    }
}

impl Lenient for i32 {
    fn number(number: i64) -> Option<Self> {
        Self::try_from(number).ok()
    }
}

impl Lenient for u32 {
    fn number(number: i64) -> Option<Self> {
        Self::try_from(number).ok()
    }
}

impl Lenient for bool {
    fn flag(flag: bool) -> Option<Self> {
        Some(flag)
    }
}

/// A time, or nothing where the kubelet wrote the zero of its language or of the epoch (T42).
struct Time(Option<Timestamp>);

impl Lenient for Time {
    fn text(text: &str) -> Option<Self> {
        let at = Timestamp::from_str(text).ok()?;
        Some(Self((at > Timestamp::UNIX_EPOCH).then_some(at)))
    }
}

/// An amount of memory.
struct Bytes(u64);

impl Lenient for Bytes {
    fn text(text: &str) -> Option<Self> {
        quantity::bytes(&text.into()).map(Self)
    }
    fn number(number: i64) -> Option<Self> {
        quantity::bytes(&number.into()).map(Self)
    }
}

impl<T: Lenient> Lenient for Vec<Field<T>> {
    fn sequence<'de, A: SeqAccess<'de>>(mut items: A) -> Result<Option<Self>, A::Error> {
        let mut read = Self::new();
        while let Some(item) = items.next_element()? {
            read.push(item);
        }
        Ok(Some(read))
    }
}

impl<T: Lenient> Lenient for Vec<(String, Field<T>)> {
    fn object<'de, A: MapAccess<'de>>(mut entries: A) -> Result<Option<Self>, A::Error> {
        let mut read = Self::new();
        while let Some((key, value)) = entries.next_entry()? {
            read.push((key, value));
        }
        Ok(Some(read))
    }
}

/// Structs whose fields are all lenient, so that deserialising one never fails on its content.
macro_rules! objects {
    ($($(#[$meta:meta])* struct $name:ident { $($(#[$attr:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct $name { $($(#[$attr])* $field: Field<$type>,)* }

        impl Lenient for $name {
            fn object<'de, A: MapAccess<'de>>(entries: A) -> Result<Option<Self>, A::Error> {
                Self::deserialize(MapAccessDeserializer::new(entries)).map(Some)
            }
        }
    )*};
}

// Here, below the macro that they use.
mod job;
mod node;

type List<T> = Vec<Field<T>>;
type Entries = Vec<(String, Field<String>)>;

objects! {
    struct RawPod { metadata: RawMeta, spec: RawSpec, status: RawStatus, }
    struct RawMeta {
        name: String, namespace: String, uid: String, resource_version: String, creation_timestamp: Time,
        deletion_timestamp: Time, deletion_grace_period_seconds: i64, labels: Entries,
        annotations: Entries, owner_references: List<RawOwner>, finalizers: List<String>,
    }
    struct RawOwner { kind: String, name: String, uid: String, controller: bool, }
    struct RawSpec {
        node_name: String, restart_policy: String, active_deadline_seconds: i64, containers: List<RawContainer>,
        init_containers: List<RawContainer>,
    }
    struct RawContainer {
        name: String, restart_policy: String, restart_policy_rules: List<RawRule>, resources: RawResources,
    }
    struct RawResources { limits: RawAmounts, }
    struct RawAmounts { memory: Bytes, }
    struct RawRule { action: String, exit_codes: RawExitCodes, }
    struct RawExitCodes { operator: String, values: List<i32>, }
    struct RawStatus {
        phase: String, reason: String, message: String, start_time: Time, conditions: List<RawCondition>,
        container_statuses: List<RawContainerStatus>, init_container_statuses: List<RawContainerStatus>,
    }
    struct RawCondition { r#type: String, status: String, reason: String, message: String, last_transition_time: Time, }
    struct RawContainerStatus {
        name: String, ready: bool, restart_count: u32, state: RawState, last_state: RawState,
        #[serde(rename = "containerID")]
        container_id: String,
    }
    struct RawState { waiting: RawWaiting, running: RawRunning, terminated: RawTerminated, }
    struct RawWaiting { reason: String, message: String, }
    struct RawRunning { started_at: Time, }
    struct RawTerminated {
        exit_code: i32, signal: i32, reason: String, message: String, started_at: Time, finished_at: Time,
        #[serde(rename = "containerID")]
        container_id: String,
    }
}

/// Turns raw fields into plain ones and notes which could not be read.
#[derive(Default)]
struct Reader {
    malformed: Vec<&'static str>,
}

impl Reader {
    fn take<T>(&mut self, name: &'static str, field: Field<T>) -> Option<T> {
        match field {
            Field::Value(value) => Some(value),
            Field::Absent => None,
            Field::Malformed => {
                self.malformed.push(name);
                None
            }
        }
    }

    fn text(&mut self, name: &'static str, field: Field<String>) -> Option<String> {
        self.take(name, field).filter(|text| !text.is_empty())
    }

    fn time(&mut self, name: &'static str, field: Field<Time>) -> Option<Timestamp> {
        self.take(name, field).and_then(|time| time.0)
    }

    fn list<T, R>(
        &mut self,
        name: &'static str,
        field: Field<List<T>>,
        mut read: impl FnMut(&mut Self, T) -> Option<R>,
    ) -> Vec<R> {
        let items = self.take(name, field).unwrap_or_default();
        items.into_iter().filter_map(|item| self.take(name, item).and_then(|item| read(self, item))).collect()
    }

    fn map(&mut self, name: &'static str, field: Field<Entries>) -> Labels {
        let entries = self.take(name, field).unwrap_or_default();
        entries.into_iter().filter_map(|(key, value)| Some((key, self.take(name, value)?))).collect()
    }

    /// Those that are not too long to be of use.
    fn annotations(&mut self, field: Field<Entries>) -> Labels {
        let mut annotations = self.map("metadata.annotations", field);
        annotations.retain(|_, value| value.len() <= MAX_ANNOTATION_BYTES);
        annotations
    }

    /// A name from a fixed set; any other text is malformed.
    fn choice<T>(&mut self, name: &'static str, field: Field<String>, choose: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name, field)?;
        let chosen = choose(&text);
        if chosen.is_none() {
            self.malformed.push(name);
        }
        chosen
    }

    fn pod(mut self, raw: RawPod) -> Pod {
        let meta = self.take("metadata", raw.metadata).unwrap_or_default();
        let spec = self.take("spec", raw.spec).unwrap_or_default();
        let status = self.take("status", raw.status).unwrap_or_default();
        let name = self.text("metadata.name", meta.name);
        let namespace = self.text("metadata.namespace", meta.namespace);
        let uid = self.text("metadata.uid", meta.uid);
        let resource_version = self.text("metadata.resourceVersion", meta.resource_version);
        let version = version(resource_version.as_deref());
        let head = Meta::of([&name, &namespace, &uid], resource_version);
        let annotations = self.annotations(meta.annotations);
        let owners = self.list("metadata.ownerReferences", meta.owner_references, |reader, owner| {
            let is_controller = reader.take("metadata.ownerReferences.controller", owner.controller) == Some(true);
            let is_job = reader.text("metadata.ownerReferences.kind", owner.kind).as_deref() == Some("Job");
            let name = reader.text("metadata.ownerReferences.name", owner.name);
            let uid = reader.text("metadata.ownerReferences.uid", owner.uid);
            Some(JobRef { name: name?, uid: uid? }).filter(|_| is_controller && is_job)
        });
        let finalizers = self.list("metadata.finalizers", meta.finalizers, |_, finalizer| Some(finalizer));
        let created = self.time("metadata.creationTimestamp", meta.creation_timestamp);
        let deletion = self.time("metadata.deletionTimestamp", meta.deletion_timestamp);
        let deletion_grace_seconds =
            self.take("metadata.deletionGracePeriodSeconds", meta.deletion_grace_period_seconds);
        let labels = self.map("metadata.labels", meta.labels);
        let mut conditions = self.list("status.conditions", status.conditions, Self::condition);
        conditions.retain(|condition| CONDITIONS.contains(&condition.kind.as_str()));
        let pod = podherald_core::pod::Pod {
            namespace: namespace.clone().unwrap_or_default(),
            name: name.clone().unwrap_or_default(),
            uid: uid.clone().unwrap_or_default(),
            version,
            created,
            deletion,
            deletion_grace_seconds,
            is_held: finalizers.iter().any(|finalizer| finalizer == FINALIZER),
            labels,
            annotations,
            job: owners.into_iter().next(),
            node_name: self.text("spec.nodeName", spec.node_name),
            restart_policy: self.choice("spec.restartPolicy", spec.restart_policy, restart_policy).unwrap_or_default(),
            active_deadline_seconds: self.take("spec.activeDeadlineSeconds", spec.active_deadline_seconds),
            containers: self.list("spec.containers", spec.containers, Self::container),
            init_containers: self.list("spec.initContainers", spec.init_containers, Self::container),
            phase: self.choice("status.phase", status.phase, phase).unwrap_or_default(),
            reason: self.text("status.reason", status.reason),
            message: self.text("status.message", status.message),
            start_time: self.time("status.startTime", status.start_time),
            conditions,
            container_statuses: self.list("status.containerStatuses", status.container_statuses, Self::status),
            init_container_statuses: self.list(
                "status.initContainerStatuses",
                status.init_container_statuses,
                Self::status,
            ),
        };
        let is_identified = name.is_some() && namespace.is_some() && uid.is_some();
        Pod { meta: head, facts: is_identified.then_some(pod), malformed: self.malformed }
    }

    fn container(&mut self, raw: RawContainer) -> Option<Container> {
        let restart_rules = self.list("restartPolicyRules", raw.restart_policy_rules, |reader, rule| {
            let codes = reader.take("restartPolicyRules.exitCodes", rule.exit_codes).unwrap_or_default();
            let action = reader.text("restartPolicyRules.action", rule.action);
            Some(RestartRule {
                within: reader.text("restartPolicyRules.operator", codes.operator).as_deref() != Some("NotIn"),
                codes: reader.list("restartPolicyRules.values", codes.values, |_, code| Some(code)),
                restarts: action.is_some_and(|action| action.starts_with("Restart")),
            })
        });
        Some(Container {
            name: self.text("containers.name", raw.name)?,
            restart_policy: self.choice("containers.restartPolicy", raw.restart_policy, restart_policy),
            restart_rules,
            memory_limit: self.memory_limit(raw.resources),
        })
    }

    fn memory_limit(&mut self, raw: Field<RawResources>) -> Option<u64> {
        let resources = self.take("containers.resources", raw)?;
        let limits = self.take("containers.resources.limits", resources.limits)?;
        self.take("containers.resources.limits.memory", limits.memory).map(|Bytes(bytes)| bytes)
    }

    fn condition(&mut self, raw: RawCondition) -> Option<Condition> {
        Some(Condition {
            kind: self.text("conditions.type", raw.r#type)?,
            is_true: self.text("conditions.status", raw.status).as_deref() == Some("True"),
            reason: self.text("conditions.reason", raw.reason),
            message: self.text("conditions.message", raw.message),
            since: self.time("conditions.lastTransitionTime", raw.last_transition_time),
        })
    }

    fn status(&mut self, raw: RawContainerStatus) -> Option<ContainerStatus> {
        Some(ContainerStatus {
            name: self.text("containerStatuses.name", raw.name)?,
            ready: self.take("containerStatuses.ready", raw.ready).unwrap_or_default(),
            restart_count: self.take("containerStatuses.restartCount", raw.restart_count).unwrap_or_default(),
            container_id: self.text("containerStatuses.containerID", raw.container_id),
            state: self.state("containerStatuses.state", raw.state),
            last_state: self.state("containerStatuses.lastState", raw.last_state),
        })
    }

    fn state(&mut self, name: &'static str, raw: Field<RawState>) -> ContainerState {
        let raw = self.take(name, raw).unwrap_or_default();
        if let Some(end) = self.take("state.terminated", raw.terminated) {
            return ContainerState::Terminated(Termination {
                code: self.take("terminated.exitCode", end.exit_code),
                signal: self.take("terminated.signal", end.signal).filter(|signal| *signal > 0),
                reason: self.text("terminated.reason", end.reason),
                message: self.text("terminated.message", end.message),
                started_at: self.time("terminated.startedAt", end.started_at),
                finished_at: self.time("terminated.finishedAt", end.finished_at),
                container_id: self.text("terminated.containerID", end.container_id),
            });
        }
        if let Some(running) = self.take("state.running", raw.running) {
            return ContainerState::Running { started_at: self.time("running.startedAt", running.started_at) };
        }
        match self.take("state.waiting", raw.waiting) {
            Some(waiting) => ContainerState::Waiting {
                reason: self.text("waiting.reason", waiting.reason),
                message: self.text("waiting.message", waiting.message),
            },
            None => ContainerState::Unknown,
        }
    }
}

fn restart_policy(text: &str) -> Option<RestartPolicy> {
    Some(match text {
        "Always" => RestartPolicy::Always,
        "OnFailure" => RestartPolicy::OnFailure,
        "Never" => RestartPolicy::Never,
        _ => return None,
    })
}

fn phase(text: &str) -> Option<Phase> {
    Some(match text {
        "Pending" => Phase::Pending,
        "Running" => Phase::Running,
        "Succeeded" => Phase::Succeeded,
        "Failed" => Phase::Failed,
        "Unknown" => Phase::Unknown,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::{Value, json};

    use super::*;

    fn good() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-02-10T12:00:00Z",
                "labels": {"execution-id": "e"}, "managedFields": [{"manager": "m", "fieldsV1": {"f:x": {}}}],
                "ownerReferences": [{"kind": "Job", "uid": "j", "controller": true, "name": "n", "apiVersion": "batch/v1"}]
            },
            "spec": {
                "restartPolicy": "Never", "nodeName": "n", "activeDeadlineSeconds": 5,
                "containers": [{
                    "name": "executor", "env": [{"name": "SECRET", "value": "x"}],
                    "resources": {"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"memory": "32Mi"}}
                }],
                "initContainers": [{"name": "mesh", "restartPolicy": "Always"}]
            },
            "status": {
                "phase": "Failed", "reason": "Evicted",
                "containerStatuses": [{
                    "name": "executor", "restartCount": 1, "ready": false, "containerID": "containerd://c",
                    "state": {"terminated": {
                        "exitCode": 137, "reason": "OOMKilled", "startedAt": "1970-01-01T00:00:00Z",
                        "finishedAt": "2026-02-10T12:00:02Z"
                    }},
                    "lastState": {}
                }]
            }
        })
    }

    fn read(value: &Value) -> Pod {
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn what_decides_is_read_and_a_zero_time_is_no_time() {
        // T42: the runtime's zero times are not times.
        let read = read(&good());
        assert!(read.malformed.is_empty(), "{:?}", read.malformed);
        let pod = read.facts.unwrap();
        assert_eq!((pod.name.as_str(), pod.uid.as_str()), ("p", "u"));
        assert_eq!(pod.job, Some(JobRef { name: "n".into(), uid: "j".into() }));
        assert_eq!((pod.phase, pod.reason.as_deref()), (Phase::Failed, Some("Evicted")));
        assert_eq!(pod.containers[0].memory_limit, Some(64 << 20));
        assert_eq!(pod.init_containers[0].restart_policy, Some(RestartPolicy::Always));
        let end = pod.container_statuses[0].state.terminated().unwrap();
        assert_eq!((end.code, end.started_at, end.finished_at.is_some()), (Some(137), None, true));
    }

    #[test]
    fn a_field_of_the_wrong_type_is_absent_and_named_and_never_costs_the_frame() {
        let wrong = [json!(5), json!("text"), json!(true), json!([1]), json!({"a": {"b": 1}}), json!(1.5)];
        let paths = [
            "/metadata/labels",
            "/metadata/annotations",
            "/metadata/ownerReferences",
            "/metadata/creationTimestamp",
            "/spec",
            "/spec/containers",
            "/spec/containers/0/resources",
            "/spec/containers/0/resources/limits",
            "/spec/containers/0/resources/limits/memory",
            "/spec/nodeName",
            "/spec/restartPolicy",
            "/spec/activeDeadlineSeconds",
            "/status",
            "/status/phase",
            "/status/reason",
            "/status/containerStatuses",
            "/status/containerStatuses/0",
            "/status/containerStatuses/0/state",
            "/status/containerStatuses/0/state/terminated",
            "/status/containerStatuses/0/state/terminated/exitCode",
            "/status/containerStatuses/0/restartCount",
            "/status/containerStatuses/0/state/terminated/finishedAt",
        ];
        for path in paths {
            for value in &wrong {
                let mut object = good();
                if object.pointer(path).is_some_and(|old| std::mem::discriminant(old) == std::mem::discriminant(value))
                {
                    continue;
                }
                match object.pointer_mut(path) {
                    Some(slot) => *slot = value.clone(),
                    None => object["metadata"]["annotations"] = value.clone(),
                }
                let read = read(&object);
                assert!(read.facts.is_some(), "{path} = {value}");
                let is_amount = *value == json!(5) && path.ends_with("memory");
                let is_map =
                    matches!(value, Value::Object(_)) && matches!(path, "/metadata/annotations" | "/spec" | "/status");
                assert!(is_amount || is_map || !read.malformed.is_empty(), "{path} = {value} goes unnoticed");
            }
        }
    }

    #[test]
    fn a_page_with_objects_without_identity_is_still_a_page() {
        let list = json!({
            "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"},
            "items": [good(), 5, null, {"metadata": {"name": "x"}}, {"metadata": []}, good()]
        });
        let list: ObjectList<Pod> = serde_json::from_str(&list.to_string()).unwrap();
        assert_eq!(list.items.iter().filter(|item| item.facts.is_some()).count(), 2);
        assert_eq!(list.items.len(), 6);
    }

    #[test]
    fn a_watch_frame_is_read_as_kube_reads_it() {
        let frame = json!({"type": "MODIFIED", "object": good()}).to_string();
        let WatchEvent::Modified(pod) = serde_json::from_str::<WatchEvent<Pod>>(&frame).unwrap() else { panic!() };
        assert_eq!(kube::ResourceExt::resource_version(&pod).as_deref(), Some("7"));
    }

    #[test]
    fn huge_annotations_are_not_kept() {
        // T14
        let mut object = good();
        object["metadata"]["annotations"] = json!({"big": "x".repeat(5000), "podherald.dev/attempt": "k"});
        let pod = read(&object).facts.unwrap();
        assert_eq!(pod.annotations.keys().collect::<Vec<_>>(), ["podherald.dev/attempt"]);
    }
}
