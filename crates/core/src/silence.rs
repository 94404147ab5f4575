//! What it means that nothing is heard of a pod.
//!
//! Only its kubelet tells that a program has ended, and a kubelet that is lost never will (T33). So there is a time by which
//! something must have been heard: after the pod's own deadline, after the grace period of its deletion, or, where the operator
//! asks for that, some time after its start. Then the API server is asked for the pod and its node. One look proves nothing: a
//! node may be away for a moment, and its clock is not ours (T89). A doubt counts once a later look, by our own clock, finds the same.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    event::CauseClass,
    evidence::{Deletion, Evidence},
};

/// The kubelet of a node that is ready tells so every five minutes, give or take half of it. Silent for so long, it is dead and
/// nobody is there to say so.
const SILENT_AFTER: SignedDuration = SignedDuration::from_mins(15);
/// A pod whose node is alive is looked for this often at least.
const RARELY: SignedDuration = SignedDuration::from_hours(1);

/// How long silence is borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How late the kubelet may be with an end that is due, and how long a doubt about its node must last.
    pub grace: SignedDuration,
    /// How long after its start something must be heard of a pod that has no deadline; none: never.
    pub by: Option<SignedDuration>,
}

/// What the API server says of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// There is none of that name.
    Gone,
    /// It is there.
    There(Readiness),
    /// We may not ask.
    Forbidden,
}

/// Condition `Ready` of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// `status`.
    pub ready: Ready,
    /// `reason`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `lastTransitionTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// `lastHeartbeatTime`, by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Timestamp>,
}

/// `status` of a condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ready {
    /// The kubelet says so.
    True,
    /// The kubelet says that it is not.
    False,
    /// The kubelet has said nothing for long, or never did.
    #[default]
    Unknown,
}

impl Node {
    /// One word for a count.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Forbidden => "forbidden",
            Self::There(readiness) => match readiness.ready {
                Ready::True => "ready",
                Ready::False => "not_ready",
                Ready::Unknown => "unreachable",
            },
        }
    }

    /// True if nothing came of the node between these two, or it is still away for the same time.
    fn is_as(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::There(now), Self::There(then)) => {
                // One that says itself that it is not ready goes on saying so.
                let is_quiet = now.ready != Ready::True || now.heartbeat == then.heartbeat;
                (now.ready, now.since) == (then.ready, then.since) && is_quiet
            }
            (now, then) => now == then,
        }
    }
}

/// What was found of a pod's node the last time that it was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// When that was.
    pub at: Timestamp,
    /// The first look that found the same.
    pub since: Timestamp,
    /// What was found.
    pub node: Node,
}

/// What is to be done about a pod that has not ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing is due.
    Bear,
    /// Nothing before this time.
    Wait(Timestamp),
    /// Ask for it and its node.
    Look,
    /// Nothing more will be heard of it.
    Lost(Loss),
}

/// Why nothing more is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    NodeGone,
    NodeNotReady,
    NodeUnreachable,
    NodeSilent,
    /// Its end is overdue, and whether its node lives we may not ask.
    NotHeardOf,
}

impl Loss {
    /// Class, reason and sentence of the cause. That a node is lost is never guessed.
    pub(crate) fn cause(self) -> (CauseClass, &'static str, &'static str) {
        match self {
            Self::NodeGone => (CauseClass::NodeLost, "NodeGone", "its node is gone, and with it whoever knew its end"),
            Self::NodeNotReady => {
                (CauseClass::NodeLost, "NodeNotReady", "its node is not ready and does not tell its end")
            }
            Self::NodeUnreachable => (CauseClass::NodeLost, "NodeUnreachable", "its node stopped answering"),
            Self::NodeSilent => {
                (CauseClass::NodeLost, "NodeSilent", "its node was called ready and gave no sign of life")
            }
            Self::NotHeardOf => (
                CauseClass::Unknown,
                "NotHeardOf",
                "its end is overdue and nobody told it; podherald may not ask for its node",
            ),
        }
    }
}

/// What should have been heard.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Due {
    /// When the API server is to be asked.
    at: Timestamp,
    /// The kubelet should have ended it: a deadline or a deletion. Else it may well go on running.
    is_end: bool,
}

impl Due {
    fn of(evidence: &Evidence, patience: Patience) -> Option<Self> {
        evidence.node_name.as_ref()?;
        let end = deadline(evidence).into_iter().chain(evidence.deletion.as_ref().map(end_of_grace)).min();
        match end {
            Some(end) => Some(Self { at: later(end, patience.grace), is_end: true }),
            None => Some(Self { at: later(begin(evidence)?, patience.by?), is_end: false }),
        }
    }
}

/// Where there is no start (the kubelet has never said a word), when it got its node.
fn begin(evidence: &Evidence) -> Option<Timestamp> {
    evidence.start_time.or(evidence.started_at).or(evidence.scheduled_at)
}

fn deadline(evidence: &Evidence) -> Option<Timestamp> {
    let seconds = SignedDuration::from_secs(evidence.active_deadline_seconds?);
    Some(later(begin(evidence)?, seconds))
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn end_of_grace(deletion: &Deletion) -> Timestamp {
    later(deletion.seen_at, SignedDuration::from_secs(deletion.grace_seconds.unwrap_or_default().clamp(0, 3600)))
}

/// Takes what a look has found into the evidence.
pub(crate) fn note(evidence: &mut Evidence, node: Node, now: Timestamp) {
    let earlier = evidence.look.take();
    let same = earlier.filter(|earlier| node.is_as(&earlier.node));
    evidence.look = Some(Box::new(Look {
        at: now,
        // A clock that was set back must not make it wait for hours.
        since: same.map_or(now, |same| same.since.min(now)),
        node,
    }));
}

/// Decides about a pod of which nothing tells an end.
pub(crate) fn judge(evidence: &Evidence, patience: Option<Patience>, now: Timestamp) -> Verdict {
    let Some((patience, due)) = patience.and_then(|patience| Some((patience, Due::of(evidence, patience)?))) else {
        return Verdict::Bear;
    };
    let next = match evidence.look.as_deref() {
        Some(look) => match loss(look, due, patience) {
            Some(loss) => return Verdict::Lost(loss),
            None if now < look.at => now,
            // It was looked for because of something else.
            None if look.at < due.at => due.at,
            None => later(look.at, pause(look, due, patience)),
        },
        None => due.at,
    };
    if now < next { Verdict::Wait(next) } else { Verdict::Look }
}

fn loss(look: &Look, due: Due, patience: Patience) -> Option<Loss> {
    // What was found while nothing was due was no doubt yet.
    let lasted = look.at.duration_since(look.since.max(due.at));
    let (loss, bearable) = match &look.node {
        Node::Gone => (Loss::NodeGone, patience.grace),
        Node::Forbidden if due.is_end => (Loss::NotHeardOf, patience.grace),
        Node::Forbidden => return None,
        Node::There(found) => match found.ready {
            Ready::False => (Loss::NodeNotReady, patience.grace),
            Ready::Unknown => (Loss::NodeUnreachable, patience.grace),
            Ready::True => {
                found.heartbeat?;
                (Loss::NodeSilent, SILENT_AFTER.max(patience.grace))
            }
        },
    };
    (lasted >= bearable).then_some(loss)
}

/// From one look to the next. What lives is looked for less and less often.
fn pause(look: &Look, due: Due, patience: Patience) -> SignedDuration {
    let is_doubtful = !matches!(&look.node, Node::There(found) if found.ready == Ready::True);
    match patience.by.filter(|_| !due.is_end) {
        Some(by) if !is_doubtful || look.node == Node::Forbidden => by,
        _ if is_doubtful => patience.grace,
        _ => look.at.duration_since(due.at).min(RARELY).max(patience.grace),
    }
}

/// Who said what when, one a line; nothing where nobody was asked.
pub(crate) fn facts(evidence: &Evidence) -> Vec<String> {
    let Some(look) = &evidence.look else { return Vec::new() };
    let mut facts = Vec::new();
    if let (Some(seconds), Some(at)) = (evidence.active_deadline_seconds, deadline(evidence)) {
        facts.push(format!("its deadline of {seconds} s was over at {at}"));
    }
    if let Some(deletion) = &evidence.deletion {
        facts.push(format!("the time that its deletion gave it was over at {}", end_of_grace(deletion)));
    }
    let node = evidence.node_name.as_deref().unwrap_or_default();
    facts.push(format!(
        "the API server, asked at {}: the pod is there; node {node}: {}",
        look.at,
        describe(&look.node)
    ));
    if look.since != look.at {
        facts.push(format!("node {node} was found so since {}", look.since));
    }
    facts
}

fn describe(node: &Node) -> String {
    let Readiness { ready, reason, since, heartbeat } = match node {
        Node::Gone => return "there is none of that name".to_owned(),
        Node::Forbidden => return "podherald may not ask for it".to_owned(),
        Node::There(readiness) => readiness,
    };
    let mut text = format!("condition Ready {ready:?}");
    if let Some(since) = since {
        text.push_str(&format!(" since {since}"));
    }
    if let Some(reason) = reason {
        text.push_str(&format!(", reason {reason}"));
    }
    if let Some(heartbeat) = heartbeat {
        text.push_str(&format!(", last heartbeat {heartbeat}"));
    }
    text
}
