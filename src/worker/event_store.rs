//! Keeps every event, and the executions that they fold into. What comes while the store writes is written together next.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use tokio::sync::oneshot;

use super::{Failure, Work};
use crate::{
    inbox::Message,
    store::{self, Arrival, Error, Store},
};

/// Its consumer group.
pub const GROUP: &str = "event-store";

/// Events that are written together at most.
const MOST_AT_ONCE: usize = 64;
/// Events at work: those that are written, and as many that wait to be written next.
pub const CONCURRENCY: usize = 2 * MOST_AT_ONCE;
/// An event of more than so many bytes is written by itself, and keeps nobody waiting.
const LARGE_BYTES: usize = 256 << 10;

/// See the module.
pub struct EventStore {
    append: Append,
    waiting: Mutex<VecDeque<Waiting>>,
    /// Whoever has it keeps of what waits, so many at once.
    turn: tokio::sync::Mutex<usize>,
}

type Append = Box<dyn Fn(Vec<Arrival>) -> BoxFuture<'static, store::Result<()>> + Send + Sync>;

struct Waiting {
    arrival: Arrival,
    answer: oneshot::Sender<Result<(), Failure>>,
}

impl EventStore {
    /// Keeps them there.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::with(Box::new(move |arrivals| {
            let store = store.clone();
            async move { store.append(arrivals).await.map(drop) }.boxed()
        }))
    }

    fn with(append: Append) -> Self {
        Self { append, waiting: Mutex::default(), turn: tokio::sync::Mutex::new(MOST_AT_ONCE) }
    }

    async fn keep(&self, message: &Message) -> Result<(), Failure> {
        let Message { place, offset, about, bytes, .. } = message;
        let arrival = Arrival::read(place.clone(), *offset, about.clone(), bytes.clone()).map_err(Failure::Unfit)?;
        if bytes.len() > LARGE_BYTES {
            return (self.append)(vec![arrival]).await.map_err(|error| away(&error));
        }
        let (answer, mut answered) = oneshot::channel();
        self.waiting().push_back(Waiting { arrival, answer });
        loop {
            tokio::select! {
                biased;
                answer = &mut answered => return answer.unwrap_or_else(|_| Err(stopped())),
                mut at_once = self.turn.lock() => self.keep_some(&mut at_once).await,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep_some(&self, at_once: &mut usize) {
        let batch: Vec<_> = {
            let mut waiting = self.waiting();
            let some = waiting.len().min(*at_once);
            waiting.drain(..some).collect()
        };
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop().filter(|part| !part.is_empty()) {
            let kept = (self.append)(part.iter().map(|waiting| waiting.arrival.clone()).collect()).await;
            *at_once = next_size(*at_once, part.len(), &kept);
            match kept {
                // What is wrong with one execution is looked for by halves: the others need not wait for it.
                Err(Error::Corrupt { .. }) if part.len() > 1 => {
                    let half = part.split_off(part.len() / 2);
                    parts.extend([half, part]);
                }
                // Nobody has to be told the same again by what is left.
                Err(error @ Error::Unavailable { .. }) => {
                    let left = part.into_iter().chain(parts.drain(..).flatten());
                    left.for_each(|waiting| waiting.answer(Err(error.clone())));
                }
                kept => part.into_iter().for_each(|waiting| waiting.answer(kept.clone())),
            }
        }
    }
}

/// How many to write next, after so many of at most so many: half where it may be too slow for them, else more by and by.
fn next_size(most: usize, written: usize, kept: &store::Result<()>) -> usize {
    match kept {
        Err(Error::Unavailable { .. }) => (written / 2).max(1),
        Ok(()) if written == most => (most + 1).min(MOST_AT_ONCE),
        _ => most,
    }
}

impl Waiting {
    fn answer(self, kept: store::Result<()>) {
        // Whoever has gone is given it again.
        let _ = self.answer.send(kept.map_err(|error| away(&error)));
    }
}

fn away(error: &Error) -> Failure {
    Failure::Away(error.to_string())
}

/// Whoever wrote it has been stopped.
fn stopped() -> Failure {
    Failure::Away("the write that it was part of has been stopped".to_owned())
}

impl Work for EventStore {
    fn name(&self) -> &'static str {
        GROUP
    }

    fn process<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), Failure>> {
        self.keep(message).boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::{sync::Semaphore, task::yield_now, time::timeout};

    use super::{super::tests::end, *};

    /// A store that is asked so often, with so many, and answers what this says.
    struct Asked {
        sizes: Mutex<Vec<usize>>,
        /// One for each answer.
        answers: Semaphore,
        says: fn(&[Arrival]) -> store::Result<()>,
    }

    fn keeper(answers: usize, says: fn(&[Arrival]) -> store::Result<()>) -> (EventStore, Arc<Asked>) {
        let asked = Arc::new(Asked { sizes: Mutex::default(), answers: Semaphore::new(answers), says });
        let append = {
            let asked = asked.clone();
            move |arrivals: Vec<Arrival>| {
                let asked = asked.clone();
                async move {
                    asked.sizes.lock().unwrap().push(arrivals.len());
                    asked.answers.acquire().await.unwrap().forget();
                    yield_now().await;
                    (asked.says)(&arrivals)
                }
                .boxed()
            }
        };
        (EventStore::with(Box::new(append)), asked)
    }

    fn messages(count: usize) -> Vec<Message> {
        (0..count).map(|n| end(&format!("e{n}"))).collect()
    }

    const MANY: usize = Semaphore::MAX_PERMITS;

    #[tokio::test]
    async fn what_comes_while_the_store_writes_is_written_together_next() {
        let (keeper, asked) = keeper(0, |_| Ok(()));
        let messages = messages(300);
        let all = async { join_all(messages.iter().map(|message| keeper.process(message))).await };
        let answers = async { asked.answers.add_permits(MANY) };
        let (kept, ()) = tokio::join!(all, answers);
        assert!(kept.iter().all(Result::is_ok));
        assert_eq!(*asked.sizes.lock().unwrap(), [1, 64, 64, 64, 64, 43]);
    }

    fn corrupt() -> Error {
        Error::Corrupt { place: "executions".to_owned(), reason: "it is none".to_owned() }
    }

    fn unavailable() -> Error {
        Error::Unavailable { doing: "keep events", reason: "no answer".to_owned() }
    }

    fn is_among(arrivals: &[Arrival], id: &str) -> bool {
        arrivals.iter().any(|arrival| arrival.execution_id == id)
    }

    #[tokio::test]
    async fn an_event_that_the_store_does_not_take_is_the_only_one_that_waits() {
        let (keeper, asked) = keeper(MANY, |arrivals| if is_among(arrivals, "e13") { Err(corrupt()) } else { Ok(()) });
        let messages = messages(33);
        let kept = join_all(messages.iter().map(|message| keeper.process(message))).await;
        for (n, kept) in kept.into_iter().enumerate() {
            assert_eq!(matches!(kept, Err(Failure::Away(_))), n == 13, "e{n}: {kept:?}");
        }
        assert_eq!(*asked.sizes.lock().unwrap(), [1, 32, 16, 8, 8, 4, 4, 2, 1, 1, 2, 16]);
    }

    #[tokio::test]
    async fn a_store_that_goes_away_meanwhile_is_not_asked_by_each() {
        let (keeper, asked) = keeper(MANY, |arrivals| match arrivals.len() {
            33.. => Err(corrupt()),
            1 => Ok(()),
            _ => Err(unavailable()),
        });
        let messages = messages(65);
        let kept = join_all(messages.iter().map(|message| keeper.process(message))).await;
        assert_eq!(kept.iter().filter(|kept| kept.is_err()).count(), 64);
        assert_eq!(*asked.sizes.lock().unwrap(), [1, 64, 32]);
    }

    #[tokio::test]
    async fn a_store_that_is_too_slow_for_many_is_given_fewer_and_more_by_and_by() {
        let (keeper, asked) = keeper(MANY, |arrivals| if arrivals.len() > 40 { Err(unavailable()) } else { Ok(()) });
        let mut left = messages(1000);
        for _ in 0..10 {
            let kept = join_all(left.iter().map(|message| keeper.process(message))).await;
            let mut kept = kept.into_iter();
            left.retain(|_| kept.next().unwrap().is_err());
        }
        let sizes = asked.sizes.lock().unwrap();
        assert!(left.is_empty(), "{sizes:?}");
        let failed: Vec<_> = sizes.iter().filter(|size| **size > 40).collect();
        assert_eq!(failed, [&64, &41], "{sizes:?}");
    }

    #[tokio::test]
    async fn a_large_event_keeps_nobody_waiting() {
        let (keeper, asked) = keeper(1, |_| Ok(()));
        let mut messages = messages(2);
        let mut event: serde_json::Value = serde_json::from_slice(&messages[0].bytes).unwrap();
        event["stdout"] = "x".repeat(LARGE_BYTES).into();
        messages[0].bytes = event.to_string().into();
        let mut large = keeper.process(&messages[0]);
        assert!(futures::poll!(&mut large).is_pending());
        let mut small = keeper.process(&messages[1]);
        assert!(futures::poll!(&mut small).is_pending());
        assert_eq!(*asked.sizes.lock().unwrap(), [1, 1], "both are with the store");
    }

    #[tokio::test]
    async fn what_was_with_one_that_is_stopped_is_not_waited_for() {
        let (keeper, asked) = keeper(0, |_| Ok(()));
        let messages = messages(3);
        let [stopped, second, third] = &messages[..] else { unreachable!() };
        let mut stopped = keeper.process(stopped);
        assert!(futures::poll!(&mut stopped).is_pending());
        let mut second = keeper.process(second);
        assert!(futures::poll!(&mut second).is_pending());
        let mut third = keeper.process(third);
        assert!(futures::poll!(&mut third).is_pending());
        drop(stopped);
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(*asked.sizes.lock().unwrap(), [1, 2]);
        drop(second);
        let third = timeout(Duration::from_secs(1), third).await.unwrap();
        assert!(matches!(third, Err(Failure::Away(reason)) if reason.contains("stopped")));
    }
}
