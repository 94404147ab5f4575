//! `[journal]`: how much is kept, and for how long.

use std::time::Duration;

use super::{
    Error,
    setting::settings,
    source::Effective,
    value::{Size, positive},
};

/// Below this the empty journal would not fit.
const SMALLEST: u64 = 256 * 1024;

settings! {
    /// Bounds on the journal.
    pub struct Journal in "journal." {
        /// Bytes that the journal may take on disk; at 80 % it alarms, at 100 % podherald is not ready.
        /// `PODHERALD_JOURNAL__MAX_BYTES`, default `"4GiB"`.
        max_bytes: Size = "4GiB",
        /// How long an ended execution is kept, with its output.
        /// `PODHERALD_JOURNAL__RETENTION`, default `"7d"`.
        retention: Duration = "7d",
    }
}

impl Journal {
    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        if self.max_bytes.bytes() < SMALLEST {
            return Err(effective.refuse("journal.max_bytes", "a size of at least `256KiB`"));
        }
        positive(effective, "journal.retention", self.retention)
    }
}
