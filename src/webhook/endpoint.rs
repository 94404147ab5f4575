//! One endpoint: what it is sent, what it says to that, and how it stands.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use jiff::SignedDuration;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    Error, Metrics, Options,
    answers::Status,
    message::Message,
    quote::quote,
    retry::{self, Meaning},
    store::{Delivery, Disabled, Error as StoreError, Standing, Store},
    transport::{Answer, Transport},
};
use crate::{
    clock::Clock,
    config::{WebhookMode, WebhookSecrets},
    journal::{Journal, Subscription},
    sink::{Fault, Item, Rejection, Sink},
    wording,
};

/// Executions whose events are under way at a time.
const CONCURRENCY: usize = 8;

/// Why an event that somebody wants left out is not sent.
pub(super) const SKIPPED: &str = "skipped over the API";

/// What an endpoint works with.
pub(super) struct Means {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) store: Store,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
}

/// See the module.
pub struct Endpoint {
    pub(super) options: Options,
    pub(super) means: Means,
    sink: &'static str,
    state: Arc<Mutex<State>>,
    /// Somebody has done something about it: it is tried at once.
    pub(super) retried: Notify,
    /// One event at a time is sent again or left out.
    pub(super) operating: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) standing: Standing,
    /// Batches that failed in a row.
    failures: u32,
    /// The pause after the last of them; none where nothing was sent.
    pause: Option<Duration>,
    /// The last thing that is known is that it can be reached.
    is_reachable: bool,
    /// Events acknowledged since the start.
    acknowledged: u64,
    /// Events done with since the start, because they were acknowledged, refused for good, or skipped.
    settled: u64,
    /// Positions of the batch under way that are done with; with the reason, if it was a rejection. They come again with what is
    /// not done with.
    done: BTreeMap<u64, Option<String>>,
    refusals: BTreeMap<u64, Refusals>,
    /// Events that somebody wants left out, by position. They stay until the cursor on disk is behind them.
    pub(super) skipped: BTreeMap<u64, String>,
    /// All up to this position is done with.
    passed: u64,
}

impl State {
    /// As if it had never failed.
    pub(super) fn start_anew(&mut self) {
        self.standing = Standing::default();
        (self.failures, self.pause) = (0, None);
    }

    /// True where somebody wants this event left out; then it is done with.
    fn skips(&mut self, position: u64, event_id: &str) -> bool {
        let is_skipped = self.skipped.get(&position).is_some_and(|skipped| skipped == event_id);
        self.settled += u64::from(is_skipped);
        is_skipped
    }

    /// True where nothing more is to be sent of this position.
    pub(super) fn is_done_with(&self, position: u64) -> bool {
        position <= self.passed || self.done.contains_key(&position)
    }
}

/// Of one event.
#[derive(Clone, Copy)]
struct Refusals {
    count: u32,
    /// [`State::acknowledged`] at the first.
    since: u64,
}

/// Why a batch could not be carried to its end.
struct Trouble {
    meaning: Meaning,
    reason: String,
    asked: Option<Duration>,
}

/// What came of an attempt.
pub(super) struct Outcome {
    meaning: Meaning,
    status: Option<u16>,
    error: Option<String>,
    asked: Option<Duration>,
}

impl Endpoint {
    pub(super) async fn open(options: Options, means: Means) -> Result<Self, Error> {
        let standing = means.store.standing(&options.name).await?;
        means.metrics.disabled(&options.name, standing.disabled.is_some());
        // Sinks are few and their names are for ever.
        let sink = Box::leak(format!("webhook:{}", options.name).into_boxed_str());
        let skipped = means.store.skipped(&options.name).await?;
        let state = Arc::new(Mutex::new(State { standing, skipped, ..State::default() }));
        Ok(Self { options, means, sink, state, retried: Notify::new(), operating: tokio::sync::Mutex::default() })
    }

    /// `NAME` of `[webhook.NAME]`.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// What it wants of the journal.
    pub fn subscription(&self) -> Subscription {
        Subscription { sink: self.sink, required: self.options.required }
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        let Options { name, url, mode, filter, .. } = &self.options;
        let Standing { failing_since, disabled } = self.state().standing.clone();
        Status {
            name: name.clone(),
            url: url.to_string(),
            mode: match mode {
                WebhookMode::Structured => "structured",
                WebhookMode::Binary => "binary",
            },
            events: filter.events.clone(),
            statuses: filter.statuses.iter().map(|status| status.as_str()).collect(),
            namespaces: filter.namespaces.clone(),
            labels: filter.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            disabled,
            failing_since,
        }
    }

    async fn carry_all(&self, items: &[Item]) -> Result<Vec<Rejection>, Fault> {
        self.admit()?;
        let Some(first) = items.first() else { return Ok(Vec::new()) };
        self.forget_before(first.position()).await;
        let secrets = self.options.secrets().await.map_err(|error| Fault(wording::of(&error)))?;
        let settled = self.state().settled;
        let is_halted = AtomicBool::new(false);
        let groups = by_key(items.iter().filter(|item| self.options.filter.admits(item)));
        let work = groups.into_iter().map(|group| self.carry_group(group, &secrets, &is_halted).boxed());
        let ended: Vec<Option<Trouble>> = stream::iter(work).buffer_unordered(CONCURRENCY).collect().await;
        let has_settled = self.state().settled > settled;
        match worst(ended.into_iter().flatten()) {
            None => Ok(self.carried(items, has_settled).await),
            Some(trouble) => Err(self.failed(trouble, has_settled).await),
        }
    }

    /// What is of one execution, in order, up to the first that is not done with.
    async fn carry_group(&self, items: Vec<Item>, secrets: &WebhookSecrets, is_halted: &AtomicBool) -> Option<Trouble> {
        for item in items {
            if is_halted.load(Ordering::Relaxed) {
                return None;
            }
            if self.state().done.contains_key(&item.position()) {
                continue;
            }
            match self.carry_one(&item, secrets).await {
                Ok(rejection) => drop(self.state().done.insert(item.position(), rejection)),
                Err(trouble) => {
                    // Trouble with one event is none of the others'.
                    is_halted.fetch_or(trouble.meaning != Meaning::Refused, Ordering::Relaxed);
                    return Some(trouble);
                }
            }
        }
        None
    }

    /// The reason, if it is to be left out.
    async fn carry_one(&self, item: &Item, secrets: &WebhookSecrets) -> Result<Option<String>, Trouble> {
        let (position, length, max) = (item.position(), item.bytes().len(), self.options.max_event_bytes);
        if length > max {
            return Ok(Some(format!("it has {length} bytes, more than the {max} bytes that are sent")));
        }
        let message = match Message::of(item, self.options.mode) {
            Ok(message) => message,
            Err(reason) => return Ok(Some(reason)),
        };
        if self.state().skips(position, &message.event_id) {
            return Ok(Some(SKIPPED.to_owned()));
        }
        let (Outcome { meaning, error, asked, .. }, _) = self.attempt(item, &message, secrets, false).await;
        let reason = error.unwrap_or_default();
        let mut state = self.state();
        // Who refuses one event is there.
        state.is_reachable = matches!(meaning, Meaning::Acknowledged | Meaning::Refused);
        match meaning {
            Meaning::Acknowledged => {
                state.acknowledged += 1;
                state.settled += 1;
                state.refusals.remove(&position);
                Ok(None)
            }
            Meaning::Refused => {
                let acknowledged = state.acknowledged;
                let first = Refusals { count: 0, since: acknowledged };
                let refusals = state.refusals.entry(position).or_insert(first);
                refusals.count += 1;
                let Refusals { count, since } = *refusals;
                if retry::is_hopeless(count, acknowledged > since) {
                    state.settled += 1;
                    state.refusals.remove(&position);
                    return Ok(Some(format!("{reason}, {count} times")));
                }
                Err(Trouble { meaning, reason, asked })
            }
            Meaning::Gone | Meaning::Unable => Err(Trouble { meaning, reason, asked }),
        }
    }

    /// One request, which is logged.
    pub(super) async fn attempt(
        &self,
        item: &Item,
        message: &Message,
        secrets: &WebhookSecrets,
        redelivery: bool,
    ) -> (Outcome, Delivery) {
        let (at, begun) = (self.means.clock.now(), Instant::now());
        let headers = message.headers(at.as_second(), secrets);
        let answer = self.means.transport.post(headers, message.body.clone()).await;
        let outcome = self.outcome(answer);
        let name = &self.options.name;
        self.means.metrics.attempted(name, outcome.meaning.word());
        let delivery = Delivery {
            id: 0,
            event_id: message.event_id.clone(),
            event_type: item.event_type().to_owned(),
            execution_id: item.key().to_string(),
            position: item.position(),
            attempt: 0,
            at,
            duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            status: outcome.status,
            error: outcome.error.clone(),
            redelivery,
        };
        let logged = self.log(delivery).await;
        (outcome, logged)
    }

    /// What cannot be logged is counted.
    pub(super) async fn log(&self, delivery: Delivery) -> Delivery {
        let logged = self.means.store.add(&self.options.name, delivery.clone()).await;
        logged.unwrap_or_else(|error| {
            self.unlogged(&error);
            delivery
        })
    }

    fn outcome(&self, answer: Result<Answer, String>) -> Outcome {
        let answer = match answer {
            Ok(answer) => answer,
            Err(reason) => {
                return Outcome { meaning: Meaning::Unable, status: None, error: Some(reason), asked: None };
            }
        };
        let meaning = retry::meaning(answer.status);
        let error = (meaning != Meaning::Acknowledged).then(|| {
            let advice = if answer.status.is_redirection() { "; redirects are not followed" } else { "" };
            format!("it answers {}{advice}{}", answer.status, quote(&answer.text, &self.options.url.secrets()))
        });
        let asked = answer.retry_after.and_then(|text| retry::asked(&text, self.means.clock.now()));
        Outcome { meaning, status: Some(answer.status.as_u16()), error, asked }
    }

    /// The cursor on disk is behind these positions: they do not come again.
    async fn forget_before(&self, position: u64) {
        let has_skipped = {
            let mut state = self.state();
            state.passed = state.passed.max(position.saturating_sub(1));
            let kept = state.skipped.split_off(&position);
            !std::mem::replace(&mut state.skipped, kept).is_empty()
        };
        if has_skipped && let Err(error) = self.means.store.forget_skips(&self.options.name, position).await {
            self.unlogged(&error);
        }
    }

    async fn carried(&self, items: &[Item], has_settled: bool) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        let has_changed = self.change_standing(|state| {
            for position in items.iter().map(Item::position) {
                let reason = state.done.remove(&position).flatten();
                rejections.extend(reason.map(|reason| Rejection { position, reason }));
            }
            // What retention took of them does not come again.
            let next = items.last().map_or(0, |last| last.position() + 1);
            state.done = state.done.split_off(&next);
            state.refusals = state.refusals.split_off(&next);
            state.passed = next.saturating_sub(1);
            if has_settled {
                state.standing.failing_since = None;
                (state.failures, state.pause) = (0, None);
            }
        });
        self.keep(has_changed).await;
        rejections
    }

    async fn failed(&self, trouble: Trouble, has_settled: bool) -> Fault {
        let now = self.means.clock.now();
        let Trouble { meaning, reason, asked } = trouble;
        let fault = self.fault(&reason);
        let has_changed = self.change_standing(|state| {
            if has_settled {
                state.standing.failing_since = None;
                state.failures = 0;
            }
            state.failures = state.failures.saturating_add(1);
            state.pause = Some(retry::pause(&self.options.retry, state.failures, meaning, asked));
            if meaning != Meaning::Refused {
                let since = *state.standing.failing_since.get_or_insert(now);
                let longest = self.options.disable_after.and_then(|after| SignedDuration::try_from(after).ok());
                let is_overdue = longest.is_some_and(|longest| now.duration_since(since) >= longest);
                if meaning == Meaning::Gone || is_overdue {
                    state.standing.disabled = Some(Disabled { at: now, reason });
                }
            }
        });
        self.keep(has_changed).await;
        self.admit().err().unwrap_or(fault)
    }

    /// True if it stands otherwise than before.
    pub(super) fn change_standing(&self, change: impl FnOnce(&mut State)) -> bool {
        let mut state = self.state();
        let was = state.standing.clone();
        change(&mut state);
        self.means.metrics.disabled(&self.options.name, state.standing.disabled.is_some());
        state.standing != was
    }

    /// What cannot be kept still holds until the process ends.
    async fn keep(&self, has_changed: bool) {
        if has_changed && let Err(error) = self.write_standing().await {
            self.unlogged(&error);
        }
    }

    /// Whoever writes, writes how it stands at that moment: so the last to write agrees with memory, whoever changed that first.
    pub(super) async fn write_standing(&self) -> Result<(), StoreError> {
        let state = self.state.clone();
        let standing = move || state.lock().unwrap_or_else(PoisonError::into_inner).standing.clone();
        self.means.store.stands(&self.options.name, standing).await
    }

    fn unlogged(&self, error: &StoreError) {
        self.means.metrics.unlogged(&self.options.name);
        tracing::warn!(webhook = self.options.name, %error, "what became of a webhook could not be kept");
    }

    fn admit(&self) -> Result<(), Fault> {
        let Some(Disabled { at, reason }) = self.state().standing.disabled.clone() else { return Ok(()) };
        let name = &self.options.name;
        let fault = self.fault(&format!("disabled since {at}, for {reason}; POST /webhooks/{name}/enable goes on"));
        Err(fault)
    }

    fn fault(&self, reason: &str) -> Fault {
        Fault(format!("webhook.{}.url = {}: {reason}", self.options.name, self.options.url))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is of one execution in its order; executions in the order of their first.
fn by_key<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<Vec<Item>> {
    let mut groups: Vec<Vec<Item>> = Vec::new();
    let mut places = std::collections::HashMap::<Arc<str>, usize>::new();
    for item in items {
        let place = *places.entry(item.key()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(item.clone());
    }
    groups
}

/// What the endpoint says of itself outranks what it says of one event.
fn worst(troubles: impl Iterator<Item = Trouble>) -> Option<Trouble> {
    troubles.max_by_key(|trouble| match trouble.meaning {
        Meaning::Gone => 2,
        Meaning::Unable => 1,
        Meaning::Acknowledged | Meaning::Refused => 0,
    })
}

impl Sink for Endpoint {
    fn carry<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Result<Vec<Rejection>, Fault>> {
        self.carry_all(items).boxed()
    }

    /// One that has shown nothing wrong is left in peace.
    fn check(&self) -> BoxFuture<'_, Result<(), Fault>> {
        async {
            self.admit()?;
            if self.state().is_reachable {
                return Ok(());
            }
            self.options.secrets().await.map_err(|error| Fault(wording::of(&error)))?;
            let reached = self.means.transport.reach().await;
            let mut state = self.state();
            state.is_reachable = reached.is_ok();
            // Nothing waits for it: the relay's own pace will do.
            state.pause = None;
            drop(state);
            reached.map_err(|reason| self.fault(&reason))
        }
        .boxed()
    }

    fn recover(&self, pause: Duration) -> BoxFuture<'_, ()> {
        async move {
            let (is_disabled, own) = {
                let state = self.state();
                (state.standing.disabled.is_some(), state.pause)
            };
            if is_disabled {
                return self.retried.notified().await;
            }
            tokio::select! {
                () = sleep(own.unwrap_or(pause)) => {}
                () = self.retried.notified() => {}
            }
        }
        .boxed()
    }
}
