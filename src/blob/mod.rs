//! Output where others can read it: a shared directory or an S3-compatible store (`blob.url`).
//!
//! What an event does not hold is put there *before* the event that names it is appended, so no event names a blob that is
//! not there. A blob's key is made of the execution, the attempt, the stream and a digest of the bytes (`key`): whoever puts
//! it again, after a crash for instance, puts the same bytes under the same name. A blob appears whole or not at all.
//!
//! A store that is away holds an event up for `blob.deadline` at most. What was not stored by then is not named: the event
//! says where podherald itself serves the output, from its own disk, and that no blob was made is counted and logged. So
//! many outputs wait at most, and few while the store fails; further ones are given up at once.
//!
//! The client's own retries are off: here is the only backoff.

mod connector;
mod credentials;
mod key;
#[cfg(test)]
mod s3_server;
mod state;
#[cfg(test)]
mod tests;
mod wording;

use std::{future::Future, io, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, aws::AmazonS3Builder,
    local::LocalFileSystem, path::Path as Key,
};
use prometheus_client::registry::Registry;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use self::{
    connector::{Connector, Trust},
    credentials::CredentialsFile,
    state::State,
};
pub use self::{key::Owner, wording::Fault};
use crate::{
    backoff::Backoff,
    config::{self, BlobUrl},
    crash,
    health::SinkHealth,
    jitter,
    output_store::{self, Reader, Stream},
};

/// Bytes held and sent at a time; S3 takes no smaller parts.
const PART: usize = 5 << 20;
/// Outputs put at a time.
const PUTS: usize = 8;
/// Pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Tries where the reason will hardly pass.
const LASTING_TRIES: u32 = 3;
/// How often to look whether the store can be had, until it can.
const EXAMINE: Duration = Duration::from_secs(30);
/// What is put and removed to see whether that can be done.
const PROBE: &str = "podherald-probe";

/// What a store goes by; `config::Blob` says what each means.
#[derive(Debug, Clone)]
pub struct Options {
    /// `blob.url`.
    pub url: BlobUrl,
    /// `blob.endpoint`.
    pub endpoint: Option<String>,
    /// `blob.region`.
    pub region: Option<String>,
    /// `blob.credentials_file`.
    pub credentials_file: Option<PathBuf>,
    /// `blob.ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `blob.timeout`.
    pub timeout: Duration,
    /// `blob.deadline`.
    pub deadline: Duration,
}

impl Options {
    /// What the settings say; none if they want no store.
    pub fn of(settings: &config::Blob) -> Option<Self> {
        Some(Self {
            url: settings.url.clone()?,
            endpoint: settings.endpoint.as_ref().map(|endpoint| endpoint.as_str().to_owned()),
            region: settings.region.as_ref().map(|region| region.as_str().to_owned()),
            credentials_file: settings.credentials_file.clone(),
            ca_file: settings.ca_file.clone(),
            timeout: settings.timeout,
            deadline: settings.deadline,
        })
    }
}

/// What settings name cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// `blob.ca_file` is none.
    #[error("blob.ca_file {} cannot be read: it must be a PEM file with certificates", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
    },
    /// The system has none.
    #[error("blob.url: the system has no certificates of authorities: install them, or name some by blob.ca_file")]
    NoAuthorities(#[source] io::Error),
    /// The environment names credentials that are none, for instance one half of them.
    #[error("blob.url: the credentials in the environment cannot be used")]
    Environment(#[source] object_store::Error),
}

/// The store; a clone is the same.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: BlobUrl,
    deadline: Duration,
    place: Place,
    puts: Semaphore,
    state: State,
}

#[derive(Debug)]
enum Place {
    /// Opened anew for each use: it may be mounted later.
    Directory(PathBuf),
    Network(Arc<dyn ObjectStore>),
}

/// A blob to be read.
#[derive(Debug)]
pub struct Blob {
    blobs: Blobs,
    key: Key,
    length: u64,
}

impl Blobs {
    /// Prepares a store and asks it nothing. Blocks.
    ///
    /// # Errors
    /// What the settings name is not there.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let place = match &options.url {
            BlobUrl::File(directory) => Place::Directory(directory.clone()),
            BlobUrl::S3 { bucket, .. } => Place::Network(s3(bucket, &options)?),
        };
        let (puts, state) = (Semaphore::new(PUTS), State::default());
        Ok(Self(Arc::new(Inner { url: options.url, deadline: options.deadline, place, puts, state })))
    }

    /// Makes its numbers known.
    pub fn register(&self, registry: &mut Registry) {
        self.0.state.register(registry);
    }

    /// How it is doing; its numbers count outputs where a sink's count events.
    pub fn health(&self) -> SinkHealth {
        self.0.state.health()
    }

    /// When an output that is stored from now on is given up.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.0.deadline
    }

    /// Puts and removes a small blob until that succeeds once, so that what is wrong shows before it matters.
    pub async fn examine(&self, stop: &CancellationToken) {
        while let Some(Err(fault)) = stop.run_until_cancelled(self.probe()).await {
            if self.0.state.failed(&fault) {
                tracing::warn!(%fault, "output cannot be stored as blobs");
            }
            stop.run_until_cancelled(sleep(jitter::part_of(EXAMINE, 0.5..=1.0))).await;
        }
    }

    async fn probe(&self) -> Result<(), Fault> {
        let key = self.key(PROBE);
        let store = self.store().await?;
        let tried = async {
            store.put(&key, PutPayload::from_static(b"podherald")).await?;
            match store.delete(&key).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()), // another podherald's is the same
                deleted => deleted,
            }
        };
        let tried = timeout(self.0.deadline, tried).await;
        tried
            .map_err(|_| self.late("a probe was not stored and removed within blob.deadline"))?
            .map_err(|error| self.fault(&error))?;
        self.0.state.is_well();
        Ok(())
    }

    /// The URI that an output will have; it says nothing of whether it has it yet.
    ///
    /// # Errors
    /// If the output cannot be read.
    pub async fn name(&self, owner: Owner<'_>, stream: Stream, content: &Reader) -> output_store::Result<String> {
        Ok(format!("{}/{}", self.0.url, key::of(owner, stream, content).await?))
    }

    /// Makes a blob of this output, under the URI that [`Blobs::name`] gave. True if it is there; false if that could not be
    /// done by `until`, or will hardly be done at all.
    pub async fn put(&self, uri: &str, content: &Reader, until: Instant) -> bool {
        let begun = Instant::now();
        let state = &self.0.state;
        crash::at(crash::Point::Blob);
        let put = match state.waits() {
            Some(_waiting) => self.put_in_time(uri, content, until).await,
            None => Err(self.late("too many other outputs wait for it")),
        };
        crash::at(crash::Point::Blob);
        match put {
            Ok(()) => {
                state.puts.inc();
                state.bytes.inc_by(content.length());
                state.seconds.observe(begun.elapsed().as_secs_f64());
                true
            }
            Err(fault) => {
                state.given_up.inc();
                tracing::error!(uri, bytes = content.length(), %fault, "no blob was made of an output; its event names none");
                false
            }
        }
    }

    async fn put_in_time(&self, uri: &str, content: &Reader, until: Instant) -> Result<(), Fault> {
        let Some(key) = self.key_of(uri) else { unreachable!("the name is this store's") };
        let permit = timeout_at(until, self.0.puts.acquire()).await;
        let _permit = permit.map_err(|_| self.late("other outputs were being stored until blob.deadline"))?;
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut tries = 0;
        loop {
            let Err(fault) = self.put_once(&key, content, until).await else {
                self.0.state.is_well();
                return Ok(());
            };
            tries += 1;
            if self.0.state.failed(&fault) {
                tracing::warn!(uri, %fault, "an output could not be stored as a blob; trying again");
            }
            let delay = backoff.pause();
            if (fault.is_lasting && tries >= LASTING_TRIES) || Instant::now() + delay >= until {
                return Err(fault);
            }
            sleep(delay).await;
        }
    }

    async fn put_once(&self, key: &Key, content: &Reader, until: Instant) -> Result<(), Fault> {
        let store = self.within(until, self.store()).await??;
        if content.length() <= PART as u64 {
            let bytes = read(content, 0).await?;
            let put = self.within(until, store.put(key, bytes.into())).await?;
            return put.map(drop).map_err(|error| self.fault(&error));
        }
        let upload = self.within(until, store.put_multipart(key)).await?;
        let mut upload = upload.map_err(|error| self.fault(&error))?;
        let sent = self.send_parts(&mut *upload, content, until).await;
        if sent.is_err() && !matches!(timeout(self.0.deadline, upload.abort()).await, Ok(Ok(()))) {
            tracing::warn!(%key, "an unfinished upload stays at the blob store, until a rule of its bucket removes it");
        }
        sent
    }

    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        content: &Reader,
        until: Instant,
    ) -> Result<(), Fault> {
        let mut offset = 0;
        while offset < content.length() {
            let bytes = read(content, offset).await?;
            offset += bytes.len() as u64;
            let sent = self.within(until, upload.put_part(bytes.into())).await?;
            sent.map_err(|error| self.fault(&error))?;
        }
        let completed = self.within(until, upload.complete()).await?;
        completed.map(drop).map_err(|error| self.fault(&error))
    }

    /// The blob of this URI. None if there is none, or it is not of this store.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub async fn find(&self, uri: &str) -> Result<Option<Blob>, Fault> {
        let Some(key) = self.key_of(uri) else { return Ok(None) };
        let until = self.deadline();
        let store = self.within(until, self.store()).await??;
        match self.within(until, store.head(&key)).await? {
            Ok(found) => Ok(Some(Blob { blobs: self.clone(), key, length: found.size })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Removes the blob of this URI; that it is gone is fine. False if it is not of this store.
    ///
    /// # Errors
    /// If it stays.
    pub async fn remove(&self, uri: &str) -> Result<bool, Fault> {
        let Some(key) = self.key_of(uri) else {
            self.0.state.not_removed.inc();
            return Ok(false);
        };
        let until = self.deadline();
        let store = self.within(until, self.store()).await??;
        match self.within(until, store.delete(&key)).await? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {
                self.0.state.removed.inc();
                Ok(true)
            }
            Err(error) => Err(self.fault(&error)),
        }
    }

    async fn store(&self) -> Result<Arc<dyn ObjectStore>, Fault> {
        let directory = match &self.0.place {
            Place::Network(store) => return Ok(store.clone()),
            Place::Directory(directory) => directory.clone(),
        };
        // What is not mounted must not be made on the disk below.
        let opened = tokio::task::spawn_blocking(move || LocalFileSystem::new_with_prefix(directory)).await;
        let opened = opened.expect("opening a directory does not panic").map_err(|error| self.fault(&error))?;
        Ok(Arc::new(opened.with_fsync(true).with_automatic_cleanup(true)))
    }

    fn key(&self, below: &str) -> Key {
        match &self.0.url {
            BlobUrl::S3 { prefix, .. } if !prefix.is_empty() => Key::from(format!("{prefix}/{below}")),
            BlobUrl::S3 { .. } | BlobUrl::File(_) => Key::from(below),
        }
    }

    fn key_of(&self, uri: &str) -> Option<Key> {
        let below = uri.strip_prefix(&self.0.url.to_string())?.strip_prefix('/')?;
        Some(self.key(below))
    }

    async fn within<T>(&self, until: Instant, work: impl Future<Output = T>) -> Result<T, Fault> {
        timeout_at(until, work).await.map_err(|_| self.late("it did not answer within blob.deadline"))
    }

    fn fault(&self, error: &object_store::Error) -> Fault {
        Fault::of(&self.0.url, error)
    }

    fn late(&self, what: &str) -> Fault {
        Fault::late(&self.0.url, what)
    }
}

impl Blob {
    /// Bytes that there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// These bytes, as they come. The store has answered when this returns.
    ///
    /// # Errors
    /// If it does not give them.
    pub async fn read(self, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let blobs = self.blobs;
        let store = blobs.store().await?;
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = blobs.within(blobs.deadline(), store.get_opts(&self.key, options)).await?;
        let bytes = found.map_err(|error| blobs.fault(&error))?.into_stream();
        Ok(bytes.map(move |bytes| bytes.map_err(|error| blobs.fault(&error))).boxed())
    }
}

async fn read(content: &Reader, offset: u64) -> Result<Bytes, Fault> {
    content.read(offset, PART).await.map_err(|error| Fault::unreadable(&error))
}

fn s3(bucket: &str, options: &Options) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let is_plain = options.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http:"));
    let trust = match &options.ca_file {
        Some(path) => Trust::File(path),
        None if is_plain => Trust::None,
        None => Trust::System,
    };
    let connector = Connector::new(&trust, options.timeout)?;
    // One backoff only, ours.
    let retries = RetryConfig { max_retries: 0, retry_timeout: options.deadline, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retries)
        .with_disable_bulk_delete(true)
        .with_http_connector(connector);
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(is_plain);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(path) = &options.credentials_file {
        builder = builder.with_credentials(Arc::new(CredentialsFile(path.clone())));
    }
    Ok(Arc::new(builder.build().map_err(OpenError::Environment)?))
}
