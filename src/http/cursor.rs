//! Where a page ends and the next begins: opaque to callers, so that it may change.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;

use crate::{
    store,
    worker::resource_cleaner::{Position, plan::Kind},
};

/// The last execution of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Executions(pub(super) u64);

/// The last execution of a page of the store's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored(pub(super) store::Cursor);

/// The last event of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Events {
    /// Of the journal; another one's positions mean nothing.
    pub(super) epoch: String,
    /// Of the last record looked at.
    pub(super) position: u64,
    /// The journal's floor when the first page was read: what was pruned by then is not missed.
    pub(super) floor: u64,
}

/// The last pod of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pods {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// The last delivery of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deliveries(pub(super) u64);

/// The last dead letter of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadLetters(pub(super) u64);

/// Where the next page of what would be tidied up begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cleanup(pub(super) Position);

/// What a bad cursor is told.
pub(super) const EXPECTED: &str = "must be the `next` of an earlier page of this list";

/// Cuts what was found, with one item more than the page holds if there are more, and gives the cursor of the next page.
pub(super) fn cut<T, C>(found: &mut Vec<T>, limit: usize, cursor: impl FnOnce(&T) -> C) -> Option<C> {
    let is_last = found.len() <= limit;
    found.truncate(limit);
    found.last().filter(|_| !is_last).map(cursor)
}

impl Executions {
    pub(super) fn encode(&self) -> String {
        encode(&["executions", &self.0.to_string()])
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let [key] = decode(text, "executions")?;
        Some(Self(key.parse().ok()?))
    }
}

impl Stored {
    pub(super) fn encode(&self) -> String {
        encode(&["stored", &self.0.at.as_microsecond().to_string(), &self.0.execution_id])
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let [at, execution_id] = decode(text, "stored")?;
        Some(Self(store::Cursor { at: Timestamp::from_microsecond(at.parse().ok()?).ok()?, execution_id }))
    }
}

impl Deliveries {
    pub(super) fn encode(&self) -> String {
        encode(&["deliveries", &self.0.to_string()])
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let [id] = decode(text, "deliveries")?;
        Some(Self(id.parse().ok()?))
    }
}

impl Cleanup {
    pub(super) fn encode(&self) -> String {
        let Position { kind, scope, token } = &self.0;
        encode(&["cleanup", kind.as_str(), &scope.to_string(), token.as_deref().unwrap_or_default()])
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let [kind, scope, token] = decode(text, "cleanup")?;
        let kind = [Kind::Pod, Kind::Script].into_iter().find(|known| known.as_str() == kind)?;
        let token = Some(token).filter(|token| !token.is_empty());
        Some(Self(Position { kind, scope: scope.parse().ok()?, token }))
    }
}

impl DeadLetters {
    pub(super) fn encode(&self) -> String {
        encode(&["dead-letters", &self.0.to_string()])
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let [key] = decode(text, "dead-letters")?;
        Some(Self(key.parse().ok()?))
    }
}

impl Events {
    pub(super) fn encode(&self) -> String {
        encode(&["events", &self.epoch, &self.position.to_string(), &self.floor.to_string()])
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let [epoch, position, floor] = decode(text, "events")?;
        Some(Self { epoch, position: position.parse().ok()?, floor: floor.parse().ok()? })
    }
}

impl Pods {
    pub(super) fn encode(&self) -> String {
        encode(&["pods", &self.namespace, &self.name, &self.uid])
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let [namespace, name, uid] = decode(text, "pods")?;
        Some(Self { namespace, name, uid })
    }
}

fn encode(parts: &[&str]) -> String {
    URL_SAFE_NO_PAD.encode(parts.join("\0"))
}

fn decode<const N: usize>(text: &str, kind: &str) -> Option<[String; N]> {
    let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let rest = plain.strip_prefix(kind)?.strip_prefix('\0')?;
    rest.split('\0').map(str::to_owned).collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_by_its_own_list_only() {
        let events = Events { epoch: "0192".to_owned(), position: 7, floor: 3 };
        assert_eq!(Events::decode(&events.encode()), Some(events.clone()));
        assert_eq!(Executions::decode(&Executions(9).encode()), Some(Executions(9)));
        let stored = Stored(store::Cursor { at: Timestamp::UNIX_EPOCH, execution_id: "e".to_owned() });
        assert_eq!(Stored::decode(&stored.encode()), Some(stored.clone()));
        assert_eq!(Executions::decode(&stored.encode()), None);
        let pods = Pods { namespace: "n".to_owned(), name: "p".to_owned(), uid: "u".to_owned() };
        assert_eq!(Pods::decode(&pods.encode()), Some(pods));
        let cleanup = Cleanup(Position { kind: Kind::Script, scope: 2, token: Some("t".to_owned()) });
        assert_eq!(Cleanup::decode(&cleanup.encode()), Some(cleanup));
        assert_eq!(Executions::decode(&events.encode()), None);
        for text in ["", "7", "???", "ZXZlbnRz"] {
            assert_eq!(Events::decode(text), None, "{text}");
        }
    }
}
