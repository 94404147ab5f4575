//! Points at which a test may have the process killed, to see that nothing is lost. Only with the cargo feature
//! `crash-points`; a shipped binary has none.

/// Where in the order of truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before and after the evidence of an end becomes durable.
    Evidence,
    /// Before and after an output is collected.
    Collect,
    /// Before and after a blob is made of an output.
    Blob,
    /// Before and after the output of one of its pods becomes that of a Job.
    Adopt,
    /// Before and after other changes, terminal events among them, become durable.
    Append,
    /// Between a commit and everybody's hearing of it: the writer's acknowledgement and the live streams.
    Commit,
    /// Before a frame is written to a reader.
    Serve,
    /// Before and after a held pod is patched.
    Hold,
    /// Before a result is stored.
    Store,
    /// Between that and its being told.
    Tell,
    /// Between that and its acknowledgement.
    Acknowledge,
    /// After a group's place has been moved up, for good.
    Place,
    /// Before an object that is tidied up is annotated, between that and its deletion, and after that.
    Clean,
    /// Before a batch goes to a sink, between its acknowledgement and the cursor's move, and after that.
    Relay,
}

/// Dies here with SIGKILL if `PODHERALD_CRASH_AT=<point>:<n>` says so and this is the n-th time.
#[cfg(feature = "crash-points")]
pub fn at(point: Point) {
    plan::at(point);
}

/// Does nothing: this build has no crash points.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn at(_: Point) {}

#[cfg(feature = "crash-points")]
mod plan {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    #[expect(clippy::disallowed_methods, reason = "no setting of podherald: a shipped build lacks this")]
    static PLAN: LazyLock<Option<(Point, u64)>> = LazyLock::new(|| {
        let plan = std::env::var("PODHERALD_CRASH_AT").ok()?;
        Some(read(&plan).unwrap_or_else(|| panic!("PODHERALD_CRASH_AT is {plan:?}, but must be <point>:<n>")))
    });

    static PASSED: AtomicU64 = AtomicU64::new(0);

    fn read(plan: &str) -> Option<(Point, u64)> {
        let (point, n) = plan.split_once(':')?;
        let point = match point {
            "evidence" => Point::Evidence,
            "collect" => Point::Collect,
            "blob" => Point::Blob,
            "adopt" => Point::Adopt,
            "append" => Point::Append,
            "commit" => Point::Commit,
            "serve" => Point::Serve,
            "relay" => Point::Relay,
            "hold" => Point::Hold,
            "store" => Point::Store,
            "tell" => Point::Tell,
            "acknowledge" => Point::Acknowledge,
            "place" => Point::Place,
            "clean" => Point::Clean,
            _ => return None,
        };
        Some((point, n.parse().ok()?))
    }

    pub(super) fn at(point: Point) {
        let Some((planned, n)) = *PLAN else { return };
        if planned == point && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == n {
            // The test counts these lines: a death of any other cause is none of its points.
            tracing::error!(?point, n, "dying at a crash point");
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
    }
}
