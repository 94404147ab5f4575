//! `[cleaner]`: what of the cluster is tidied up, and when.

use std::time::Duration;

use super::{Error, names::LabelSelector, setting::settings, source::Effective, value::positive};

/// A slip of the pen must not end what runs.
const LEAST_UNSTORED_AGE: Duration = Duration::from_hours(1);

settings! {
    /// What the role `resource_cleaner` deletes: pods and ConfigMaps with the labels `component=executor` and `execution-id`, and no others.
    pub struct Cleaner in "cleaner." {
        /// What such an object must have besides: it is podherald's own, or that of whoever makes the pods in its place.
        /// `PODHERALD_CLEANER__SELECTOR`, default `"app=podherald"`.
        selector: LabelSelector = "app=podherald",
        /// How old an object must be: a create that comes late finds it there, and does not run the program again.
        /// `PODHERALD_CLEANER__MIN_AGE`, default `"5m"`.
        min_age: Duration = "5m",
        /// How long a pod that failed or ran into its deadline stays for somebody to look at.
        /// `PODHERALD_CLEANER__KEEP_FAILED`, default `"1h"`.
        keep_failed: Duration = "1h",
        /// How long a ConfigMap waits for its pod.
        /// `PODHERALD_CLEANER__ORPHAN_AGE`, default `"1h"`.
        orphan_age: Duration = "1h",
        /// After how long a pod goes although no result of it is stored, even while it runs; `off`: never. Each one is counted and logged.
        /// `PODHERALD_CLEANER__UNSTORED_AGE`, default `"off"`.
        unstored_age: Option<Duration> = "off",
        /// Between two looks at everything. What has become old enough goes with the next one.
        /// `PODHERALD_CLEANER__INTERVAL`, default `"60s"`.
        interval: Duration = "60s",
        /// Only says in the log and in `/metrics` what it would delete.
        /// `PODHERALD_CLEANER__DRY_RUN`, default `false`.
        dry_run: bool = false,
    }
}

impl Cleaner {
    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        positive(effective, "cleaner.interval", self.interval)?;
        match self.unstored_age {
            Some(age) if age < LEAST_UNSTORED_AGE => {
                Err(effective
                    .refuse("cleaner.unstored_age", "`off`, or at least `1h`: it takes pods that still run, too"))
            }
            Some(_) | None => Ok(()),
        }
    }
}
