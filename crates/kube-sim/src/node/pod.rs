//! One pod on its node, from its volumes to its last container's end.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt;
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Shared,
    container::{self, Happening, Teller},
    environment::{self, MESSAGE, Volumes},
    log::{Log, Writer},
    shim::{End, Excess, Order, Spec},
    status::{self, ContainerStatus, Facts, State, Terminated},
};
use crate::{cluster::Kind, logs::LogRequest};

/// A container that ends is started anew at once, then after this, twice this, and so on.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// One that ran so long starts from the beginning with this.
const LONG_RUN: Duration = Duration::from_secs(600);
/// What did not work is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Of last words so many bytes count, the last ones.
const MAX_MESSAGE: u64 = 4096;
/// Started and ended, of a few containers.
const HAPPENINGS: usize = 16;
/// What is taken of a log for last words.
const MESSAGE_LINES: u64 = 80;
const MESSAGE_BYTES: usize = 2048;

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

    /// Starts what can be started.
    async fn advance(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let now = Instant::now();
        let next_init = (0..self.inits).find(|index| !self.containers[*index].has_succeeded());
        let startable = match next_init {
            Some(index) => index..index + 1,
            None => self.inits..self.containers.len(),
        };
        for index in startable {
            if self.containers[index].can_start(now) {
                self.start(index).await;
            }
        }
    }

    async fn start(&mut self, index: usize) {
        let prepared = self.prepare(index).await;
        let container = &mut self.containers[index];
        let (program, writer) = match prepared {
            Ok(prepared) => prepared,
            Err((reason, message)) => {
                container.status.state = State::Waiting { reason, message: Some(message) };
                container.due = Some(Instant::now() + RETRY);
                return;
            }
        };
        let memory_bytes = container.spec["resources"]["limits"]["memory"].as_str().and_then(quantity);
        container.due = None;
        container.runs += 1;
        container.status.restarts = container.runs - 1;
        container.status.id = Some(format!("embedded://{}", Uuid::new_v4()));
        if let State::Terminated(end) = &container.status.state {
            container.status.last = Some(end.clone());
        }
        container.log = Some(writer.log());
        self.shared.logs.add(&self.uid, &container.status.name, writer.log());
        let (orders, ordered) = watch::channel(None);
        container.orders = Some(orders);
        let (shared, teller) = (self.shared.clone(), Teller { container: index, to: self.tell.clone() });
        let spec = Spec {
            command: program.command,
            environment: program.environment,
            directory: program.directory,
            memory_bytes,
            max_processes: shared.launcher.max_processes,
        };
        self.runs.spawn(async move {
            container::run(&shared.launcher, &spec, writer, shared.clock.clone(), ordered, &teller).await;
        });
    }

    async fn prepare(&mut self, index: usize) -> Result<(environment::Program, Writer), (&'static str, String)> {
        let container = &self.containers[index];
        if index < self.inits && container.spec["restartPolicy"] == "Always" {
            return Err((
                "CreateContainerConfigError",
                "the embedded cluster has no sidecars among the init containers".to_owned(),
            ));
        }
        if items(&container.spec["command"]).is_empty() {
            return Err((
                "ErrImagePull",
                "the embedded cluster has no images: give the container a command".to_owned(),
            ));
        }
        if self.volumes.is_none() {
            let made = environment::make_volumes(&self.shared.cluster, &self.pod, &self.directory);
            self.volumes = Some(made.map_err(|error| ("ContainerCreating", error.to_string()))?);
        }
        let container = &self.containers[index];
        let volumes = self.volumes.as_ref().expect("they were made above");
        let home = self.home(index);
        let program = environment::program(&self.shared.cluster, &self.pod, &container.spec, volumes, &home)
            .map_err(|error| ("CreateContainerConfigError", error.to_string()))?;
        // As many as the log endpoint gives: of the run now and the one before.
        let path = home.with_file_name(format!("{}.{}.log", container.status.name, container.runs % 2));
        let writer = Writer::create(path, self.shared.max_log_bytes).await;
        let writer = writer.map_err(|error| ("CreateContainerError", format!("cannot make the log: {error}")))?;
        Ok((program, writer))
    }

    async fn happen(&mut self, index: usize, happening: Happening) {
        let now = (self.shared.clock)();
        let container = &mut self.containers[index];
        let id = container.status.id.clone();
        match happening {
            Happening::Started => container.status.state = State::Running { since: now },
            Happening::NotStarted(message) => {
                let message = Some(format!("failed to create containerd task: {message}"));
                self.end(
                    index,
                    Terminated { code: 128, reason: "StartError", message, started: None, finished: now, id },
                );
            }
            Happening::Ended(End { code, excess }) => {
                let started = match container.status.state {
                    State::Running { since } => Some(since),
                    _ => None,
                };
                let reason = match (excess, code) {
                    (Some(Excess::Memory), _) => "OOMKilled",
                    (None, 0) => "Completed",
                    _ => "Error",
                };
                let message = match excess {
                    Some(Excess::Processes) => {
                        let most = self.shared.launcher.max_processes;
                        Some(format!(
                            "killed: it had more than {most} processes, the most that a container here may have"
                        ))
                    }
                    _ => self.last_words(index, code).await,
                };
                self.end(index, Terminated { code, reason, message, started, finished: now, id });
            }
        }
    }

    fn end(&mut self, index: usize, end: Terminated) {
        let (is_init, has_failed) = (index < self.inits, end.code != 0);
        let restarts = match text(&self.pod["spec"]["restartPolicy"]) {
            "Never" => false,
            "OnFailure" => has_failed,
            // An init container is done when it is done.
            _ => !is_init || has_failed,
        };
        let (id, name, namespace) = (&self.uid, self.name().to_owned(), self.namespace().to_owned());
        let pod = format!("{name}_{namespace}({id})");
        let container = &mut self.containers[index];
        container.orders = None;
        let ran =
            end.started.map(|started| Duration::try_from(end.finished.duration_since(started)).unwrap_or_default());
        container.status.state = State::Terminated(end.clone());
        if self.stopping.is_some() {
            return;
        }
        if restarts {
            let pause = container.backoff.filter(|_| ran.is_none_or(|ran| ran < LONG_RUN));
            container.backoff = Some(pause.map_or(FIRST_BACKOFF, |pause| (pause * 2).min(LONGEST_BACKOFF)));
            container.due = Some(Instant::now() + pause.unwrap_or_default());
            if let Some(pause) = pause {
                let (pause, container) = (seconds(pause), &container.status.name);
                let message = format!("back-off {pause} restarting failed container={container} pod={pod}");
                let status = &mut self.containers[index].status;
                status.state = State::Waiting { reason: "CrashLoopBackOff", message: Some(message) };
                status.last = Some(end);
            }
        } else if is_init && has_failed {
            self.stop(Why::Failed, Duration::ZERO);
        }
    }

    /// What the program left as its last words, or its log's end where the pod asks for that.
    async fn last_words(&self, index: usize, code: i32) -> Option<String> {
        let container = &self.containers[index];
        let mut words = ending(&self.home(index).join(MESSAGE)).await.unwrap_or_default();
        let falls_back = container.spec["terminationMessagePolicy"] == "FallbackToLogsOnError" && code != 0;
        if words.is_empty()
            && falls_back
            && let Some(log) = &container.log
        {
            let request = LogRequest {
                namespace: self.namespace().to_owned(),
                pod: self.name().to_owned(),
                uid: self.uid.clone(),
                container: container.status.name.clone(),
                previous: false,
                follow: false,
                timestamps: false,
                since: None,
                tail_lines: Some(MESSAGE_LINES),
                limit_bytes: None,
            };
            let mut parts = log.open(&request).await.ok()?;
            while let Ok(Some(part)) = parts.try_next().await {
                words.extend_from_slice(&part);
                words.drain(..words.len().saturating_sub(MESSAGE_BYTES));
            }
        }
        (!words.is_empty()).then(|| String::from_utf8_lossy(&words).into_owned())
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

/// The end of a file, if it is one: a program may have put anything in its place.
async fn ending(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = tokio::fs::symlink_metadata(path).await?;
    let mut end = Vec::new();
    if metadata.is_file() {
        let mut file = File::open(path).await?;
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(MAX_MESSAGE))).await?;
        file.take(MAX_MESSAGE).read_to_end(&mut end).await?;
    }
    Ok(end)
}

/// `10s`, `1m20s`.
fn seconds(pause: Duration) -> String {
    let (minutes, seconds) = (pause.as_secs() / 60, pause.as_secs() % 60);
    if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") }
}

/// Bytes of a quantity such as `64Mi` or `1e6`.
fn quantity(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 10] = [
        ("Ki", 1024.),
        ("Mi", 1_048_576.),
        ("Gi", 1_073_741_824.),
        ("Ti", 1_099_511_627_776.),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("", 1.),
    ];
    let (number, unit) = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    let number: f64 = number.parse().ok().filter(|number: &f64| *number >= 0.)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive, and saturates")]
    Some((number * unit) as u64)
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_bytes() {
        for (text, bytes) in [
            ("64Mi", Some(64 << 20)),
            ("1k", Some(1000)),
            ("1.5Gi", Some(3 << 29)),
            ("12", Some(12)),
            ("2e3", Some(2000)),
            ("1500m", Some(1)),
            ("x", None),
            ("-1", None),
        ] {
            assert_eq!(quantity(text), bytes, "{text}");
        }
    }
}
