//! All objects, under one lock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Kind, Limits, Options, Refusal, delete,
    history::{Event, History},
    json::{self, seconds, text},
    names::{self, Random, SUBDOMAIN_RULE},
    pod,
    refusal::Cause,
    update::{self, Part},
};

/// Namespace, empty where there is none, and name.
pub(crate) type Key = (String, String);

pub(crate) struct State {
    version: u64,
    objects: HashMap<Kind, BTreeMap<Key, Arc<Value>>>,
    history: HashMap<Kind, History>,
    bytes: usize,
    random: Random,
    limits: Limits,
    bell: watch::Sender<u64>,
    pub(super) forgotten_changes: u64,
    pub(super) dropped_events: u64,
}

impl State {
    pub(super) fn new(options: &Options, limits: Limits) -> Self {
        let mut state = Self {
            version: 1,
            objects: HashMap::new(),
            history: HashMap::new(),
            bytes: 0,
            random: Random::new(options.seed),
            limits,
            bell: watch::Sender::new(1),
            forgotten_changes: 0,
            dropped_events: 0,
        };
        let default = json!({"metadata": {"name": "default"}});
        state.create(Kind::Namespace, "", default, (options.clock)()).expect("the first object of a cluster fits");
        state
    }

    /// The version of the last change.
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

    /// Changes after a version; none if some of them are forgotten.
    pub(crate) fn after(&self, kind: Kind, version: u64) -> Option<impl DoubleEndedIterator<Item = &Event>> {
        static NOTHING: History = History::EMPTY;
        self.history.get(&kind).unwrap_or(&NOTHING).after(version)
    }

    pub(super) fn compact(&mut self) {
        for history in self.history.values_mut() {
            self.forgotten_changes += history.forget(self.version);
        }
    }

    pub(super) fn create(
        &mut self,
        kind: Kind,
        namespace: &str,
        mut object: Value,
        now: Timestamp,
    ) -> Result<Arc<Value>, Refusal> {
        let resource = kind.resource();
        json::strip_nulls(&mut object);
        object["apiVersion"] = json!(resource.api_version());
        object["kind"] = json!(resource.name);
        let namespace = if resource.is_namespaced { namespace } else { "" };
        let generated = text(&object, "/metadata/generateName").to_owned();
        let metadata = json::metadata(&mut object);
        if !metadata.contains_key("name") && !generated.is_empty() {
            metadata.insert("name".to_owned(), json!(self.random.name(&generated)));
        }
        for field in ["managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"]
        {
            metadata.remove(field);
        }
        metadata.insert("uid".to_owned(), json!(self.random.uid()));
        metadata.insert("creationTimestamp".to_owned(), json!(seconds(now)));
        if resource.is_namespaced {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        match kind {
            Kind::Pod => pod::fill_in(&mut object),
            Kind::Namespace => object["status"] = json!({"phase": "Active"}),
            _ => {}
        }
        let name = text(&object, "/metadata/name").to_owned();
        self.check_new(kind, namespace, &name, &object)?;
        let key = (namespace.to_owned(), name);
        if self.get(kind, &key).is_some() {
            return Err(Refusal::already_exists(kind, &key.1));
        }
        self.make_room(kind, &key.1, &object)?;
        Ok(self.put(kind, &key, None, object))
    }

    fn check_new(&self, kind: Kind, namespace: &str, name: &str, object: &Value) -> Result<(), Refusal> {
        let resource = kind.resource();
        if resource.is_namespaced {
            match self.get(Kind::Namespace, &(String::new(), namespace.to_owned())) {
                None => return Err(Refusal::not_found(Kind::Namespace, namespace)),
                Some(found) if text(found, "/status/phase") == "Terminating" => {
                    let why =
                        format!("unable to create new content in namespace {namespace} because it is being terminated");
                    return Err(Refusal::forbidden(kind, name, &why));
                }
                Some(_) => {}
            }
        }
        let mut causes = Vec::new();
        if name.is_empty() {
            causes.push(Cause::required("metadata.name", "name or generateName is required"));
        } else if !names::is_subdomain(name) {
            causes.push(Cause::invalid("metadata.name", name, SUBDOMAIN_RULE));
        }
        label_problems(object, &mut causes);
        if kind == Kind::Pod {
            causes.extend(pod::problems(object));
        }
        Refusal::if_invalid(resource.group, resource.name, name, &causes)
    }

    fn make_room(&mut self, kind: Kind, name: &str, object: &Value) -> Result<(), Refusal> {
        let size = json::size(object);
        if size > self.limits.object_bytes {
            let message = format!("Request entity too large: limit is {}", self.limits.object_bytes);
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message));
        }
        let count = self.objects.get(&kind).map_or(0, BTreeMap::len);
        if count < self.limits.objects && self.bytes + size <= self.limits.bytes {
            return Ok(());
        }
        if kind == Kind::Event
            && let Some(oldest) = self.all(kind).min_by_key(|(_, event)| version_of(event)).map(|(key, _)| key.clone())
            && let Some(event) = self.get(kind, &oldest).cloned()
        {
            self.take(kind, &oldest, &event);
            self.dropped_events += 1;
            return Ok(());
        }
        let why = format!(
            "the embedded cluster is full: it holds {} objects of a kind and {} bytes",
            self.limits.objects, self.limits.bytes
        );
        Err(Refusal::forbidden(kind, name, &why))
    }

    /// Changes what a request for `part` may change.
    pub(super) fn change(
        &mut self,
        kind: Kind,
        key: &Key,
        part: Part,
        change: impl FnOnce(&Value) -> Result<Value, Refusal>,
    ) -> Result<Arc<Value>, Refusal> {
        let old = self.get(kind, key).cloned().ok_or_else(|| Refusal::not_found(kind, &key.1))?;
        let mut new = update::allowed(kind, part, &old, change(&old)?)?;
        json::strip_nulls(&mut new);
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if new == *old {
            return Ok(old);
        }
        let mut causes = Vec::new();
        label_problems(&new, &mut causes);
        Refusal::if_invalid(kind.resource().group, kind.resource().name, &key.1, &causes)?;
        if json::size(&new) > self.limits.object_bytes {
            let message = format!("Request entity too large: limit is {}", self.limits.object_bytes);
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message));
        }
        if delete::may_go(&new) {
            return Ok(self.take(kind, key, &Arc::new(new)));
        }
        Ok(self.put(kind, key, Some(old), new))
    }

    /// Puts an object in place under a new version.
    pub(super) fn put(&mut self, kind: Kind, key: &Key, before: Option<Arc<Value>>, mut now: Value) -> Arc<Value> {
        self.version += 1;
        now["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let now = Arc::new(now);
        self.bytes += json::size(&now);
        self.bytes -= before.as_deref().map_or(0, json::size);
        self.objects.entry(kind).or_default().insert(key.clone(), now.clone());
        self.remember(
            kind,
            Event { version: self.version, key: key.clone(), before, now: now.clone(), is_gone: false },
        );
        now
    }

    /// Takes an object away; gives its last state under the version in which it went.
    pub(super) fn take(&mut self, kind: Kind, key: &Key, last: &Arc<Value>) -> Arc<Value> {
        self.version += 1;
        let before = self.objects.entry(kind).or_default().remove(key);
        self.bytes -= before.as_deref().map_or(0, json::size);
        let mut gone = Value::clone(last);
        gone["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let gone = Arc::new(gone);
        self.remember(
            kind,
            Event { version: self.version, key: key.clone(), before, now: gone.clone(), is_gone: true },
        );
        if kind == Kind::Namespace {
            self.empty_namespace(&key.1);
        }
        gone
    }

    /// Nothing stays in a namespace that is gone.
    fn empty_namespace(&mut self, namespace: &str) {
        let content: Vec<(Kind, Key, Arc<Value>)> = Kind::all()
            .filter(|resource| resource.is_namespaced)
            .flat_map(|resource| {
                self.all(resource.kind).map(|(key, object)| (resource.kind, key.clone(), object.clone()))
            })
            .filter(|(_, key, _)| key.0 == namespace)
            .collect();
        for (kind, key, object) in content {
            self.take(kind, &key, &object);
        }
    }

    fn remember(&mut self, kind: Kind, event: Event) {
        let Limits { history, history_bytes, .. } = self.limits;
        self.forgotten_changes += self.history.entry(kind).or_default().push(event, history, history_bytes);
        self.bell.send_replace(self.version);
    }
}

pub(crate) fn version_of(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap_or_default()
}

fn label_problems(object: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        if !names::is_label_key(key) {
            causes.push(Cause::invalid("metadata.labels", key.as_str(), "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"));
        }
        match value.as_str() {
            Some(value) if names::is_label_value(value) => {}
            Some(value) => causes.push(Cause::invalid("metadata.labels", value, "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character")),
            None => causes.push(Cause::invalid("metadata.labels", value.clone(), "must be a string")),
        }
    }
}
