//! `[monitor]`: how long the monitor waits, and for what.

use std::time::Duration;

use super::{Error, setting::settings, source::Effective, value::positive};

settings! {
    /// The monitor's patience.
    pub struct Monitor in "monitor." {
        /// Pause between two complete lists, which must agree with what the watches told.
        /// `PODHERALD_MONITOR__RECONCILE_INTERVAL`, default `"300s"`.
        reconcile_interval: Duration = "300s",
        /// How long a failed pod's exit code is awaited while its container still runs.
        /// `PODHERALD_MONITOR__EXIT_GRACE`, default `"10s"`.
        exit_grace: Duration = "10s",
        /// How long an image may fail to be pulled before the attempt ends as never started.
        /// `PODHERALD_MONITOR__IMAGE_PULL_GRACE`, default `"5m"`.
        image_pull_grace: Duration = "5m",
        /// How long a ConfigMap, Secret or setting may be missing before the attempt ends as never started.
        /// `PODHERALD_MONITOR__CONFIG_ERROR_GRACE`, default `"2m"`.
        config_error_grace: Duration = "2m",
        /// How long a pod may find no node before the attempt ends as never started; `off`: for ever.
        /// `PODHERALD_MONITOR__UNSCHEDULABLE_DEADLINE`, default `"off"`.
        unschedulable_deadline: Option<Duration> = "off",
    }
}

impl Monitor {
    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        positive(effective, "monitor.reconcile_interval", self.reconcile_interval)
    }
}
