//! Is this process ready, and for what.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use serde::Serialize;
use utoipa::ToSchema;

/// The roles that `/readyz?role=` tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Watches the cluster and writes the journal.
    Monitor,
    /// Answers requests.
    Api,
    /// Stores what executions came to.
    ResultProcessor,
    /// Tidies up after those whose result is stored.
    ResourceCleaner,
}

/// Says what is wrong, if anything is.
pub type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Says how a sink is doing.
pub type SinkProbe = Arc<dyn Fn() -> SinkHealth + Send + Sync>;

/// How a sink is doing. It does not decide on readiness: events wait for it in the journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct SinkHealth {
    /// Which.
    #[schema(value_type = String)]
    pub name: &'static str,
    /// Retention waits for it.
    pub required: bool,
    /// The last try failed.
    pub failing: bool,
    /// Events that it has not acknowledged yet.
    pub lag_events: u64,
    /// Time since it had all there was; after a start from then on.
    pub lag_seconds: f64,
    /// How long ago it had all that there was then; none where that is not known, and out of its turn.
    #[serde(skip)]
    pub complete_for: Option<f64>,
    /// Events that it acknowledged since the start.
    pub delivered: u64,
    /// Tries that failed since the start.
    pub retries: u64,
    /// Events that it can never carry, left out since the start; `GET /dead-letters` has them.
    pub rejected: u64,
    /// Those of them that end an attempt.
    pub result_unproven: u64,
    /// Events that retention took before it had them, ever.
    pub missed: u64,
    /// What failed last, and what would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// All that must be well for the process to be ready. Components register their probes at start.
pub struct Readiness {
    roles: Vec<Role>,
    probes: Mutex<Vec<(Role, &'static str, Probe)>>,
    sinks: Mutex<Vec<SinkProbe>>,
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
    /// That of a process with these roles.
    pub fn of(roles: &[Role]) -> Self {
        Self {
            roles: roles.to_vec(),
            probes: Mutex::default(),
            sinks: Mutex::default(),
            draining: AtomicBool::default(),
        }
    }

    /// Adds a probe.
    pub fn register(&self, role: Role, name: &'static str, probe: Probe) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).push((role, name, probe));
    }

    /// Adds a sink.
    pub fn register_sink(&self, probe: SinkProbe) {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).push(probe);
    }

    /// How all sinks are doing.
    pub fn sinks(&self) -> Vec<SinkHealth> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|probe| probe()).collect()
    }

    /// From now on nothing is ready: the process is on its way out.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// True once [`Readiness::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Asks all probes, or those of one role; one that runs elsewhere is not ready here.
    pub fn check(&self, role: Option<Role>) -> Vec<Finding> {
        if let Some(role) = role.filter(|role| !self.roles.contains(role)) {
            let problem = Some("this process does not run it".to_owned());
            return vec![Finding { role, name: "role", problem }];
        }
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = probes.iter().filter(|(of, ..)| role.is_none_or(|role| role == *of));
        asked.map(|(role, name, probe)| Finding { role: *role, name, problem: probe().err() }).collect()
    }
}
