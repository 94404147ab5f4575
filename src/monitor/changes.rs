//! What one turn changes, by pod or Job: several looks at one are one change.

use std::collections::HashMap;

use podherald_core::event::Draft;

use super::index::Index;
use crate::journal::Change;

/// Changes that are not durable yet, in the order in which each was begun.
#[derive(Default)]
pub(super) struct Changes {
    events: Vec<(String, Vec<Draft>)>,
    places: HashMap<String, usize>,
}

impl Changes {
    pub(super) fn count(&self) -> usize {
        self.events.len()
    }

    pub(super) fn has(&self, uid: &str) -> bool {
        self.places.contains_key(uid)
    }

    pub(super) fn add(&mut self, uid: &str, events: Vec<Draft>) {
        if let Some(place) = self.places.get(uid) {
            self.events[*place].1.extend(events);
        } else {
            self.places.insert(uid.to_owned(), self.events.len());
            self.events.push((uid.to_owned(), events));
        }
    }

    /// Each with the evidence as it is now.
    pub(super) fn take(self, index: &Index) -> Vec<Change> {
        let change = |(uid, events): (String, Vec<Draft>)| {
            Some(Change { evidence: index.evidence(&uid)?.clone(), events: events.into() })
        };
        self.events.into_iter().filter_map(change).collect()
    }
}
