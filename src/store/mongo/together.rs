//! Many writes in one command. Each of them succeeds or fails by itself.

use mongodb::{
    bson::{self, Document, doc},
    error::{ErrorKind, WriteConcernError, WriteError, WriteFailure},
};
use serde::Deserialize;

use super::{
    Act, Mongo,
    fault::{self, Fault},
};

/// Updates in one command. With [`SMALL_BYTES`] for each they stay well within what a server takes in one message (48 MB).
const AT_ONCE: usize = 256;
/// A document that is written together with others has a body of at most so many.
pub(super) const SMALL_BYTES: usize = 64 << 10;

/// What became of updates.
#[derive(Debug, Default)]
pub(super) struct Updated {
    /// How many of them found, or made, their document.
    pub(super) matched: usize,
    /// Those whose document was there under a unique key, but was not what they look for.
    pub(super) duplicates: Vec<usize>,
}

/// As the server answers an `update`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    n: i64,
    #[serde(default)]
    write_errors: Vec<Failed>,
    write_concern_error: Option<WriteConcernError>,
}

/// One of the statements.
#[derive(Deserialize)]
struct Failed {
    index: usize,
    #[serde(flatten)]
    error: WriteError,
}

impl Mongo {
    /// Of each, false if it was there already, under its `_id` or another unique index.
    pub(super) async fn insert_many<'a>(
        &self,
        collection: &str,
        documents: impl ExactSizeIterator<Item = &'a Document>,
    ) -> Act<Vec<bool>> {
        let mut inserted = vec![true; documents.len()];
        if inserted.is_empty() {
            return Ok(inserted);
        }
        let collection = self.collection(collection);
        match self.within(collection.insert_many(documents).ordered(false)).await {
            Ok(_) => {}
            Err(Fault::Driver(error)) if let Some(duplicates) = fault::duplicates(&error) => {
                duplicates.into_iter().for_each(|duplicate| inserted[duplicate] = false);
            }
            Err(fault) => return Err(fault),
        }
        Ok(inserted)
    }

    /// Runs these statements of an `update` command, in no order.
    pub(super) async fn update_many(&self, collection: &str, statements: &[Document]) -> Act<Updated> {
        let mut updated = Updated::default();
        for (number, chunk) in statements.chunks(AT_ONCE).enumerate() {
            // The driver has no method for it that servers before 8.0 know, and adds no write concern to a plain command.
            let limit = i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX);
            let concern = doc! { "w": "majority", "j": true, "wtimeout": limit };
            let command = doc! { "update": collection, "updates": chunk, "ordered": false, "writeConcern": concern };
            let answer = self.within(self.database.run_command(command)).await?;
            let part = read(bson::deserialize_from_document(answer).map_err(mongodb::error::Error::from)?)?;
            updated.matched += part.matched;
            updated.duplicates.extend(part.duplicates.into_iter().map(|index| number * AT_ONCE + index));
        }
        Ok(updated)
    }
}

fn read(Answer { n, write_errors, write_concern_error }: Answer) -> Act<Updated> {
    let (duplicates, others): (Vec<_>, Vec<_>) =
        write_errors.into_iter().partition(|failed| failed.error.code == fault::DUPLICATE_KEY);
    let failure = others.into_iter().next().map(|failed| WriteFailure::WriteError(failed.error));
    match failure.or(write_concern_error.map(WriteFailure::WriteConcernError)) {
        Some(failure) => Err(Fault::Driver(ErrorKind::Write(failure).into())),
        None => Ok(Updated {
            matched: usize::try_from(n).unwrap_or_default(),
            duplicates: duplicates.into_iter().map(|failed| failed.index).collect(),
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answer(answer: Document) -> Act<Updated> {
        read(bson::deserialize_from_document(answer).unwrap())
    }

    #[test]
    fn an_update_is_known_by_its_answer_and_only_duplicates_are_no_failure() {
        let duplicate = doc! { "index": 2, "code": 11000, "errmsg": "E11000" };
        let invalid = doc! { "index": 1, "code": 121, "errmsg": "Document failed validation" };
        let concern =
            doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
        let all = answer(doc! { "ok": 1.0, "n": 3, "nModified": 2_i64 }).unwrap();
        assert_eq!((all.matched, all.duplicates), (3, vec![]));
        let some = answer(doc! { "ok": 1.0, "n": 2_i64, "writeErrors": [duplicate.clone()] }).unwrap();
        assert_eq!((some.matched, some.duplicates), (2, vec![2]));
        for (failed, code) in [
            (doc! { "ok": 1.0, "n": 1, "writeErrors": [duplicate, invalid] }, 121),
            (doc! { "ok": 1.0, "n": 3, "writeConcernError": concern }, 64),
        ] {
            let Err(Fault::Driver(error)) = answer(failed) else { panic!("it is a failure") };
            assert_eq!(fault::code(&error), Some(code));
        }
    }
}
