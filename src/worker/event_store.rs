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

/// Events that are written together.
const MOST_AT_ONCE: usize = 64;

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

    /// Fewer and fewer while the store fails: it may be too slow for many.
    async fn keep_some(&self, at_once: &mut usize) {
        let (arrivals, answers): (Vec<_>, Vec<_>) = {
            let mut waiting = self.waiting();
            let some = waiting.len().min(*at_once);
            waiting.drain(..some).map(|Waiting { arrival, answer }| (arrival, answer)).unzip()
        };
        let kept = (self.append)(arrivals.clone()).await;
        *at_once = match &kept {
            Ok(()) if arrivals.len() < *at_once => *at_once,
            Ok(()) => (*at_once * 2).min(MOST_AT_ONCE),
            Err(_) => (arrivals.len() / 2).max(1),
        };
        for (answer, arrival) in answers.into_iter().zip(arrivals) {
            let kept = match &kept {
                // One of them may be the only one that the store does not take.
                Err(Error::Refused { .. } | Error::Corrupt { .. }) => (self.append)(vec![arrival]).await,
                kept => kept.clone(),
            };
            // Whoever has gone is given it again.
            let _ = answer.send(kept.map_err(|error| Failure::Away(error.to_string())));
        }
    }
}

/// Whoever kept it has been stopped.
fn stopped() -> Failure {
    Failure::Away("the event store is being stopped".to_owned())
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

    #[tokio::test]
    async fn an_event_that_the_store_does_not_take_is_the_only_one_that_waits() {
        let (keeper, _) = keeper(MANY, |arrivals| {
            let is_in = arrivals.iter().any(|arrival| arrival.execution_id == "e3");
            let (place, reason) = ("executions".to_owned(), "it is none".to_owned());
            if is_in { Err(Error::Corrupt { place, reason }) } else { Ok(()) }
        });
        let messages = messages(6);
        let kept = join_all(messages.iter().map(|message| keeper.process(message))).await;
        for (n, kept) in kept.into_iter().enumerate() {
            assert_eq!(matches!(kept, Err(Failure::Away(_))), n == 3, "e{n}: {kept:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_is_too_slow_for_many_is_given_fewer_until_it_can() {
        let (keeper, asked) = keeper(MANY, |arrivals| {
            let unavailable = Error::Unavailable { doing: "keep events", reason: "no answer".to_owned() };
            if arrivals.len() > 40 { Err(unavailable) } else { Ok(()) }
        });
        let mut left = messages(300);
        for _ in 0..10 {
            let kept = join_all(left.iter().map(|message| keeper.process(message))).await;
            let mut kept = kept.into_iter();
            left.retain(|_| kept.next().unwrap().is_err());
        }
        assert!(left.is_empty(), "{:?}", asked.sizes.lock().unwrap());
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
