//! One member of a group at work: between an inbox and a role.

use std::time::Duration;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Answer, Arrival, Delivery, Inbox, Letter, Metrics, Policy,
    hand::{Due, Hand, Outcome, Ticket},
};
use crate::sink::Fault;

/// From the order to stop until answers are no longer waited for; what has none comes again.
const PATIENCE: Duration = Duration::from_millis(1500);

/// See the module. It is a task of the supervisor's: [`Member::run`].
pub struct Member {
    group: &'static str,
    inbox: Box<dyn Inbox>,
    policy: Policy,
    hand: Hand,
    metrics: Metrics,
    /// Of what was given or is being buried. There are no more than the hand holds.
    pending: FuturesUnordered<BoxFuture<'static, (Ticket, Outcome)>>,
    /// In a row.
    failures: u32,
    /// Nothing is received or kept until then.
    rests_until: Option<Instant>,
}

impl Member {
    /// A member of the group whose inbox this is.
    pub fn new(group: &'static str, inbox: Box<dyn Inbox>, policy: Policy, metrics: Metrics) -> Self {
        Self {
            group,
            inbox,
            policy,
            hand: Hand::new(policy),
            metrics,
            pending: FuturesUnordered::new(),
            failures: 0,
            rests_until: None,
        }
    }

    /// Gives messages until `stop`, or until nobody takes them. Then it waits a moment for the answers that are missing,
    /// keeps what is done, and nothing else.
    pub async fn run(mut self, out: mpsc::Sender<Delivery>, stop: CancellationToken) {
        while self.turn(&out, &stop).await {}
        // Whoever takes messages sees the end of them.
        drop(out);
        let answers = async {
            while let Some((ticket, outcome)) = self.pending.next().await {
                self.settle(&ticket, outcome);
            }
        };
        if timeout(PATIENCE, answers).await.is_err() {
            let missing = self.pending.len();
            tracing::warn!(group = self.group, missing, "messages were not answered in time; they come again");
        }
        self.rests_until = None;
        self.keep().await;
        self.inbox.close().await;
        self.metrics.in_hand.set(0);
    }

    /// False if it is time to stop.
    async fn turn(&mut self, out: &mpsc::Sender<Delivery>, stop: &CancellationToken) -> bool {
        self.keep().await;
        self.balance();
        let now = Instant::now();
        let due = self.hand.due(now);
        if let Some(Due::Bury(ticket)) = &due {
            self.bury(ticket.clone());
            return !stop.is_cancelled();
        }
        let rests = self.rests_until.is_some_and(|until| until > now);
        let wake = self.hand.wake().into_iter().chain(self.rests_until.filter(|_| rests)).filter(|at| *at > now).min();
        tokio::select! {
            biased;
            () = stop.cancelled() => return false,
            Some((ticket, outcome)) = self.pending.next() => self.settle(&ticket, outcome),
            permit = out.reserve(), if due.is_some() => match (permit, due) {
                (Ok(permit), Some(Due::Give(ticket))) => {
                    if let Some(delivery) = self.give(ticket) {
                        permit.send(delivery);
                    }
                }
                _ => return false,
            },
            arrival = self.inbox.receive(), if !rests => match arrival {
                Ok(arrival) => self.take(arrival),
                Err(fault) => self.fails("receive messages", &fault),
            },
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
        }
        true
    }

    fn take(&mut self, arrival: Arrival) {
        self.succeeds();
        match arrival {
            Arrival::Message(incoming) => self.hand.take(incoming),
            Arrival::Passed { place, next } => self.hand.pass(&place, next),
            Arrival::Revoked(places) => places.iter().for_each(|place| self.hand.drop_place(place)),
        }
    }

    fn give(&mut self, ticket: Ticket) -> Option<Delivery> {
        let Some(message) = self.hand.give(&ticket) else {
            self.metrics.known.inc();
            return None;
        };
        self.metrics.given.inc();
        let (answer, answered) = oneshot::channel();
        let answered = answered.map(|answer| match answer {
            Ok(Answer::Done) => (ticket, Outcome::Done),
            Ok(Answer::Again(reason)) => (ticket, Outcome::Failed(reason)),
            Err(_) => (ticket, Outcome::Failed("it was given up without an answer".to_owned())),
        });
        self.pending.push(answered.boxed());
        Some(Delivery { message, answer })
    }

    fn bury(&mut self, ticket: Ticket) {
        let Some(letter) = self.hand.letter(&ticket) else { return };
        let Letter { incoming, reason, tries } = &letter;
        let (place, offset, group) = (&incoming.place, incoming.offset, self.group);
        let (topic, partition) = (&*place.topic, place.partition);
        tracing::error!(group, topic, partition, offset, tries, reason, "a message goes to the dead letters");
        let buried = self.inbox.bury(letter).map(move |buried| match buried {
            Ok(()) => (ticket, Outcome::Buried),
            Err(Fault(error)) => {
                tracing::warn!(group, error, "the dead letters do not take a message; trying again until they do");
                (ticket, Outcome::Unburied)
            }
        });
        self.pending.push(buried.boxed());
    }

    fn settle(&mut self, ticket: &Ticket, outcome: Outcome) {
        let counter = match &outcome {
            Outcome::Done => &self.metrics.acknowledged,
            Outcome::Failed(reason) => {
                tracing::info!(group = self.group, message = %ticket, reason, "a message was not processed");
                &self.metrics.refused
            }
            Outcome::Buried => &self.metrics.dead_letters,
            Outcome::Unburied => &self.metrics.faults,
        };
        let is_valid = self.hand.settle(ticket, outcome, Instant::now());
        if is_valid {
            counter.inc()
        } else {
            self.metrics.late_answers.inc()
        };
    }

    /// Keeps how far the group has come.
    async fn keep(&mut self) {
        if self.rests_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        for (place, next) in self.hand.finished() {
            match self.inbox.finish(&place, next).await {
                Ok(()) => {
                    self.hand.told(&place, next);
                    self.succeeds();
                }
                Err(fault) => return self.fails("keep how far it has come", &fault),
            }
        }
    }

    /// Takes no more of a place than there is room for.
    fn balance(&mut self) {
        self.metrics.in_hand.set(i64::try_from(self.hand.len()).unwrap_or(i64::MAX));
        for (places, pauses) in [(self.hand.to_pause(), true), (self.hand.to_resume(), false)] {
            if places.is_empty() {
                continue;
            }
            let done = if pauses { self.inbox.pause(&places) } else { self.inbox.resume(&places) };
            match done {
                Ok(()) => self.hand.mark(&places, pauses),
                Err(fault) => self.fails("take more or less", &fault),
            }
        }
    }

    fn fails(&mut self, doing: &'static str, Fault(error): &Fault) {
        self.metrics.faults.inc();
        self.failures += 1;
        self.rests_until = Some(Instant::now() + self.policy.pause(self.failures));
        if self.failures == 1 {
            tracing::warn!(group = self.group, error, "the inbox cannot {doing}; trying again until it can");
        }
    }

    fn succeeds(&mut self) {
        if self.failures > 0 {
            tracing::info!(group = self.group, "the inbox works again");
        }
        self.failures = 0;
    }
}
