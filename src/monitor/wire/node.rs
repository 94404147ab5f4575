//! A node as it stands on the wire, of which only the condition `Ready` matters.

use podherald_core::silence::{Readiness, Ready};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, value::MapAccessDeserializer},
};

use super::{Field, Lenient, List, Reader, Time};

/// A `v1` Node.
#[derive(Debug)]
pub struct Node(pub Readiness);

objects! {
    struct RawNode { status: RawStatus, }
    struct RawStatus { conditions: List<RawCondition>, }
    struct RawCondition {
        r#type: String, status: String, reason: String, last_transition_time: Time, last_heartbeat_time: Time,
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut reader = Reader::default();
        let raw: RawNode = reader.take("object", Field::deserialize(deserializer)?).unwrap_or_default();
        let status = reader.take("status", raw.status).unwrap_or_default();
        let conditions = reader.list("status.conditions", status.conditions, Reader::readiness);
        // Without the condition no kubelet has ever said a word.
        Ok(Self(conditions.into_iter().next().unwrap_or_default()))
    }
}

impl Reader {
    fn readiness(&mut self, raw: RawCondition) -> Option<Readiness> {
        if self.text("conditions.type", raw.r#type).as_deref() != Some("Ready") {
            return None;
        }
        Some(Readiness {
            ready: match self.text("conditions.status", raw.status).as_deref() {
                Some("True") => Ready::True,
                Some("False") => Ready::False,
                _ => Ready::Unknown,
            },
            reason: self.text("conditions.reason", raw.reason),
            since: self.time("conditions.lastTransitionTime", raw.last_transition_time),
            heartbeat: self.time("conditions.lastHeartbeatTime", raw.last_heartbeat_time),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_node_only_ready_is_read_however_the_rest_looks() {
        let ready = r#"{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
            "lastHeartbeatTime": "2026-02-10T12:00:00Z", "lastTransitionTime": "2026-02-10T12:01:00Z", "message": 7}"#;
        let conditions = format!(r#"[{{"type": "DiskPressure", "status": "False"}}, 3, {ready}]"#);
        let text = format!(r#"{{"metadata": 1, "status": {{"images": [{{}}], "conditions": {conditions}}}}}"#);
        let Node(found) = serde_json::from_str(&text).unwrap();
        let time = |text: &str| Some(text.parse().unwrap());
        assert_eq!(
            found,
            Readiness {
                ready: Ready::Unknown,
                reason: Some("NodeStatusUnknown".to_owned()),
                since: time("2026-02-10T12:01:00Z"),
                heartbeat: time("2026-02-10T12:00:00Z"),
            }
        );
        for nothing in ["{}", "7", r#"{"status": {"conditions": {}}}"#] {
            let Node(found) = serde_json::from_str(nothing).unwrap();
            assert_eq!(found, Readiness::default(), "{nothing}");
        }
    }
}
