//! The grammar of `tests/fixtures/pod_cases.json`, whose `conventions` key says what everything means, and of the files in
//! `tests/fixtures/real`.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "conventions")]
    _conventions: IgnoredAny,
    cases: Vec<Case>,
}

/// All cases of the fixture.
pub(super) fn load() -> Vec<Case> {
    let file: File = serde_json::from_str(include_str!("../../fixtures/pod_cases.json")).unwrap();
    file.cases
}

/// What a real kubelet showed of the pods of `tests/real/node`; `just record-real` records it anew.
pub(super) fn recorded() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/real");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap()).collect()
}

/// One story of a few pods, and what is to be told of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) id: String,
    pub(super) title: String,
    #[serde(rename = "tier")]
    _tier: u8,
    #[serde(rename = "tags")]
    _tags: Vec<String>,
    #[serde(default, rename = "decision")]
    _decision: Option<String>,
    pub(super) steps: Vec<Step>,
    pub(super) expect: Expect,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Step {
    /// One watch event.
    Watch {
        #[serde(rename = "type")]
        kind: FrameKind,
        pod: Value,
        #[serde(default)]
        logs: Logs,
    },
    /// A frame that is no pod.
    WatchRaw {
        #[serde(rename = "type")]
        kind: String,
        object: Value,
    },
    /// The list after a (re)connect: exactly these pods.
    Relist {
        pods: Vec<Value>,
        #[serde(default)]
        logs: Logs,
    },
    /// The periodic list, while the watch stays open.
    Reconcile {
        pods: Vec<Value>,
        #[serde(default)]
        logs: Logs,
    },
    /// The process dies and starts again on the same data.
    Restart,
    /// The next appends to the journal fail.
    PublishFault {
        #[serde(alias = "times", alias = "n")]
        count: usize,
    },
    /// The stream drops.
    WatchDisconnect,
    /// Time passes.
    Tick { seconds: f64 },
    /// Another process on the same data directory.
    SecondMonitor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum FrameKind {
    Added,
    Modified,
    Deleted,
}

impl FrameKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// Container to what its log endpoint answers, request by request; the last answer repeats.
pub(super) type Logs = BTreeMap<String, Vec<Fetch>>;

/// One answer of the log endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fetch {
    Parts(Vec<Part>),
    Error { status: u16, message: String },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    Text(String),
    B64(String),
    Repeat { text: String, times: usize },
}

impl Part {
    pub(super) fn bytes(&self) -> Bytes {
        match self {
            Self::Text(text) => text.clone().into(),
            Self::B64(text) => STANDARD.decode(text).unwrap().into(),
            Self::Repeat { text, times } => text.repeat(*times).into(),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// An ordered subsequence of all events.
    pub(super) required_in_order: Vec<Required>,
    /// Types that must not occur.
    pub(super) forbidden: Vec<String>,
    /// How many distinct terminal events.
    pub(super) terminal_events: Count,
    /// What counts as one.
    #[serde(default = "usual_terminal_types")]
    pub(super) terminal_types: Vec<String>,
    /// How many distinct events of one type and pod.
    pub(super) max_per_type_and_uid: usize,
}

fn usual_terminal_types() -> Vec<String> {
    ["execution_completed", "execution_failed", "execution_timeout"].map(str::to_owned).to_vec()
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Required {
    pub(super) event_type: OneOrMore,
    /// Dotted path to expected value.
    pub(super) fields: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    One(String),
    AnyOf(Vec<String>),
}

impl OneOrMore {
    pub(super) fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::AnyOf(names) => names,
        }
    }
}

/// A number, or `"a..b"`: from a to b, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Count {
    pub(super) least: usize,
    pub(super) most: usize,
}

impl TryFrom<Value> for Count {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let number = |text: &str| text.trim().parse().map_err(|_| format!("`{text}` is no number"));
        match &value {
            Value::Number(n) => number(&n.to_string()).map(|n| Self { least: n, most: n }),
            Value::String(text) => {
                let (least, most) = text.split_once("..").ok_or_else(|| format!("`{text}` is not `a..b`"))?;
                Ok(Self { least: number(least)?, most: number(most)? })
            }
            other => Err(format!("`{other}` is neither a number nor `a..b`")),
        }
    }
}
