//! The roles around the monitor, wired.

use std::{collections::HashMap, path::Path, sync::Arc};

use podherald_core::topic::Topic;
use tokio::sync::mpsc;

use super::{
    Error, Parts,
    options::{cleaner_options, kafka_options},
};
use crate::{
    health::Role,
    inbox::{self, Inbox, Member},
    journal::{Cursor, Subscription},
    publisher::{Publisher, journal::Journaled, kafka::Direct},
    replica::{self, Past, Replica},
    sink::kafka::Kafka,
    store::{self, Deferred, Store},
    supervisor::Phase,
    topics::PUBLISHED,
    worker::{
        self, Work, Worker,
        event_store::{self, EventStore},
        resource_cleaner::{self, ResourceCleaner},
        result_processor::{self, ResultProcessor},
    },
};

/// Events at work at a time in a role for which nothing else is said.
const CONCURRENCY: usize = 64;

/// Groups that read the journal, where there is one in this process.
const GROUPS: [Subscription; 2] = [
    Subscription { sink: result_processor::GROUP, required: true },
    Subscription { sink: event_store::GROUP, required: true },
];

/// The same of the cleaner. What retention took before it, its sweep finds.
const CLEANER: Subscription = Subscription { sink: resource_cleaner::GROUP, required: false };

/// How far the groups that read the journal have come, by their names.
pub(super) type Cursors = HashMap<&'static str, Cursor>;

/// A role, and what it is given.
struct Part {
    role: Role,
    work: Arc<dyn Work>,
    topics: Vec<Topic>,
    /// Events at work at a time.
    concurrency: usize,
}

impl Parts<'_> {
    /// The groups of this process that read its journal.
    pub(super) fn groups(&self) -> Vec<Subscription> {
        if !self.roles_read_journal() {
            return Vec::new();
        }
        let cleaner = self.config.roles.contains(&Role::ResourceCleaner).then_some(CLEANER);
        GROUPS.into_iter().chain(cleaner).collect()
    }

    /// True if the roles of this process read the journal of its own monitor.
    pub(super) fn roles_read_journal(&self) -> bool {
        self.config.roles.contains(&Role::ResultProcessor) && self.config.roles.contains(&Role::Monitor)
    }

    /// The store of a process that stores results, or can read those of others. Nobody waits for a MongoDB.
    pub(super) async fn open_store(&mut self, data_dir: &Path) -> Result<Option<Arc<dyn Store>>, Error> {
        let config = self.config;
        let is_elsewhere = config.mongo.uri.is_some() || config.mongo.uri_file.is_some();
        if !is_elsewhere && !config.roles.contains(&Role::ResultProcessor) {
            return Ok(None);
        }
        if !is_elsewhere {
            return Ok(Some(store::open(config, data_dir, self.clock.clone()).await?));
        }
        let store = Deferred::default();
        let (deferred, data_dir) = (store.clone(), data_dir.to_owned());
        let (config, clock) = (config.clone(), self.clock.clone());
        self.supervisor.spawn("store", Phase::Flush, |stop| async move {
            stop.run_until_cancelled(deferred.open(config, data_dir, clock)).await;
            stop.cancelled().await;
            Ok(())
        });
        Ok(Some(Arc::new(store)))
    }

    /// Reads what others tell, in a process that does not see all of it by itself; gives what was before that, to one that sees nothing.
    pub(super) fn start_replica(&mut self, store: Option<&Arc<dyn Store>>) -> Option<Arc<Past>> {
        let config = self.config;
        let (store, options) = store.zip(kafka_options(config))?;
        let topics: &[Topic] = match (config.is_replica(), config.follows_results()) {
            (true, _) => &PUBLISHED,
            (_, true) => &[Topic::ExecutionResults],
            _ => return None,
        };
        let metrics = replica::Metrics::default();
        metrics.register(self.registry);
        let past = Past::new(store.clone(), self.journal.clone(), self.clock.clone(), metrics.clone());
        let past = Arc::new(past);
        let replica = Replica::new(options, topics, self.journal.clone(), past.clone(), metrics);
        let trouble = replica.trouble();
        self.readiness.register(Role::Api, "replica", Arc::new(move || trouble.get().map_or(Ok(()), Err)));
        self.supervisor.spawn("replica", Phase::Intake, |stop| async move {
            replica.run(stop).await;
            Ok(())
        });
        config.is_replica().then_some(past)
    }

    /// Starts those that store what comes of executions.
    pub(super) async fn start_roles(&mut self, store: &Arc<dyn Store>, cursors: &Cursors) -> Result<(), Error> {
        let metrics = self.role_metrics.clone();
        let role = Role::ResultProcessor;
        let processor = ResultProcessor {
            store: store.clone(),
            publisher: self.publisher(),
            metrics: metrics.clone(),
            clock: self.clock.clone(),
        };
        let parts = [
            Part { role, work: Arc::new(processor), topics: vec![Topic::ExecutionEvents], concurrency: CONCURRENCY },
            Part {
                role,
                work: Arc::new(EventStore::new(store.clone())),
                topics: PUBLISHED.to_vec(),
                concurrency: event_store::CONCURRENCY,
            },
        ];
        for part in parts {
            self.start_role(part, cursors, &metrics).await?;
        }
        Ok(())
    }

    /// Starts the one that tidies up.
    pub(super) async fn start_cleaner(
        &mut self,
        client: &kube::Client,
        store: &Arc<dyn Store>,
        cursors: &Cursors,
    ) -> Result<Arc<ResourceCleaner>, Error> {
        let (roles, role) = (self.role_metrics.clone(), Role::ResourceCleaner);
        let metrics = resource_cleaner::metrics::Metrics::default();
        metrics.register(self.registry);
        let options = cleaner_options(self.config);
        let cleaner =
            Arc::new(ResourceCleaner::new(client.clone(), options, store.clone(), self.clock.clone(), metrics));
        let part =
            Part { role, work: cleaner.clone(), topics: vec![Topic::ExecutionResults], concurrency: CONCURRENCY };
        self.start_role(part, cursors, &roles).await?;
        let probed = roles.clone();
        let probe = move || probed.trouble(resource_cleaner::SWEEP).map_or(Ok(()), Err);
        self.readiness.register(role, resource_cleaner::SWEEP, Arc::new(probe));
        let sweeper = cleaner.clone();
        self.supervisor.spawn("sweep", Phase::Drain, |stop| async move {
            sweeper.run(roles, stop).await;
            Ok(())
        });
        Ok(cleaner)
    }

    fn publisher(&self) -> Arc<dyn Publisher> {
        match kafka_options(self.config).filter(|_| !self.roles_read_journal()) {
            Some(options) => Arc::new(Direct::new(Arc::new(Kafka::new(options)))),
            None => Arc::new(Journaled::new(self.journal.clone())),
        }
    }

    async fn start_role(
        &mut self,
        Part { role, work, topics, concurrency }: Part,
        cursors: &Cursors,
        metrics: &worker::metrics::Metrics,
    ) -> Result<(), Error> {
        let group = work.name();
        let inbox: Box<dyn Inbox> = match (cursors.get(group).copied(), kafka_options(self.config)) {
            (None, Some(options)) => {
                Box::new(inbox::kafka::Kafka::join(&options, group, &topics).await.map_err(Error::Inbox)?)
            }
            (cursor, _) => Box::new(inbox::journal::Journaled::new(
                group,
                topics,
                cursor.unwrap_or_default(),
                self.journal.clone(),
                self.clock.clone(),
            )),
        };
        let counted = inbox::Metrics::default();
        counted.register(self.registry, group);
        let member = Member::new(group, inbox, inbox::Policy::default(), counted);
        let probed = metrics.clone();
        let probe = move || probed.trouble(group).map_or(Ok(()), Err);
        self.readiness.register(role, group, Arc::new(probe));
        let (out, deliveries) = mpsc::channel(concurrency);
        self.supervisor.spawn("inbox", Phase::Intake, |stop| async move {
            member.run(out, stop).await;
            Ok(())
        });
        let worker = Worker { work, metrics: metrics.clone(), concurrency };
        self.supervisor.spawn("worker", Phase::Drain, |stop| async move {
            worker.run(deliveries, stop).await;
            Ok(())
        });
        Ok(())
    }
}
