//! `[logs]`: how output is collected.

use std::time::Duration;

use super::{
    Error,
    setting::settings,
    source::Effective,
    value::{Size, choice, positive},
};

settings! {
    /// Bounds on reading what a container printed.
    pub struct Logs in "logs." {
        /// Bytes kept of one attempt's output: half from its beginning, half from its end.
        /// `PODHERALD_LOGS__MAX_BYTES`, default `"16MiB"`.
        max_bytes: Size = "16MiB",
        /// How long reading one output may take, retries included; the terminal event then goes out with what there is.
        /// `PODHERALD_LOGS__DEADLINE`, default `"30s"`.
        deadline: Duration = "30s",
        /// Outputs read at a time.
        /// `PODHERALD_LOGS__CONCURRENCY`, default `32`.
        concurrency: u32 = 32,
        /// Whose logs are followed while they run, for live output and progress: `watched`, those that somebody watches; `all`;
        /// or `never`.
        /// `PODHERALD_LOGS__FOLLOW`, default `"watched"`.
        follow: Follow = "watched",
        /// Logs followed at a time; further ones are read when they have ended.
        /// `PODHERALD_LOGS__MAX_FOLLOWS`, default `64`.
        max_follows: u32 = 64,
        /// Of an Indexed Job, the outputs of so many indexes are kept, from index 0 on, at most 10,000; of further ones it is said how
        /// many were seen to complete.
        /// `PODHERALD_LOGS__MAX_INDEXES`, default `100`.
        max_indexes: u32 = 100,
        /// The longest line that is still read as a report; a longer one is text.
        /// `PODHERALD_LOGS__MAX_REPORT_BYTES`, default `"4MiB"`.
        max_report_bytes: Size = "4MiB",
    }
}

choice! {
    /// Whose logs are followed.
    pub enum Follow {
        /// Nobody's.
        Never = "never",
        /// Of executions that somebody watches.
        Watched = "watched",
        /// Everybody's.
        All = "all",
    }
}

/// Each takes some 300 bytes of the terminal event.
const MOST_INDEXES: u32 = 10_000;

impl Logs {
    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        positive(effective, "logs.max_bytes", self.max_bytes)?;
        positive(effective, "logs.deadline", self.deadline)?;
        positive(effective, "logs.concurrency", self.concurrency)?;
        positive(effective, "logs.max_follows", self.max_follows)?;
        if self.max_indexes > MOST_INDEXES {
            return Err(effective.refuse("logs.max_indexes", "at most 10000: one event names them all"));
        }
        positive(effective, "logs.max_report_bytes", self.max_report_bytes)
    }
}
