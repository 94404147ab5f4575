//! The only place that starts tasks, and the one that ends them in order.
//!
//! Every task has a name, a [`Phase`] in which it is asked to stop, and a kind: the early end of a critical task takes the
//! process down with an error that names it, a restarting one is started again after a pause. Tasks that belong to one
//! connection or one pod live in a `JoinSet` of the supervised task that made them, so that nothing outlives its owner.
//!
//! The end, at the first signal or the first failure: not ready, then phase by phase cancel, wait until all of the phase's
//! tasks are done, go on. A phase that overruns its time is aborted so that those after it still get theirs. A second
//! signal aborts everything.

use std::{any::Any, collections::HashMap, io, pin::pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, future::BoxFuture, stream};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{backoff::Backoff, health::Readiness};

/// All phases together may take so long.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause before a restart; doubled with each, up to [`LONGEST_PAUSE`], while a task ends within twice that of its last end.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a task failed.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
type Work = BoxFuture<'static, Result<(), Failure>>;
type Ended = Result<(Id, Result<(), Failure>), JoinError>;

/// When a task is asked to stop; in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Streams to clients, which would hold every later phase up.
    Streams,
    /// What brings work in: watches, the reconciler, inboxes.
    Intake,
    /// What brings accepted work into the journal: mapper, collector.
    Drain,
    /// What carries the journal's events on: relays, retention.
    Flush,
    /// What answers until the end, if only that it is not ready: the listener.
    Listener,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Streams, Self::Intake, Self::Drain, Self::Flush, Self::Listener];

    /// How long the phase may take; together they leave the last one a second of [`DEADLINE`].
    const fn budget(self) -> Duration {
        Duration::from_secs(match self {
            Self::Streams | Self::Intake | Self::Flush => 2,
            Self::Drain => 3,
            Self::Listener => DEADLINE.as_secs(),
        })
    }
}

/// Why the process ends other than in order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A critical task ended before it was asked to.
    #[error("task {name} ended early")]
    Early {
        /// Which.
        name: &'static str,
        /// Why.
        source: Failure,
    },
    /// A task failed on its way out.
    #[error("task {name} failed while shutting down")]
    Failed {
        /// Which.
        name: &'static str,
        /// Why.
        source: Failure,
    },
    /// Tasks did not end in time and were aborted.
    #[error("aborted what did not end in time: {}", names.join(", "))]
    Overrun {
        /// Which.
        names: Vec<&'static str>,
    },
    /// A second signal came.
    #[error("aborted by a second signal while waiting for: {}", names.join(", "))]
    Aborted {
        /// What was still running.
        names: Vec<&'static str>,
    },
}

/// Starts tasks, watches over them, and ends them.
pub struct Supervisor {
    readiness: Arc<Readiness>,
    running: JoinSet<Result<(), Failure>>,
    tasks: HashMap<Id, Task>,
    tokens: [CancellationToken; Phase::ALL.len()],
}

struct Task {
    name: &'static str,
    phase: Phase,
    abort: tokio::task::AbortHandle,
    restart: Option<Restart>,
}

struct Restart {
    work: Box<dyn FnMut(CancellationToken) -> Work + Send>,
    backoff: Backoff,
}

impl Supervisor {
    /// A supervisor without tasks, which tells `readiness` when the end begins.
    pub fn new(readiness: Arc<Readiness>) -> Self {
        Self { readiness, running: JoinSet::new(), tasks: HashMap::new(), tokens: Default::default() }
    }

    /// The token that is cancelled when this phase begins.
    pub fn token(&self, phase: Phase) -> CancellationToken {
        self.tokens[phase as usize].clone()
    }

    /// Starts a task without which the process must not go on. It gets its phase's token, and ends when that is cancelled.
    pub fn spawn<F>(&mut self, name: &'static str, phase: Phase, work: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let work = work(self.token(phase));
        self.start(name, phase, work, None);
    }

    /// Starts a task that is started again, after a pause, when it ends early.
    pub fn spawn_restarting<F>(
        &mut self,
        name: &'static str,
        phase: Phase,
        mut work: impl FnMut(CancellationToken) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let mut work: Box<dyn FnMut(CancellationToken) -> Work + Send> = Box::new(move |token| Box::pin(work(token)));
        let first = work(self.token(phase));
        self.start(name, phase, first, Some(Restart { work, backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE) }));
    }

    /// Runs until the first of `signals`, or until a critical task ends early, and then shuts down in order.
    ///
    /// # Errors
    /// The first thing that went wrong; everything has ended nevertheless.
    pub async fn run(mut self, signals: impl Stream<Item = ()>) -> Result<(), Error> {
        let mut signals = pin!(signals.chain(stream::pending()));
        let early = loop {
            tokio::select! {
                biased;
                _ = signals.next() => break None,
                Some(ended) = self.running.join_next_with_id() => {
                    if let Some(error) = self.settle(ended) {
                        break Some(error);
                    }
                }
            }
        };
        match &early {
            None => tracing::info!("shutting down"),
            Some(error) => tracing::error!(error = error as &dyn std::error::Error, "shutting down"),
        }
        self.readiness.drain();
        let late = self.shut_down(signals).await;
        early.map_or(late, Err)
    }

    async fn shut_down(&mut self, mut signals: impl Stream<Item = ()> + Unpin) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        let mut failed = None;
        let mut overrun = Vec::new();
        for phase in Phase::ALL {
            self.tokens[phase as usize].cancel();
            let limit = deadline.min(Instant::now() + phase.budget());
            while self.tasks.values().any(|task| task.phase == phase) {
                tokio::select! {
                    biased;
                    _ = signals.next() => {
                        self.running.abort_all();
                        return Err(Error::Aborted { names: names(self.tasks.values()) });
                    }
                    Some(ended) = self.running.join_next_with_id() => {
                        let error = self.settle(ended);
                        failed = failed.or(error);
                    }
                    () = tokio::time::sleep_until(limit) => {
                        let late = self.tasks.extract_if(|_, task| task.phase == phase).map(|(_, task)| task);
                        let late: Vec<_> = late.inspect(|task| task.abort.abort()).collect();
                        overrun.extend(names(&late));
                    }
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None if !overrun.is_empty() => Err(Error::Overrun { names: overrun }),
            None => Ok(()),
        }
    }

    fn start(
        &mut self,
        name: &'static str,
        phase: Phase,
        work: impl Future<Output = Result<(), Failure>> + Send + 'static,
        restart: Option<Restart>,
    ) {
        let abort = self.running.spawn(work);
        self.tasks.insert(abort.id(), Task { name, phase, abort, restart });
    }

    /// Takes note of a task's end; what it returns is the process's failure.
    fn settle(&mut self, ended: Ended) -> Option<Error> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(words(error))),
        };
        // Unknown is what has overrun its phase: it is aborted, and named already.
        let Task { name, phase, restart, .. } = self.tasks.remove(&id)?;
        if self.readiness.is_draining() {
            // A task of a later phase may well end now, because those that fed it are gone.
            return result.err().map(|source| Error::Failed { name, source });
        }
        let source = result.err().unwrap_or_else(|| "it returned without having been asked to".into());
        let Some(restart) = restart else { return Some(Error::Early { name, source }) };
        self.restart(name, phase, restart, &*source);
        None
    }

    fn restart(
        &mut self,
        name: &'static str,
        phase: Phase,
        mut restart: Restart,
        error: &(dyn std::error::Error + 'static),
    ) {
        let pause = restart.backoff.pause();
        tracing::warn!(task = name, error, pause_ms = pause.as_millis(), "task ended early; starting it again");
        let token = self.token(phase);
        let work = (restart.work)(token.clone());
        let later = async move {
            match token.run_until_cancelled(tokio::time::sleep(pause)).await {
                Some(()) => work.await,
                None => Ok(()),
            }
        };
        self.start(name, phase, later, Some(restart));
    }
}

/// One item for every SIGTERM and SIGINT from now on.
///
/// # Errors
/// The system refuses the handlers.
pub fn signals() -> io::Result<impl Stream<Item = ()> + Unpin> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(stream::poll_fn(move |cx| {
        // Both are asked, so that both wake.
        let ready = [terminate.poll_recv(cx).is_ready(), interrupt.poll_recv(cx).is_ready()];
        if ready.contains(&true) { std::task::Poll::Ready(Some(())) } else { std::task::Poll::Pending }
    }))
}

fn names<'a>(tasks: impl IntoIterator<Item = &'a Task>) -> Vec<&'static str> {
    let mut names: Vec<_> = tasks.into_iter().map(|task| task.name).collect();
    names.sort_unstable();
    names
}

fn words(error: JoinError) -> Failure {
    let text = |panic: &(dyn Any + Send)| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".into())
    };
    match error.try_into_panic() {
        Ok(panic) => format!("it panicked: {}", text(&*panic)).into(),
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests;
