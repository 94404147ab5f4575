//! Label and field selectors.

use serde_json::Value;

use crate::cluster::{Kind, Refusal, is_label_key, is_label_value, text};

/// What an object must be to be seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    namespace: String,
    /// Empty for any.
    name: String,
    labels: Vec<Requirement>,
    fields: Vec<(String, bool, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Filter {
    pub(super) fn read(
        kind: Kind,
        namespace: &str,
        name: &str,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: labels.map_or_else(|| Ok(Vec::new()), requirements)?,
            fields: fields.map_or_else(|| Ok(Vec::new()), |fields| field_terms(kind, fields))?,
        })
    }

    /// Whether it selects by more than where something is.
    pub(super) fn selects(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }

    pub(super) fn admits(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        (self.namespace.is_empty() || metadata["namespace"] == *self.namespace)
            && (self.name.is_empty() || metadata["name"] == *self.name)
            && self.labels.iter().all(|requirement| requirement.admits(&metadata["labels"]))
            && self.fields.iter().all(|(pointer, equal, value)| (text(object, pointer) == value) == *equal)
    }
}

impl Requirement {
    fn admits(&self, labels: &Value) -> bool {
        let value = |key: &String| labels.get(key).and_then(Value::as_str);
        match self {
            Self::In(key, values) => value(key).is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Self::NotIn(key, values) => value(key).is_none_or(|value| values.iter().all(|wanted| wanted != value)),
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
        }
    }
}

/// Splits at commas that are not in parentheses.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn requirements(text: &str) -> Result<Vec<Requirement>, Refusal> {
    terms(text).map(|term| requirement(term).ok_or_else(|| unreadable(text, term))).collect()
}

fn unreadable(text: &str, term: &str) -> Refusal {
    Refusal::bad_request(format!("unable to parse requirement: {term:?} of the selector {text:?} is none"))
}

fn requirement(term: &str) -> Option<Requirement> {
    let set = |rest: &str| {
        let values = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        values.iter().all(|value| is_label_value(value)).then_some(values)
    };
    let key = |key: &str| Some(key.trim().to_owned()).filter(|key| is_label_key(key));
    let one = |value: &str| Some(vec![value.trim().to_owned()]).filter(|values| is_label_value(&values[0]));
    if let Some((name, values)) = term.split_once("!=") {
        return Some(Requirement::NotIn(key(name)?, one(values)?));
    }
    if let Some((name, values)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Some(Requirement::In(key(name)?, one(values)?));
    }
    if let Some((name, values)) =
        term.split_once(" notin ").or_else(|| term.split_once(" notin(").map(|_| split_set(term, " notin")))
    {
        return Some(Requirement::NotIn(key(name)?, set(values)?));
    }
    if let Some((name, values)) =
        term.split_once(" in ").or_else(|| term.split_once(" in(").map(|_| split_set(term, " in")))
    {
        return Some(Requirement::In(key(name)?, set(values)?));
    }
    match term.strip_prefix('!') {
        Some(name) => Some(Requirement::Absent(key(name)?)),
        None => Some(Requirement::Exists(key(term)?)),
    }
}

/// `a in(b)`: the key, and the set with its parentheses.
fn split_set<'a>(term: &'a str, word: &str) -> (&'a str, &'a str) {
    let at = term.find(word).expect("the caller has found it");
    (&term[..at], &term[at + word.len()..])
}

fn field_terms(kind: Kind, text: &str) -> Result<Vec<(String, bool, String)>, Refusal> {
    terms(text)
        .map(|term| {
            let (name, equal, value) =
                match (term.split_once("!="), term.split_once("==").or_else(|| term.split_once('='))) {
                    (Some((name, value)), _) => (name, false, value),
                    (None, Some((name, value))) => (name, true, value),
                    (None, None) => {
                        return Err(Refusal::bad_request(format!(
                            "invalid selector: {text:?}; can't understand {term:?}"
                        )));
                    }
                };
            let name = name.trim();
            let own = [("metadata.name", "/metadata/name"), ("metadata.namespace", "/metadata/namespace")];
            let mut known = own.iter().chain(kind.resource().fields);
            let Some((_, pointer)) = known.find(|(known, _)| *known == name) else {
                return Err(Refusal::bad_request(format!("field label not supported: {name}")));
            };
            Ok(((*pointer).to_owned(), equal, value.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_admit_as_kubernetes_does() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": "", "x/y": "z"}}});
        for (selector, admitted) in [
            ("a", true),
            ("!a", false),
            ("c", false),
            ("!c", true),
            ("a=1", true),
            ("a==1,b=", true),
            ("a!=1", false),
            ("c!=1", true),
            ("a in (0, 1)", true),
            ("a notin (0,1)", false),
            ("c notin (0)", true),
            ("a in (2),a", false),
            ("x/y=z", true),
        ] {
            let filter = Filter::read(Kind::Pod, "", "", Some(selector), None).unwrap();
            assert_eq!(filter.admits(&object), admitted, "{selector}");
        }
        for wrong in ["a b", "a in 1", "=", "a=b c", "!"] {
            assert!(Filter::read(Kind::Pod, "", "", Some(wrong), None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn field_selectors_know_their_fields() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let admits = |selector| Filter::read(Kind::Pod, "", "", None, Some(selector)).map(|filter| filter.admits(&pod));
        assert!(admits("metadata.name=p,spec.nodeName==n,status.phase!=Failed").unwrap());
        assert!(!admits("spec.nodeName=").unwrap());
        assert_eq!(admits("spec.color=red").unwrap_err().message, "field label not supported: spec.color");
    }
}
