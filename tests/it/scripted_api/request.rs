//! What a request asks for.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::selector::{Filter, Sort, parse_fields, parse_labels};

/// The kinds of requests that can be told apart, counted and made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    List,
    Watch,
    Get,
    Log,
    /// The same of Jobs, apart: what a test plans for pods does not befall them.
    ListJobs,
    WatchJobs,
    GetJob,
    GetNode,
}

impl Kind {
    /// The verb of RBAC.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::List | Self::ListJobs => "list",
            Self::Watch | Self::WatchJobs => "watch",
            Self::Get | Self::Log | Self::GetJob | Self::GetNode => "get",
        }
    }

    pub(super) fn sort(self) -> Sort {
        match self {
            Self::List | Self::Watch | Self::Get | Self::Log => Sort::Pod,
            Self::ListJobs | Self::WatchJobs | Self::GetJob => Sort::Job,
            Self::GetNode => Sort::Node,
        }
    }

    fn of_jobs(self) -> Self {
        match self {
            Self::List => Self::ListJobs,
            Self::Watch => Self::WatchJobs,
            Self::Get => Self::GetJob,
            other => other,
        }
    }
}

/// A request as it stands in the log of requests.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<String>,
    /// Of the pod, where one is asked for.
    pub(crate) name: Option<String>,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) at: Instant,
}

impl Asked {
    /// A parameter, where it is there and not empty.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        matches!(self.parameter(name), Some("true" | "1"))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("invalid {name}: `{text}`"));
        self.parameter(name).map(number).transpose()
    }

    pub(super) fn filter(&self) -> Result<Filter, String> {
        Ok(Filter {
            sort: self.kind.sort(),
            namespace: self.namespace.clone(),
            labels: parse_labels(self.parameter("labelSelector").unwrap_or_default())?,
            fields: parse_fields(self.parameter("fieldSelector").unwrap_or_default())?,
        })
    }
}

/// Reads a request; an error tells why nobody expects it here.
pub(super) fn parse(method: &http::Method, uri: &http::Uri) -> Result<Asked, String> {
    let unexpected = |why: &str| Err(format!("{method} {uri}: {why}"));
    if method != http::Method::GET {
        return unexpected("only GET is scripted");
    }
    let query = parse_query(uri.query().unwrap_or_default());
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let (path, sort) = match path[..] {
        ["api", "v1", "nodes", _] => (&path[2..], Sort::Node),
        ["api", "v1", ref path @ ..] if path.contains(&"pods") => (path, Sort::Pod),
        ["apis", "batch", "v1", ref path @ ..] if path.contains(&"jobs") => (path, Sort::Job),
        _ => return unexpected("no such path is scripted"),
    };
    let (namespace, name, is_log) = match path[..] {
        [_] => (None, None, false),
        ["nodes", name] => (None, Some(name), false),
        ["namespaces", namespace, _] => (Some(namespace), None, false),
        ["namespaces", namespace, _, name] => (Some(namespace), Some(name), false),
        ["namespaces", namespace, "pods", name, "log"] => (Some(namespace), Some(name), true),
        _ => return unexpected("no such path is scripted"),
    };
    let watches = matches!(query.get("watch").map(String::as_str), Some("true" | "1" | ""));
    let (kind, known): (_, &[&str]) = match (name, is_log) {
        (Some(_), true) => (Kind::Log, &["container", "previous", "follow", "limitBytes"]),
        (Some(_), false) => (Kind::Get, &["resourceVersion"]),
        (None, _) if watches => (
            Kind::Watch,
            &[
                "watch",
                "labelSelector",
                "fieldSelector",
                "resourceVersion",
                "resourceVersionMatch",
                "timeoutSeconds",
                "allowWatchBookmarks",
                "sendInitialEvents",
            ],
        ),
        (None, _) => (
            Kind::List,
            &[
                "labelSelector",
                "fieldSelector",
                "resourceVersion",
                "resourceVersionMatch",
                "limit",
                "continue",
                "watch",
            ],
        ),
    };
    if let Some(parameter) = query.keys().find(|key| !known.contains(&key.as_str())) {
        return unexpected(&format!("the parameter `{parameter}` is not scripted"));
    }
    let kind = match sort {
        Sort::Pod => kind,
        Sort::Job => kind.of_jobs(),
        Sort::Node => Kind::GetNode,
    };
    let owned = |text: Option<&str>| text.map(decode);
    Ok(Asked { kind, namespace: owned(namespace), name: owned(name), query, at: Instant::now() })
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let pair = |text: &str| {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        (decode(key), decode(value))
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'%'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
