//! A clock that is set forward and back while podherald runs.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use podherald::clock::{Clock, TokioClock};

pub(super) struct JumpyClock {
    honest: TokioClock,
    /// Seconds that this clock is ahead.
    off: AtomicI64,
}

impl JumpyClock {
    pub(super) fn starting_at(begin: Timestamp) -> Self {
        Self { honest: TokioClock::starting_at(begin), off: AtomicI64::new(0) }
    }

    /// The clock that the others go by.
    pub(super) fn honest(&self) -> TokioClock {
        self.honest
    }

    pub(super) fn jump(&self, seconds: i64) {
        self.off.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(super) fn right_itself(&self) {
        self.off.store(0, Ordering::SeqCst);
    }
}

impl Clock for JumpyClock {
    fn now(&self) -> Timestamp {
        let off = SignedDuration::from_secs(self.off.load(Ordering::SeqCst));
        self.honest.now().saturating_add(off).unwrap()
    }
}
