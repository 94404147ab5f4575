//! What becomes of a pod's containers: their starts and ends, as they are told, and whether they are started anew.

use std::{
    io::{self, SeekFrom},
    path::Path,
    time::Duration,
};

use futures::TryStreamExt;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    time::Instant,
};

use super::{
    super::{
        container::Happening,
        environment::MESSAGE,
        shim::{End, Excess},
        status::{Role, State, Terminated},
    },
    Why, Worker, text,
};
use crate::logs::LogRequest;

/// A container that ends is started anew at once, then after this, twice this, and so on.
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// One that ran so long starts from the beginning with this.
const LONG_RUN: Duration = Duration::from_secs(600);
/// Of last words so many bytes count, the last ones.
const MAX_MESSAGE: u64 = 4096;
/// What is taken of a log for last words.
const MESSAGE_LINES: u64 = 80;
const MESSAGE_BYTES: usize = 2048;

/// What containerd and runc put before the reason.
const START_ERROR: &str = "failed to create containerd task: failed to create shim task: OCI runtime create failed: \
     runc create failed: unable to start container process";

impl Worker {
    pub(super) async fn happen(&mut self, index: usize, happening: Happening) {
        let now = (self.shared.clock)();
        let container = &mut self.containers[index];
        let id = container.status.id.clone();
        match happening {
            Happening::Started => {
                container.has_run = true;
                container.status.state = State::Running { since: now };
            }
            Happening::NotStarted(message) => {
                let message = Some(format!("{START_ERROR}: {message}: unknown"));
                self.end(
                    index,
                    Terminated { code: 128, reason: "StartError", message, started: None, finished: now, id },
                );
            }
            Happening::Left(pids) => {
                self.shared.counters.count_left(pids.len());
                let container = self.label(index);
                tracing::warn!(container, ?pids, "processes could not be killed and are left to themselves");
            }
            Happening::OutputHeld => {
                self.shared.counters.count_held_output();
                let container = self.label(index);
                tracing::warn!(
                    container,
                    "the output of a container that has ended is held open: what still comes is lost"
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
        let (role, has_failed) = (self.containers[index].status.role, end.code != 0);
        let restarts = match (role, text(&self.pod, "/spec/restartPolicy")) {
            (Role::Sidecar, _) => true,
            (_, "Never") => false,
            (_, "OnFailure") => has_failed,
            // An init container is done when it is done.
            _ => role == Role::Main || has_failed,
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
        } else if role == Role::Init && has_failed {
            self.stop(Why::Failed, self.grace());
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
