//! Lists: of which version, in which pages.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Body, json as answer, request::Asked, selector::Filter, table};
use crate::cluster::{Cause, Cluster, Key, Kind, Refusal};

/// How long a version is waited for that is not there yet, as the API server has it (T18).
const PATIENCE: Duration = Duration::from_secs(3);
/// In a token: what there is by then, though it is of another version than the pages before.
const WHATEVER_IS_NEWEST: i64 = -1;
/// Values of `resourceVersionMatch`.
const EXACT: &str = "Exact";
const NOT_OLDER: &str = "NotOlderThan";

/// Where a list goes on: the version of its first page, and the last object so far.
#[derive(Serialize, Deserialize)]
struct Token {
    rv: i64,
    after: Key,
}

/// Of which version a list is.
#[derive(Clone, Copy)]
enum Wanted {
    Newest,
    /// The newest, which must not be older than this.
    AtLeast(u64),
    Exactly(u64),
}

pub(super) async fn list(
    cluster: &Cluster,
    kind: Kind,
    namespace: &str,
    asked: &Asked,
) -> Result<Response<Body>, Refusal> {
    check(asked)?;
    let filter = filter(kind, namespace, "", asked)?;
    let limit = asked.query.number("limit")?.filter(|limit| *limit > 0);
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let token = asked.query.get("continue").map(Token::read).transpose()?;
    let wanted = match &token {
        Some(token) => token.wanted(),
        None => wanted(asked)?,
    };
    if let Wanted::AtLeast(version) | Wanted::Exactly(version) = wanted {
        reach(cluster, version).await?;
    }
    let state = cluster.lock();
    let version = match wanted {
        Wanted::Newest | Wanted::AtLeast(_) => state.version(),
        Wanted::Exactly(version) => version,
    };
    let after = token.as_ref().map(|token| &token.after);
    let Some(objects) = state.at(kind, version, after) else { return Err(expired(token)) };
    let mut metadata = json!({"resourceVersion": version.to_string()});
    let items = page(objects.filter(|(_, object)| filter.admits(object)), limit, |last, rest| {
        metadata["continue"] = json!(Token::at(version, last.clone()).to_text());
        // The API server, which filters page by page, knows it only where nothing is filtered.
        if !filter.selects() {
            metadata["remainingItemCount"] = json!(rest.count());
        }
    });
    drop(state);
    if asked.as_table {
        return Ok(answer(StatusCode::OK, &table::of(cluster, kind, &items, &metadata)));
    }
    Ok(answer(StatusCode::OK, &list_of(kind, &items, &metadata)))
}

/// The first of the objects; if there are more, `cut` is told where the page ends and what comes after it.
fn page<'a, I>(objects: I, limit: usize, cut: impl FnOnce(&Key, &mut dyn Iterator<Item = I::Item>)) -> Vec<Arc<Value>>
where
    I: Iterator<Item = (&'a Key, &'a Arc<Value>)>,
{
    let mut objects = objects.peekable();
    let page: Vec<I::Item> = objects.by_ref().take(limit).collect();
    if let Some((last, _)) = page.last().filter(|_| objects.peek().is_some()) {
        cut(last, &mut objects);
    }
    page.into_iter().map(|(_, object)| object.clone()).collect()
}

/// A list as it is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List<'a> {
    kind: String,
    api_version: String,
    metadata: &'a Value,
    items: Vec<Item<'a>>,
}

/// Items of a list do not repeat its kind.
struct Item<'a>(&'a Value);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.as_object().into_iter().flatten();
        serializer.collect_map(fields.filter(|(name, _)| !["kind", "apiVersion"].contains(&name.as_str())))
    }
}

pub(super) fn list_of<'a>(kind: Kind, items: &'a [Arc<Value>], metadata: &'a Value) -> List<'a> {
    let resource = kind.resource();
    List {
        kind: format!("{}List", resource.kind),
        api_version: resource.api_version(),
        metadata,
        items: items.iter().map(|item| Item(item)).collect(),
    }
}

pub(super) fn filter(kind: Kind, namespace: &str, name: &str, asked: &Asked) -> Result<Filter, Refusal> {
    Filter::read(kind, namespace, name, asked.query.get("labelSelector"), asked.query.get("fieldSelector"))
}

fn wanted(asked: &Asked) -> Result<Wanted, Refusal> {
    let Some(version) = asked.query.get("resourceVersion") else { return Ok(Wanted::Newest) };
    let number = version_number(version)?;
    let is_exact = asked.query.get("resourceVersionMatch") == Some(EXACT);
    Ok(if is_exact { Wanted::Exactly(number) } else { Wanted::AtLeast(number) })
}

/// What is wrong with how a list is asked for.
fn check(asked: &Asked) -> Result<(), Refusal> {
    let matching = asked.query.get("resourceVersionMatch");
    let version = asked.query.get("resourceVersion");
    let goes_on = asked.query.get("continue").is_some();
    let rules = [
        (version.is_none(), "resourceVersionMatch is forbidden unless resourceVersion is provided"),
        (goes_on, "resourceVersionMatch is forbidden when continue is provided"),
    ];
    let mut causes = Vec::new();
    if let Some(matching) = matching {
        causes.extend(broken("resourceVersionMatch", rules));
        if ![EXACT, NOT_OLDER].contains(&matching) {
            causes.push(Cause::unsupported("resourceVersionMatch", matching, &[EXACT, NOT_OLDER, ""]));
        }
        let rule = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
        causes.extend(broken("resourceVersionMatch", [(matching == EXACT && version == Some("0"), rule)]));
    }
    let streams = asked.query.get("sendInitialEvents").is_some();
    causes.extend(broken("sendInitialEvents", [(streams, "sendInitialEvents is forbidden for list")]));
    invalid_options(&causes)?;
    if goes_on && version.is_some_and(|version| version != "0") {
        return Err(Refusal::bad_request("specifying resource version is not allowed when using continue"));
    }
    asked.query.number("timeoutSeconds").map(drop)
}

/// What is wrong with how a watch is asked for.
pub(super) fn check_watch(asked: &Asked) -> Result<(), Refusal> {
    let matching = asked.query.get("resourceVersionMatch");
    let streams = asked.query.get("sendInitialEvents").is_some();
    let rules = [
        (
            streams && matching != Some(NOT_OLDER),
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            matching.is_some() && !streams,
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    ];
    let mut causes: Vec<Cause> = broken("resourceVersionMatch", rules).collect();
    if let Some(matching) = matching.filter(|matching| *matching != NOT_OLDER) {
        causes.push(Cause::unsupported("resourceVersionMatch", matching, &[NOT_OLDER]));
    }
    invalid_options(&causes)
}

fn broken<const N: usize>(field: &'static str, rules: [(bool, &'static str); N]) -> impl Iterator<Item = Cause> {
    rules.into_iter().filter(|(is_broken, _)| *is_broken).map(move |(_, rule)| Cause::forbidden(field, rule))
}

fn invalid_options(causes: &[Cause]) -> Result<(), Refusal> {
    Refusal::if_invalid("meta.k8s.io", "ListOptions", "", causes)
}

pub(super) fn version_number(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| {
        Refusal::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

/// Waits until there is such a version.
pub(super) async fn reach(cluster: &Cluster, version: u64) -> Result<(), Refusal> {
    let mut bell = cluster.lock().bell();
    let reached = timeout(PATIENCE, bell.wait_for(|newest| *newest >= version)).await;
    reached.map(drop).map_err(|_| too_large(version, cluster.lock().version()))
}

fn too_large(version: u64, newest: u64) -> Refusal {
    let message = format!("Timeout: Too large resource version: {version}, current: {newest}");
    Refusal::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message).with(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1,
    }))
}

fn expired(token: Option<Token>) -> Refusal {
    let Some(token) = token else {
        return Refusal::expired("The resourceVersion for the provided list is too old.");
    };
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
         list without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, \
         or deleted between the time the first chunk was returned and now may show up in the list.";
    let newest = Token { rv: WHATEVER_IS_NEWEST, ..token };
    Refusal::expired(message).continued_by(newest.to_text())
}

impl Token {
    fn at(version: u64, after: Key) -> Self {
        Self { rv: i64::try_from(version).expect("nobody counts that far"), after }
    }

    fn read(text: &str) -> Result<Self, Refusal> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let token: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token
            .filter(|token| token.rv == WHATEVER_IS_NEWEST || token.rv > 0)
            .ok_or_else(|| Refusal::bad_request("continue key is not valid: it must be the token of an earlier page"))
    }

    fn to_text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a token is plain"))
    }

    fn wanted(&self) -> Wanted {
        u64::try_from(self.rv).map_or(Wanted::Newest, Wanted::Exactly)
    }
}
