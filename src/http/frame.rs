//! Server-sent events as bytes.

use bytes::{BufMut, Bytes, BytesMut};
use podherald_core::execution::Execution;
use serde::{Serialize, Serializer, ser::Error as _};

use super::resume::{ManyPlace, Seen};
use crate::journal::{Listed, Record};

/// An event on its execution's own stream.
pub(super) fn one(record: &Record) -> Bytes {
    record.frames.one.get_or_init(|| render(None, Some(&Seen(&record.version).to_string()), &record.bytes)).clone()
}

/// An event on the stream of all. An epoch lasts as long as its journal, and a record comes from one journal.
pub(super) fn many(record: &Record, epoch: &str) -> Bytes {
    let id = || ManyPlace::At { epoch: epoch.to_owned(), position: record.position }.to_string();
    record.frames.all.get_or_init(|| render(None, Some(&id()), &record.bytes)).clone()
}

/// A control frame.
pub(super) fn control(name: &str, id: Option<&str>, data: &impl Serialize) -> Bytes {
    render(Some(name), id, &serde_json::to_vec(data).expect("control frames hold only strings, numbers and lists"))
}

/// How long a browser waits before it comes back.
pub(super) fn retry(milliseconds: u32) -> Bytes {
    Bytes::from(format!("retry: {milliseconds}\n\n"))
}

fn render(name: Option<&str>, id: Option<&str>, data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(data.len() + 128);
    let mut field = |name: &str, value: &[u8]| {
        frame.put(name.as_bytes());
        frame.put(&b": "[..]);
        frame.put(value);
        frame.put_u8(b'\n');
    };
    if let Some(name) = name {
        field("event", name.as_bytes());
    }
    if let Some(id) = id {
        field("id", id.as_bytes());
    }
    // No event has a line break in it; one that had would otherwise end its frame early (T119).
    let mut rest = data;
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        field("data", &rest[..end]);
        let both = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(both)..];
    }
    field("data", rest);
    frame.put_u8(b'\n');
    frame.freeze()
}

/// `data` of a snapshot of one execution.
#[derive(Serialize)]
pub(super) struct OneSnapshot<'a> {
    pub(super) execution: &'a Execution,
    /// State of the stored result; there is no result store.
    pub(super) result: (),
}

/// `data` of a snapshot of many.
#[derive(Serialize)]
pub(super) struct ManySnapshot<'a> {
    pub(super) executions: Vec<Item<'a>>,
    /// True if there are more than these: page through `/executions` for them.
    pub(super) truncated: bool,
}

/// An execution in a list: without its inline output.
pub(super) struct Item<'a>(pub(super) &'a Listed);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut item = serde_json::to_value(&self.0.execution).map_err(S::Error::custom)?;
        if let Some(fields) = item.as_object_mut() {
            fields.remove("stdout");
            fields.remove("stderr");
        }
        item.serialize(serializer)
    }
}

/// `data` of a reset.
#[derive(Serialize)]
pub(super) struct Reset {
    pub(super) reason: &'static str,
}

/// `data` of an end.
#[derive(Serialize)]
pub(super) struct End {
    pub(super) status: &'static str,
    pub(super) attempt: u32,
}

/// `data` of a heartbeat.
#[derive(Serialize)]
pub(super) struct Heartbeat {}

#[cfg(test)]
mod tests {
    use super::*;

    // T119
    #[test]
    fn line_breaks_in_data_do_not_end_the_frame() {
        let frame = render(Some("x"), Some("7"), b"a\nb\r\nc\rd");
        assert_eq!(frame, "event: x\nid: 7\ndata: a\ndata: b\ndata: c\ndata: d\n\n");
        assert_eq!(render(None, None, b"{}"), "data: {}\n\n");
    }
}
