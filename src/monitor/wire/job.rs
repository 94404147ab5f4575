//! A Job as it stands on the wire, read as leniently as a pod.

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, value::MapAccessDeserializer},
};

use super::{Entries, Facts, Field, Lenient, List, Meta, Object, RawCondition, Reader, Time};

/// A `batch/v1` Job.
pub type Job = Object<podherald_core::job::Job>;

impl Facts for podherald_core::job::Job {
    const KIND: &'static str = "Job";
    const GROUP: &'static str = "batch";
    const PLURAL: &'static str = "jobs";

    fn created(&self) -> Option<Timestamp> {
        self.created
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Job, D::Error> {
        let mut reader = Reader::default();
        let raw: RawJob = reader.take("object", Field::deserialize(deserializer)?).unwrap_or_default();
        Ok(reader.job(raw))
    }
}

objects! {
    struct RawJob { metadata: RawMeta, spec: RawSpec, status: RawStatus, }
    struct RawMeta {
        name: String, namespace: String, uid: String, resource_version: String, creation_timestamp: Time,
        deletion_timestamp: Time, labels: Entries, annotations: Entries,
    }
    struct RawSpec { active_deadline_seconds: i64, suspend: bool, completions: u32, }
    struct RawStatus { start_time: Time, succeeded: u32, failed: u32, conditions: List<RawCondition>, }
}

impl Reader {
    fn job(mut self, raw: RawJob) -> Job {
        let meta = self.take("metadata", raw.metadata).unwrap_or_default();
        let spec = self.take("spec", raw.spec).unwrap_or_default();
        let status = self.take("status", raw.status).unwrap_or_default();
        let name = self.text("metadata.name", meta.name);
        let namespace = self.text("metadata.namespace", meta.namespace);
        let uid = self.text("metadata.uid", meta.uid);
        let version = self.text("metadata.resourceVersion", meta.resource_version);
        let head = Meta::of([&name, &namespace, &uid], version);
        let annotations = self.annotations(meta.annotations);
        let is_identified = name.is_some() && namespace.is_some() && uid.is_some();
        let job = podherald_core::job::Job {
            namespace: namespace.unwrap_or_default(),
            name: name.unwrap_or_default(),
            uid: uid.unwrap_or_default(),
            version: super::version(head.get().resource_version.as_deref()),
            created: self.time("metadata.creationTimestamp", meta.creation_timestamp),
            deletion: self.time("metadata.deletionTimestamp", meta.deletion_timestamp),
            labels: self.map("metadata.labels", meta.labels),
            annotations,
            active_deadline_seconds: self.take("spec.activeDeadlineSeconds", spec.active_deadline_seconds),
            suspended: self.take("spec.suspend", spec.suspend).unwrap_or_default(),
            completions: self.take("spec.completions", spec.completions),
            start_time: self.time("status.startTime", status.start_time),
            succeeded: self.take("status.succeeded", status.succeeded).unwrap_or_default(),
            failed: self.take("status.failed", status.failed).unwrap_or_default(),
            conditions: self.list("status.conditions", status.conditions, Self::condition),
        };
        Job { meta: head, facts: is_identified.then_some(job), malformed: self.malformed }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_read_whatever_else_is_in_it_and_a_wrong_field_is_absent_and_named() {
        let object = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "j", "namespace": "ns", "uid": "u", "labels": {"execution-id": "e"}},
            "spec": {"suspend": true, "completions": 3, "activeDeadlineSeconds": "soon", "template": {"spec": {}}},
            "status": {
                "succeeded": 2, "failed": 1, "ready": 0, "uncountedTerminatedPods": {},
                "conditions": [
                    {"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded"},
                    {"type": "Failed", "status": "False"},
                ],
            },
        });
        let read: Job = serde_json::from_str(&object.to_string()).unwrap();
        assert_eq!(read.malformed, ["spec.activeDeadlineSeconds"]);
        let job = read.facts.unwrap();
        assert_eq!((job.suspended, job.completions, job.succeeded, job.failed), (true, Some(3), 2, 1));
        assert_eq!(job.conditions.iter().map(|c| c.is_true).collect::<Vec<_>>(), [true, false]);
    }
}
