//! Deletion: with grace, held by finalizers, and what goes with it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    Kind, Refusal,
    json::{metadata, seconds, text},
    refusal::expect_uid,
    state::{Kept, Key, State, owners},
    update::{has_finalizers, next_generation},
};

/// How something is to be deleted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletion {
    /// Seconds that its node has; the object's own if none.
    pub(crate) grace: Option<i64>,
    /// Only if it is this one.
    pub(crate) uid: Option<String>,
    /// Only if it is as it was then.
    pub(crate) version: Option<String>,
    /// What it owns stays.
    pub(crate) orphans: bool,
}

impl State {
    pub(super) fn delete(&mut self, kind: Kind, key: &Key, asked: &Deletion, now: Timestamp) -> Result<Kept, Refusal> {
        let old = self.get(kind, key).cloned().ok_or_else(|| Refusal::not_found(kind, &key.1))?;
        if let Some(uid) = &asked.uid {
            expect_uid(kind, &key.1, uid, &old)?;
        }
        let version = text(&old, "/metadata/resourceVersion");
        if let Some(wanted) = asked.version.as_deref().filter(|wanted| *wanted != version) {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
                 ({version}). The object might have been modified"
            );
            return Err(Refusal::conflict(kind, &key.1, &why));
        }
        if kind == Kind::Namespace {
            return self.delete_namespace(key, &old, now);
        }
        if asked.orphans {
            self.orphan(&old)?;
        }
        let grace = (kind.resource().grace)(&old, asked.grace).max(0);
        let since = old["metadata"].get("deletionTimestamp").and_then(Value::as_str);
        let granted = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
        let grace = match since {
            // Once it is being deleted its time can only be shortened.
            Some(_) => asked.grace.map_or(granted, |_| grace.min(granted)),
            None => grace,
        };
        if grace == 0 && !has_finalizers(&old) {
            self.vanish(kind, key, now);
            return Ok(Kept::Gone(old));
        }
        if since.is_some() && grace == granted {
            return Ok(Kept::Waits(old));
        }
        let asked_at = since.and_then(|end| end.parse::<Timestamp>().ok()).map_or(now, |end| after(end, -granted));
        let mut new = Value::clone(&old);
        if kind.resource().counts_generations && since.is_none() {
            next_generation(&mut new);
        }
        let fields = metadata(&mut new);
        fields.insert("deletionTimestamp".to_owned(), seconds(after(asked_at, grace)).into());
        fields.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
        self.put(kind, key.clone(), new).map(Kept::Waits)
    }

    /// Takes it away, and those that were only there for it.
    pub(super) fn vanish(&mut self, kind: Kind, key: &Key, now: Timestamp) {
        let Some(last) = self.take(kind, key) else { return };
        let uid = text(&last, "/metadata/uid");
        let orphaned = self.dependents.get(uid).cloned().unwrap_or_default();
        for (kind, key) in orphaned {
            let Some(object) = self.get(kind, &key).cloned() else { continue };
            let has_others = owners(&object).any(|owner| self.is_there(owner));
            if !has_others && let Err(refusal) = self.delete(kind, &key, &Deletion::default(), now) {
                tracing::warn!(%refusal, "an object outlives its owner");
            }
        }
        self.end_namespace(&key.0);
    }

    /// What a namespace holds goes first, each pod with its grace; then the namespace.
    fn delete_namespace(&mut self, key: &Key, old: &Arc<Value>, now: Timestamp) -> Result<Kept, Refusal> {
        if key.1 == "default" {
            return Err(Refusal::forbidden(Kind::Namespace, &key.1, "this namespace may not be deleted"));
        }
        if old["metadata"].get("deletionTimestamp").is_some() {
            return Ok(Kept::Waits(old.clone()));
        }
        let mut new = Value::clone(old);
        metadata(&mut new).insert("deletionTimestamp".to_owned(), seconds(now).into());
        new["status"]["phase"] = "Terminating".into();
        let new = self.put(Kind::Namespace, key.clone(), new)?;
        for kind in Kind::ALL {
            let inside: Vec<Key> =
                self.all(kind).filter(|(inner, _)| inner.0 == key.1).map(|(key, _)| key.clone()).collect();
            for key in inside {
                if let Err(refusal) = self.delete(kind, &key, &Deletion::default(), now) {
                    tracing::warn!(%refusal, "an object stays in a namespace that goes");
                }
            }
        }
        self.end_namespace(&key.1);
        Ok(Kept::Waits(new))
    }

    fn end_namespace(&mut self, name: &str) {
        let key = (String::new(), name.to_owned());
        let goes =
            self.get(Kind::Namespace, &key).is_some_and(|object| object["metadata"].get("deletionTimestamp").is_some());
        let is_empty = || Kind::ALL.iter().all(|kind| !self.all(*kind).any(|(inner, _)| inner.0 == name));
        if goes && !name.is_empty() && is_empty() {
            self.take(Kind::Namespace, &key);
        }
    }

    /// The owner goes and these stay.
    fn orphan(&mut self, owner: &Value) -> Result<(), Refusal> {
        let uid = text(owner, "/metadata/uid");
        for (kind, key) in self.dependents.get(uid).cloned().unwrap_or_default() {
            let Some(object) = self.get(kind, &key) else { continue };
            let mut object = Value::clone(object);
            if let Some(references) = object["metadata"]["ownerReferences"].as_array_mut() {
                references.retain(|reference| reference["uid"] != uid);
            }
            self.put(kind, key, object)?;
        }
        Ok(())
    }

    fn is_there(&self, uid: &str) -> bool {
        Kind::ALL.iter().any(|kind| self.all(*kind).any(|(_, object)| text(object, "/metadata/uid") == uid))
    }
}

fn after(time: Timestamp, seconds: i64) -> Timestamp {
    // A grace beyond the end of time is as good as none that ends.
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}
