//! What the handlers work with.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::{Error, Metrics, Monitor, Options, Seats};
use crate::{
    blob::Blobs, health::Readiness, journal::Journal, live_output::LiveOutputs, output_store::OutputStore,
    replica::Past, store::Store, webhook::Endpoint, worker::resource_cleaner::ResourceCleaner,
};

/// What the handlers work with.
pub struct State {
    /// Where results are kept, in a process that stores them.
    pub store: Option<Arc<dyn Store>>,
    /// Who tidies the cluster up, in a process that does.
    pub cleaner: Option<Arc<ResourceCleaner>>,
    /// What was before this process read along; none where it watches itself.
    pub past: Option<Arc<Past>>,
    /// Who has what is not in the journal.
    pub monitor: Monitor,
    /// Everything that is shown comes from here.
    pub journal: Arc<dyn Journal>,
    /// What programs printed.
    pub outputs: OutputStore,
    /// What of it is elsewhere.
    pub blobs: Option<Blobs>,
    /// What running programs print.
    pub live: LiveOutputs,
    /// Those that events are POSTed to.
    pub webhooks: Vec<Arc<Endpoint>>,
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
    /// For `/metrics`; complete before the first request.
    pub registry: Registry,
    /// The listener's own numbers, which the registry has as well.
    pub metrics: Metrics,
    /// Bounds.
    pub options: Options,
    /// For streams and held requests, [`Options::max_streams`] of them.
    pub seats: Seats,
    /// Cancelled by the server when it stops: streams end and waits are over.
    pub closing: CancellationToken,
}

impl State {
    /// Sees to it that what is known of this execution is in the journal.
    ///
    /// # Errors
    /// Nothing of it is, and the store cannot be read; or the journal cannot.
    pub(super) async fn recall(&self, execution_id: &str) -> Result<(), Error> {
        match &self.past {
            Some(past) => Ok(past.recall(execution_id).await?),
            None => Ok(()),
        }
    }
}
