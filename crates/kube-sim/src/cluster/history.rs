//! What happened to the objects of one kind, as far back as memory is given to it.

use std::{collections::VecDeque, sync::Arc};

use serde_json::Value;

use super::{Key, json};

/// One change of one object.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Value>>,
    /// What it is now; of one that is gone the last state, under the version in which it went.
    pub(crate) now: Arc<Value>,
    pub(crate) is_gone: bool,
}

#[derive(Debug, Default)]
pub(super) struct History {
    events: VecDeque<(Event, usize)>,
    bytes: usize,
    /// Changes up to this version are not known any more.
    forgotten: u64,
}

impl History {
    /// Remembers a change and forgets the oldest ones beyond the limits; how many that were.
    pub(super) fn push(&mut self, event: Event, max_events: usize, max_bytes: usize) -> u64 {
        let size = json::size(&event.now);
        self.bytes += size;
        self.events.push_back((event, size));
        let mut forgotten = 0;
        while self.events.len() > max_events || self.bytes > max_bytes {
            let Some((event, size)) = self.events.pop_front() else { break };
            self.bytes -= size;
            self.forgotten = event.version;
            forgotten += 1;
        }
        forgotten
    }

    pub(super) fn forget(&mut self, version: u64) -> u64 {
        let forgotten = self.events.len() as u64;
        self.events.clear();
        self.bytes = 0;
        self.forgotten = version;
        forgotten
    }

    /// Changes after a version, the oldest first; none if some of them are forgotten.
    pub(super) fn after(&self, version: u64) -> Option<impl DoubleEndedIterator<Item = &Event>> {
        if version < self.forgotten {
            return None;
        }
        let start = self.events.partition_point(|(event, _)| event.version <= version);
        Some(self.events.range(start..).map(|(event, _)| event))
    }
}
