//! Room for readers that stay.
//!
//! A stream, or a request that is held, keeps its connection for long. As there are fewer seats than connections, those who
//! stay always leave some to those who only ask: probes, metrics, pages.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Error, Metrics};

/// All seats; a clone is the same ones.
#[derive(Debug, Clone)]
pub struct Seats {
    free: Arc<Semaphore>,
    metrics: Metrics,
}

/// One reader's seat, until dropped.
#[derive(Debug)]
pub(super) struct Seat {
    _permit: OwnedSemaphorePermit,
}

impl Seats {
    /// So many, all of them free.
    pub fn new(count: usize, metrics: Metrics) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), metrics }
    }

    /// A free seat.
    ///
    /// # Errors
    /// [`Error::NoSeat`] if there is none; it is counted.
    pub(super) fn take(&self) -> Result<Seat, Error> {
        match self.free.clone().try_acquire_owned() {
            Ok(permit) => Ok(Seat { _permit: permit }),
            Err(_) => {
                self.metrics.refused_stream();
                Err(Error::NoSeat)
            }
        }
    }
}
