//! What time it is, and who says so. [`Clock`] is the seam: decisions never ask the machine.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Tells the time of day.
pub trait Clock: Send + Sync + 'static {
    /// The present. Two readings in a row may be equal; a clock that somebody sets back may repeat itself.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that goes as tokio's does: it stands still, and leaps, with a paused runtime.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    anchor: Timestamp,
    since: Instant,
}

impl TokioClock {
    /// A clock that shows `anchor` now. Call it inside the runtime whose time it shall follow.
    pub fn starting_at(anchor: Timestamp) -> Self {
        Self { anchor, since: Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.since.elapsed()).unwrap_or(SignedDuration::MAX);
        self.anchor.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    /// What every clock promises.
    fn conforms(clock: &dyn Clock) {
        let readings: Vec<_> = (0..1000).map(|_| clock.now()).collect();
        assert!(readings.is_sorted(), "an undisturbed clock never runs backwards");
        assert!(readings[0] > "2020-01-01T00:00:00Z".parse().unwrap(), "the time of day, not a time since start");
        assert!(readings[999].duration_since(readings[0]) < SignedDuration::from_mins(1), "seconds are seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn every_clock_conforms() {
        let clocks: [Arc<dyn Clock>; 2] =
            [Arc::new(SystemClock), Arc::new(TokioClock::starting_at("2026-02-10T12:00:00Z".parse().unwrap()))];
        for clock in clocks {
            conforms(&*clock);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_paused_clock_stands_still_until_it_is_advanced() {
        let clock = TokioClock::starting_at("2026-02-10T12:00:00Z".parse().unwrap());
        assert_eq!(clock.now(), clock.now());
        tokio::time::advance(Duration::from_millis(90_500)).await;
        assert_eq!(clock.now().to_string(), "2026-02-10T12:01:30.5Z");
    }
}
