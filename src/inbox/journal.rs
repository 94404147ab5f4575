//! Without Kafka all roles share one process, and read the journal as sinks do: at a cursor of their own, under the group's name.
//!
//! A group subscribes as a sink does ([`Journal::subscribe`]), with all others at once: as required, so that retention waits for
//! it. One that was never here begins with the present; over Kafka it begins with the oldest message that is kept.

use std::{collections::VecDeque, future, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use podherald_core::{execution::Status, topic::Topic};
use tokio::sync::watch;

use super::{Arrival, Inbox, Incoming, Letter, Place};
use crate::{
    clock::Clock,
    crash,
    journal::{self, Bounds, Cursor, DeadLetter, Journal, Record},
    sink::Fault,
};

/// Read at once.
const PAGE: Bounds = Bounds { records: 256, bytes: 1 << 20 };
const PARTITION: i32 = 0;

type Read = (u64, journal::Result<Vec<Arc<Record>>>);

/// A group's way through the journal. There is one member.
pub struct Journaled {
    group: &'static str,
    topics: Vec<Topic>,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    head: watch::Receiver<u64>,
    place: Place,
    /// All up to here is read.
    position: u64,
    missed: u64,
    page: VecDeque<Arc<Record>>,
    /// Held here, so that a wait that is dropped loses none.
    reading: Option<BoxFuture<'static, Read>>,
    is_paused: bool,
}

impl Journaled {
    /// The inbox of a group that has subscribed and has come up to this cursor; it is given events of these topics.
    pub fn new(
        group: &'static str,
        topics: Vec<Topic>,
        cursor: Cursor,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            group,
            topics,
            head: journal.head(),
            journal,
            clock,
            place: Place { topic: "journal".into(), partition: PARTITION },
            position: cursor.position,
            missed: cursor.missed,
            page: VecDeque::new(),
            reading: None,
            is_paused: false,
        }
    }

    async fn next(&mut self) -> Result<Arrival, Fault> {
        if self.is_paused {
            return future::pending().await;
        }
        loop {
            if let Some(arrival) = self.turn_page() {
                return Ok(arrival);
            }
            self.read().await?;
        }
    }

    /// The next of the page that is the group's, or the end of those that are not.
    fn turn_page(&mut self) -> Option<Arrival> {
        let mut passed = None;
        while let Some(record) = self.page.front() {
            if Topic::of(record.event_type).is_some_and(|topic| self.topics.contains(&topic)) {
                break;
            }
            passed = self.page.pop_front();
        }
        if let Some(record) = passed {
            return Some(Arrival::Passed { place: self.place.clone(), next: record.position + 1 });
        }
        let record = self.page.pop_front()?;
        let header = |(name, value)| (format!("ce_{name}"), Some(Bytes::from(value)));
        Some(Arrival::Message(Incoming {
            place: self.place.clone(),
            offset: record.position,
            key: Some(Bytes::copy_from_slice(record.execution_id.as_bytes())),
            headers: record.about.attributes().into_iter().map(header).collect(),
            payload: Some(record.bytes.clone()),
        }))
    }

    async fn read(&mut self) -> Result<(), Fault> {
        if self.reading.is_none() {
            let position = self.position;
            // A journal that is closed wakes nobody, and its member is stopped soon.
            let Ok(head) = self.head.wait_for(|head| *head > position).await.map(|head| *head) else {
                return future::pending().await;
            };
            let journal = self.journal.clone();
            self.reading = Some(async move { (head, journal.batch(position, PAGE).await) }.boxed());
        }
        let reading = self.reading.as_mut().expect("the lines before put it there");
        let (head, read) = reading.await;
        self.reading = None;
        let page = read.map_err(|error| Fault(format!("the journal cannot be read: {error}")))?;
        let end = page.last().map_or(head, |last| last.position);
        // Positions have no holes but those that retention makes.
        let missed = (end - self.position).saturating_sub(page.len() as u64);
        if missed > 0 {
            tracing::warn!(
                group = self.group,
                after = self.position,
                missed,
                "retention took events that the group had not had"
            );
        }
        self.missed += missed;
        self.position = end;
        self.page = page.into();
        Ok(())
    }
}

/// What the journal knows of an event that a group cannot process.
async fn bury(
    group: &'static str,
    letter: Letter,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
) -> journal::Result<()> {
    let Letter { incoming, reason, tries } = letter;
    let one = Bounds { records: 1, bytes: usize::MAX };
    let records = journal.batch(incoming.offset - 1, one).await?;
    let Some(record) = records.first().filter(|record| record.position == incoming.offset) else {
        tracing::error!(group, position = incoming.offset, "retention took an event before it was a dead letter");
        return Ok(());
    };
    let letter = DeadLetter {
        position: record.position,
        at: clock.now(),
        reason: format!("after {tries} tries: {reason}"),
        event_id: super::read(&incoming).ok().map(|message| message.event_id.to_string()),
        execution_id: record.execution_id.clone(),
        event_type: record.event_type.into(),
        result_unproven: record.status.is_some_and(Status::is_terminal),
        bytes: record.bytes.clone(),
    };
    // The cursor does not move: it never goes back.
    journal.advance(group, Cursor::default(), vec![letter]).await
}

impl Inbox for Journaled {
    fn receive(&mut self) -> BoxFuture<'_, Result<Arrival, Fault>> {
        self.next().boxed()
    }

    fn pause(&mut self, _: &[Place]) -> Result<(), Fault> {
        self.is_paused = true;
        Ok(())
    }

    fn resume(&mut self, _: &[Place]) -> Result<(), Fault> {
        self.is_paused = false;
        Ok(())
    }

    fn finish<'a>(&'a mut self, _: &'a Place, next: u64) -> BoxFuture<'a, Result<(), Fault>> {
        let cursor = Cursor { position: next.saturating_sub(1), missed: self.missed };
        let moved = self.journal.advance(self.group, cursor, Vec::new());
        async {
            moved.await.map_err(|error| Fault(format!("the cursor cannot be moved: {error}")))?;
            crash::at(crash::Point::Place);
            Ok(())
        }
        .boxed()
    }

    fn bury(&self, letter: Letter) -> BoxFuture<'static, Result<(), Fault>> {
        let buried = bury(self.group, letter, self.journal.clone(), self.clock.clone());
        buried.map(|buried| buried.map_err(|error| Fault(error.to_string()))).boxed()
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

#[cfg(test)]
mod tests {
    use podherald_core::event::Draft;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        clock::SystemClock,
        inbox::conformance,
        journal::{DeadLetterQuery, Options, Sqlite, Subscription},
    };

    const GROUP: Subscription = Subscription { sink: "test", required: true };

    struct Local {
        journal: Arc<Sqlite>,
        _dir: TempDir,
    }

    async fn open() -> Local {
        let dir = TempDir::new().unwrap();
        let options = Options { path: dir.path().join("journal.db"), ..Options::default() };
        let journal = Sqlite::open(options).await.unwrap();
        journal.subscribe(vec![GROUP]).await.unwrap();
        Local { journal, _dir: dir }
    }

    impl Local {
        async fn of(&self, topic: Topic) -> Box<dyn Inbox> {
            let cursor = self.journal.subscribe(vec![GROUP]).await.unwrap()[0];
            Box::new(Journaled::new("test", vec![topic], cursor, self.journal.clone(), Arc::new(SystemClock)))
        }
    }

    impl conformance::Far for Local {
        fn send(&self, events: Vec<Draft>) -> BoxFuture<'_, ()> {
            async { self.journal.tell(events).await.unwrap() }.boxed()
        }
        fn inbox(&self) -> BoxFuture<'_, Box<dyn Inbox>> {
            self.of(Topic::ExecutionEvents).boxed()
        }
        fn letters(&self) -> BoxFuture<'_, Vec<(Bytes, String)>> {
            async {
                let query = DeadLetterQuery { sink: Some("test".to_owned()), limit: 100, ..DeadLetterQuery::default() };
                let mut letters = self.journal.dead_letters(query).await.unwrap();
                letters.reverse();
                letters.into_iter().map(|listed| (listed.letter.bytes, listed.letter.reason)).collect()
            }
            .boxed()
        }
    }

    conformance::suite!(open);

    #[tokio::test]
    async fn events_of_other_topics_are_passed_and_hold_nothing_up() {
        let local = open().await;
        let events = (1..=300).map(|n| conformance::draft("a", n)).collect();
        local.journal.tell(events).await.unwrap();
        let role = conformance::Role::begin(local.of(Topic::SagaCommands).await, conformance::POLICY);
        let moved = async { while local.journal.subscribe(vec![GROUP]).await.unwrap()[0].position < 300 {} };
        tokio::time::timeout(conformance::LIMIT, moved).await.unwrap();
        assert_eq!(role.metrics.given.get(), 0);
        role.end().await;
    }
}
