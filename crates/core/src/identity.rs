//! Whose pod is it: the execution id and the attempt's key.

use std::{fmt, str::FromStr};

use crate::{
    job::Job,
    pod::{ATTEMPT_ANNOTATION, Labels, Pod},
};

/// Longest execution id taken from a pod, in bytes; a longer one is no id.
pub const MAX_ID_BYTES: usize = 253;

/// One place where an execution id may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `label:KEY`.
    Label(String),
    /// `annotation:KEY`.
    Annotation(String),
    /// `prefix:TEXT`: what follows this prefix of the pod's name.
    NamePrefix(String),
}

/// The text is none of the three forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not one of `label:KEY`, `annotation:KEY`, `prefix:TEXT`")]
pub struct ParsePlaceError(String);

impl FromStr for Place {
    type Err = ParsePlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("label", key)) if !key.is_empty() => Ok(Self::Label(key.to_owned())),
            Some(("annotation", key)) if !key.is_empty() => Ok(Self::Annotation(key.to_owned())),
            Some(("prefix", prefix)) if !prefix.is_empty() => Ok(Self::NamePrefix(prefix.to_owned())),
            _ => Err(ParsePlaceError(text.to_owned())),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(key) => write!(f, "label:{key}"),
            Self::Annotation(key) => write!(f, "annotation:{key}"),
            Self::NamePrefix(prefix) => write!(f, "prefix:{prefix}"),
        }
    }
}

/// The places of the field, in their order.
pub fn default_places() -> Vec<Place> {
    vec![
        Place::Label("execution-id".to_owned()),
        Place::Label("eval-id".to_owned()),
        Place::Annotation("integr8s.io/execution-id".to_owned()),
        Place::NamePrefix("executor-".to_owned()),
        Place::NamePrefix("exec-".to_owned()),
    ]
}

/// What names an object and its execution.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.uid`.
    pub uid: &'a str,
    /// `metadata.labels`.
    pub labels: &'a Labels,
    /// `metadata.annotations`.
    pub annotations: &'a Labels,
}

/// What bears an execution's id: a pod or a Job.
pub trait Marked {
    /// Its marks.
    fn marks(&self) -> Marks<'_>;
}

impl Marked for Pod {
    fn marks(&self) -> Marks<'_> {
        Marks { name: &self.name, uid: &self.uid, labels: &self.labels, annotations: &self.annotations }
    }
}

impl Marked for Job {
    fn marks(&self) -> Marks<'_> {
        Marks { name: &self.name, uid: &self.uid, labels: &self.labels, annotations: &self.annotations }
    }
}

/// The execution that a pod or Job belongs to: the first usable id among `places`.
pub fn execution_id<'a>(object: &'a impl Marked, places: &[Place]) -> Option<&'a str> {
    let marks = object.marks();
    places
        .iter()
        .filter_map(|place| match place {
            Place::Label(key) => marks.labels.get(key).map(String::as_str),
            Place::Annotation(key) => marks.annotations.get(key).map(String::as_str),
            Place::NamePrefix(prefix) => marks.name.strip_prefix(prefix.as_str()),
        })
        .find(|id| is_usable(id))
}

/// What tells this attempt from the execution's others; never a name (T16). A tracked Job's pods go by the Job's.
pub fn attempt_key(object: &impl Marked) -> &str {
    let marks = object.marks();
    marks.annotations.get(ATTEMPT_ANNOTATION).map(String::as_str).filter(|key| is_usable(key)).unwrap_or(marks.uid)
}

fn is_usable(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.chars().any(char::is_control)
}
