//! Carries the journal's events to the sinks: one task each, at its own pace.
//!
//! A relay reads the journal from its sink's cursor on, hands a bounded batch over, and moves the cursor once all of it is
//! acknowledged. So a sink that is slow or down lags on disk and costs nobody anything: not the watch, not a browser, not
//! another sink, not memory. What a crash interrupts is carried again; nothing is left out.
//!
//! Trouble with the sink holds the stream and is tried again for ever. Trouble with one record does not: it is counted,
//! logged, and kept as a dead letter by the same write that moves the cursor past it. What retention took before the sink had it is found as a hole
//! in the positions, counted and logged, and the sink is told so in its place: the cursor moves past a gap as past an event.
//!
//! Where several podheralds take turns ([`crate::leadership`]), a relay carries only in its turn. Out of it, its cursor follows what the
//! other one has carried.

mod metrics;
mod pace;
mod places;
mod progress;
#[cfg(test)]
mod tests;
mod trail;

use std::{sync::Arc, time::Duration};

use podherald_core::{execution::Status, gap::Gap};
use serde::Deserialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use self::{pace::Pace, places::Places, trail::Trail};
use crate::{
    clock::Clock,
    crash,
    journal::{Cursor, DeadLetter, Journal, Record, Subscription},
    leadership::{Carried, Leads},
    sink::{Fault, Item, Rejection, Sink},
};

pub use metrics::Metrics;
pub use progress::Progress;

/// How often an idle sink is asked whether it is still there.
const CHECK: Duration = Duration::from_secs(15);
/// From the order to stop until what is under way is given up; it comes again after the next start.
const FLUSH: Duration = Duration::from_millis(1500);

/// When a relay carries, and what it leaves out.
#[derive(Debug, Clone)]
pub struct Turns {
    /// Whether it is its turn.
    pub leads: Leads,
    /// What the one whose turn it is says.
    pub carried: watch::Receiver<Carried>,
    /// The others publish to this very sink, so that what they have told is there already.
    pub is_shared: bool,
}

impl Turns {
    /// Of the only podherald there is.
    pub fn always() -> Self {
        Self { leads: Leads::always(), carried: watch::channel(Carried::default()).1, is_shared: false }
    }
}

/// One sink's way through the journal.
pub struct Relay {
    name: &'static str,
    sink: Arc<dyn Sink>,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    head: watch::Receiver<u64>,
    cursor: Cursor,
    /// The event there, if it was here since the start.
    last: Option<Arc<Record>>,
    /// The cursor has moved, and the journal does not know yet.
    is_unsaved: bool,
    /// To be kept with it.
    dead_letters: Vec<DeadLetter>,
    heard: Option<Instant>,
    pace: Pace,
    progress: Progress,
    turns: Turns,
}

impl Relay {
    /// A relay that goes on from the cursor of this subscription.
    pub fn new(
        of: Subscription,
        cursor: Cursor,
        sink: Arc<dyn Sink>,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (name, head) = (of.sink, journal.head());
        let progress = Progress::new(of, cursor, head.clone());
        Self {
            name,
            sink,
            journal,
            clock,
            head,
            cursor,
            last: None,
            is_unsaved: false,
            dead_letters: Vec::new(),
            heard: None,
            pace: Pace::default(),
            progress,
            turns: Turns::always(),
        }
    }

    /// The same, in turns with others.
    pub fn in_turns(self, turns: Turns) -> Self {
        Self { turns, ..self }
    }

    /// What it says of itself.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Works until `stop`; then carries what is left, if the sink takes it at once.
    pub async fn run(mut self, stop: CancellationToken) {
        let name = self.name;
        let patience = async {
            stop.cancelled().await;
            sleep(FLUSH).await;
        };
        tokio::select! {
            biased;
            () = self.take_turns(&stop) => {}
            () = patience => tracing::warn!(sink = name, "the sink did not take the last events in time; they come again"),
        }
    }

    async fn take_turns(&mut self, stop: &CancellationToken) {
        let mut leads = self.turns.leads.clone();
        loop {
            if !leads.now() && !self.follow(stop).await {
                return;
            }
            tokio::select! {
                biased;
                // What was under way comes again if nobody else carries it.
                () = leads.until(false) => tracing::info!(sink = self.name, "another podherald carries events to the sink from here on"),
                () = self.work(stop) => return,
            }
        }
    }

    /// Keeps up with who carries, until it is this one's turn. False if it is time to stop.
    async fn follow(&mut self, stop: &CancellationToken) -> bool {
        self.progress.succeeds();
        let complete = if self.turns.is_shared {
            self.follow_shared(stop).await;
            Some(Instant::now())
        } else {
            self.follow_own(stop).await
        };
        self.progress.resumes(complete);
        !stop.is_cancelled()
    }

    /// Follows what others have told: it is there.
    async fn follow_shared(&mut self, stop: &CancellationToken) {
        let mut leads = self.turns.leads.clone();
        loop {
            // Before anything is read: what is appended meanwhile wakes the relay again.
            self.head.borrow_and_update();
            match self.journal.told_after(self.cursor.position).await {
                Ok(told) => self.pass(told).await,
                Err(error) => tracing::warn!(sink = self.name, %error, "the journal cannot be read"),
            }
            self.progress.follows();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = leads.until(true) => return,
                Ok(()) = self.head.changed() => {}
                () = sleep(CHECK) => {}
            }
        }
    }

    /// Follows how far others say that theirs has come. Gives since when that has had all there was, if that is known.
    async fn follow_own(&mut self, stop: &CancellationToken) -> Option<Instant> {
        let Turns { mut leads, mut carried, .. } = self.turns.clone();
        let mut trail = Trail::default();
        let mut complete = None;
        loop {
            trail.note(Instant::now(), *self.head.borrow());
            let said = carried.borrow_and_update().clone();
            if let Some((at, position)) = trail.carried(self.name, &said) {
                complete = Some(at);
                self.pass(Some(position)).await;
            }
            self.progress.follows();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = leads.until(true) => break,
                Ok(()) = carried.changed() => {}
                () = sleep(CHECK) => {}
            }
        }
        complete
    }

    /// Moves the cursor, if that is further than it is.
    async fn pass(&mut self, position: Option<u64>) {
        let Some(position) = position.filter(|position| *position > self.cursor.position) else { return };
        self.cursor.position = position;
        self.last = None;
        self.is_unsaved = true;
        self.progress.moved(self.cursor, 0, &[]);
        if let Err(Fault(error)) = self.save().await {
            tracing::warn!(sink = self.name, error, "the cursor will be moved later");
        }
    }

    async fn work(&mut self, stop: &CancellationToken) {
        loop {
            // Before anything is read: what is appended meanwhile wakes the relay again.
            let head = *self.head.borrow_and_update();
            let is_idle = head <= self.cursor.position && !self.is_unsaved;
            let done = if is_idle { self.check().await } else { self.carry(head).await };
            match done {
                Ok(()) => {
                    self.pace.succeeded();
                    if self.progress.succeeds() {
                        tracing::info!(sink = self.name, "the sink takes events again");
                    }
                    if is_idle && !self.rest(stop).await {
                        return;
                    }
                }
                Err(Fault(error)) => {
                    let pause = self.pace.failed();
                    self.heard = None;
                    if self.progress.fails(&error) {
                        tracing::warn!(sink = self.name, error, "the sink takes no events; trying again until it does");
                    }
                    if stop.run_until_cancelled(self.sink.recover(pause)).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for something to do. False if there is nothing any more.
    async fn rest(&mut self, stop: &CancellationToken) -> bool {
        self.progress.rests();
        tokio::select! {
            biased;
            // The journal is silent once it is closed, and then `stop` comes soon.
            Ok(()) = self.head.changed() => true,
            () = stop.cancelled() => false,
            () = sleep(CHECK) => true,
        }
    }

    async fn check(&mut self) -> Result<(), Fault> {
        if self.heard.is_none_or(|heard| heard.elapsed() >= CHECK) {
            self.sink.check().await?;
            self.heard = Some(Instant::now());
        }
        Ok(())
    }

    async fn carry(&mut self, head: u64) -> Result<(), Fault> {
        self.save().await?;
        self.progress.begins(head);
        let batch = self.journal.batch(self.cursor.position, self.pace.bounds()).await;
        let batch = batch.map_err(|error| Fault(format!("the journal cannot be read: {error}")))?;
        let end = batch.last().map_or(head, |last| last.position);
        let items = self.due(&batch, end);
        let mut rejections = Vec::new();
        if !items.is_empty() {
            if !self.turns.leads.now() {
                return Err(Fault("another podherald carries events to it".to_owned()));
            }
            crash::at(crash::Point::Relay);
            rejections = self.sink.carry(&items).await?;
            self.heard = Some(Instant::now());
            crash::at(crash::Point::Relay);
        }
        let missed = missed(&items);
        if missed > 0 {
            let (sink, after) = (self.name, self.cursor.position);
            tracing::warn!(
                sink,
                after,
                missed,
                "retention took events that the sink had not had; it was told so and goes on after them"
            );
        }
        let events = items.iter().filter(|item| matches!(item, Item::Event(_))).count();
        self.dead_letters = rejections.into_iter().filter_map(|rejection| self.bury(rejection, &items)).collect();
        let delivered = events - self.dead_letters.len();
        self.cursor = Cursor { position: end, missed: self.cursor.missed + missed };
        self.last = batch.last().cloned();
        self.is_unsaved = true;
        self.progress.moved(self.cursor, delivered, &self.dead_letters);
        self.save().await
    }

    /// What the sink is to be given of the places up to `end`, of which this is all that there is.
    fn due(&self, batch: &[Arc<Record>], end: u64) -> Vec<Item> {
        let places = Places { before: self.last.as_deref(), after: self.cursor.position, batch, end };
        let found = self.clock.now();
        let mut items = places.items(|places| Gap::new(self.journal.epoch(), self.name, places, found));
        if self.turns.is_shared {
            items.retain(|item| !matches!(item, Item::Event(record) if record.told));
        }
        items
    }

    async fn save(&mut self) -> Result<(), Fault> {
        if self.is_unsaved {
            let saved = self.journal.advance(self.name, self.cursor, self.dead_letters.clone()).await;
            saved.map_err(|error| Fault(format!("the cursor cannot be moved: {error}")))?;
            self.is_unsaved = false;
            self.dead_letters.clear();
            crash::at(crash::Point::Relay);
        }
        Ok(())
    }

    /// The dead letter of a rejection, which is told.
    fn bury(&self, Rejection { position, reason }: Rejection, items: &[Item]) -> Option<DeadLetter> {
        let record = match items.iter().find(|item| item.position() == position) {
            Some(Item::Event(record)) => record,
            Some(Item::Gap(gap)) => {
                let (sink, event_id) = (self.name, &gap.event_id);
                tracing::error!(sink, %event_id, reason, "the sink cannot be told what it missed; it goes on without that");
                return None;
            }
            None => {
                tracing::error!(sink = self.name, position, reason, "the sink rejects an event that it was not given");
                return None;
            }
        };
        let letter = DeadLetter {
            position,
            at: self.clock.now(),
            reason,
            event_id: event_id(record),
            execution_id: record.execution_id.clone(),
            event_type: record.event_type.into(),
            result_unproven: record.status.is_some_and(Status::is_terminal),
            bytes: record.bytes.clone(),
        };
        let DeadLetter { event_id, execution_id, reason, result_unproven, .. } = &letter;
        tracing::error!(
            sink = self.name,
            event_id,
            position,
            %execution_id,
            result_unproven,
            reason,
            "the sink can never carry this event; it goes on without it, /dead-letters keeps it"
        );
        Some(letter)
    }
}

fn missed(items: &[Item]) -> u64 {
    let missed = |item: &Item| if let Item::Gap(gap) = item { gap.missed } else { 0 };
    items.iter().map(missed).sum()
}

fn event_id(record: &Record) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        event_id: String,
    }
    serde_json::from_slice::<Named>(&record.bytes).ok().map(|named| named.event_id)
}
