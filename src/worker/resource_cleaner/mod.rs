//! Tidies the cluster up after attempts whose result is stored, and after those of which only pieces are left.
//!
//! What may go is decided anew each time ([`plan`]) from what the API server has and what the store knows; nothing else is
//! kept, so a crash at any point leaves the same decision to whoever comes next. `result_stored` has an execution looked at
//! at once; a sweep looks at everything now and then, for what was too young, for what was missed, and for leftovers.
//!
//! A pod and its result know each other by the id of the event that ended the attempt, which follows from the pod's own uid:
//! no name and no number is believed.

mod cluster;
pub mod metrics;
pub mod plan;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use podherald_core::{
    event::{Event, Payload},
    identity::Place,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

pub use self::cluster::Fault;
use self::{
    cluster::{Cluster, Gone, PAGE},
    metrics::Metrics,
    plan::{Cause, Ended, Kind, Object, Policy, Reason, Verdict, at_first_sight, is_label, of_pod, of_script},
};
use super::{Failure, Work};
use crate::{
    clock::Clock,
    inbox::Message,
    jitter,
    store::{self, Outcome, Store},
};

/// Its consumer group.
pub const GROUP: &str = "resource-cleaner";
/// Name of its sweep among what may be in trouble.
pub const SWEEP: &str = "resource-cleaner sweep";
/// Earlier attempts of an execution that are looked through for a pod's.
const MAX_ATTEMPTS: u32 = 1000;

/// What it goes by.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long what stays.
    pub policy: Policy,
    /// Where an execution's id is read, as the monitor does.
    pub places: Vec<Place>,
    /// Namespaces; none: all.
    pub namespaces: Vec<String>,
    /// What a marked object has besides.
    pub selector: String,
    /// Between two sweeps.
    pub interval: Duration,
    /// Only says what it would do.
    pub dry_run: bool,
}

/// Why it could not come to an end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] Fault),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Where a page of the preview begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Pods come before scripts.
    pub kind: Kind,
    /// Which list of that kind.
    pub scope: usize,
    /// Where in it; none: at its beginning.
    pub token: Option<String>,
}

/// A marked object, and what would become of it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub object: Object,
    /// The execution, if it names one.
    pub execution_id: Option<String>,
    /// What would become of it.
    pub verdict: Verdict,
}

/// See the module.
pub struct ResourceCleaner {
    cluster: Cluster,
    options: Options,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

/// Executions, by namespace, of which a pod is there.
type InUse = HashSet<(String, String)>;

impl ResourceCleaner {
    /// A cleaner of this cluster that believes this store.
    pub fn new(
        client: kube::Client,
        options: Options,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let Options { namespaces, selector, .. } = options.clone();
        Self { cluster: Cluster { client, namespaces, selector }, options, store, clock, metrics }
    }

    /// Sweeps now and then until `stop`. Trouble is told under [`SWEEP`].
    pub async fn run(self: Arc<Self>, roles: super::metrics::Metrics, stop: CancellationToken) {
        // Not in step with others.
        let first = jitter::part_of(self.options.interval, 0.1..=1.0);
        let mut ticks = interval_at(Instant::now() + first, self.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match stop.run_until_cancelled(self.sweep()).await {
                Some(Ok(())) => roles.done(SWEEP),
                Some(Err(error)) => roles.waits(SWEEP, &error.to_string()),
                None => return,
            }
        }
    }

    /// Looks at every marked object once.
    ///
    /// # Errors
    /// What kept it from the rest, or the first refusal after which it went on.
    pub async fn sweep(&self) -> Result<(), Error> {
        let mut kept: HashMap<(&'static str, Reason), i64> = HashMap::new();
        let mut in_use = InUse::new();
        let mut refused = None;
        let mut next = Some(Position { kind: Kind::Pod, scope: 0, token: None });
        while let Some(position) = next {
            let (objects, after) = self.page(&position, PAGE).await?;
            for object in objects {
                let verdict = self.verdict(&object, &in_use).await?;
                match verdict {
                    Verdict::Keep(reason, _) => {
                        *kept.entry((object.kind.as_str(), reason)).or_default() += 1;
                        if object.kind == Kind::Pod && !object.is_leaving {
                            in_use.extend(self.key(&object));
                        }
                    }
                    Verdict::Delete(cause) => match self.remove(&object, cause).await {
                        Err(Fault::Away { doing, reason }) => return Err(Fault::Away { doing, reason }.into()),
                        Err(fault) => refused = refused.or(Some(fault)),
                        Ok(()) => {}
                    },
                }
            }
            next = after;
        }
        self.metrics.kept(&kept);
        self.metrics.sweeps.inc();
        refused.map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// A page of marked objects, pods first, with what would become of each now, and where the next begins.
    ///
    /// # Errors
    /// The API server or the store could not be asked.
    pub async fn preview(
        &self,
        after: Option<Position>,
        limit: u32,
    ) -> Result<(Vec<Planned>, Option<Position>), Error> {
        let position = after.unwrap_or(Position { kind: Kind::Pod, scope: 0, token: None });
        // Of fewer namespaces than when it was given.
        if position.scope >= self.cluster.scopes() {
            return Err(Fault::Expired.into());
        }
        let (objects, next) = self.page(&position, limit).await?;
        let mut items = Vec::with_capacity(objects.len());
        for object in objects {
            let verdict = self.verdict(&object, &InUse::new()).await?;
            let execution_id = object.execution_id(&self.options.places).map(str::to_owned);
            items.push(Planned { object, execution_id, verdict });
        }
        Ok((items, next))
    }

    async fn page(&self, position: &Position, limit: u32) -> Result<(Vec<Object>, Option<Position>), Fault> {
        let Position { kind, scope, token } = position;
        let (objects, token) = self.cluster.page(*kind, *scope, token.as_deref(), limit).await?;
        let next = match (token, kind) {
            (Some(token), kind) => Some(Position { kind: *kind, scope: *scope, token: Some(token) }),
            (None, kind) if scope + 1 < self.cluster.scopes() => {
                Some(Position { kind: *kind, scope: scope + 1, token: None })
            }
            (None, Kind::Pod) => Some(Position { kind: Kind::Script, scope: 0, token: None }),
            (None, Kind::Script) => None,
        };
        Ok((objects, next))
    }

    /// Looks at one execution, of which a result has just been stored.
    async fn tidy(&self, execution_id: &str) -> Result<(), Error> {
        // The sweep reads the whole of it in the annotation.
        if !is_label(execution_id) {
            return Ok(());
        }
        let mut refused = None;
        for kind in [Kind::Pod, Kind::Script] {
            for object in self.cluster.of_execution(kind, execution_id).await? {
                if let Verdict::Delete(cause) = self.verdict(&object, &InUse::new()).await?
                    && let Err(fault) = self.remove(&object, cause).await
                {
                    refused = refused.or(Some(fault));
                }
            }
        }
        refused.map_or(Ok(()), |fault| Err(fault.into()))
    }

    async fn verdict(&self, object: &Object, in_use: &InUse) -> Result<Verdict, Error> {
        let (policy, now) = (&self.options.policy, self.clock.now());
        if let Some(verdict) = at_first_sight(object, policy, now) {
            return Ok(verdict);
        }
        Ok(match object.kind {
            Kind::Pod => of_pod(object, self.ended(object).await?, policy, now),
            Kind::Script => {
                let Some(key) = self.key(object) else { return Ok(Verdict::Keep(Reason::Unmarked, None)) };
                let is_used = in_use.contains(&key) || self.is_used(object, &key.1).await?;
                let is_stored = !is_used && self.store.result(key.1, None).await?.is_some();
                of_script(object, is_used, is_stored, policy, now)
            }
        })
    }

    /// What the attempt of this pod came to, if that is stored.
    async fn ended(&self, pod: &Object) -> Result<Option<Ended>, store::Error> {
        let places = &self.options.places;
        let Some((execution_id, event_id)) = pod.execution_id(places).zip(pod.ends_by(places)) else { return Ok(None) };
        let mut found = self.store.result(execution_id.to_owned(), None).await?;
        let latest = found.as_ref().map_or(1, |outcome| outcome.attempt);
        let mut earlier = (1..latest).rev().take(MAX_ATTEMPTS as usize);
        while found.as_ref().is_none_or(|outcome| outcome.event_id != event_id) {
            let Some(attempt) = earlier.next() else { return Ok(None) };
            found = self.store.result(execution_id.to_owned(), Some(attempt)).await?;
        }
        Ok(found.map(|Outcome { status, ended_at, .. }| Ended { status, at: ended_at }))
    }

    /// True if a pod beside the script names its execution and has not been asked to leave. In a dry run those that would go are
    /// still there.
    async fn is_used(&self, script: &Object, execution_id: &str) -> Result<bool, Fault> {
        let pods = self.cluster.pods_beside(script, execution_id).await?;
        Ok(pods.iter().any(|pod| !pod.is_leaving))
    }

    fn key(&self, object: &Object) -> Option<(String, String)> {
        let label = object.labels.get(plan::EXECUTION_LABEL)?;
        Some((object.namespace.clone(), label.clone()))
    }

    async fn remove(&self, object: &Object, cause: Cause) -> Result<(), Fault> {
        let Object { kind, namespace, name, uid, .. } = object;
        let (kind, why) = (*kind, cause.sentence());
        let what = kind.as_str();
        if self.options.dry_run {
            self.metrics.planned(kind, cause);
            tracing::info!(kind = what, namespace, name, uid, why, "would be deleted, but for cleaner.dry_run");
            return Ok(());
        }
        match self.cluster.remove(object, cause).await {
            Ok(Gone::Deleted) => {
                self.metrics.deleted(kind, cause);
                if cause == Cause::Unstored {
                    tracing::warn!(kind = what, namespace, name, uid, why, "deleted without a result");
                } else {
                    tracing::info!(kind = what, namespace, name, uid, why, "deleted");
                }
            }
            Ok(Gone::Before) => tracing::debug!(kind = what, namespace, name, uid, "was gone already"),
            Ok(Gone::Another) => {
                self.metrics.conflicts.inc();
                tracing::info!(
                    kind = what,
                    namespace,
                    name,
                    uid,
                    "another object has this name by now, it is left alone"
                );
            }
            Err(fault) => {
                self.metrics.failures.inc();
                tracing::warn!(kind = what, namespace, name, uid, %fault, "could not be deleted, the next sweep tries again");
                return Err(fault);
            }
        }
        Ok(())
    }
}

impl Work for ResourceCleaner {
    fn name(&self) -> &'static str {
        GROUP
    }

    fn process<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        async {
            if &*message.event_type != "result_stored" {
                return Ok(());
            }
            let event: Event = serde_json::from_slice(&message.bytes)
                .map_err(|error| Failure::Unfit(format!("it cannot be read as a result_stored: {error}")))?;
            if !matches!(event.payload, Payload::ResultStored(_)) {
                return Ok(());
            }
            match self.tidy(&event.execution_id).await {
                // Of one object nothing can be had by asking again at once; the sweep does, and tells of it.
                Ok(()) | Err(Error::Cluster(Fault::Refused { .. } | Fault::Expired)) => Ok(()),
                Err(error) => Err(Failure::Away(error.to_string())),
            }
        }
        .boxed()
    }
}
