//! How much at a time, and how soon again.

use std::time::Duration;

use crate::{backoff::Backoff, journal::Bounds};

/// A batch at most: what a relay holds in memory.
const WHOLE: Bounds = Bounds { records: 256, bytes: 1 << 20 };
/// Halvings that leave one record.
const MOST_HALVINGS: u32 = WHOLE.records.ilog2();
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Slows down with each failure and recovers with each success. It never gives up.
#[derive(Debug)]
pub(super) struct Pace {
    halvings: u32,
    backoff: Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self { halvings: 0, backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) }
    }
}

impl Pace {
    /// What the next batch may hold: what is too much for a slow way in the time there is may arrive in parts.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { records: WHOLE.records >> self.halvings, bytes: WHOLE.bytes >> self.halvings }
    }

    /// A batch got through, or there was none and the way is open.
    pub(super) fn succeeded(&mut self) {
        self.backoff.reset();
        self.halvings = self.halvings.saturating_sub(1);
    }

    /// Nothing got through. Gives the pause before the next try.
    pub(super) fn failed(&mut self) -> Duration {
        self.halvings = MOST_HALVINGS.min(self.halvings + 1);
        self.backoff.pause()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_to_one_record_and_grow_again() {
        let mut pace = Pace::default();
        assert_eq!(pace.bounds(), WHOLE);
        for _ in 0..20 {
            pace.failed();
        }
        assert_eq!(pace.bounds(), Bounds { records: 1, bytes: 4096 });
        pace.succeeded();
        assert_eq!(pace.bounds().records, 2);
        for _ in 0..20 {
            pace.succeeded();
        }
        assert_eq!(pace.bounds(), WHOLE);
    }
}
