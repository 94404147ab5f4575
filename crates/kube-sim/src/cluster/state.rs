//! Everything that a cluster holds, behind its lock.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    iter, mem,
    ops::Bound,
    sync::Arc,
};

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Cause, Event, Kind, Limits, Options, Refusal,
    history::History,
    json::{self, metadata, seconds, text},
    names::Random,
    update,
};

/// Namespace, empty for what is in none, and name.
pub(crate) type Key = (String, String);

/// What a deletion left behind.
pub(crate) enum Kept {
    /// Nothing; this is the last state.
    Gone(Arc<Value>),
    /// It is there until its grace or its finalizers end.
    Waits(Arc<Value>),
}

/// How often a made-up name may be taken before it is given up.
const NAME_ATTEMPTS: usize = 8;

/// What only the API server sets.
const SYSTEM_FIELDS: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "managedFields",
];

pub(crate) struct State {
    version: u64,
    objects: BTreeMap<Kind, BTreeMap<Key, Arc<Value>>>,
    history: BTreeMap<Kind, History>,
    /// Who is owned by which uid.
    pub(super) dependents: BTreeMap<String, BTreeSet<(Kind, Key)>>,
    bytes: usize,
    pub(super) limits: Limits,
    random: Random,
    bell: watch::Sender<u64>,
    pub(super) forgotten_changes: u64,
    pub(super) dropped_events: u64,
}

impl State {
    pub(super) fn new(options: &Options, limits: Limits) -> Self {
        let first = options.seed.map_or_else(|| (options.clock)().as_microsecond().unsigned_abs(), |_| 1);
        let mut state = Self {
            version: first,
            objects: Kind::ALL.map(|kind| (kind, BTreeMap::new())).into(),
            history: Kind::ALL.map(|kind| (kind, History::default())).into(),
            dependents: BTreeMap::new(),
            bytes: 0,
            limits,
            random: Random::new(options.seed),
            bell: watch::Sender::new(first),
            forgotten_changes: 0,
            dropped_events: 0,
        };
        let default = json!({"metadata": {"name": "default"}});
        // Limits so small that not even this has room leave a cluster without it.
        if let Err(refusal) = state.create(Kind::Namespace, "", default, (options.clock)()) {
            tracing::warn!(%refusal, "there is no namespace `default`");
        }
        state
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Rings with each change.
    pub(crate) fn bell(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    pub(crate) fn get(&self, kind: Kind, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(&kind)?.get(key)
    }

    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.get(&kind).into_iter().flatten()
    }

    /// Changes after a version, the oldest first; none if some of them are forgotten.
    pub(crate) fn after(&self, kind: Kind, version: u64) -> Option<impl DoubleEndedIterator<Item = &Event>> {
        self.history.get(&kind)?.after(version)
    }

    /// All objects after a key as they were at a version, in the order of their keys; none if that is forgotten.
    pub(crate) fn at(
        &self,
        kind: Kind,
        version: u64,
        after: Option<&Key>,
    ) -> Option<impl Iterator<Item = (&Key, &Arc<Value>)>> {
        let mut changed = BTreeMap::new();
        for event in self.after(kind, version)?.rev().filter(|event| after.is_none_or(|after| event.key > *after)) {
            changed.insert(&event.key, event.before.as_ref());
        }
        let mut before: VecDeque<_> = changed.iter().filter_map(|(key, object)| Some((*key, (*object)?))).collect();
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut same = self.objects.get(&kind)?.range::<Key, _>(range);
        let mut next_same = move || same.by_ref().find(|(key, _)| !changed.contains_key(key));
        let mut waiting = next_same();
        Some(iter::from_fn(move || match (&waiting, before.front()) {
            (Some((key, _)), Some((earlier, _))) if earlier < key => before.pop_front(),
            (None, Some(_)) => before.pop_front(),
            _ => mem::replace(&mut waiting, next_same()),
        }))
    }

    pub(super) fn compact(&mut self) {
        let version = self.version;
        self.forgotten_changes += self.history.values_mut().map(|history| history.forget(version)).sum::<u64>();
    }

    pub(super) fn create(
        &mut self,
        kind: Kind,
        namespace: &str,
        mut object: Value,
        now: Timestamp,
    ) -> Result<Arc<Value>, Refusal> {
        let resource = kind.resource();
        self.admit_namespace(kind, namespace, &mut object)?;
        let fields = metadata(&mut object);
        if fields.remove("resourceVersion").is_some_and(|version| version != "") {
            return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
        }
        SYSTEM_FIELDS.iter().for_each(|field| drop(fields.remove(*field)));
        update::drop_empty(fields);
        let (name, base) = (text(&object, "/metadata/name"), text(&object, "/metadata/generateName"));
        let is_made_up = name.is_empty() && !base.is_empty();
        let name = if is_made_up { self.free_name(kind, namespace, base) } else { name.to_owned() };
        let fields = metadata(&mut object);
        if name.is_empty() {
            fields.remove("name");
        } else {
            fields.insert("name".to_owned(), name.clone().into());
        }
        fields.insert("creationTimestamp".to_owned(), seconds(now).into());
        if resource.counts_generations {
            fields.insert("generation".to_owned(), 1.into());
        }
        (resource.complete)(&mut object);
        (resource.begin)(&mut object);
        let mut causes = Vec::new();
        if name.is_empty() {
            causes.push(Cause::required("metadata.name", "name or generateName is required"));
        }
        causes.extend(resource.validate(&object));
        Refusal::if_invalid(resource.group, resource.kind, &name, &causes)?;
        let key = (namespace.to_owned(), name);
        if self.get(kind, &key).is_some() {
            return Err(Refusal::already_exists(kind, &key.1));
        }
        self.make_room(kind, &key.1)?;
        metadata(&mut object).insert("uid".to_owned(), self.random.uid().into());
        self.put(kind, key, object)
    }

    /// An object is made only where its namespace is, and stays.
    fn admit_namespace(&self, kind: Kind, namespace: &str, object: &mut Value) -> Result<(), Refusal> {
        let resource = kind.resource();
        let own = text(object, "/metadata/namespace");
        if !own.is_empty() && own != namespace {
            let message = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Refusal::bad_request(message));
        }
        if !resource.is_namespaced {
            return Ok(());
        }
        let Some(home) = self.get(Kind::Namespace, &(String::new(), namespace.to_owned())) else {
            return Err(Refusal::not_found(Kind::Namespace, namespace));
        };
        if home["metadata"].get("deletionTimestamp").is_some() {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let name = text(object, "/metadata/name");
            let cause = json!({
                "reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated"),
            });
            let details = json!({"name": name, "kind": resource.plural, "causes": [cause]});
            return Err(Refusal::forbidden(kind, name, &why).with(details));
        }
        metadata(object).insert("namespace".to_owned(), namespace.into());
        Ok(())
    }

    fn free_name(&mut self, kind: Kind, namespace: &str, base: &str) -> String {
        let mut name = self.random.name(base);
        for _ in 1..NAME_ATTEMPTS {
            if self.get(kind, &(namespace.to_owned(), name.clone())).is_none() {
                break;
            }
            name = self.random.name(base);
        }
        name
    }

    fn make_room(&mut self, kind: Kind, name: &str) -> Result<(), Refusal> {
        let (count, limit) = (self.objects.get(&kind).map_or(0, BTreeMap::len), self.limits.objects);
        if count < limit {
            return Ok(());
        }
        if kind == Kind::Event {
            let age = |object: &Value| object["metadata"]["resourceVersion"].as_str().map_or(0, version_of);
            let oldest = self.all(kind).min_by_key(|(_, object)| age(object)).map(|(key, _)| key.clone());
            if let Some(key) = oldest {
                if self.dropped_events == 0 {
                    tracing::warn!(limit, "events make room for later ones from now on");
                }
                self.dropped_events += 1;
                self.take(kind, &key);
                return Ok(());
            }
        }
        let plural = kind.resource().plural;
        let why = format!(
            "exceeded quota: objects, requested: {plural}=1, used: {plural}={count}, limited: {plural}={limit}"
        );
        tracing::warn!(%why, "an object was not made");
        Err(Refusal::forbidden(kind, name, &why))
    }

    /// Puts an object in its place under the next version.
    pub(super) fn put(&mut self, kind: Kind, key: Key, mut object: Value) -> Result<Arc<Value>, Refusal> {
        let before = self.get(kind, &key).cloned();
        let size = json::size(&object);
        let old_size = before.as_deref().map_or(0, json::size);
        if size > self.limits.object_bytes {
            let message = format!("Request entity too large: limit is {}", self.limits.object_bytes);
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message));
        }
        if self.bytes - old_size + size > self.limits.bytes {
            tracing::warn!(limit = self.limits.bytes, "the cluster is full");
            let message = "etcdserver: mvcc: database space exceeded";
            return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message));
        }
        self.version += 1;
        let resource = kind.resource();
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.into();
        metadata(&mut object).insert("resourceVersion".to_owned(), self.version.to_string().into());
        self.bytes = self.bytes - old_size + json::size(&object);
        self.own(kind, &key, before.as_deref(), Some(&object));
        let object = Arc::new(object);
        self.objects.entry(kind).or_default().insert(key.clone(), object.clone());
        self.record(kind, Event { version: self.version, key, before, now: object.clone(), is_gone: false });
        Ok(object)
    }

    /// Takes an object away; its last state bears the version in which it went.
    pub(super) fn take(&mut self, kind: Kind, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.get_mut(&kind)?.remove(key)?;
        self.bytes -= json::size(&before);
        self.version += 1;
        self.own(kind, key, Some(&before), None);
        let mut last = Value::clone(&before);
        metadata(&mut last).insert("resourceVersion".to_owned(), self.version.to_string().into());
        let now = Arc::new(last);
        let event =
            Event { version: self.version, key: key.clone(), before: Some(before), now: now.clone(), is_gone: true };
        self.record(kind, event);
        Some(now)
    }

    fn record(&mut self, kind: Kind, event: Event) {
        let (events, bytes) = (self.limits.history, self.limits.history_bytes);
        let forgotten = self.history.entry(kind).or_default().push(event, events, bytes);
        if forgotten > 0 && self.forgotten_changes == 0 {
            tracing::debug!(%events, %bytes, "watches from the beginning are too old from now on");
        }
        self.forgotten_changes += forgotten;
        self.bell.send_replace(self.version);
    }

    fn own(&mut self, kind: Kind, key: &Key, before: Option<&Value>, now: Option<&Value>) {
        for uid in before.into_iter().flat_map(owners) {
            if let Some(owned) = self.dependents.get_mut(uid) {
                owned.remove(&(kind, key.clone()));
                if owned.is_empty() {
                    self.dependents.remove(uid);
                }
            }
        }
        for uid in now.into_iter().flat_map(owners) {
            self.dependents.entry(uid.to_owned()).or_default().insert((kind, key.clone()));
        }
    }
}

/// The uids of those who own it.
pub(super) fn owners(object: &Value) -> impl Iterator<Item = &str> {
    let references = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    references.into_iter().flatten().filter_map(|reference| reference["uid"].as_str())
}

fn version_of(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}
