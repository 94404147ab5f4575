//! Events POSTed to HTTP endpoints: CloudEvents over HTTP, signed after Standard Webhooks.
//!
//! Each [`Endpoint`] is a sink of its own with a relay of its own, so that a dead one slows no other. One event is one
//! request; events of one execution follow each other, those of several executions go side by side. What an endpoint
//! acknowledges is not sent again because of another event, unless the process dies.
//!
//! An endpoint that answers 410, or acknowledges nothing for `disable_after`, is disabled: its cursor stays where it is until
//! somebody enables it over the API. What a single event is to blame for (400, 413, 414, 415, 422, 431) is tried a few times, then left
//! out; it stays in the log of deliveries and can be sent again from there. An event that is the cause of other answers holds the
//! stream until somebody skips it over the API.
//!
//! Nothing is sent to addresses that are not public unless that is allowed: a name is resolved, looked at, and the very
//! address is connected to. Proxies of the environment are not used, redirects not followed.

mod address;
mod answers;
mod connector;
mod endpoint;
mod filter;
mod message;
mod metrics;
mod operate;
mod quote;
mod retry;
mod store;
#[cfg(test)]
mod tests;
mod transport;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::task::spawn_blocking;

use self::{
    store::Store,
    transport::{Http, Transport},
};
use crate::{
    clock::Clock,
    config::{self, Signing, WebhookMode, WebhookSecrets, WebhookUrl},
    journal::Journal,
    named_file::{self, Unreadable},
};

pub use answers::{OperationError, Redelivery, Skip, Status};
pub use endpoint::Endpoint;
pub use filter::Filter;
pub use metrics::Metrics;
pub use store::{Delivery, Disabled, Error as StoreError};

/// Bytes of one event at most, far more than an event has.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// Why an endpoint cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that a setting names cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It holds no secret. What it holds may be one, almost.
    #[error("webhook.{endpoint}.secret_file {} must hold `whsec_` and 24 to 64 bytes in base64, or several such", path.display())]
    NoSecret {
        /// Whose.
        endpoint: String,
        /// The file.
        path: PathBuf,
    },
    /// It holds no authorities.
    #[error("webhook.{endpoint}.ca_file {} cannot be used: it must be a PEM file with certificates", path.display())]
    Authorities {
        /// Whose.
        endpoint: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system has no authorities that could vouch for anybody.
    #[error("webhook.{endpoint}.ca_file must name the authorities for TLS: the system has none")]
    NoAuthorities {
        /// Whose.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// What is kept of endpoints cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an endpoint goes by; `config::Webhook` says what each means.
#[derive(Debug, Clone)]
pub struct Options {
    /// `NAME` of `[webhook.NAME]`.
    pub name: String,
    /// `url`.
    pub url: WebhookUrl,
    /// `secret` or `secret_file`.
    pub signing: Signing,
    /// `mode`.
    pub mode: WebhookMode,
    /// `events`, `statuses`, `namespaces`, `labels`.
    pub filter: Filter,
    /// `retry`.
    pub retry: Vec<Duration>,
    /// `disable_after`.
    pub disable_after: Option<Duration>,
    /// `required`.
    pub required: bool,
    /// Of one event.
    pub max_event_bytes: usize,
}

impl Options {
    fn of(name: &str, url: &WebhookUrl, settings: &config::Webhook) -> Self {
        Self {
            name: name.to_owned(),
            url: url.clone(),
            signing: settings.signing(),
            mode: settings.mode,
            filter: Filter::of(settings),
            retry: settings.retry.clone(),
            disable_after: settings.disable_after,
            required: settings.required,
            max_event_bytes: MAX_EVENT_BYTES,
        }
    }

    /// The secrets as they are now.
    async fn secrets(&self) -> Result<WebhookSecrets, Error> {
        let path = match &self.signing {
            Signing::Given(secrets) => return Ok(secrets.clone()),
            Signing::File(path) => path,
        };
        let text = named_file::read(format!("webhook.{}.secret_file", self.name), path).await?;
        let (endpoint, path) = (self.name.clone(), path.clone());
        WebhookSecrets::parse(&text).ok_or(Error::NoSecret { endpoint, path })
    }
}

/// All endpoints of these settings, as they stood when the process ended.
///
/// # Errors
/// What is wrong with a file that a setting names, or with `webhooks.db`.
pub async fn open(
    settings: &config::Webhooks,
    data_dir: &Path,
    journal: &Arc<dyn Journal>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<Vec<Arc<Endpoint>>, Error> {
    let mut endpoints = Vec::new();
    if settings.0.is_empty() {
        return Ok(endpoints);
    }
    let store = Store::open(data_dir.join("webhooks.db")).await?;
    for (name, settings) in &settings.0 {
        // Without a URL there is no endpoint; `validate` has refused it.
        let Some(url) = &settings.url else { continue };
        let options = Options::of(name, url, settings);
        options.secrets().await?;
        let transport = http(name, url, settings).await?;
        let (store, journal, clock) = (store.clone(), journal.clone(), clock.clone());
        let means = endpoint::Means { transport, store, journal, clock, metrics: metrics.clone() };
        endpoints.push(Arc::new(Endpoint::open(options, means).await?));
    }
    Ok(endpoints)
}

async fn http(name: &str, url: &WebhookUrl, settings: &config::Webhook) -> Result<Arc<dyn Transport>, Error> {
    let ca_file = settings.ca_file.clone();
    let read = spawn_blocking(move || transport::tls(ca_file.as_deref())).await;
    let tls = read.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|source| {
        let endpoint = name.to_owned();
        match settings.ca_file.clone() {
            Some(path) => Error::Authorities { endpoint, path, source },
            None => Error::NoAuthorities { endpoint, source },
        }
    })?;
    Ok(Arc::new(Http::new(url.uri().clone(), settings.timeout, settings.allow_private, tls)))
}
