//! What a deletion means: at once, after a grace period, or once the last finalizer has gone.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    Key, Kind, Refusal,
    json::{self, seconds, text},
    refusal,
    state::State,
};

/// How a deletion was asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletion {
    /// `gracePeriodSeconds`.
    pub(crate) grace: Option<u64>,
    /// `preconditions.uid`.
    pub(crate) uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub(crate) version: Option<String>,
}

impl State {
    /// Deletes an object, or begins to. Gives its last state, or the one in which it waits.
    pub(super) fn delete(
        &mut self,
        kind: Kind,
        key: &Key,
        deletion: &Deletion,
        now: Timestamp,
    ) -> Result<Arc<Value>, Refusal> {
        let old = self.get(kind, key).cloned().ok_or_else(|| Refusal::not_found(kind, &key.1))?;
        if let Some(uid) = &deletion.uid {
            refusal::expect_uid(kind, &key.1, uid, &old)?;
        }
        if let Some(version) = &deletion.version
            && version != text(&old, "/metadata/resourceVersion")
        {
            let found = text(&old, "/metadata/resourceVersion");
            let why = format!(
                "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record \
                 ({found}). The object might have been modified"
            );
            return Err(Refusal::conflict(kind, &key.1, &why));
        }
        let grace = grace(kind, &old, deletion);
        if grace == 0 && !has_finalizers(&old) {
            return Ok(self.take(kind, key, &old));
        }
        let mut new = Value::clone(&old);
        let metadata = json::metadata(&mut new);
        let planned = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_u64);
        // A later request can only hurry.
        if metadata.contains_key("deletionTimestamp") && planned.is_none_or(|planned| planned <= grace) {
            return Ok(old);
        }
        let at = now + SignedDuration::from_secs(i64::try_from(grace).unwrap_or(i64::MAX / 2).min(1 << 31));
        metadata.insert("deletionTimestamp".to_owned(), json!(seconds(at)));
        metadata.insert("deletionGracePeriodSeconds".to_owned(), json!(grace));
        Ok(self.put(kind, key, Some(old), new))
    }
}

fn grace(kind: Kind, object: &Value, deletion: &Deletion) -> u64 {
    let has_ended = matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
    if kind != Kind::Pod || text(object, "/spec/nodeName").is_empty() || has_ended {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    deletion.grace.unwrap_or(own)
}

/// True if an object that is being deleted has nothing to wait for any more.
pub(super) fn may_go(object: &Value) -> bool {
    let metadata = &object["metadata"];
    metadata["deletionTimestamp"].is_string()
        && metadata["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0
        && !has_finalizers(object)
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}
