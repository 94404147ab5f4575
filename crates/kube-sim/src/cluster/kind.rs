//! The sorts of objects, in one table: a new one is a new row.

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

/// What the API says of a kind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    /// Empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) name: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) short_names: &'static [&'static str],
    pub(crate) is_namespaced: bool,
    pub(crate) has_status: bool,
}

const fn core(
    kind: Kind,
    name: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
) -> Resource {
    let is_namespaced = !matches!(kind, Kind::Namespace | Kind::Node);
    let has_status = matches!(kind, Kind::Pod | Kind::Node | Kind::Namespace);
    Resource { kind, group: "", version: "v1", name, plural, singular, short_names, is_namespaced, has_status }
}

const RESOURCES: [Resource; 6] = [
    core(Kind::Namespace, "Namespace", "namespaces", "namespace", &["ns"]),
    core(Kind::Node, "Node", "nodes", "node", &["no"]),
    core(Kind::Pod, "Pod", "pods", "pod", &["po"]),
    core(Kind::ConfigMap, "ConfigMap", "configmaps", "configmap", &["cm"]),
    core(Kind::Event, "Event", "events", "event", &["ev"]),
    Resource {
        kind: Kind::Lease,
        group: "coordination.k8s.io",
        version: "v1",
        name: "Lease",
        plural: "leases",
        singular: "lease",
        short_names: &[],
        is_namespaced: true,
        has_status: false,
    },
];

impl Kind {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = &'static Resource> {
        RESOURCES.iter()
    }

    pub(crate) fn resource(self) -> &'static Resource {
        RESOURCES.iter().find(|resource| resource.kind == self).expect("every kind has a row")
    }
}

impl Resource {
    /// As errors name it: `pods`, `leases.coordination.k8s.io`.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `v1`, `coordination.k8s.io/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
}
