//! Fetches the log of a container that has ended, once, and makes its output durable.
//!
//! The terminal event waits for this, so it always ends: with the whole log, or at `logs.deadline` with as much as there
//! is and a verdict that says so. What may pass is tried again until then (a container that the kubelet has not caught up
//! with, a busy or unreachable server, a stream that breaks off); what will not pass ends it at once.

mod blobs;
mod metrics;
mod reading;
mod retries;
mod slots;

use podherald_core::{
    event::{IndexOutput, Indexes, Verdict},
    output::{Collected, Limits, LogEnd, Scan, Scanner},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::beginning::Beginning;
use crate::{
    blob::Blobs,
    crash,
    output_store::{OfPod, OutputStore, Writer},
};
pub use metrics::Metrics;
use reading::{Kind, Read, Reading, Trouble};
use retries::Retries;
use slots::{Slot, Slots};

/// What bounds a collection. `logs.deadline` is in each [`Job`].
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What is held, shown and kept of a log.
    pub limits: Limits,
    /// Logs read at once.
    pub concurrency: usize,
    /// Logs read at once from one node: each costs the API server and the kubelet a connection (T77).
    pub per_node: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), concurrency: 32, per_node: 24 }
    }
}

/// One log to collect.
#[derive(Debug, Clone)]
pub struct Job {
    /// `metadata.namespace` of the pod.
    pub namespace: String,
    /// `metadata.name` of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub uid: String,
    /// The node, where known.
    pub node_name: Option<String>,
    /// Whose output it is.
    pub execution_id: String,
    /// Which attempt of it.
    pub attempt: u32,
    /// The key of the attempt ([`identity::attempt_key`](podherald_core::identity::attempt_key)).
    pub attempt_key: String,
    /// The pod is one of a Job's, whose end will tell whether its output is the attempt's.
    pub of_job: bool,
    /// No event will hold its text ([`job::indexes`](podherald_core::job::indexes)).
    pub in_full: bool,
    /// Whose log it is; `None` if no program ever ran.
    pub container: Option<String>,
    /// The pod is no longer there, so nobody is asked for its log: the name may be another pod's by now (T16).
    pub gone: bool,
    /// Nobody has told the container's end, so it may still print.
    pub is_open: bool,
    /// `terminated.message` of the container.
    pub termination_message: Option<String>,
    /// How the log began, where it was followed from there.
    pub beginning: Option<Beginning>,
    /// When the event goes out with what there is.
    pub deadline: Instant,
}

/// What a Job's output is made of.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// Whose output it is.
    pub execution_id: String,
    /// Which attempt of it.
    pub attempt: u32,
    /// The key of the attempt.
    pub attempt_key: String,
    /// `uid` of the pod whose output it is, and that.
    pub pod: Option<(String, Collected)>,
    /// What its indexes printed, if it has any.
    pub indexes: Option<Indexes>,
    /// Why there is none, if there is none.
    pub otherwise: LogEnd,
    /// What the cluster said in its place.
    pub message: Option<String>,
}

/// Collects outputs; see the module.
pub struct Collector {
    client: kube::Client,
    store: OutputStore,
    blobs: Option<Blobs>,
    limits: Limits,
    slots: Slots,
    metrics: Metrics,
}

impl Collector {
    /// A collector that asks through `client`, which must not retry by itself: the deadline is the collector's.
    pub fn new(client: kube::Client, store: OutputStore, options: Options, metrics: Metrics) -> Self {
        Self {
            client,
            store,
            blobs: None,
            limits: options.limits,
            slots: Slots::new(options.concurrency, options.per_node),
            metrics,
        }
    }

    /// The same, that makes blobs of what events will not hold.
    #[must_use]
    pub fn with_blobs(self, blobs: Option<Blobs>) -> Self {
        Self { blobs, ..self }
    }

    /// Reads the log and stores what the event will not hold; never fails, and ends soon after the deadline at the latest.
    pub async fn collect(&self, job: Job) -> Collected {
        let begun = Instant::now();
        let slot = self.slot(&job).await;
        // Thousands may wait for a slot: only who has one takes the room that reading needs.
        let collected = Box::pin(self.collect_in(slot, job)).await;
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        collected
    }

    /// The right to read this log; none if there is nothing to ask for, or not before the deadline.
    async fn slot(&self, job: &Job) -> Option<Slot<'_>> {
        if job.container.is_none() || job.gone {
            return None;
        }
        timeout_at(job.deadline, self.slots.take(job.node_name.as_deref())).await.ok()
    }

    async fn collect_in(&self, slot: Option<Slot<'_>>, job: Job) -> Collected {
        let (scan, writer) = self.read(slot, &job).await;
        self.tell(&job, &scan);
        let (mut collected, stored) = match writer {
            Ok(writer) => writer.finish(&job.execution_id, job.attempt, scan).await,
            Err(error) => (scan.into_inline_only(), Err(error)),
        };
        if let Err(error) = stored {
            self.metrics.not_stored.inc();
            tracing::error!(
                execution_id = job.execution_id,
                attempt = job.attempt,
                %error,
                "output not stored; the event holds its head and tail"
            );
            collected.note_not_stored();
        } else if !job.of_job {
            // What a Job's pods printed may not be the Job's.
            self.make_blobs(&job.execution_id, job.attempt, &job.attempt_key, &mut collected).await;
        }
        collected
    }

    async fn read(&self, slot: Option<Slot<'_>>, job: &Job) -> Read {
        let message = job.termination_message.as_deref();
        let nothing = |end| (Scanner::new(self.limits).finish(end, message), Ok(self.writer(job)));
        let lost = |trouble: &Trouble| {
            self.metrics.lost(trouble.kind);
            nothing(LogEnd::Lost(trouble.why.clone()))
        };
        let Some(container) = &job.container else { return nothing(LogEnd::None) };
        if job.gone {
            return lost(&Trouble::new(Kind::Gone, "the pod is gone"));
        }
        let Some(_slot) = slot else {
            return lost(&Trouble::new(Kind::Deadline, "too many other logs were being read until the deadline"));
        };

        let mut best: Option<Reading> = None;
        let mut retries = Retries::new(job.deadline);
        let trouble = loop {
            let mut reading = Reading::new(self.limits, self.writer(job));
            let trouble = match reading.read(&self.client, job, container).await {
                Ok(end) => {
                    let is_partial = end != LogEnd::Complete;
                    let (scan, writer) = reading.finish(end, message);
                    if !scan.is_lost() {
                        self.metrics.partial.inc_by(is_partial.into());
                        return (scan, writer);
                    }
                    Trouble::new(Kind::NotRetrievable, "the kubelet could not retrieve the log")
                }
                Err(trouble) => {
                    if reading.total() > best.as_ref().map_or(0, Reading::total) {
                        best = Some(reading);
                    }
                    trouble
                }
            };
            let Some(delay) = retries.after(&trouble) else { break trouble };
            self.metrics.retry(trouble.kind);
            tracing::info!(
                namespace = job.namespace,
                pod = job.pod,
                container,
                reason = trouble.kind.as_str(),
                why = trouble.why,
                delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "log not read; trying again"
            );
            sleep(delay).await;
            if reading::is_over(&trouble, &self.client, job).await {
                break Trouble::new(Kind::Gone, "the pod is gone");
            }
        };
        let Some(reading) = best else { return lost(&trouble) };
        let (scan, writer) = reading.finish(LogEnd::BrokeOff, message);
        if scan.is_lost() {
            self.metrics.lost(Kind::NotRetrievable);
        } else {
            self.metrics.partial.inc();
        }
        (scan, writer)
    }

    /// The output of a Job: that of one of its pods, collected when it ended, or the reason why there is none.
    pub async fn adopt(&self, attempt: Adoption) -> Collected {
        let Adoption { execution_id, attempt, attempt_key, pod, mut indexes, otherwise, message } = attempt;
        let (uid, collected) = match pod {
            Some((uid, collected)) => (Some(uid), Some(collected)),
            None => (None, None),
        };
        let kept: Vec<&str> = indexes.iter().flat_map(|indexes| &indexes.outputs).map(|it| &*it.pod_uid).collect();
        crash::at(crash::Point::Adopt);
        let adopted = self.store.adopt(&execution_id, attempt, uid.as_deref(), &kept).await;
        crash::at(crash::Point::Adopt);
        let mut collected = collected
            .unwrap_or_else(|| Scanner::new(self.limits).finish(otherwise, message.as_deref()).into_inline_only());
        let is_adopted = adopted.is_ok();
        match adopted {
            Ok(missing) => indexes.iter_mut().for_each(|indexes| lose(indexes, &missing)),
            Err(error) => {
                self.metrics.not_stored.inc();
                tracing::error!(execution_id, attempt, %error, "output not stored; the event holds its head and tail");
                collected.note_not_stored();
            }
        }
        if let Some(Indexes { left_out, .. }) = indexes.as_ref().filter(|indexes| indexes.left_out > 0) {
            self.metrics.indexes_left_out.inc_by(u64::from(*left_out));
            tracing::warn!(execution_id, attempt, left_out, "outputs of indexes beyond logs.max_indexes are not kept");
        }
        let mut collected = Collected { indexes, ..collected };
        if is_adopted {
            self.make_blobs(&execution_id, attempt, &attempt_key, &mut collected).await;
        }
        collected
    }

    /// Lets go of what these pods printed: others' outputs matter more.
    pub async fn discard(&self, pods: Vec<OfPod>) {
        if let Err(error) = self.store.remove_pods(pods).await {
            self.metrics.not_discarded.inc();
            tracing::warn!(%error, "an output that does not matter any more stays until its Job's end");
        }
    }

    fn writer(&self, job: &Job) -> Writer {
        self.store.writer(self.limits.max_bytes).of_pod(job.of_job.then(|| job.uid.clone())).in_full(job.in_full)
    }

    /// One line for an output that is not complete.
    fn tell(&self, job: &Job, scan: &Scan) {
        let summary = &scan.collected.stdout.summary;
        if summary.verdict == Verdict::Truncated {
            self.metrics.truncated.inc();
        }
        if summary.verdict == Verdict::Complete {
            return;
        }
        tracing::warn!(
            execution_id = job.execution_id,
            attempt = job.attempt,
            namespace = job.namespace,
            pod = job.pod,
            uid = job.uid,
            verdict = summary.verdict.as_str(),
            bytes_total = summary.bytes_total,
            bytes_kept = summary.bytes_kept,
            notes = scan.collected.notes.join("; "),
            "output is not complete"
        );
    }
}

/// An index is told as it is found on the disk.
fn lose(indexes: &mut Indexes, missing: &[String]) {
    indexes.outputs.iter_mut().filter(|output| missing.contains(&output.pod_uid)).for_each(IndexOutput::lose);
}

#[cfg(test)]
mod tests;
