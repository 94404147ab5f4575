//! Gets the Lease, keeps it, and gives it back.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, Error, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Carried, LAG_ANNOTATION, Metrics,
    lease::{Claim, Observed, interval, reliable_until},
};
use crate::{clock::Clock, health::Readiness, jitter, wording};

/// A Lease without a readable duration is one of nobody that goes by these rules.
const ODD_DURATION: Duration = Duration::from_secs(60);

/// Which Lease, and who wants it.
#[derive(Debug, Clone)]
pub struct Office {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whole seconds without a renewal after which others may take it.
    pub duration: Duration,
    /// The same again for the same journal, so that a restart need not wait for itself.
    pub me: String,
}

/// What an elector tells the rest of the process.
#[derive(Debug, Clone)]
pub struct Signs {
    /// Until when the Lease is ours.
    pub held: watch::Sender<Option<Instant>>,
    /// The Lease's uid, once it is known.
    pub uid: watch::Sender<Option<String>>,
    /// What another leader says of its sinks.
    pub carried: watch::Sender<Carried>,
    /// Why it is not known who leads.
    pub trouble: watch::Sender<Option<String>>,
}

impl Default for Signs {
    fn default() -> Self {
        Self {
            held: watch::Sender::new(None),
            uid: watch::Sender::new(None),
            carried: watch::Sender::default(),
            trouble: watch::Sender::new(None),
        }
    }
}

/// See the module.
pub struct Elector {
    leases: Api<Lease>,
    office: Office,
    clock: Arc<dyn Clock>,
    readiness: Arc<Readiness>,
    metrics: Metrics,
    signs: Signs,
    observed: Option<Observed>,
}

/// What a try came to.
enum Tried {
    Holding,
    Waiting,
    /// It was changed at the same time.
    Contended,
}

impl Elector {
    /// An elector that has not looked yet.
    pub fn new(
        client: Client,
        office: Office,
        clock: Arc<dyn Clock>,
        readiness: Arc<Readiness>,
        metrics: Metrics,
    ) -> Self {
        let leases = Api::namespaced(client, &office.namespace);
        Self { leases, office, clock, readiness, metrics, signs: Signs::default(), observed: None }
    }

    /// What it tells.
    pub fn signs(&self) -> Signs {
        self.signs.clone()
    }

    /// Works until `stop`, then gives the Lease back if it has it.
    pub async fn run(mut self, stop: CancellationToken) {
        let interval = interval(self.office.duration);
        loop {
            let asked = Instant::now();
            // A request that hangs must leave time for another.
            let tried = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                tried = timeout(interval, self.look()) => tried,
            };
            if matches!(tried, Ok(Ok(_))) {
                self.signs.trouble.send_replace(None);
            }
            let mut pause = interval;
            match tried {
                Ok(Ok(Tried::Holding)) => self.hold(reliable_until(asked, self.office.duration)),
                Ok(Ok(Tried::Waiting)) => self.lose("another holds it"),
                // The next look says who has it.
                Ok(Ok(Tried::Contended)) => pause = interval / 10,
                Ok(Err(error)) => {
                    self.fail(&wording::of(&error));
                    pause = interval / 2;
                }
                Err(_) => {
                    self.fail("the API server does not answer");
                    pause = interval / 10;
                }
            }
            let pause = jitter::part_of(pause, 0.8..=1.0);
            let end = (*self.signs.held.borrow()).unwrap_or_else(|| Instant::now() + pause);
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
                () = sleep_until(end) => {}
            }
            self.expire();
        }
        if self.is_held() && !matches!(timeout(interval, self.give_back()).await, Ok(Ok(()))) {
            tracing::warn!("the Lease could not be given back; others wait until it has run out");
        }
        self.signs.held.send_replace(None);
    }

    fn is_held(&self) -> bool {
        self.signs.held.borrow().is_some_and(|until| Instant::now() < until)
    }

    fn hold(&self, until: Instant) {
        if self.signs.held.send_replace(Some(until)).is_none() {
            self.metrics.changes.inc();
            let Office { namespace, name, .. } = &self.office;
            tracing::info!(namespace, name, "this podherald holds the Lease now");
        }
    }

    fn lose(&self, why: &str) {
        if self.signs.held.send_replace(None).is_some() {
            self.metrics.changes.inc();
            let Office { namespace, name, .. } = &self.office;
            tracing::warn!(namespace, name, why, "this podherald does not hold the Lease any more");
        }
    }

    fn fail(&self, error: &str) {
        self.metrics.failures.inc();
        let Office { namespace, name, .. } = &self.office;
        let trouble = format!(
            "the Lease {name} in namespace {namespace} (monitor.lease) cannot be looked at or renewed: {error}; the role must \
             allow get, create and update of it, as deploy/lease.yaml does"
        );
        tracing::warn!(trouble, "it is not known who leads, trying again");
        self.signs.trouble.send_replace(Some(trouble));
        self.expire();
    }

    fn expire(&self) {
        if self.signs.held.borrow().is_some_and(|until| until <= Instant::now()) {
            self.lose("it was not renewed in time");
        }
    }

    /// Looks at the Lease, and takes or renews it if that is allowed.
    async fn look(&mut self) -> Result<Tried, Error> {
        let asked = Instant::now();
        let Some(lease) = self.leases.get_opt(&self.office.name).await? else {
            let lease = self.ours(Lease::default(), 0);
            return self.wrote(self.leases.create(&PostParams::default(), &lease).await);
        };
        let now = Instant::now();
        let claim = claim_of(&lease);
        let is_news = match &mut self.observed {
            Some(observed) => observed.look(claim, asked, now),
            None => {
                self.observed = Some(Observed::first(claim, asked, now));
                true
            }
        };
        self.tell_uid(&lease);
        let observed = self.observed.as_ref().expect("it was looked at");
        if !observed.may_be_taken(&self.office.me, now) {
            if is_news {
                self.signs.carried.send_replace(Carried { after: observed.made_after, lag: lag_of(&lease) });
            }
            return Ok(Tried::Waiting);
        }
        let transitions =
            observed.claim.transitions + i32::from(observed.claim.holder.as_ref() != Some(&self.office.me));
        let name = self.office.name.clone();
        let lease = self.ours(lease, transitions);
        self.wrote(self.leases.replace(&name, &PostParams::default(), &lease).await)
    }

    fn wrote(&mut self, written: Result<Lease, Error>) -> Result<Tried, Error> {
        match written {
            Ok(lease) => {
                self.tell_uid(&lease);
                Ok(Tried::Holding)
            }
            // Somebody else was faster.
            Err(Error::Api(status)) if status.code == 409 => Ok(Tried::Contended),
            Err(error) => Err(error),
        }
    }

    /// The Lease as it is to be, with the version that it was read in.
    fn ours(&self, lease: Lease, transitions: i32) -> Lease {
        let Office { namespace, name, duration, me } = &self.office;
        let now = MicroTime(self.clock.now());
        let before = lease.spec.unwrap_or_default();
        let is_renewal = before.holder_identity.as_ref() == Some(me);
        let mut metadata = lease.metadata;
        metadata.name = Some(name.clone());
        metadata.namespace = Some(namespace.clone());
        let lag: BTreeMap<&str, f64> =
            self.readiness.sinks().iter().filter_map(|sink| Some((sink.name, sink.complete_for?))).collect();
        let lag = serde_json::to_string(&lag).expect("names and finite numbers");
        metadata.annotations.get_or_insert_default().insert(LAG_ANNOTATION.to_owned(), lag);
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(me.clone()),
                lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
                acquire_time: before.acquire_time.filter(|_| is_renewal).or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..before
            }),
        }
    }

    fn tell_uid(&self, lease: &Lease) {
        self.signs.uid.send_if_modified(|uid| {
            let is_news = *uid != lease.metadata.uid;
            uid.clone_from(&lease.metadata.uid);
            is_news
        });
    }

    async fn give_back(&mut self) -> Result<(), Error> {
        // What is carried is carried: who comes next may rely on it.
        let lease = self.leases.get(&self.office.name).await?;
        let claim = claim_of(&lease);
        if claim.holder.as_ref() != Some(&self.office.me) {
            return Ok(());
        }
        let mut lease = self.ours(lease, claim.transitions);
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        self.leases.replace(&self.office.name, &PostParams::default(), &lease).await?;
        tracing::info!("the Lease is given back");
        Ok(())
    }
}

fn claim_of(lease: &Lease) -> Claim {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Claim {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration: seconds.map_or(ODD_DURATION, Duration::from_secs),
        renewed: spec.renew_time.map(|MicroTime(time): MicroTime| Timestamp::to_string(&time)),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

/// Nothing of a sink of which nothing readable is said.
fn lag_of(lease: &Lease) -> BTreeMap<String, Duration> {
    let text = lease.metadata.annotations.as_ref().and_then(|annotations| annotations.get(LAG_ANNOTATION));
    let lag: BTreeMap<String, f64> = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let duration = |seconds| Duration::try_from_secs_f64(seconds).ok();
    lag.into_iter().filter_map(|(sink, seconds)| Some((sink, duration(seconds)?))).collect()
}
