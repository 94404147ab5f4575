//! The composition root: makes every component, hands each what it needs, and starts their tasks.

use std::sync::Arc;

use futures::{Stream, StreamExt};

use crate::{
    config::Config,
    health::Readiness,
    lock::{self, DataDir},
    supervisor::{self, Supervisor},
};

/// Why the process could not start, or did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be had.
    #[error(transparent)]
    DataDir(#[from] lock::Error),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] supervisor::Error),
}

/// Runs podherald until the first of `signals`; a second one aborts.
///
/// # Errors
/// What kept it from starting, or what went wrong first.
pub async fn run(config: Config, mut signals: impl Stream<Item = ()> + Unpin) -> Result<(), Error> {
    let supervisor = Supervisor::new(Arc::new(Readiness::default()));
    let _data_dir = tokio::select! {
        owned = DataDir::wait(&config.data_dir) => owned?,
        _ = signals.next() => return Ok(()),
    };
    Ok(supervisor.run(signals).await?)
}
