//! One pod on its node, from its volumes to its last container's end.

mod ends;
mod starts;

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    container::Happening,
    disk,
    environment::Volumes,
    events,
    log::Log,
    shim::Order,
    status::{self, ContainerStatus, Facts, Role, State},
};
use crate::cluster::{Kind, items, text};

/// What did not work is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at what the volumes take, at least; or so many times what a look takes.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_SHARE: u32 = 50;
/// What a pod with too large a volume has to end, as a kubelet has it.
const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// Started and ended, of a few containers.
const HAPPENINGS: usize = 16;
/// The pod as it is now; none once the API has nothing of it any more.
pub(super) type Latest = watch::Receiver<Option<Arc<Value>>>;

/// Runs one pod.
pub(super) struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Value>,
    uid: String,
    directory: PathBuf,
    started: Timestamp,
    /// The same, for deadlines.
    since: Instant,
    volumes: Option<Volumes>,
    limits: Vec<disk::Limit>,
    /// When the volumes are measured next.
    look: Option<Instant>,
    /// Volumes with more files than are counted.
    uncounted: Vec<String>,
    /// What the last event said.
    told: String,
    /// Init containers, then the others.
    containers: Vec<Container>,
    inits: usize,
    runs: JoinSet<()>,
    happenings: mpsc::Receiver<(usize, Happening)>,
    tell: mpsc::Sender<(usize, Happening)>,
    /// Why everything has to end.
    stopping: Option<Stopping>,
}

struct Container {
    spec: Value,
    status: ContainerStatus,
    /// To the run that there is, if there is one.
    orders: Option<watch::Sender<Option<Order>>>,
    log: Option<Log>,
    /// The present run or one before it has begun.
    has_run: bool,
    /// When it is started, if it waits for that.
    due: Option<Instant>,
    /// Before the next start.
    backoff: Option<Duration>,
    /// Times that it was started, or nearly.
    runs: u64,
}

struct Stopping {
    why: Why,
    kill_at: Instant,
}

#[derive(PartialEq, Eq)]
enum Why {
    Deadline,
    Deleted,
    /// A volume is too large: says which.
    Evicted(String),
    /// Only sidecars run any more.
    Done,
    /// An init container failed.
    Failed,
    /// The pod is gone, or the node ends: nobody waits for anything.
    Gone,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, pod: Arc<Value>) -> Self {
        let uid = text(&pod, "/metadata/uid").to_owned();
        let directory = shared.directory.join(&uid);
        let inits = items(&pod["spec"]["initContainers"]);
        let waits_for = if inits.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        let main = items(&pod["spec"]["containers"]).iter().map(|container| (Role::Main, container));
        let containers = inits.iter().map(|init| (init_role(init), init)).chain(main);
        let containers = containers.map(|(role, spec)| Container::new(role, spec.clone(), waits_for)).collect();
        let (tell, happenings) = mpsc::channel(HAPPENINGS);
        Self {
            inits: inits.len(),
            directory,
            started: (shared.clock)(),
            since: Instant::now(),
            volumes: None,
            limits: Vec::new(),
            look: None,
            uncounted: Vec::new(),
            told: String::new(),
            containers,
            runs: JoinSet::new(),
            happenings,
            tell,
            stopping: None,
            uid,
            pod,
            shared,
        }
    }

    /// Runs the pod to its end, waits until somebody deletes it, and cleans up. Kills everything when `stop` is cancelled.
    pub(super) async fn run(mut self, mut latest: Latest, stop: CancellationToken) {
        let place = self.shared.places.clone();
        let place = tokio::select! {
            place = place.acquire_owned() => place.ok(),
            () = self.deletion(&mut latest) => None,
            () = stop.cancelled() => None,
        };
        // One that nobody wants any more does not begin, place or not.
        if place.is_some() && !self.is_being_deleted() {
            self.started = (self.shared.clock)();
            self.since = Instant::now();
            self.live(&mut latest, &stop).await;
        }
        drop(place);
        while !self.is_being_deleted() && !self.is_gone() && !stop.is_cancelled() {
            tokio::select! {
                () = self.deletion(&mut latest) => {}
                () = stop.cancelled() => {}
            }
        }
        if self.is_being_deleted() && !self.is_gone() {
            // Gone already, or held by a finalizer: either is fine.
            let _ = self.shared.cluster.remove(Kind::Pod, self.namespace(), self.name(), &self.uid);
        }
        self.shared.logs.forget(&self.uid);
        let directory = self.directory;
        if let Err(error) = tokio::fs::remove_dir_all(&directory).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, directory = %directory.display(), "a pod's directory could not be removed");
        }
    }

    /// Waits until the pod is being deleted or is gone.
    async fn deletion(&mut self, latest: &mut Latest) {
        while !self.is_being_deleted() && !self.is_gone() {
            let is = changed(latest).await;
            self.update(is);
        }
    }

    async fn live(&mut self, latest: &mut Latest, stop: &CancellationToken) {
        let mut is_stopped = false;
        loop {
            self.advance().await;
            self.write_status();
            if self.is_over() {
                return;
            }
            let wake = self.next_wake();
            tokio::select! {
                biased;
                () = stop.cancelled(), if !is_stopped => {
                    is_stopped = true;
                    self.stop(Why::Gone, Duration::ZERO);
                }
                is = changed(latest) => self.update(is),
                Some((index, happening)) = self.happenings.recv() => self.happen(index, happening).await,
                Some(_) = self.runs.join_next() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.wake().await,
            }
        }
    }

    fn update(&mut self, is: Option<Arc<Value>>) {
        match is {
            Some(pod) => {
                self.pod = pod;
                if self.is_being_deleted() {
                    let grace = self.pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30);
                    self.stop(Why::Deleted, Duration::from_secs(grace));
                }
            }
            None => self.stop(Why::Gone, Duration::ZERO),
        }
    }

    /// Asks all programs to end within `grace`. The first reason stays, the shortest grace counts.
    fn stop(&mut self, why: Why, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match &mut self.stopping {
            Some(stopping) => {
                stopping.kill_at = stopping.kill_at.min(kill_at);
                if why == Why::Gone {
                    stopping.why = why;
                }
            }
            None => self.stopping = Some(Stopping { why, kill_at }),
        }
        self.containers.iter_mut().for_each(|container| container.due = None);
        self.look = None;
        if grace.is_zero() {
            self.kill();
        }
    }

    /// Asks those to end whose turn it is: sidecars serve until all others have ended, then the last one goes first.
    fn terminate(&self) {
        let running = || self.containers.iter().filter(|container| container.orders.is_some());
        if running().any(|container| container.status.role != Role::Sidecar) {
            running().filter(|container| container.status.role != Role::Sidecar).for_each(Container::terminate);
        } else if let Some(last) = running().next_back() {
            last.terminate();
        }
    }

    fn kill(&self) {
        for orders in self.containers.iter().filter_map(|container| container.orders.as_ref()) {
            // Who has ended takes none.
            let _ = orders.send(Some(Order::Kill));
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let due = self.containers.iter().filter_map(|container| container.due);
        let kill = self.stopping.as_ref().filter(|_| self.is_running()).map(|stopping| stopping.kill_at);
        due.chain(kill).chain(self.look).chain(self.deadline().filter(|_| self.stopping.is_none())).min()
    }

    async fn wake(&mut self) {
        let deadline = self.deadline();
        let now = Instant::now();
        if deadline.is_some_and(|at| at <= now) && self.stopping.is_none() {
            self.stop(Why::Deadline, self.grace());
        }
        if self.look.is_some_and(|at| at <= now) {
            self.measure_volumes().await;
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.kill_at <= now
        {
            stopping.kill_at = now + RETRY;
            self.kill();
        }
    }

    /// Evicts the pod if one of its volumes has become too large.
    async fn measure_volumes(&mut self) {
        let (limits, begun) = (self.limits.clone(), Instant::now());
        let looked = tokio::task::spawn_blocking(move || disk::look(&limits)).await;
        // A pod whose volumes are slow to measure is measured less often.
        self.look = Some(Instant::now() + LOOK.max(begun.elapsed() * LOOK_SHARE));
        let Ok(found) = looked else { return };
        if found.uncounted != self.uncounted {
            let volumes = found.uncounted.join(", ");
            tracing::warn!(pod = self.name(), volumes, "volumes have more files than are counted for their size limit");
            self.uncounted = found.uncounted;
        }
        if let Some(excess) = found.excess {
            self.warn("Evicted", &excess);
            self.stop(Why::Evicted(excess), EVICTION_GRACE);
        }
    }

    /// Writes an event, unless it is the same as the last one.
    fn warn(&mut self, reason: &str, message: &str) {
        if self.told != message {
            message.clone_into(&mut self.told);
            let Shared { cluster, counters, clock, .. } = &*self.shared;
            events::warn(cluster, counters, &self.pod, reason, message, clock());
        }
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(self.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30))
    }

    fn deadline(&self) -> Option<Instant> {
        let seconds = self.pod["spec"]["activeDeadlineSeconds"].as_u64()?;
        self.since.checked_add(Duration::from_secs(seconds))
    }

    /// Where a container's files are, but for its volumes.
    fn home(&self, index: usize) -> PathBuf {
        self.directory.join("containers").join(&self.containers[index].status.name)
    }

    fn is_running(&self) -> bool {
        self.containers.iter().any(|container| container.orders.is_some())
    }

    /// True once all that the pod is for has ended for good.
    fn is_done(&self) -> bool {
        // One that is being started anew shows its last end until it runs.
        let has_ended = |container: &Container| {
            matches!(container.status.state, State::Terminated(_))
                && container.due.is_none()
                && container.orders.is_none()
        };
        self.containers[self.inits..].iter().all(has_ended)
    }

    /// True once no container runs or will.
    fn is_over(&self) -> bool {
        !self.is_running() && (self.stopping.is_some() || self.is_done())
    }

    fn write_status(&self) {
        if self.is_gone() {
            return;
        }
        let now = (self.shared.clock)();
        let statuses: Vec<ContainerStatus> = self.containers.iter().map(|container| container.status.clone()).collect();
        let (init, main) = statuses.split_at(self.inits);
        let why = self.failed_because().filter(|_| self.is_over());
        let is_set_up = self.volumes.is_some();
        let facts = Facts { phase: self.phase(), why, started: self.started, is_set_up, init, main };
        let write = |pod: &mut Value| status::write(pod, &facts, now);
        // Whoever deleted it meanwhile tells us with an update.
        let _ = self.shared.cluster.update(Kind::Pod, self.namespace(), self.name(), Some(&self.uid), write);
    }

    /// Why it fails whatever its containers say.
    fn failed_because(&self) -> Option<(&'static str, &str)> {
        match &self.stopping.as_ref()?.why {
            Why::Deadline => {
                Some(("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"))
            }
            Why::Evicted(message) => Some(("Evicted", message)),
            Why::Deleted | Why::Done | Why::Failed | Why::Gone => None,
        }
    }

    fn phase(&self) -> &'static str {
        let mut main = self.containers[self.inits..].iter().map(|container| &container.status);
        if self.is_over() {
            let succeeded = main.all(ContainerStatus::has_succeeded) && self.failed_because().is_none();
            return if succeeded { "Succeeded" } else { "Failed" };
        }
        if main.any(ContainerStatus::has_started) { "Running" } else { "Pending" }
    }

    fn is_being_deleted(&self) -> bool {
        self.pod["metadata"]["deletionTimestamp"].is_string()
    }

    fn is_gone(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.why == Why::Gone)
    }

    fn namespace(&self) -> &str {
        text(&self.pod, "/metadata/namespace")
    }

    /// Which container, for people.
    fn label(&self, index: usize) -> String {
        format!("{}/{}/{}", self.namespace(), self.name(), self.containers[index].status.name)
    }

    fn name(&self) -> &str {
        text(&self.pod, "/metadata/name")
    }
}

impl Container {
    fn new(role: Role, spec: Value, waits_for: &'static str) -> Self {
        let status = ContainerStatus::new(role, &spec, waits_for);
        Self { spec, status, orders: None, log: None, has_run: false, due: None, backoff: None, runs: 0 }
    }

    /// The next container may start.
    fn lets_others_start(&self) -> bool {
        match self.status.role {
            Role::Init => self.status.has_succeeded(),
            Role::Sidecar => self.has_run,
            Role::Main => true,
        }
    }

    /// Asks it to end, unless it has been told to already.
    fn terminate(&self) {
        if let Some(orders) = &self.orders {
            orders.send_if_modified(|order| order.is_none() && order.replace(Order::Terminate).is_none());
        }
    }

    fn can_start(&self, now: Instant) -> bool {
        if self.orders.is_some() {
            return false;
        }
        match (&self.status.state, self.due) {
            (_, Some(due)) => due <= now,
            (State::Waiting { .. }, None) => true,
            (State::Running { .. } | State::Terminated(_), None) => false,
        }
    }
}

fn init_role(init: &Value) -> Role {
    if init["restartPolicy"] == "Always" { Role::Sidecar } else { Role::Init }
}

/// The pod's next state; for ever none once nobody tells.
async fn changed(latest: &mut Latest) -> Option<Arc<Value>> {
    match latest.changed().await {
        Ok(()) => latest.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}
