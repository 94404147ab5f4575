//! How far a sink has come, for whoever asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::watch, time::Instant};

use crate::{
    health::SinkHealth,
    journal::{Cursor, DeadLetter, Subscription},
};

/// What a relay says of itself. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    of: Subscription,
    head: watch::Receiver<u64>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    cursor: Cursor,
    delivered: u64,
    retries: u64,
    rejected: u64,
    unproven: u64,
    last_error: Option<String>,
    /// The last try failed.
    is_failing: bool,
    /// Waiting for new events, with nothing left to carry.
    is_idle: bool,
    /// Everything that was durable then has been carried, ...
    complete: Instant,
    /// ... and not only as far as is known since the start.
    is_certain: bool,
    /// The head at some time after that; once the cursor is there, all of that time is complete.
    next: Option<(u64, Instant)>,
}

impl Progress {
    pub(super) fn new(of: Subscription, cursor: Cursor, head: watch::Receiver<u64>) -> Self {
        let state = State {
            cursor,
            delivered: 0,
            retries: 0,
            rejected: 0,
            unproven: 0,
            last_error: None,
            is_failing: false,
            is_idle: false,
            complete: Instant::now(),
            is_certain: false,
            next: None,
        };
        Self { of, head, state: Arc::new(Mutex::new(state)) }
    }

    /// For `/readyz` and `/metrics`.
    pub fn health(&self) -> SinkHealth {
        let head = *self.head.borrow();
        let state = self.state();
        let lag_events = head.saturating_sub(state.cursor.position);
        // An idle relay is about to wake.
        let is_behind = lag_events > 0 && !state.is_idle;
        SinkHealth {
            name: self.of.sink,
            required: self.of.required,
            failing: state.is_failing,
            lag_events,
            lag_seconds: if is_behind { state.complete.elapsed().as_secs_f64() } else { 0.0 },
            complete_for: state
                .is_certain
                .then(|| if is_behind { state.complete.elapsed().as_secs_f64() } else { 0.0 }),
            delivered: state.delivered,
            retries: state.retries,
            rejected: state.rejected,
            result_unproven: state.unproven,
            missed: state.cursor.missed,
            last_error: state.last_error.clone(),
        }
    }

    /// A batch is about to be read, with the head here.
    pub(super) fn begins(&self, head: u64) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_idle) {
            state.complete = Instant::now();
        }
        state.next.get_or_insert_with(|| (head, Instant::now()));
    }

    /// A batch is done with.
    pub(super) fn moved(&self, cursor: Cursor, delivered: usize, dead: &[DeadLetter]) {
        let mut state = self.state();
        state.cursor = cursor;
        state.delivered += delivered as u64;
        state.rejected += dead.len() as u64;
        state.unproven += dead.iter().filter(|letter| letter.result_unproven).count() as u64;
        if let Some((_, then)) = state.next.take_if(|(head, _)| *head <= cursor.position) {
            state.complete = then;
        }
    }

    /// It is another's turn.
    pub(super) fn follows(&self) {
        let mut state = self.state();
        state.is_idle = true;
        state.is_certain = false;
    }

    /// It is this one's turn again; another has carried all that was there then, if that is known.
    pub(super) fn resumes(&self, complete: Option<Instant>) {
        let mut state = self.state();
        state.is_certain = complete.is_some();
        state.complete = complete.unwrap_or_else(Instant::now);
        state.is_idle = false;
        state.next = None;
    }

    /// There is nothing more to carry.
    pub(super) fn rests(&self) {
        let mut state = self.state();
        state.is_idle = true;
        state.is_certain = true;
    }

    /// A try failed. True if that is news.
    pub(super) fn fails(&self, error: &str) -> bool {
        let head = *self.head.borrow();
        let mut state = self.state();
        state.retries += 1;
        state.is_idle = false;
        if head <= state.cursor.position {
            state.complete = Instant::now();
        }
        let is_news = !state.is_failing || state.last_error.as_deref() != Some(error);
        state.is_failing = true;
        state.last_error = Some(error.to_owned());
        is_news
    }

    /// A try succeeded. True if that is news.
    pub(super) fn succeeds(&self) -> bool {
        std::mem::take(&mut self.state().is_failing)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
