//! What one event, or a gap, becomes on a Redis.

use bytes::Bytes;
use jiff::Timestamp;
use podherald_core::{
    evaluation::{self, Message},
    event::Event,
    gap::{self, Gap},
};

use crate::{
    journal::{self, Journal, Record},
    sink::{Fault, Item},
};

/// Events of one execution that are read at a time, to find its start.
const PAGE: usize = 100;

/// An entry in a stream, and what is published with it.
pub(super) struct Entry {
    pub(super) position: u64,
    pub(super) stream: String,
    pub(super) event_type: &'static str,
    /// As it is in the journal.
    pub(super) event: Bytes,
    pub(super) message: Option<Message>,
}

/// The entry of an item, or why there can be none.
pub(super) async fn of(item: &Item, max_bytes: usize, journal: &dyn Journal) -> Result<Result<Entry, String>, Fault> {
    match item {
        Item::Event(record) => of_event(record, max_bytes, journal).await,
        Item::Gap(gap) => Ok(Ok(of_gap(gap))),
    }
}

/// In a stream of its own. Who knows the channels from before would not know what to make of it.
fn of_gap(gap: &Gap) -> Entry {
    Entry {
        position: gap.last,
        stream: evaluation::GAPS.to_owned(),
        event_type: gap::EVENT_TYPE,
        event: gap.to_bytes().into(),
        message: None,
    }
}

async fn of_event(record: &Record, max_bytes: usize, journal: &dyn Journal) -> Result<Result<Entry, String>, Fault> {
    let length = record.bytes.len();
    if length > max_bytes {
        return Ok(Err(format!("it has {length} bytes, of {max_bytes} bytes at most")));
    }
    let event: Event = match serde_json::from_slice(&record.bytes) {
        Ok(event) => event,
        Err(error) => return Ok(Err(format!("it cannot be read as an event: {error}"))),
    };
    let started = if evaluation::needs_start(&event) {
        let read = start(record, journal).await;
        read.map_err(|error| Fault(format!("the start of an execution cannot be read: {error}")))?
    } else {
        None
    };
    Ok(Ok(Entry {
        position: record.position,
        stream: format!("{}{}", evaluation::STREAM_PREFIX, record.execution_id),
        event_type: record.event_type,
        event: record.bytes.clone(),
        message: evaluation::message(&event, started),
    }))
}

/// When the attempt of this record started, if the journal still knows.
async fn start(record: &Record, journal: &dyn Journal) -> journal::Result<Option<Timestamp>> {
    let mut after = 0;
    loop {
        let page = journal.execution_events(record.execution_id.to_string(), after, PAGE).await?;
        let mut started =
            page.iter().filter(|other| other.attempt == record.attempt && other.event_type == "execution_started");
        if let Some(started) = started.next() {
            let event = serde_json::from_slice::<Event>(&started.bytes);
            return Ok(event.ok().map(|event| event.timestamp));
        }
        match page.last() {
            Some(last) if last.position < record.position => after = last.position,
            _ => return Ok(None),
        }
    }
}
