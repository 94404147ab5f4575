//! What stands in the places of the journal that a batch goes over: its events, and gaps where there were others.

use std::{ops::RangeInclusive, sync::Arc};

use jiff::Timestamp;
use podherald_core::gap::Gap;
use serde::Deserialize;

use crate::{journal::Record, sink::Item};

/// The places after one up to another, of which this batch is all that the journal still has.
pub(super) struct Places<'a> {
    /// The one before, as long as it is known.
    pub(super) before: Option<&'a Record>,
    /// The last place before these.
    pub(super) after: u64,
    pub(super) batch: &'a [Arc<Record>],
    /// The last of them.
    pub(super) end: u64,
}

impl Places<'_> {
    /// What stands in them, in order. Positions have no holes but those that retention makes.
    pub(super) fn items(&self, gap: impl Fn(RangeInclusive<u64>) -> Gap) -> Vec<Item> {
        let mut items = Vec::with_capacity(self.batch.len() + 1);
        let (mut before, mut last) = (self.before, self.after);
        for record in self.batch {
            if record.position > last + 1 {
                let gap =
                    Gap { since: before.and_then(time), until: time(record), ..gap(last + 1..=record.position - 1) };
                items.push(Item::Gap(Arc::new(gap)));
            }
            items.push(Item::Event(record.clone()));
            (before, last) = (Some(&**record), record.position);
        }
        if self.end > last {
            let gap = Gap { since: before.and_then(time), ..gap(last + 1..=self.end) };
            items.push(Item::Gap(Arc::new(gap)));
        }
        items
    }
}

fn time(record: &Record) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Timed {
        timestamp: Timestamp,
    }
    serde_json::from_slice::<Timed>(&record.bytes).ok().map(|timed| timed.timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::conformance::record;

    fn gap(places: RangeInclusive<u64>) -> Gap {
        Gap::new("epoch", "one", places, Timestamp::UNIX_EPOCH)
    }

    /// First and last place of each item, and whether the times around a gap are known.
    fn told(after: u64, positions: &[u64], end: u64) -> Vec<(u64, u64, [bool; 2])> {
        let batch: Vec<_> = positions.iter().map(|position| record(*position, "x")).collect();
        let items = Places { before: None, after, batch: &batch, end }.items(gap);
        let places = items.iter().map(|item| match item {
            Item::Event(record) => (record.position, record.position, [true; 2]),
            Item::Gap(gap) => (gap.first, gap.last, [gap.since.is_some(), gap.until.is_some()]),
        });
        places.collect()
    }

    #[test]
    fn every_place_is_told_once_as_an_event_or_in_a_gap() {
        let event = |place| (place, place, [true; 2]);
        assert_eq!(told(4, &[5, 6], 6), [event(5), event(6)]);
        assert_eq!(told(0, &[3, 4, 7], 7), [(1, 2, [false, true]), event(3), event(4), (5, 6, [true; 2]), event(7)]);
        assert_eq!(told(4, &[], 9), [(5, 9, [false; 2])]);
        assert_eq!(told(4, &[5], 6), [event(5), (6, 6, [true, false])]);
        assert_eq!(told(4, &[], 4), []);
    }

    #[test]
    fn the_time_before_a_gap_may_be_that_of_an_event_carried_earlier() {
        let earlier = record(2, "x");
        let items = Places { before: Some(&earlier), after: 2, batch: &[], end: 3 }.items(gap);
        assert_eq!(items, [Item::Gap(Arc::new(Gap { since: Some(Timestamp::UNIX_EPOCH), ..gap(3..=3) }))]);
    }
}
