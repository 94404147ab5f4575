//! Points at which a test may kill the process, to see that nothing is lost. Only with the cargo feature `crash-points`;
//! a shipped binary has none.

/// Where in the order of truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Before and after the evidence of an end becomes durable.
    Evidence,
    /// While an output is collected.
    Collect,
    /// Before and after other changes, terminal events among them, become durable.
    Append,
    /// Before a frame is written to a reader.
    Serve,
}

/// Dies here with SIGKILL if `PODHERALD_CRASH_AT=<point>:<n>` says so and this is the n-th time.
#[cfg(feature = "crash-points")]
pub fn at(point: Point) {
    imp::at(point);
}

/// Does nothing: this build has no crash points.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn at(_: Point) {}

#[cfg(feature = "crash-points")]
mod imp {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    use super::Point;

    #[expect(clippy::disallowed_methods, reason = "no setting of podherald: a shipped build lacks this")]
    static PLAN: LazyLock<Option<(Point, u64)>> = LazyLock::new(|| {
        let plan = std::env::var("PODHERALD_CRASH_AT").ok()?;
        let (point, n) = plan.split_once(':')?;
        let point = match point {
            "evidence" => Point::Evidence,
            "collect" => Point::Collect,
            "append" => Point::Append,
            "serve" => Point::Serve,
            _ => return None,
        };
        Some((point, n.parse().ok()?))
    });

    static PASSED: AtomicU64 = AtomicU64::new(0);

    pub(super) fn at(point: Point) {
        let Some((planned, n)) = *PLAN else { return };
        if planned == point && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == n {
            // abort() would run no destructor either, but leaves another exit status than a kill does.
            let pid = std::process::id().to_string();
            let _ = std::process::Command::new("kill").args(["-KILL", &pid]).status();
        }
    }
}
