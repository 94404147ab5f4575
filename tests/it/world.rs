//! podherald in this process, over a scripted API server.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use podherald::clock::TokioClock;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    faulty_journal::{Faults, FaultyJournal},
    inside::Inside,
    scripted_api::ScriptedApi,
};

pub(crate) use crate::inside::MOMENT;

/// A cluster, a data directory, and podherald unless it is dead.
pub(crate) struct World {
    pub(crate) api: ScriptedApi,
    pub(crate) faults: Faults,
    inside: Inside,
}

impl Deref for World {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.inside
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Inside {
        &mut self.inside
    }
}

impl World {
    /// Nothing runs yet. The clock shows `begin`; the settings are those of `podherald.toml`, key by key.
    pub(crate) fn new(begin: &str, settings: &[(&str, &str)]) -> Self {
        let begin: Timestamp = begin.parse().unwrap();
        let inside = Inside::new(Arc::new(TokioClock::starting_at(begin)), settings);
        Self { api: ScriptedApi::new(), faults: Faults::default(), inside }
    }

    /// Starts podherald on the data directory, and waits until its watches are open.
    pub(crate) async fn start(&mut self) {
        let watches = self.launch().await;
        self.api.wait_for_watches(watches).await;
    }

    /// Starts podherald and says how many watches it will have.
    pub(crate) async fn launch(&mut self) -> usize {
        let faults = self.faults.clone();
        self.inside.launch(self.api.client(), Box::new(|inner| Arc::new(FaultyJournal { inner, faults }))).await
    }

    /// Lets everything happen that waits for nothing.
    pub(crate) async fn settle(&self) {
        self.api.wait_for_watches(1).await;
        sleep(MOMENT).await;
    }

    /// The execution's status within `limit` of tokio's time, as soon as it is this.
    pub(crate) async fn until(&self, id: &str, status: &str, limit: Duration) -> Value {
        let begun = Instant::now();
        loop {
            let execution = self.execution(id).await;
            if execution["status"] == status {
                return execution;
            }
            assert!(begun.elapsed() < limit, "{id} is not {status} after {limit:?}: {execution}");
            sleep(MOMENT).await;
        }
    }
}
