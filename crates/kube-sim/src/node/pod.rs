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
    environment::Volumes,
    log::Log,
    shim::Order,
    status::{self, ContainerStatus, Facts, State},
};
use crate::cluster::Kind;

/// What did not work is tried again.
const RETRY: Duration = Duration::from_secs(1);
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Deadline,
    Deleted,
    /// An init container failed.
    Failed,
    /// The pod is gone, or the node ends: nobody waits for anything.
    Gone,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, pod: Arc<Value>) -> Self {
        let uid = text(&pod["metadata"]["uid"]).to_owned();
        let directory = shared.directory.join(&uid);
        let inits = items(&pod["spec"]["initContainers"]);
        let containers = inits.iter().chain(items(&pod["spec"]["containers"])).cloned().map(Container::new).collect();
        let (tell, happenings) = mpsc::channel(HAPPENINGS);
        Self {
            inits: inits.len(),
            directory,
            started: (shared.clock)(),
            since: Instant::now(),
            volumes: None,
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
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.wake(),
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
            None => {
                self.stopping = Some(Stopping { why, kill_at });
                self.order(Order::Terminate);
            }
        }
        self.containers.iter_mut().for_each(|container| container.due = None);
        if grace.is_zero() {
            self.order(Order::Kill);
        }
    }

    fn order(&self, order: Order) {
        for orders in self.containers.iter().filter_map(|container| container.orders.as_ref()) {
            // Who has ended takes none.
            let _ = orders.send(Some(order));
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let due = self.containers.iter().filter_map(|container| container.due);
        let kill = self.stopping.as_ref().filter(|_| self.is_running()).map(|stopping| stopping.kill_at);
        due.chain(kill).chain(self.deadline().filter(|_| self.stopping.is_none())).min()
    }

    fn wake(&mut self) {
        let deadline = self.deadline();
        let now = Instant::now();
        if deadline.is_some_and(|at| at <= now) && self.stopping.is_none() {
            let grace = self.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
            self.stop(Why::Deadline, Duration::from_secs(grace));
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.kill_at <= now
        {
            stopping.kill_at = now + RETRY;
            self.order(Order::Kill);
        }
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

    /// True once no container runs or will.
    fn is_over(&self) -> bool {
        let has_ended =
            |container: &Container| matches!(container.status.state, State::Terminated(_)) && container.due.is_none();
        !self.is_running() && (self.stopping.is_some() || self.containers[self.inits..].iter().all(has_ended))
    }

    fn write_status(&self) {
        if self.is_gone() {
            return;
        }
        let (init, main) = self.statuses();
        let now = (self.shared.clock)();
        let why = (self.stopping_because() == Some(Why::Deadline) && self.is_over())
            .then_some(("DeadlineExceeded", "Pod was active on the node longer than the specified deadline"));
        let facts = Facts {
            phase: self.phase(),
            why,
            started: self.started,
            init: &init,
            main: &main,
            is_initialized: self.is_initialized(),
        };
        let write = |pod: &mut Value| status::write(pod, &facts, now);
        // Whoever deleted it meanwhile tells us with an update.
        let _ = self.shared.cluster.update(Kind::Pod, self.namespace(), self.name(), Some(&self.uid), write);
    }

    fn statuses(&self) -> (Vec<ContainerStatus>, Vec<ContainerStatus>) {
        let mut statuses: Vec<ContainerStatus> =
            self.containers.iter().map(|container| container.status.clone()).collect();
        if !self.is_initialized() {
            for status in &mut statuses[self.inits..] {
                status.state = State::Waiting { reason: "PodInitializing", message: None };
            }
        }
        let main = statuses.split_off(self.inits);
        (statuses, main)
    }

    fn phase(&self) -> &'static str {
        let main = &self.containers[self.inits..];
        if self.is_over() {
            let succeeded = main.iter().all(Container::has_succeeded) && self.stopping_because() != Some(Why::Deadline);
            return if succeeded { "Succeeded" } else { "Failed" };
        }
        let has_started = |container: &Container| {
            container.status.last.is_some() || !matches!(container.status.state, State::Waiting { .. })
        };
        if main.iter().any(has_started) { "Running" } else { "Pending" }
    }

    fn is_initialized(&self) -> bool {
        self.containers[..self.inits].iter().all(Container::has_succeeded)
    }

    fn is_being_deleted(&self) -> bool {
        self.pod["metadata"]["deletionTimestamp"].is_string()
    }

    fn is_gone(&self) -> bool {
        self.stopping_because() == Some(Why::Gone)
    }

    fn stopping_because(&self) -> Option<Why> {
        self.stopping.as_ref().map(|stopping| stopping.why)
    }

    fn namespace(&self) -> &str {
        text(&self.pod["metadata"]["namespace"])
    }

    fn name(&self) -> &str {
        text(&self.pod["metadata"]["name"])
    }
}

impl Container {
    fn new(spec: Value) -> Self {
        let status = ContainerStatus {
            name: text(&spec["name"]).to_owned(),
            image: text(&spec["image"]).to_owned(),
            state: State::Waiting { reason: "ContainerCreating", message: None },
            last: None,
            restarts: 0,
            id: None,
        };
        Self { spec, status, orders: None, log: None, due: None, backoff: None, runs: 0 }
    }

    fn has_succeeded(&self) -> bool {
        matches!(&self.status.state, State::Terminated(end) if end.code == 0)
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

/// The pod's next state; for ever none once nobody tells.
async fn changed(latest: &mut Latest) -> Option<Arc<Value>> {
    match latest.changed().await {
        Ok(()) => latest.borrow_and_update().clone(),
        Err(_) => std::future::pending().await,
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
