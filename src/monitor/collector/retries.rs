//! When to ask again.

use std::time::Duration;

use tokio::time::Instant;

use crate::jitter;

use super::reading::{Patience, Trouble};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Doubling, jittered pauses, within one deadline.
#[derive(Debug)]
pub(super) struct Retries {
    deadline: Instant,
    pause: Duration,
    tries: u32,
    last: bool,
}

impl Retries {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, pause: FIRST, tries: 0, last: false }
    }

    /// The pause after this trouble, or `None` if there is no point in another try.
    pub(super) fn after(&mut self, trouble: &Trouble) -> Option<Duration> {
        self.tries += 1;
        let left = self.deadline.saturating_duration_since(Instant::now());
        let enough = match trouble.kind.patience() {
            Patience::None => true,
            Patience::Tries(most) => self.tries >= most,
            Patience::UntilDeadline => false,
        };
        if enough || self.last || left.is_zero() {
            return None;
        }
        let pause = trouble.retry_after.unwrap_or_else(|| jitter::part_of(self.pause, 0.5..=1.0));
        self.pause = (self.pause * 2).min(LONGEST);
        // Whatever the server would like: one last try before the output is given up.
        self.last = pause >= left;
        Some(if self.last { left.mul_f64(0.75) } else { pause })
    }
}
