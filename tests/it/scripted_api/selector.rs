//! Label and field selectors, as the API server reads them.

use serde_json::Value;

/// The sorts of objects that there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Sort {
    #[default]
    Pod,
    Job,
    Node,
}

impl Sort {
    pub(super) fn of(object: &Value) -> Self {
        match object["kind"].as_str() {
            Some("Job") => Self::Job,
            Some("Node") => Self::Node,
            _ => Self::Pod,
        }
    }

    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::Pod | Self::Node => "v1",
            Self::Job => "batch/v1",
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Job => "Job",
            Self::Node => "Node",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Job => "jobs",
            Self::Node => "nodes",
        }
    }
}

/// What a request asked for: sort, namespace, labels and fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) sort: Sort,
    pub(super) namespace: Option<String>,
    pub(super) labels: Vec<Requirement>,
    pub(super) fields: Vec<FieldRequirement>,
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

/// One requirement of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldRequirement {
    pointer: &'static str,
    equal: bool,
    value: String,
}

impl Filter {
    pub(super) fn admits(&self, pod: &Value) -> bool {
        let text = |pointer| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        self.sort == Sort::of(pod)
            && self.namespace.as_deref().is_none_or(|namespace| text("/metadata/namespace") == namespace)
            && self.labels.iter().all(|requirement| requirement.holds(pod))
            && self.fields.iter().all(|field| (text(field.pointer) == field.value) == field.equal)
    }

    /// True if the request named no selector: only then the server counts what remains of a paged list.
    pub(super) fn is_open(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

impl Requirement {
    fn holds(&self, pod: &Value) -> bool {
        let label = |key: &str| pod.pointer("/metadata/labels").and_then(|labels| labels.get(key)?.as_str());
        match self {
            Self::Exists(key) => label(key).is_some(),
            Self::Absent(key) => label(key).is_none(),
            Self::In(key, values) => label(key).is_some_and(|label| values.iter().any(|value| value == label)),
            Self::NotIn(key, values) => label(key).is_none_or(|label| values.iter().all(|value| value != label)),
        }
    }
}

/// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
pub(super) fn parse_labels(selector: &str) -> Result<Vec<Requirement>, String> {
    let mut requirements = Vec::new();
    let mut rest = selector.trim();
    while !rest.is_empty() {
        // A comma within brackets belongs to the set.
        let comma = rest.find(',').unwrap_or(rest.len());
        let end = match rest.find('(').filter(|open| *open < comma) {
            Some(_) => rest.find(')').ok_or_else(|| format!("unable to parse requirement: `{rest}`"))? + 1,
            None => comma,
        };
        requirements.push(parse_requirement(rest[..end].trim())?);
        rest = rest[end..].trim_start().trim_start_matches(',').trim_start();
    }
    Ok(requirements)
}

fn parse_requirement(text: &str) -> Result<Requirement, String> {
    let one = |value: &str| vec![value.trim().trim_start_matches('=').trim().to_owned()];
    let requirement = if let Some(key) = text.strip_prefix('!') {
        Requirement::Absent(key.trim().to_owned())
    } else if let Some((key, set)) = text.split_once('(') {
        let values = set.trim_end_matches(')').split(',').map(|value| value.trim().to_owned()).collect();
        match key.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => Requirement::In(key.to_owned(), values),
            [key, "notin"] => Requirement::NotIn(key.to_owned(), values),
            _ => return Err(format!("unable to parse requirement: `{text}`")),
        }
    } else if let Some((key, value)) = text.split_once("!=") {
        Requirement::NotIn(key.trim().to_owned(), one(value))
    } else if let Some((key, value)) = text.split_once('=') {
        Requirement::In(key.trim().to_owned(), one(value))
    } else {
        Requirement::Exists(text.to_owned())
    };
    let key = match &requirement {
        Requirement::Exists(key) | Requirement::Absent(key) | Requirement::In(key, _) | Requirement::NotIn(key, _) => {
            key
        }
    };
    if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "!()=".contains(c)) {
        return Err(format!("unable to parse requirement: `{text}`"));
    }
    Ok(requirement)
}

/// Reads the few fields of a pod that the API server can select by and that anybody here uses.
pub(super) fn parse_fields(selector: &str) -> Result<Vec<FieldRequirement>, String> {
    let parse = |text: &str| {
        let (field, value, equal) = match (text.split_once("!="), text.split_once('=')) {
            (Some((field, value)), _) => (field, value, false),
            (None, Some((field, value))) => (field, value.trim_start_matches('='), true),
            (None, None) => return Err(format!("invalid selector: '{text}'; can't understand '{text}'")),
        };
        let pointer = match field.trim() {
            "metadata.name" => "/metadata/name",
            "metadata.namespace" => "/metadata/namespace",
            "spec.nodeName" => "/spec/nodeName",
            "status.phase" => "/status/phase",
            other => return Err(format!("field label not supported: {other}")),
        };
        Ok(FieldRequirement { pointer, equal, value: value.trim().to_owned() })
    };
    selector.split(',').filter(|text| !text.trim().is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_label_selector_selects_as_the_api_server_does() {
        let pod = json!({"metadata": {"labels": {"app": "a", "execution-id": "e1"}}});
        for (selector, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!no-such-label", true),
            ("app=a", true),
            ("app==b", false),
            ("app!=a", false),
            ("other!=a", true),
            ("app in (b, a)", true),
            ("app notin (b, a)", false),
            ("other notin (a)", true),
            ("app in (a,b),execution-id", true),
            ("execution-id,app in (b,c)", false),
            ("execution-id, !eval-id , app = a", true),
        ] {
            let labels = parse_labels(selector).unwrap();
            assert_eq!(Filter { labels, ..Filter::default() }.admits(&pod), expected, "{selector}");
        }
        for selector in ["a b", "app in (a", "in (a)", "=a", "!"] {
            assert!(parse_labels(selector).is_err(), "{selector}");
        }
    }

    #[test]
    fn a_field_selector_selects_by_the_fields_it_knows() {
        let pod = json!({"metadata": {"name": "p"}, "status": {"phase": "Running"}});
        for (selector, expected) in [
            ("metadata.name=p", true),
            ("status.phase!=Running", false),
            ("metadata.name==p,status.phase=Failed", false),
        ] {
            let fields = parse_fields(selector).unwrap();
            assert_eq!(Filter { fields, ..Filter::default() }.admits(&pod), expected, "{selector}");
        }
        assert_eq!(parse_fields("spec.color=red"), Err("field label not supported: spec.color".to_owned()));
    }
}
