//! The sorts of objects: one entry each says how it is called, completed, checked and shown.

mod config_map;
mod event;
mod job;
mod lease;
mod metadata;
mod namespace;
mod node;
mod pod;
mod typed;

use jiff::Timestamp;
use serde_json::Value;

use super::{Cause, Refusal, json::strip_nulls, text};

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
    /// `batch/v1` Job.
    Job,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Namespace, Self::Node, Self::Pod, Self::ConfigMap, Self::Event, Self::Lease, Self::Job];

    pub(crate) fn resource(self) -> &'static Resource {
        match self {
            Self::Namespace => &namespace::RESOURCE,
            Self::Node => &node::RESOURCE,
            Self::Pod => &pod::RESOURCE,
            Self::ConfigMap => &config_map::RESOURCE,
            Self::Event => &event::RESOURCE,
            Self::Lease => &lease::RESOURCE,
            Self::Job => &job::RESOURCE,
        }
    }
}

/// All that the rest has to know of a kind.
pub(crate) struct Resource {
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) short_names: &'static [&'static str],
    /// Empty for the oldest one.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) is_namespaced: bool,
    /// The status is written apart from the rest.
    pub(crate) has_status: bool,
    pub(crate) counts_generations: bool,
    /// A deletion answers with the object, not with a `Status`.
    pub(crate) returns_deleted: bool,
    /// Fields to select by, besides name and namespace, and where they stand.
    pub(crate) fields: &'static [(&'static str, &'static str)],
    pub(crate) columns: &'static [Column],
    /// An update of what is not there makes it.
    pub(crate) creates_on_update: bool,
    /// An update says of which version it is.
    pub(crate) needs_version: bool,
    /// All of a namespace, or of the cluster, can be deleted at once.
    pub(crate) deletes_collections: bool,
    /// What whoever makes one is told besides.
    pub(crate) caveat: Option<&'static str>,
    /// See [`typed::fit`].
    fit: fn(&mut Value) -> Result<Vec<String>, String>,
    /// Fills in what a client may leave out.
    pub(super) complete: fn(&mut Value),
    /// Sets what no client sets at birth.
    pub(super) begin: fn(&mut Value),
    check: fn(&Value) -> Vec<Cause>,
    /// What may not become of the first as the second.
    pub(super) validate_update: fn(&Value, &Value) -> Vec<Cause>,
    /// How many seconds a deletion waits for somebody else.
    pub(super) grace: fn(&Value, Option<i64>) -> i64,
}

/// A column of the table that kubectl prints.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// `string` or `integer`.
    pub(crate) sort: &'static str,
    /// 0, or 1 if it stands only in the wide table.
    pub(crate) priority: u8,
    pub(crate) cell: Cell,
}

/// What stands in a cell at a time of day.
pub(crate) type Cell = fn(&Value, Timestamp) -> Value;

/// A kind without peculiarities.
const PLAIN: Resource = Resource {
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    group: "",
    version: "v1",
    is_namespaced: true,
    has_status: false,
    counts_generations: false,
    returns_deleted: false,
    fields: &[],
    columns: &[NAME, AGE],
    creates_on_update: false,
    needs_version: false,
    deletes_collections: true,
    caveat: None,
    fit: |_| Ok(Vec::new()),
    complete: |_| {},
    begin: |_| {},
    check: |_| Vec::new(),
    validate_update: |_, _| Vec::new(),
    grace: |_, _| 0,
};

const NAME: Column =
    Column { name: "Name", sort: "string", priority: 0, cell: |object, _| text(object, "/metadata/name").into() };

const AGE: Column = Column {
    name: "Age",
    sort: "string",
    priority: 0,
    cell: |object, now| since(text(object, "/metadata/creationTimestamp"), now).into(),
};

impl Resource {
    /// `v1`, `coordination.k8s.io/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods`, `leases.coordination.k8s.io`.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Refuses what is not even of the right types; takes away what the type does not know, and tells the names of that.
    pub(crate) fn decode(&self, object: &mut Value) -> Result<Vec<String>, Refusal> {
        let kind = self.kind;
        strip_nulls(object);
        if object.is_null() {
            *object = Value::Object(serde_json::Map::new());
        }
        if !object.is_object() {
            let message = format!("the object provided is unrecognized (must be of type {kind}): it is no JSON object");
            return Err(Refusal::bad_request(message));
        }
        let api_version = self.api_version();
        let said = |field: &str| object.get(field).and_then(Value::as_str).filter(|said| !said.is_empty());
        if said("kind").is_some_and(|said| said != kind) || said("apiVersion").is_some_and(|said| said != api_version) {
            let message = format!(
                "{} in version {:?} cannot be handled as a {kind}: it must be {kind} of {api_version}",
                said("kind").unwrap_or(kind),
                said("apiVersion").unwrap_or(&api_version),
            );
            return Err(Refusal::bad_request(message));
        }
        object["kind"] = kind.into();
        object["apiVersion"] = api_version.into();
        (self.fit)(object).map_err(|problem| self.not_handled(&problem))
    }

    /// Why this is no such object.
    pub(crate) fn not_handled(&self, problem: &str) -> Refusal {
        let (kind, version) = (self.kind, self.api_version());
        Refusal::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {problem}"))
    }

    pub(super) fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = metadata::check(object, self.kind == "Namespace");
        causes.extend((self.check)(object));
        causes
    }
}

/// How long ago that was, as kubectl says it.
fn since(time: &str, now: Timestamp) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = now.as_second() - time.as_second();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with_rest = |whole: i64, unit: char, rest: i64, small: char| match rest {
        0 => format!("{whole}{unit}"),
        rest => format!("{whole}{unit}{rest}{small}"),
    };
    match seconds {
        ..0 => "<invalid>".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => with_rest(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with_rest(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with_rest(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        _ => with_rest(days / 365, 'y', days % 365, 'd'),
    }
}
