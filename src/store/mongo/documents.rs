//! Documents and what they stand for: nothing here waits for anybody.
//!
//! A list is ordered by `position`, one text that sorts as its parts do. What people or programs name is always a value, never
//! a key (T111), and what may be long is a body that [`super::bodies`] keeps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mongodb::bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use podherald_core::execution::Status;
use serde::{
    Deserialize,
    de::{IntoDeserializer, value},
};
use uuid::Uuid;

use crate::{
    inbox::{Incoming, Place},
    store::{Arrival, Attempt, Cursor, DeadLetter, EventCursor, LetterCursor, Watermarks, projection::Projection},
};

/// Why a document is not what podherald wrote.
pub(super) type Reading<T> = std::result::Result<T, String>;

/// Sorts as the time does.
fn sortable(at: Timestamp) -> String {
    format!("{:016x}", at.as_microsecond().cast_unsigned() ^ (1 << 63))
}

fn time_of(position: &str) -> Reading<Timestamp> {
    let digits = position.get(..16).ok_or("a position is cut off")?;
    let bits = u64::from_str_radix(digits, 16).map_err(|error| format!("position {position:?}: {error}"))?;
    time((bits ^ (1 << 63)).cast_signed())
}

pub(super) fn time(microseconds: i64) -> Reading<Timestamp> {
    Timestamp::from_microsecond(microseconds).map_err(|error| error.to_string())
}

/// Of an execution in the list of all.
pub(super) fn position(cursor: &Cursor) -> String {
    format!("{}/{}", sortable(cursor.at), cursor.execution_id)
}

/// Of an event among those of its execution.
pub(super) fn event_position(cursor: &EventCursor) -> String {
    format!("{}/{:016x}/{}", sortable(cursor.at), cursor.seq, cursor.event_id)
}

/// Of a dead letter in the list of all.
pub(super) fn letter_position(cursor: &LetterCursor) -> String {
    format!("{}/{}", sortable(cursor.at), cursor.id)
}

pub(super) fn uuid(id: Uuid) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: id.as_bytes().to_vec() })
}

pub(super) fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}

/// MongoDB counts in signed numbers; no offset or seq comes near their end.
pub(super) fn number(n: u64) -> Bson {
    Bson::Int64(i64::try_from(n).unwrap_or(i64::MAX))
}

/// A label as one value that an index finds, `name=value`; a name with `=` in it is taken for no other.
pub(super) fn label(name: &str, value: &str) -> String {
    format!("{}={value}", name.replace('\\', "\\\\").replace('=', "\\="))
}

pub(super) fn event(arrival: &Arrival, body: Bson) -> Document {
    let cursor = EventCursor { at: arrival.at, seq: arrival.seq, event_id: arrival.event_id };
    doc! {
        "_id": uuid(arrival.event_id),
        "execution_id": &arrival.execution_id,
        "position": event_position(&cursor),
        "event_type": &arrival.event_type,
        "seq": number(arrival.seq),
        "topic": &*arrival.place.topic,
        "partition": arrival.place.partition,
        "offset": number(arrival.offset),
        "body": body,
    }
}

pub(super) fn read_event_cursor(document: &Document) -> Reading<EventCursor> {
    let at = time_of(text(document, "position")?)?;
    Ok(EventCursor { at, seq: unsigned(document, "seq")?, event_id: id(document, "_id")? })
}

/// Where a message was found.
fn origin(document: &Document) -> Reading<(Place, u64)> {
    Ok((place(document)?, unsigned(document, "offset")?))
}

/// The projection whose JSON is `body`.
pub(super) fn execution(projection: &Projection, revision: i64, body: Bson) -> Document {
    let execution = &projection.execution;
    let labels: Vec<_> = execution.labels.iter().map(|(name, value)| label(name, value)).collect();
    let watermark = |(place, next): (&Place, &u64)| {
        doc! { "topic": &*place.topic, "partition": place.partition, "next": number(*next) }
    };
    doc! {
        "_id": &execution.execution_id,
        "position": position(&projection.cursor()),
        "namespace": projection.namespace.clone(),
        "user_id": execution.user_id.clone(),
        "status": execution.status.as_str(),
        "labels": labels,
        "ended_by": projection.ended_by.map(uuid),
        "watermarks": projection.watermarks.iter().map(watermark).collect::<Vec<_>>(),
        "revision": revision,
        "body": body,
    }
}

pub(super) fn read_execution(document: &Document, body: &[u8]) -> Reading<Projection> {
    let listed = document.get_array("watermarks").map_err(|error| error.to_string())?;
    let watermark = |listed: &Bson| {
        let of = listed.as_document().ok_or("a watermark is no document")?;
        Ok((place(of)?, unsigned(of, "next")?))
    };
    Ok(Projection {
        execution: serde_json::from_slice(body).map_err(|error| format!("body: {error}"))?,
        namespace: document.get_str("namespace").ok().map(str::to_owned),
        first_seen: time_of(text(document, "position")?)?,
        ended_by: id(document, "ended_by").ok(),
        watermarks: listed.iter().map(watermark).collect::<Reading<Watermarks>>()?,
    })
}

pub(super) fn attempt(attempt: &Attempt) -> Document {
    doc! {
        "execution_id": &attempt.execution_id,
        "attempt": number(attempt.attempt.into()),
        "status": attempt.status.as_str(),
        "rank": i32::from(attempt.status.rank()),
        "ended_at": attempt.ended_at.map(Timestamp::as_microsecond),
        "ended_by": attempt.ended_by.map(uuid),
    }
}

pub(super) fn read_attempt(document: &Document) -> Reading<Attempt> {
    Ok(Attempt {
        execution_id: text(document, "execution_id")?.to_owned(),
        attempt: attempt_number(document)?,
        status: status(document)?,
        ended_at: document.get_i64("ended_at").ok().map(time).transpose()?,
        ended_by: id(document, "ended_by").ok(),
    })
}

pub(super) fn dead_letter(letter: &DeadLetter) -> Document {
    let incoming = &letter.incoming;
    let header = |(name, value): &(String, Option<bytes::Bytes>)| {
        doc! { "name": name, "value": value.as_deref().map(binary) }
    };
    let cursor = LetterCursor { at: letter.at, id: letter.id() };
    doc! {
        "position": letter_position(&cursor),
        "_id": cursor.id,
        "role": &letter.role,
        "topic": &*incoming.place.topic,
        "partition": incoming.place.partition,
        "offset": number(incoming.offset),
        "reason": &letter.reason,
        "tries": number(letter.tries.into()),
        "key": incoming.key.as_deref().map(binary),
        "headers": incoming.headers.iter().map(header).collect::<Vec<_>>(),
    }
}

/// The letter whose message had this payload.
pub(super) fn read_dead_letter(document: &Document, payload: Option<bytes::Bytes>) -> Reading<DeadLetter> {
    let headers = document.get_array("headers").map_err(|error| error.to_string())?;
    let header = |listed: &Bson| {
        let of = listed.as_document().ok_or("a header is no document")?;
        Ok((text(of, "name")?.to_owned(), optional_bytes(of, "value")))
    };
    let (place, offset) = origin(document)?;
    Ok(DeadLetter {
        role: text(document, "role")?.to_owned(),
        incoming: Incoming {
            place,
            offset,
            key: optional_bytes(document, "key"),
            headers: headers.iter().map(header).collect::<Reading<_>>()?,
            payload,
        },
        reason: text(document, "reason")?.to_owned(),
        tries: u32::try_from(unsigned(document, "tries")?).map_err(|error| error.to_string())?,
        at: time_of(text(document, "position")?)?,
    })
}

fn optional_bytes(document: &Document, key: &str) -> Option<bytes::Bytes> {
    document.get_binary_generic(key).ok().map(|bytes| bytes.clone().into())
}

pub(super) fn place(document: &Document) -> Reading<Place> {
    let partition = document.get_i32("partition").map_err(|error| error.to_string())?;
    Ok(Place { topic: text(document, "topic")?.into(), partition })
}

pub(super) fn attempt_number(document: &Document) -> Reading<u32> {
    u32::try_from(unsigned(document, "attempt")?).map_err(|error| error.to_string())
}

pub(super) fn status(document: &Document) -> Reading<Status> {
    let name = text(document, "status")?;
    Status::deserialize(name.into_deserializer()).map_err(|error: value::Error| error.to_string())
}

pub(super) fn text<'a>(document: &'a Document, key: &str) -> Reading<&'a str> {
    document.get_str(key).map_err(|error| error.to_string())
}

pub(super) fn unsigned(document: &Document, key: &str) -> Reading<u64> {
    let number = document.get_i64(key).map_err(|error| error.to_string())?;
    u64::try_from(number).map_err(|error| format!("{key}: {error}"))
}

pub(super) fn id(document: &Document, key: &str) -> Reading<Uuid> {
    match document.get(key) {
        Some(Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes })) => {
            Uuid::from_slice(bytes).map_err(|error| format!("{key}: {error}"))
        }
        _ => Err(format!("{key} is no UUID")),
    }
}

/// The attempts that a batch speaks of, each with the highest that it says; of equal ranks the first.
pub(super) fn highest(attempts: impl Iterator<Item = Attempt>) -> Vec<Attempt> {
    let mut highest = BTreeMap::<(String, u32), Attempt>::new();
    for attempt in attempts {
        let key = (attempt.execution_id.clone(), attempt.attempt);
        match highest.get_mut(&key) {
            Some(known) if known.status.rank() < attempt.status.rank() => *known = attempt,
            Some(_) => {}
            None => {
                highest.insert(key, attempt);
            }
        }
    }
    highest.into_values().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_position_sorts_as_its_time_and_gives_it_back(a in -377_705_023_201_000_000_i64..253_402_207_200_000_000, b in -99_i64..99) {
            let (one, other) = (time(a).unwrap(), time(a.saturating_add(b)).unwrap_or(Timestamp::MAX));
            prop_assert_eq!(sortable(one).cmp(&sortable(other)), one.cmp(&other));
            let cursor = Cursor { at: one, execution_id: "é/\0".to_owned() };
            prop_assert_eq!(time_of(&position(&cursor)), Ok(one));
        }

        #[test]
        fn different_labels_are_different_values(a in "[=\\\\a]{0,4}", b in "[=\\\\a]{0,4}", c in "[=\\\\a]{0,4}", d in "[=\\\\a]{0,4}") {
            prop_assert_eq!(label(&a, &b) == label(&c, &d), (a, b) == (c, d));
        }
    }

    #[test]
    fn of_one_attempt_the_highest_counts_and_of_equals_the_first() {
        let attempt =
            |attempt, status| Attempt { execution_id: "e".to_owned(), attempt, status, ended_at: None, ended_by: None };
        let said = [
            attempt(1, Status::Running),
            attempt(2, Status::Scheduled),
            attempt(1, Status::Failed),
            attempt(1, Status::Completed),
            attempt(1, Status::Scheduled),
        ];
        assert_eq!(highest(said.into_iter()), [attempt(1, Status::Failed), attempt(2, Status::Scheduled)]);
    }

    #[test]
    fn what_is_not_as_podherald_wrote_it_is_named() {
        let rows: [(Document, &str); 5] = [
            (doc! {}, "position"),
            (doc! { "position": "x" }, "cut off"),
            (doc! { "position": "zzzzzzzzzzzzzzzz" }, "invalid digit"),
            (doc! { "position": sortable(Timestamp::UNIX_EPOCH), "seq": "1" }, "seq"),
            (doc! { "position": sortable(Timestamp::UNIX_EPOCH), "seq": 1_i64, "_id": "x" }, "_id is no UUID"),
        ];
        for (document, named) in rows {
            let wrong = read_event_cursor(&document).unwrap_err();
            assert!(wrong.contains(named), "{document}: {wrong}");
        }
        let status = status(&doc! { "status": "done" }).unwrap_err();
        assert!(status.contains("unknown variant `done`"), "{status}");
    }
}
