//! Is this process ready, and for what.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

/// The roles that `/readyz?role=` tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Watches the cluster and writes the journal.
    Monitor,
    /// Answers requests.
    Api,
}

/// Says what is wrong, if anything is.
pub type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// All that must be well for the process to be ready. Components register their probes at start.
#[derive(Default)]
pub struct Readiness {
    probes: Mutex<Vec<(Role, &'static str, Probe)>>,
    draining: AtomicBool,
}

/// One probe's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whose.
    pub role: Role,
    /// What was probed, `watch` or `journal` for instance.
    pub name: &'static str,
    /// What is wrong, if anything is.
    pub problem: Option<String>,
}

impl Readiness {
    /// Adds a probe.
    pub fn register(&self, role: Role, name: &'static str, probe: Probe) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).push((role, name, probe));
    }

    /// From now on nothing is ready: the process is on its way out.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// True once [`Readiness::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Asks all probes, or those of one role.
    pub fn check(&self, role: Option<Role>) -> Vec<Finding> {
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        probes
            .iter()
            .filter(|(of, ..)| role.is_none_or(|role| role == *of))
            .map(|(role, name, probe)| Finding { role: *role, name, problem: probe().err() })
            .collect()
    }
}
