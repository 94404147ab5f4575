//! Follows the log of a container that runs, and puts it where those who watch take it from.
//!
//! A follow ends for many reasons that are not the container's end (T66, T67), so it is opened again until the monitor
//! says that the attempt is over. What was already taken is then skipped, and checked on the way: a log that begins
//! otherwise than before is the container's next one, or was begun anew, and is told as another run.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Resource, api::LogParams, client::Body, core::Request};
use podherald_core::output::{ProgressLine, ProgressScanner};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::beginning::{self, Beginning, Comparison};
use crate::{backoff::Backoff, live_output::Tap, output_store, wording};

/// Between an end and the next look whether there is more.
const REOPEN: Duration = Duration::from_secs(2);
/// After the attempt's end the rest may take so long; the collected output has it in any case.
const DRAIN: Duration = Duration::from_secs(5);
/// A log that nobody watches any more is followed so much longer: people reload pages.
const LINGER: Duration = Duration::from_secs(10);
/// One progress event in this time.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

/// How long a pod may be asked for.
const ASK: Duration = Duration::from_secs(5);
/// After trouble with the disk.
const DISK_PAUSE: Duration = Duration::from_secs(10);

/// What is followed.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) container: String,
    /// Under which the log's progress lines are told, the same whenever it is followed again.
    pub(super) run: u32,
    /// Of the container, as far as the monitor has seen.
    pub(super) restarts: u32,
    /// What an earlier follow of this log has taken of it.
    pub(super) earlier: Option<Beginning>,
}

/// A progress line of a pod.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) uid: String,
    pub(super) run: u32,
    pub(super) line: ProgressLine,
}

/// What is known of the log so far.
struct Follow {
    tap: Tap,
    taken: Beginning,
    /// Until it is decided whether this is the log that an earlier follow took, nothing is shown.
    earlier: Option<Comparison>,
    /// As `taken`, until the log is begun anew.
    first: Option<beginning::Shared>,
    scanner: ProgressScanner,
    run: u32,
    /// Not told yet.
    line: Option<ProgressLine>,
    told_at: Option<Instant>,
    unwatched_since: Option<Instant>,
}

/// How one request ended.
enum Ended {
    /// Everything that there was has come.
    AllTaken,
    BegunAnew,
    /// Nobody watches.
    Unwanted,
}

/// Follows until `over` is cancelled and all has come, or until nobody watches. `first` learns how the log began.
pub(super) async fn follow(
    client: &kube::Client,
    job: &Job,
    tap: Tap,
    first: beginning::Shared,
    heard: mpsc::Sender<Heard>,
    over: CancellationToken,
) {
    let earlier = job.earlier.clone().map(Comparison::new);
    if earlier.is_none() {
        tap.begin(Some(job.restarts));
    }
    let mut follow = Follow {
        tap,
        earlier,
        taken: Beginning::default(),
        first: Some(first),
        scanner: ProgressScanner::default(),
        run: job.run,
        line: None,
        told_at: None,
        unwatched_since: None,
    };
    let all = async {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let was_over = over.is_cancelled();
            match follow.read(client, job, &heard).await {
                Ok(Ended::AllTaken) if was_over => return,
                Ok(Ended::AllTaken) => {
                    over.run_until_cancelled(sleep(REOPEN)).await;
                }
                Ok(Ended::BegunAnew) => {
                    tracing::info!(
                        namespace = job.namespace,
                        pod = job.pod,
                        "the log was begun anew; what it lost is lost"
                    );
                    over.run_until_cancelled(sleep(backoff.pause())).await;
                }
                Ok(Ended::Unwanted) => return,
                Err(Trouble::Disk(error)) => {
                    tracing::error!(%error, pod = job.pod, "live output cannot be kept");
                    // It may be followed again at once.
                    over.run_until_cancelled(sleep(DISK_PAUSE)).await;
                    return;
                }
                Err(Trouble::Log(why)) => {
                    // After the end there is nothing worth waiting for.
                    if was_over || !follow.is_wanted() {
                        return;
                    }
                    tracing::debug!(namespace = job.namespace, pod = job.pod, why, "log not followed; trying again");
                    over.run_until_cancelled(sleep(backoff.pause())).await;
                }
            }
        }
    };
    let drained = async {
        over.cancelled().await;
        sleep(DRAIN).await;
    };
    tokio::select! {
        () = all => {}
        () = drained => tracing::debug!(pod = job.pod, "the followed log did not end with its container"),
    }
}

enum Trouble {
    Disk(output_store::Error),
    Log(String),
}

impl From<output_store::Error> for Trouble {
    fn from(error: output_store::Error) -> Self {
        Self::Disk(error)
    }
}

impl Follow {
    /// One request, from the log's first byte: only so is it certain where one is.
    async fn read(&mut self, client: &kube::Client, job: &Job, heard: &mpsc::Sender<Heard>) -> Result<Ended, Trouble> {
        let mut body = open(client, job).await?;
        let mut known = Comparison::new(self.taken.clone());
        loop {
            let frame = match timeout(PROGRESS_PAUSE, body.frame()).await {
                Ok(Some(frame)) => frame.map_err(|error| Trouble::Log(wording::of(&error)))?,
                Ok(None) => break,
                Err(_) => {
                    self.settle(job);
                    self.tell(job, heard);
                    if !self.is_wanted() {
                        return Ok(Ended::Unwanted);
                    }
                    continue;
                }
            };
            let Ok(mut bytes) = frame.into_data() else { continue };
            if !known.is_over() {
                known.push(&mut bytes);
                if known.is_over() && !known.fits() {
                    return self.begin_anew(client, job).await;
                }
            }
            if !bytes.is_empty() {
                self.take(job, bytes).await?;
                self.tell(job, heard);
            }
        }
        if !known.is_over() {
            return self.begin_anew(client, job).await;
        }
        self.settle(job);
        self.tell(job, heard);
        Ok(Ended::AllTaken)
    }

    /// Decides with what there is whether this is the log that was followed before.
    fn settle(&mut self, job: &Job) {
        match self.earlier.take() {
            Some(earlier) if earlier.fits() => self.tap.go_on(job.restarts),
            Some(_) => self.tap.begin(Some(job.restarts)),
            None => {}
        }
    }

    async fn take(&mut self, job: &Job, bytes: Bytes) -> Result<(), Trouble> {
        self.taken.push(&bytes);
        if let Some(first) = &self.first {
            first.push(&bytes);
        }
        self.line = self.scanner.push(&bytes).or(self.line.take());
        if let Some(earlier) = &mut self.earlier {
            earlier.push(&mut bytes.clone());
        }
        self.tap.append(bytes).await?;
        if self.earlier.as_ref().is_some_and(Comparison::is_over) {
            self.settle(job);
        }
        Ok(())
    }

    async fn begin_anew(&mut self, client: &kube::Client, job: &Job) -> Result<Ended, Trouble> {
        // Asked before the log is opened again, so that it is never taken for a later one than it is.
        self.tap.begin_anew(restarts(client, job).await).await?;
        self.earlier = None;
        self.run = self.run.saturating_add(1);
        (self.taken, self.first, self.scanner) = (Beginning::default(), None, ProgressScanner::default());
        Ok(Ended::BegunAnew)
    }

    /// Hands the latest progress line on, unless one went just before.
    fn tell(&mut self, job: &Job, heard: &mpsc::Sender<Heard>) {
        let now = Instant::now();
        if self.line.is_none() || self.told_at.is_some_and(|at| now < at + PROGRESS_PAUSE) {
            return;
        }
        // A monitor that is behind hears of the next one.
        if let (Some(line), Ok(place)) = (&self.line, heard.try_reserve()) {
            place.send(Heard { uid: job.uid.clone(), run: self.run, line: line.clone() });
            (self.line, self.told_at) = (None, Some(now));
        }
    }

    fn is_wanted(&mut self) -> bool {
        if self.tap.is_wanted() {
            self.unwatched_since = None;
            return true;
        }
        let since = *self.unwatched_since.get_or_insert_with(Instant::now);
        since.elapsed() < LINGER
    }
}

/// How often the container was restarted, if that can be known.
async fn restarts(client: &kube::Client, job: &Job) -> Option<u32> {
    let pods = Api::<Pod>::namespaced(client.clone(), &job.namespace);
    let pod = timeout(ASK, pods.get(&job.pod)).await.ok()?.ok()?;
    let statuses = pod.status.filter(|_| pod.metadata.uid.as_ref() == Some(&job.uid))?.container_statuses?;
    let status = statuses.into_iter().find(|status| status.name == job.container)?;
    status.restart_count.try_into().ok()
}

async fn open(client: &kube::Client, job: &Job) -> Result<Body, Trouble> {
    let params = LogParams { container: Some(job.container.clone()), follow: true, ..LogParams::default() };
    let failed = |why: String| Trouble::Log(why);
    let request = Request::new(Pod::url_path(&(), Some(&job.namespace))).logs(&job.pod, &params);
    let request = request.map_err(|error| failed(wording::of(&error)))?;
    let response = client.send(request.map(Body::from)).await.map_err(|error| failed(wording::of(&error)))?;
    if response.status() == StatusCode::OK {
        Ok(response.into_body())
    } else {
        Err(failed(response.status().to_string()))
    }
}
