//! `[monitor]`: how long the monitor waits, and for what.

use std::time::Duration;

use super::{Error, LeaseName, Mode, setting::settings, source::Effective, value::positive};

/// Shorter, and a slow answer of the API server would cost the lead.
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 3..=3600;

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
        /// How late an end may be that is due by the pod's own deadline or by its deletion. Then the API server is asked for the pod
        /// and, where the role in `deploy/nodes.yaml` allows it, for its node; a node that is found lost, and found the same as
        /// long again later, ends the attempt. A node that may not be asked for leaves such an end `unknown`.
        /// `PODHERALD_MONITOR__MUST_HEAR_GRACE`, default `"3m"`.
        must_hear_grace: Duration = "3m",
        /// How long after its start the same is asked for a pod that has no deadline, and then again and again; `off`: never.
        /// `PODHERALD_MONITOR__MUST_HEAR_BY`, default `"off"`.
        must_hear_by: Option<Duration> = "off",
        /// Put the finalizer `podherald.dev/result` on pods, so that none is gone before its end is told to every required sink;
        /// it needs the role in `deploy/hold.yaml`. A pod that has it is let go all the same where this is `false`.
        /// `PODHERALD_MONITOR__HOLD`, default `false`.
        hold: bool = false,
        /// After how long a held pod that somebody has deleted is let go though its end is not told to all who must have it.
        /// `PODHERALD_MONITOR__HOLD_CEILING`, default `"24h"`.
        hold_ceiling: Duration = "24h",
        /// The Lease, as `NAMESPACE/NAME`, for which several podheralds with data directories of their own take turns: one of
        /// them leads, the others stand by. It needs `kafka.brokers`, by which they know of each other; `off`: there is only one.
        /// `PODHERALD_MONITOR__LEASE`, default `"off"`.
        lease: Option<LeaseName> = "off",
        /// After how long without a sign of the leader another one takes over, in whole seconds.
        /// `PODHERALD_MONITOR__LEASE_DURATION`, default `"15s"`.
        lease_duration: Duration = "15s",
    }
}

impl Monitor {
    pub(super) fn validate(&self, effective: &Effective, has_kafka: bool, mode: Mode) -> Result<(), Error> {
        positive(effective, "monitor.reconcile_interval", self.reconcile_interval)?;
        positive(effective, "monitor.hold_ceiling", self.hold_ceiling)?;
        positive(effective, "monitor.must_hear_grace", self.must_hear_grace)?;
        if let Some(by) = self.must_hear_by {
            positive(effective, "monitor.must_hear_by", by)?;
        }
        let is_whole = self.lease_duration.subsec_nanos() == 0;
        if !is_whole || !LEASE_SECONDS.contains(&self.lease_duration.as_secs()) {
            return Err(effective.refuse("monitor.lease_duration", "whole seconds from 3s to 1h"));
        }
        match &self.lease {
            Some(_) if !has_kafka => Err(effective.refuse(
                "monitor.lease",
                "`off` without kafka.brokers: only by a Kafka does one podherald know what another has told",
            )),
            Some(_) if mode == Mode::Embedded => Err(effective
                .refuse("monitor.lease", "`off` with kube.mode = embedded: that cluster is in this process only")),
            Some(_) | None => Ok(()),
        }
    }
}
