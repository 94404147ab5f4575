//! Events that came before what their source had said earlier: topics and partitions are read side by side.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use tokio::time::Instant;

use crate::journal::{Adopted, Place};

/// An event, and where it was found.
#[derive(Debug, Clone)]
pub(super) struct Early {
    pub(super) adopted: Adopted,
    /// The next one's.
    pub(super) place: Place,
    pub(super) since: Instant,
}

/// See the module. Nobody else keeps them, so how far topics were read ([`Waiting::hold_back`]) does not pass them.
#[derive(Default)]
pub(super) struct Waiting {
    by_execution: HashMap<Arc<str>, Vec<Early>>,
    /// Those of them of which the store has been asked what there is.
    fetched: HashSet<Arc<str>>,
    events: usize,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.events
    }

    pub(super) fn add(&mut self, early: Early) {
        let execution_id = early.adopted.event.execution_id.as_str().into();
        self.events += 1;
        self.by_execution.entry(execution_id).or_default().push(early);
    }

    /// All of this execution: something of it has come.
    pub(super) fn take(&mut self, execution_id: &str) -> Vec<Early> {
        let taken = self.by_execution.remove(execution_id).unwrap_or_default();
        self.events -= taken.len();
        taken
    }

    /// All of the executions of which one has waited since before this time, and of which the store has no more.
    pub(super) fn take_older(&mut self, than: Instant) -> Vec<Early> {
        let is_older = |events: &Vec<Early>| events.iter().any(|early| early.since <= than);
        let old = self.by_execution.iter().filter(|(id, events)| is_older(events) && self.fetched.contains(*id));
        let old: Vec<_> = old.map(|(id, _)| id.clone()).collect();
        old.iter().flat_map(|id| self.take(id)).collect()
    }

    /// All of the executions of which one has waited for longest, whatever the store may have, until fewer events wait.
    pub(super) fn take_above(&mut self, most: usize) -> Vec<Early> {
        let mut taken = Vec::new();
        while self.events > most {
            let since = |events: &Vec<Early>| events.iter().map(|early| early.since).min();
            let oldest = self.by_execution.iter().min_by_key(|(_, events)| since(events)).map(|(id, _)| id.clone());
            taken.extend(oldest.into_iter().flat_map(|id| self.take(&id)));
        }
        taken
    }

    /// Of whom the store has not been asked.
    pub(super) fn not_fetched(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_execution.keys().filter(|id| !self.fetched.contains(*id))
    }

    /// The store has nothing more of it.
    pub(super) fn is_fetched(&mut self, execution_id: &Arc<str>) {
        self.fetched.insert(execution_id.clone());
    }

    /// Forgets what is remembered of those of which nothing waits any more.
    pub(super) fn tidy(&mut self) {
        self.fetched.retain(|id| self.by_execution.contains_key(id));
    }

    /// Who reads on from these places has all that is not in the journal.
    pub(super) fn hold_back(&self, places: &mut [Place]) {
        let mut first = BTreeMap::new();
        for Early { place, .. } in self.by_execution.values().flatten() {
            let known = first.entry((&*place.topic, place.partition)).or_insert(place.next);
            *known = place.next.min(*known);
        }
        for place in places {
            if let Some(next) = first.get(&(&*place.topic, place.partition)) {
                place.next = place.next.min(next - 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use podherald_core::about::About;

    use super::*;
    use crate::inbox::conformance::draft;

    fn early(id: &str, seq: u64, partition: i32, since: Instant) -> Early {
        let event = draft(id, u32::try_from(seq).unwrap_or_default()).number("a:1", seq);
        let adopted =
            Adopted { bytes: event.to_bytes().into(), event, about: About::default(), in_order: true, recalled: false };
        let next = i64::try_from(seq).unwrap_or_default() + 1;
        Early { adopted, place: Place { topic: "execution_events".to_owned(), partition, next }, since }
    }

    fn seqs(events: &[Early]) -> Vec<u64> {
        events.iter().map(|early| early.adopted.event.seq).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_given_back_with_its_execution_or_by_its_age_and_is_never_passed() {
        let begun = Instant::now();
        let later = begun + Duration::from_secs(1);
        let mut waiting = Waiting::default();
        for (id, seq, partition, since) in
            [("a", 3, 0, begun), ("a", 4, 0, later), ("b", 7, 1, later), ("c", 5, 0, later)]
        {
            waiting.add(early(id, seq, partition, since));
        }
        let place = |partition, next| Place { topic: "execution_events".to_owned(), partition, next };
        let mut places = [place(0, 9), place(1, 9), place(2, 9), place(0, 2)];
        waiting.hold_back(&mut places);
        assert_eq!(places, [place(0, 3), place(1, 7), place(2, 9), place(0, 2)]);
        assert_eq!(seqs(&waiting.take("b")), [7]);
        assert_eq!(seqs(&waiting.take("b")), [0; 0]);
        assert_eq!(seqs(&waiting.take_older(later)), [0; 0], "the store may have what they wait for");
        let ids: HashSet<_> = waiting.not_fetched().cloned().collect();
        assert_eq!(ids, HashSet::from(["a".into(), "c".into()]));
        waiting.is_fetched(&"a".into());
        waiting.is_fetched(&"b".into());
        assert_eq!(waiting.not_fetched().map(|id| &**id).collect::<Vec<_>>(), ["c"]);
        let again = waiting.take("a");
        again.into_iter().for_each(|early| waiting.add(early));
        waiting.tidy();
        assert_eq!(seqs(&waiting.take_older(begun)), [3, 4]);
        waiting.tidy();
        waiting.add(early("a", 9, 0, begun));
        assert_eq!(waiting.not_fetched().count(), 2);
        let mut places = [place(0, 19)];
        waiting.hold_back(&mut places);
        assert_eq!(places, [place(0, 5)]);
        assert_eq!(seqs(&waiting.take_above(2)), [0; 0]);
        assert_eq!(seqs(&waiting.take_above(1)), [9]);
        assert_eq!(seqs(&waiting.take_above(0)), [5]);
        assert_eq!(waiting.len(), 0);
    }
}
