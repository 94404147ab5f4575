//! The composition root: makes every component, hands each what it needs, and starts their tasks.

mod election;
mod holding;
mod options;
mod roles;

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::Router;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use podherald_core::evidence::Evidence;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use self::{
    election::{Election, Part},
    options::{collector_options, job_scopes, kafka_options, pod_scopes, redis_options},
    roles::Cursors,
};
use crate::{
    blob::{self, Blobs},
    clock::{Clock, SystemClock},
    cluster,
    config::{Config, EndOn, Follow, Mode},
    embedded,
    expected::Expected,
    health::{Readiness, Role},
    http,
    journal::{self, Journal, Subscription},
    live_output::{self, LiveOutputs},
    lock::{self, Acquired, DataDir},
    monitor::{
        self, Means, Monitor,
        collector::{self, Collector},
        reconciler::Reconciler,
        watcher::{Freshness, Inbox, Intake, Scope, Sighting, Watch},
        wire::{Facts, Object},
    },
    open_files,
    output_store::{self, OutputStore},
    relay::{self, Relay, Turns},
    retention::Retention,
    sink::{self, Sink, kafka, redis},
    store::{self, Store},
    supervisor::{self, Phase, Supervisor},
    upstream::Upstream,
    webhook, worker,
};

pub use self::options::{limits, policy};

/// A watch is stale after this much more than `kube.watch_timeout` of silence.
const STALE_MARGIN: Duration = Duration::from_secs(15);

/// Why the process could not start, or did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("http.listen = {address} cannot be listened on; choose a free address and port")]
    Listen {
        /// `http.listen`.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The listener would be open to everybody.
    #[error(transparent)]
    Exposed(#[from] http::Exposed),
    /// The data directory cannot be had.
    #[error(transparent)]
    DataDir(#[from] lock::Error),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The output cannot be stored.
    #[error(transparent)]
    Outputs(#[from] output_store::Error),
    /// What the settings of the Kafka name cannot be used.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// What a setting of the blob store names cannot be used.
    #[error(transparent)]
    Blobs(#[from] blob::OpenError),
    /// What a setting of the Redis names cannot be read.
    #[error(transparent)]
    Redis(#[from] redis::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What the settings of the Kafka name cannot be used by a consumer.
    #[error("{0}")]
    Inbox(sink::Fault),
    /// The system's certificates cannot be read.
    #[error("the certificates of the system cannot be read, and http.monitor_url needs them")]
    Certificates(#[source] io::Error),
    /// A webhook cannot be set up.
    #[error(transparent)]
    Webhook(#[from] webhook::Error),
    /// Nobody says which cluster.
    #[error(
        "no usable cluster: KUBECONFIG (or ~/.kube/config) must name a readable kubeconfig, or podherald must run in a pod \
         with a service account; {reason}"
    )]
    Cluster {
        /// What was found wrong.
        reason: String,
    },
    /// The embedded cluster cannot be.
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
    /// A task failed.
    #[error(transparent)]
    Task(#[from] supervisor::Error),
}

/// Puts something around a journal: nothing in a server, faults in a test.
pub type Wrap = Box<dyn FnOnce(Arc<dyn Journal>) -> Arc<dyn Journal> + Send>;

/// What a test may put in place of the real thing.
pub struct Seams {
    /// Whose pods are watched.
    pub cluster: Cluster,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Put around the journal.
    pub journal: Wrap,
}

/// Which cluster.
pub enum Cluster {
    /// One that is there.
    Client(kube::Client),
    /// The one inside podherald, made and ended with it.
    Embedded,
}

impl Seams {
    /// The real things: the cluster that the settings name, and the machine's clock.
    ///
    /// # Errors
    /// [`Error::Cluster`].
    pub async fn real(config: &Config) -> Result<Self, Error> {
        let cluster = match config.kube.mode {
            Mode::Cluster => Cluster::Client(cluster::client().await.map_err(|reason| Error::Cluster { reason })?),
            Mode::Embedded => Cluster::Embedded,
        };
        Ok(Self { cluster, clock: Arc::new(SystemClock), journal: Box::new(|journal| journal) })
    }
}

/// Runs podherald until the first of `signals`; a second one aborts.
///
/// # Errors
/// What kept it from starting, or what went wrong first.
pub async fn run(config: Config, mut signals: impl Stream<Item = ()> + Unpin) -> Result<(), Error> {
    let address = config.http.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let options = http_options(&config, &listener)?;
    open_files::make_room(config.http.max_connections);
    let acquired = DataDir::acquire(&config.data_dir)?;
    // A standby finds out now, not when it is needed.
    let seams = Seams::real(&config).await?;
    let data_dir = match acquired {
        Acquired::Owned(owned) => owned,
        Acquired::Busy => {
            let data_dir = config.data_dir.display();
            let address = listener.local_addr().ok();
            tracing::info!(address = address.map(tracing::field::display), %data_dir, "another process owns the data directory, standing by");
            tokio::select! {
                owned = DataDir::wait(&config.data_dir) => owned?,
                () = http::stand_by(&listener, &options) => return Ok(()),
                _ = signals.next() => return Ok(()),
            }
        }
    };
    let server = Server::compose(&config, options, data_dir.path(), seams).await?;
    server.run(Some(listener), signals).await
}

fn http_options(config: &Config, listener: &TcpListener) -> Result<http::Options, Error> {
    let address = config.http.listen;
    let bound = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
    let hosts: Vec<String> = config.http.hosts.iter().map(|host| host.as_str().to_owned()).collect();
    let access = http::Access::of(bound, config.http.allow_unauthenticated, &hosts)?;
    Ok(http::Options {
        max_connections: config.http.max_connections as usize,
        max_streams: config.http.max_streams as usize,
        heartbeat: config.http.heartbeat,
        write_timeout: config.http.write_timeout,
        ends_on_result: match config.http.end_on {
            EndOn::Auto => config.hears_of_results(),
            EndOn::Terminal => false,
            EndOn::Result => true,
        },
        hears_late: config.is_replica() || config.follows_results(),
        ..http::Options::new(access)
    })
}

/// All components of one process, wired; its tasks run already.
pub struct Server {
    supervisor: Supervisor,
    journal: Arc<dyn Journal>,
    state: Arc<http::State>,
}

impl Server {
    /// Wires the components on a data directory that the caller owns, and starts them.
    ///
    /// # Errors
    /// What kept one of them from starting.
    pub async fn compose(
        config: &Config,
        options: http::Options,
        data_dir: &Path,
        seams: Seams,
    ) -> Result<Self, Error> {
        let readiness = Arc::new(Readiness::of(&config.roles));
        let mut registry = Registry::default();
        let outputs = open_outputs(data_dir).await?;
        let journal = open_journal(config, data_dir, &mut registry).await?;
        let journal = (seams.journal)(journal);
        let blobs = open_blobs(config).await?;
        watch_journal(&readiness, &journal);
        let live = live_outputs(config, &outputs, &seams.clock, &mut registry);
        let webhooks = webhook::Metrics::default();
        webhooks.register(&mut registry);
        let webhooks = webhook::open(&config.webhook, data_dir, &journal, &seams.clock, &webhooks).await?;
        let mut parts = Parts {
            config,
            journal: &journal,
            outputs: &outputs,
            blobs: blobs.as_ref(),
            clock: &seams.clock,
            readiness: &readiness,
            registry: &mut registry,
            role_metrics: worker::metrics::Metrics::default(),
            supervisor: Supervisor::new(readiness.clone()),
        };
        let (election, part) = parts.election(&seams.cluster);
        // Before there is anything new: a sink that begins with the present shall have all of it.
        let cursors = parts.start_relays(&webhooks, election).await?;
        let store = parts.open_store(data_dir).await?;
        if config.roles.iter().any(|role| matches!(role, Role::ResultProcessor | Role::ResourceCleaner)) {
            parts.role_metrics.register(parts.registry);
        }
        if let Some(store) = store.as_ref().filter(|_| config.roles.contains(&Role::ResultProcessor)) {
            parts.start_roles(store, &cursors).await?;
        }
        let past = parts.start_replica(store.as_ref());
        parts.start_blobs();
        let mut cleaner = None;
        if config.roles.iter().any(|role| matches!(role, Role::Monitor | Role::ResourceCleaner)) {
            let client = match seams.cluster {
                Cluster::Client(client) => client,
                Cluster::Embedded => {
                    let Parts { clock, supervisor, registry, .. } = &mut parts;
                    embedded::start(&config.embedded, data_dir, clock, supervisor, registry).await?
                }
            };
            if config.roles.contains(&Role::Monitor) {
                parts.start_monitor(&client, &live, part, store.as_ref());
            }
            if let Some(store) = store.as_ref().filter(|_| config.roles.contains(&Role::ResourceCleaner)) {
                cleaner = Some(parts.start_cleaner(&client, store, &cursors).await?);
            }
        }
        parts.start_retention();
        let mut supervisor = parts.supervisor;
        let metrics = http::Metrics::default();
        metrics.register(&mut registry);
        let closing = CancellationToken::new();
        let state = http::State {
            past,
            monitor: monitor_of(config)?,
            journal: journal.clone(),
            outputs,
            blobs,
            live,
            webhooks,
            store,
            cleaner,
            readiness,
            registry,
            seats: http::Seats::new(options.max_streams, metrics.clone()),
            metrics,
            options,
            closing: closing.clone(),
        };
        supervisor.spawn("streams", Phase::Streams, |stop| async move {
            stop.cancelled().await;
            closing.cancel();
            Ok(())
        });
        Ok(Self { supervisor, journal, state: Arc::new(state) })
    }

    /// The routes, for callers in this process.
    pub fn router(&self) -> Router {
        http::router(self.state.clone())
    }

    /// Serves until the first of `signals`; a second one aborts.
    ///
    /// # Errors
    /// What went wrong first.
    pub async fn run(mut self, listener: Option<TcpListener>, signals: impl Stream<Item = ()>) -> Result<(), Error> {
        if let Some(listener) = listener {
            let state = self.state.clone();
            self.supervisor.spawn("listener", Phase::Listener, |stop| async move {
                Ok(http::serve(listener, state, stop).await?)
            });
        }
        let result = self.supervisor.run(signals).await;
        self.journal.close().await;
        Ok(result?)
    }
}

fn monitor_of(config: &Config) -> Result<http::Monitor, Error> {
    if !config.is_replica() {
        return Ok(http::Monitor::Here);
    }
    let Some(url) = &config.http.monitor_url else { return Ok(http::Monitor::Unknown) };
    let upstream = Upstream::new(url.uri().clone()).map_err(Error::Certificates)?;
    Ok(http::Monitor::At(Arc::new(upstream)))
}

async fn open_journal(config: &Config, data_dir: &Path, registry: &mut Registry) -> Result<Arc<dyn Journal>, Error> {
    let metrics = journal::Metrics::default();
    metrics.register(registry);
    let options =
        journal::Options { path: data_dir.join("journal.db"), max_bytes: config.journal.max_bytes.bytes(), metrics };
    Ok(journal::Sqlite::open(options).await?)
}

async fn open_outputs(data_dir: &Path) -> Result<OutputStore, Error> {
    let data_dir = data_dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || OutputStore::open(&data_dir)).await;
    Ok(opened.expect("opening the store does not panic")?)
}

async fn open_blobs(config: &Config) -> Result<Option<Blobs>, Error> {
    let Some(options) = blob::Options::of(&config.blob) else { return Ok(None) };
    let opened = tokio::task::spawn_blocking(move || Blobs::open(options)).await;
    Ok(Some(opened.expect("opening the store does not panic")?))
}

fn live_outputs(
    config: &Config,
    outputs: &OutputStore,
    clock: &Arc<dyn Clock>,
    registry: &mut Registry,
) -> LiveOutputs {
    let metrics = live_output::Metrics::default();
    metrics.register(registry);
    let policy = match config.logs.follow {
        Follow::Never => live_output::Policy::Never,
        Follow::Watched => live_output::Policy::Watched,
        Follow::All => live_output::Policy::All,
    };
    let options = live_output::Options {
        policy,
        max_follows: config.logs.max_follows as usize,
        max_bytes: config.logs.max_bytes.bytes(),
        // Fewer logs than one in a second are followed in the long run, so no two processes give the same number.
        first_run: u32::try_from(clock.now().as_second()).unwrap_or_default(),
    };
    LiveOutputs::new(options, outputs.clone(), metrics)
}

fn watch_journal(readiness: &Readiness, journal: &Arc<dyn Journal>) {
    let journal = journal.clone();
    let probe = move || {
        let health = journal.health();
        if health.writable { Ok(()) } else { Err(health.last_error.unwrap_or_else(|| "not writable".to_owned())) }
    };
    readiness.register(Role::Monitor, "journal", Arc::new(probe));
}

/// What the long-running components are made of.
struct Parts<'a> {
    config: &'a Config,
    journal: &'a Arc<dyn Journal>,
    outputs: &'a OutputStore,
    blobs: Option<&'a Blobs>,
    clock: &'a Arc<dyn Clock>,
    readiness: &'a Arc<Readiness>,
    registry: &'a mut Registry,
    role_metrics: worker::metrics::Metrics,
    supervisor: Supervisor,
}

impl Parts<'_> {
    /// Where several podheralds are to take turns.
    fn election(&mut self, cluster: &Cluster) -> (Option<Election>, Part) {
        let config = self.config;
        match (&config.monitor.lease, kafka_options(config), cluster) {
            (Some(lease), Some(kafka), Cluster::Client(client)) => {
                let (election, part) = Election::new(self, lease, kafka, client);
                (Some(election), part)
            }
            // `Config` refuses a Lease without the rest.
            _ => (None, Part::alone()),
        }
    }

    fn start_monitor(&mut self, client: &kube::Client, live: &LiveOutputs, part: Part, store: Option<&Arc<dyn Store>>) {
        let config = self.config;
        let metrics = monitor::metrics::Metrics::default();
        metrics.register(self.registry);
        let (pods, jobs) = (pod_scopes(config), job_scopes(config));
        let (pod_scopes, job_scopes) = (pods.clone(), jobs.clone());
        let (pod_sightings, pod_inbox) = mpsc::channel(monitor::QUEUE);
        let (job_sightings, job_inbox) = mpsc::channel(monitor::QUEUE);
        let Part { leads, told, listed } = part;
        let (hints, overdue, holding) = self.start_holder(client, &leads);
        let expected = self.start_expecting(store, &listed);
        let inbox = Inbox { pods: pod_inbox, jobs: job_inbox, told, overdue, expected };
        let mut freshness = Vec::new();
        for (id, scope) in pods.iter().enumerate() {
            freshness.push(self.start_watch(id, scope, client, &pod_sightings, &metrics));
        }
        for (id, scope) in (pods.len()..).zip(&jobs) {
            freshness.push(self.start_watch(id, scope, client, &job_sightings, &metrics));
        }
        self.registry.register_collector(Box::new(monitor::metrics::Staleness(freshness)));

        let interval = config.monitor.reconcile_interval;
        let reconciler = Reconciler { pods, jobs, interval, metrics: metrics.clone() };
        let base = client.clone();
        let sightings = Intake { pods: pod_sightings, jobs: job_sightings };
        self.supervisor.spawn("reconciler", Phase::Intake, |stop| async move {
            reconciler.run(base, sightings, stop).await;
            Ok(())
        });

        let collecting = collector::Metrics::default();
        collecting.register(self.registry);
        let collector = Collector::new(client.clone(), self.outputs.clone(), collector_options(config), collecting)
            .with_blobs(self.blobs.cloned());
        let options = monitor::Options {
            policy: policy(config),
            places: config.kube.execution_id.clone(),
            pod_scopes,
            job_scopes,
            log_deadline: config.logs.deadline,
        };
        let stop = self.supervisor.token(Phase::Drain);
        let (journal, clock) = (self.journal.clone(), self.clock.clone());
        let live = live.clone();
        let client = client.clone();
        let means = Means { client, journal, clock, collector, live, metrics, leads, listed, hints, holding };
        let monitor = Monitor::new(options, means, stop);
        self.supervisor.spawn("monitor", Phase::Drain, |_| async move { Ok(monitor.run(inbox).await?) });
    }

    /// What the store knows and the monitor may have lost, where the store is of this cluster alone.
    fn start_expecting(
        &mut self,
        store: Option<&Arc<dyn Store>>,
        listed: &watch::Sender<Option<Timestamp>>,
    ) -> mpsc::Receiver<Evidence> {
        let (out, expected) = mpsc::channel(monitor::QUEUE);
        let config = self.config;
        let Some(store) = store.filter(|_| config.mongo.one_cluster || !config.stores_in_mongo()) else {
            return expected;
        };
        let expecting = Expected {
            store: store.clone(),
            kafka: kafka_options(config).filter(|_| !self.roles_read_journal()),
            policy: policy(config),
            namespaces: config.kube.namespaces.iter().map(|namespace| namespace.as_str().to_owned()).collect(),
            clock: self.clock.clone(),
            listed: listed.subscribe(),
            out,
        };
        self.supervisor.spawn("expected", Phase::Intake, |stop| async move {
            expecting.run(stop).await;
            Ok(())
        });
        expected
    }

    fn start_watch<F: Facts>(
        &mut self,
        id: usize,
        scope: &Scope,
        client: &kube::Client,
        sightings: &mpsc::Sender<Sighting<Object<F>>>,
        metrics: &monitor::metrics::Metrics,
    ) -> Freshness {
        let timeout = self.config.kube.watch_timeout;
        let stale_after = timeout + STALE_MARGIN;
        let watch = Watch::new(id, scope.clone(), timeout, stale_after, metrics.clone());
        let (freshness, probed) = (watch.freshness(), watch.freshness());
        let probe = move || probed.problem(stale_after).map_or(Ok(()), Err);
        self.readiness.register(Role::Monitor, "watch", Arc::new(probe));
        let (client, sightings) = (client.clone(), sightings.clone());
        self.supervisor.spawn("watch", Phase::Intake, |stop| async move {
            watch.run(client, sightings, stop).await;
            Ok(())
        });
        freshness
    }

    async fn start_relays(
        &mut self,
        webhooks: &[Arc<webhook::Endpoint>],
        election: Option<Election>,
    ) -> Result<Cursors, Error> {
        let mut sinks: Vec<(Subscription, Arc<dyn Sink>)> = Vec::new();
        let mut shared = None;
        if let Some(options) = kafka_options(self.config) {
            options.examine().await?;
            let of = Subscription { sink: kafka::NAME, required: self.config.kafka.required };
            let fence = election.as_ref().map(Election::fence);
            let kafka = Arc::new(kafka::Kafka::new(kafka::Options { fence, ..options }));
            shared = Some(kafka.clone());
            sinks.push((of, kafka));
        }
        if let Some(options) = redis_options(self.config) {
            options.examine().await?;
            let of = Subscription { sink: redis::NAME, required: self.config.redis.required };
            sinks.push((of, Arc::new(redis::Redis::new(options, self.journal.clone()))));
        }
        for endpoint in webhooks {
            sinks.push((endpoint.subscription(), endpoint.clone()));
        }
        if !self.config.roles.contains(&Role::Monitor) {
            // What others tell, they carry.
            sinks.clear();
        }
        // Without any, too: retention must know that it waits for nobody.
        let groups = self.groups();
        let all = sinks.iter().map(|(of, _)| of.clone()).chain(groups.iter().cloned()).collect();
        let mut cursors = self.journal.subscribe(all).await?;
        let of_groups = groups.iter().map(|group| group.sink).zip(cursors.split_off(sinks.len())).collect();
        let mut progress = Vec::new();
        for ((of, sink), cursor) in sinks.into_iter().zip(cursors) {
            let is_shared = of.sink == kafka::NAME;
            let turns = election.as_ref().map_or_else(Turns::always, |election| election.turns(is_shared));
            let relay = Relay::new(of, cursor, sink, self.journal.clone(), self.clock.clone()).in_turns(turns);
            let probed = relay.progress();
            progress.push(relay.progress());
            self.readiness.register_sink(Arc::new(move || probed.health()));
            self.supervisor.spawn("relay", Phase::Flush, |stop| async move {
                relay.run(stop).await;
                Ok(())
            });
        }
        self.registry.register_collector(Box::new(relay::Metrics(progress)));
        if let (Some(election), Some(kafka)) = (election, shared) {
            election.start(kafka, &mut self.supervisor);
        }
        Ok(of_groups)
    }

    fn start_blobs(&mut self) {
        let Some(blobs) = self.blobs.cloned() else { return };
        blobs.register(self.registry);
        let probed = blobs.clone();
        self.readiness.register_sink(Arc::new(move || probed.health()));
        self.supervisor.spawn("blob", Phase::Flush, |stop| async move {
            blobs.examine(&stop).await;
            stop.cancelled().await;
            Ok(())
        });
    }

    fn start_retention(&mut self) {
        let retention = Retention {
            journal: self.journal.clone(),
            outputs: self.outputs.clone(),
            blobs: self.blobs.cloned(),
            clock: self.clock.clone(),
            age: self.config.journal.retention,
        };
        self.supervisor.spawn("retention", Phase::Flush, |stop| async move {
            retention.run(stop).await;
            Ok(())
        });
    }
}
