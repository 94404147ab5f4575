//! The sorts of objects: one entry each says how it is called, completed, checked and shown.

mod config_map;
mod event;
mod lease;
mod namespace;
mod node;
mod pod;
mod shape;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Cause, Refusal,
    names::{LABEL_RULE, SUBDOMAIN_RULE, is_label, is_subdomain},
    text,
};
use shape::Shape;

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
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Namespace, Self::Node, Self::Pod, Self::ConfigMap, Self::Event, Self::Lease];

    pub(crate) fn resource(self) -> &'static Resource {
        match self {
            Self::Namespace => &namespace::RESOURCE,
            Self::Node => &node::RESOURCE,
            Self::Pod => &pod::RESOURCE,
            Self::ConfigMap => &config_map::RESOURCE,
            Self::Event => &event::RESOURCE,
            Self::Lease => &lease::RESOURCE,
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
    shape: &'static [(&'static str, Shape)],
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
    shape: &[],
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

    /// Refuses what is not even of the right types.
    pub(super) fn check_shape(&self, object: &Value) -> Result<(), Refusal> {
        let api_version = self.api_version();
        let said = |field: &str| object.get(field).and_then(Value::as_str).filter(|said| !said.is_empty());
        if said("kind").is_some_and(|kind| kind != self.kind) || said("apiVersion").is_some_and(|v| v != api_version) {
            let message = format!(
                "{} in version {:?} cannot be handled as a {}: it must be {} of {api_version}",
                said("kind").unwrap_or(self.kind),
                said("apiVersion").unwrap_or(&api_version),
                self.kind,
                self.kind
            );
            return Err(Refusal::bad_request(message));
        }
        shape::check(object, shape::METADATA.iter().chain(self.shape)).map_err(|problem| {
            let kind = self.kind;
            Refusal::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: {problem}",
                self.version
            ))
        })
    }

    pub(super) fn validate(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        let name = text(object, "/metadata/name");
        let is_namespace = self.kind == "Namespace";
        if !name.is_empty() && is_namespace && !is_label(name) {
            causes.push(Cause::invalid("metadata.name", name, LABEL_RULE));
        } else if !name.is_empty() && !is_subdomain(name) {
            causes.push(Cause::invalid("metadata.name", name, SUBDOMAIN_RULE));
        }
        causes.extend(shape::check_labels(object));
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
