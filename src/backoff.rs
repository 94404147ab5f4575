//! How long to wait before another try.

use std::time::Duration;

use tokio::time::Instant;

use crate::jitter;

/// Growing, jittered pauses between tries; starts over after a success, or a good while without a failure.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
    failed_at: Option<Instant>,
}

impl Backoff {
    /// Pauses from about `first`, doubling up to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0, failed_at: None }
    }

    /// The pause after one more failure: between half and all of the doubled time.
    pub fn pause(&mut self) -> Duration {
        let quiet = self.failed_at.replace(Instant::now()).is_some_and(|at| at.elapsed() > 2 * self.most);
        if quiet {
            self.reset();
        }
        let full = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        jitter::part_of(full, 0.5..=1.0)
    }

    /// Some of it worked: the next pauses are 64 times the first at most.
    pub fn ease(&mut self) {
        self.failures = self.failures.min(6);
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_begin_anew_after_a_success_or_a_quiet_while() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(30));
        let mut backoff = Backoff::new(first, most);
        for longest in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            let pause = backoff.pause().as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{pause} instead of {longest}");
        }
        backoff.ease();
        assert!(backoff.pause() <= 64 * first);
        backoff.reset();
        assert!(backoff.pause() <= first);
        backoff.pause();
        tokio::time::advance(2 * most + first).await;
        assert!(backoff.pause() <= first);
        for _ in 0..100 {
            assert!(backoff.pause() <= most);
        }
    }
}
