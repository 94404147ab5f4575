//! How much at a time, and how soon again.

use std::time::Duration;

use crate::{jitter, journal::Bounds};

/// A batch at most: what a relay holds in memory.
const WHOLE: Bounds = Bounds { records: 256, bytes: 1 << 20 };
/// Halvings that leave one record.
const MOST_HALVINGS: u32 = WHOLE.records.ilog2();
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Slows down with each failure and recovers with each success. It never gives up.
#[derive(Debug, Default)]
pub(super) struct Pace {
    halvings: u32,
    failures: u32,
}

impl Pace {
    /// What the next batch may hold: what is too much for a slow way in the time there is may arrive in parts.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { records: WHOLE.records >> self.halvings, bytes: WHOLE.bytes >> self.halvings }
    }

    /// A batch got through, or there was none and the way is open.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.halvings = self.halvings.saturating_sub(1);
    }

    /// Nothing got through. Gives the pause before the next try.
    pub(super) fn failed(&mut self) -> Duration {
        let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(16)));
        self.failures += 1;
        self.halvings = MOST_HALVINGS.min(self.halvings + 1);
        jitter::part_of(pause, 0.5..=1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute_and_begin_anew_after_a_success() {
        let mut pace = Pace::default();
        for (failures, longest) in [(0, 100), (1, 200), (2, 400), (9, 30_000), (1000, 30_000)] {
            pace.failures = failures;
            let pause = pace.failed().as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{failures}: {pause}");
        }
        pace.succeeded();
        assert!(pace.failed() <= FIRST_PAUSE);
    }

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
