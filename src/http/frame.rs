//! Server-sent events as bytes.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use podherald_core::execution::Execution;
use serde::{Serialize, Serializer, ser::Error as _};

use super::resume::{ManyPlace, OnePlace, OutputPlace, Seen};
use crate::journal::Record;

/// An event on its execution's own stream.
pub(super) fn one(record: &Record) -> Bytes {
    record.frames.one.get_or_init(|| render(None, Some(&Seen(&record.version).to_string()), &record.bytes)).clone()
}

/// The same for a reader that has output too, and so an id of its own.
pub(super) fn one_at(record: &Record, place: &OnePlace) -> Bytes {
    render(None, Some(&place.to_string()), &record.bytes)
}

/// An event on the stream of all. An epoch lasts as long as its journal, and a record comes from one journal.
pub(super) fn many(record: &Record, epoch: &str) -> Bytes {
    let id = || ManyPlace::At { epoch: epoch.to_owned(), position: record.position }.to_string();
    record.frames.all.get_or_init(|| render(None, Some(&id()), &record.bytes)).clone()
}

/// A control frame.
pub(super) fn control(name: &str, id: Option<&str>, data: &impl Serialize) -> Bytes {
    named(name, id, &self::data(data))
}

/// A control frame's data.
pub(super) fn data(data: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(data).expect("control frames hold only strings, numbers and lists")
}

/// A control frame with this data.
pub(super) fn named(name: &str, id: Option<&str>, data: &[u8]) -> Bytes {
    render(Some(name), id, data)
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
    /// Null before the end, and where results are not waited for.
    pub(super) result: Option<&'static str>,
}

/// `data` of a snapshot of many.
#[derive(Serialize)]
pub(super) struct ManySnapshot<'a> {
    pub(super) executions: Vec<Item<'a>>,
    /// True if there are more than these: page through `/executions` for them.
    pub(super) truncated: bool,
}

/// An execution in a list: without its inline output.
pub(super) struct Item<'a>(pub(super) &'a Execution);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut item = serde_json::to_value(self.0).map_err(S::Error::custom)?;
        if let Some(fields) = item.as_object_mut() {
            fields.remove("stdout");
            fields.remove("stderr");
        }
        item.serialize(serializer)
    }
}

/// `data` of an output frame: a part of the log as the API gives it.
#[derive(Serialize)]
pub(super) struct Output<'a> {
    pub(super) attempt: u32,
    /// Another run is another log.
    pub(super) run: u32,
    pub(super) offset: u64,
    /// Where the next part begins; null where nobody knows.
    pub(super) next: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<&'a str>,
    /// In place of `text`, of bytes that are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base64: Option<String>,
    /// Why these bytes are not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) missing: Option<&'a str>,
}

impl<'a> Output<'a> {
    /// As much of `bytes` as goes into one frame, and how much that is. A character that is cut in two waits for its rest,
    /// unless these are the `last` bytes.
    pub(super) fn of(place: OutputPlace, bytes: &'a [u8], last: bool) -> Option<(Self, usize)> {
        let (text, base64, length) = match std::str::from_utf8(bytes) {
            Ok("") => return None,
            Ok(text) => (Some(text), None, bytes.len()),
            Err(error) if error.valid_up_to() > 0 => {
                let valid = &bytes[..error.valid_up_to()];
                (Some(std::str::from_utf8(valid).expect("it was found to be")), None, valid.len())
            }
            Err(error) if error.error_len().is_none() && !last => return None,
            Err(_) => (None, Some(BASE64_STANDARD.encode(bytes)), bytes.len()),
        };
        let OutputPlace { attempt, run, offset } = place;
        let next = Some(offset + length as u64);
        Some((Self { attempt, run, offset, next, text, base64, missing: None }, length))
    }

    /// Bytes that are not to be had.
    pub(super) fn missing(place: OutputPlace, next: Option<u64>, why: &'a str) -> Self {
        let OutputPlace { attempt, run, offset } = place;
        Self { attempt, run, offset, next, text: None, base64: None, missing: Some(why) }
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
    /// Absent where results are not waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<&'static str>,
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
