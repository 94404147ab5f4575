//! What is asked for: the path, the query, and how the answer and the body are written.

use http::{Method, StatusCode, header, request::Parts};
use serde_json::{Value, json};

use super::{discovery, query_of};
use crate::cluster::{Kind, Part, Refusal};

/// A request, without its body.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) query: Query,
    /// The answer shall be a table for people.
    pub(super) as_table: bool,
    /// Of the body, without parameters.
    pub(super) content_type: String,
}

#[derive(Debug)]
pub(super) enum Target {
    Discovery(Value),
    /// All of a kind, in a namespace or, where it is empty, in all.
    Collection {
        kind: Kind,
        namespace: String,
    },
    Object {
        kind: Kind,
        namespace: String,
        name: String,
        subresource: String,
    },
}

/// The parameters; of one that comes twice the first counts.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decoded(k), decoded(v)))
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// As the API server reads them: what is not false is true.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse();
        number.map(Some).map_err(|_| {
            Refusal::bad_request(format!("invalid value {text:?} of parameter {name}: must be a whole number"))
        })
    }

    pub(super) fn is_watch(&self) -> bool {
        self.flag("watch")
    }
}

/// `%41+` as it is meant.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let hex = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match (first, tail) {
            (b'%', [_, _, after @ ..]) if hex(&tail[..2]).is_some() => {
                bytes.extend(hex(&tail[..2]));
                rest = after;
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Asked {
    pub(super) fn read(head: &Parts) -> Result<Self, Refusal> {
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let accept = header(header::ACCEPT);
        if !accept.is_empty()
            && !accept.contains("json")
            && !accept.contains("*/*")
            && !head.uri.path().ends_with("/log")
        {
            let message = "only the following media types are accepted: application/json";
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message));
        }
        let content_type =
            header(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Ok(Self {
            method: if head.method == Method::HEAD { Method::GET } else { head.method.clone() },
            target: Target::read(head.uri.path())?,
            query: query_of(head),
            as_table: accept.split(',').next().is_some_and(|first| first.contains("as=Table")),
            content_type,
        })
    }

    pub(super) fn creates(&self) -> bool {
        self.method == Method::POST
    }

    pub(super) fn not_allowed(&self) -> Refusal {
        let message = "the server does not allow this method on the requested resource";
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).with(json!({}))
    }

    /// Kind, namespace, name and part, of a request for an object.
    pub(super) fn object(&self) -> (Kind, &str, &str, Part) {
        match &self.target {
            Target::Object { kind, namespace, name, subresource } => {
                (*kind, namespace, name, if subresource == "status" { Part::Status } else { Part::Main })
            }
            Target::Discovery(_) | Target::Collection { .. } => unreachable!("only requests for objects come here"),
        }
    }

    /// A body in JSON. A web page can send others to any port without being asked.
    pub(super) fn body(&self, kind: &str, body: &[u8]) -> Result<Value, Refusal> {
        if self.content_type != "application/json" {
            return Err(self.unsupported("application/json"));
        }
        serde_json::from_slice(body).map_err(|error| {
            let message =
                format!("the object provided is unrecognized (must be of type {kind}): it is no JSON: {error}");
            Refusal::bad_request(message)
        })
    }

    pub(super) fn unsupported(&self, supported: &str) -> Refusal {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {supported}; the embedded \
             cluster does not take {:?}: it has no strategic merge patch, no apply, no YAML and no protobuf",
            self.content_type
        );
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// A dry run changes nothing, and nothing can be promised of it here.
    pub(super) fn refuse_dry_run(&self) -> Result<(), Refusal> {
        match self.query.get("dryRun") {
            Some(_) => Err(Self::no_dry_run()),
            None => Ok(()),
        }
    }

    pub(super) fn no_dry_run() -> Refusal {
        Refusal::bad_request("dryRun: the embedded cluster has no dry run")
    }
}

impl Target {
    fn read(path: &str) -> Result<Self, Refusal> {
        if let Some(document) = discovery::document(path) {
            return Ok(Self::Discovery(document));
        }
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match &parts[..] {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(no_such_page()),
        };
        let (namespace, rest) = match rest {
            // The namespace itself, and its status.
            ["namespaces", _] | ["namespaces", _, "status"] => ("", rest),
            ["namespaces", namespace, rest @ ..] => (*namespace, rest),
            rest => ("", rest),
        };
        let [plural, rest @ ..] = rest else { return Err(no_such_page()) };
        let is_named = |kind: &Kind| {
            let resource = kind.resource();
            (resource.group, resource.version, resource.plural) == (group, version, *plural)
        };
        let kind = Kind::ALL.into_iter().find(is_named).ok_or_else(no_such_page)?;
        let is_namespaced = kind.resource().is_namespaced;
        if !is_namespaced && !namespace.is_empty() {
            return Err(no_such_page());
        }
        let (name, subresource) = match rest {
            [] => return Ok(Self::Collection { kind, namespace: namespace.to_owned() }),
            [name] => (*name, ""),
            [name, subresource] if has(kind, subresource) => (*name, *subresource),
            _ => return Err(no_such_page()),
        };
        if is_namespaced && namespace.is_empty() {
            return Err(no_such_page());
        }
        let (namespace, name, subresource) = (namespace.to_owned(), name.to_owned(), subresource.to_owned());
        Ok(Self::Object { kind, namespace, name, subresource })
    }
}

fn has(kind: Kind, subresource: &str) -> bool {
    match subresource {
        "status" => kind.resource().has_status,
        "log" | "eviction" | "binding" => kind == Kind::Pod,
        _ => false,
    }
}

fn no_such_page() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource").with(json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc+in+%28d%29&watch=1&limit=&bad=%4");
        assert_eq!(query.get("labelSelector"), Some("a=b,c in (d)"));
        assert_eq!((query.is_watch(), query.get("limit"), query.get("bad")), (true, None, Some("%4")));
        assert!(Query::parse("limit=x").number("limit").is_err());
    }
}
