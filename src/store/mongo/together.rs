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

/// Updates in one command, which is a document itself, with its 16 MiB (T110): most of that is left for what is beside the bodies.
const AT_ONCE: usize = 64;
/// A document that is written together with others has a body of at most so many.
pub(super) const SMALL_BYTES: usize = 64 << 10;

/// As the server answers an `update`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    n: i64,
    #[serde(default)]
    write_errors: Vec<WriteError>,
    write_concern_error: Option<WriteConcernError>,
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

    /// Runs these statements of an `update` command, in no order, and counts those that found their document. None may
    /// insert: the driver could not read what a server says of a key that is there, for that may be cut within a character.
    pub(super) async fn update_many(&self, collection: &str, statements: &[Document]) -> Act<usize> {
        let mut matched = 0;
        for chunk in statements.chunks(AT_ONCE) {
            // The driver has no method for it that servers before 8.0 know, and adds no write concern to a plain command.
            let concern =
                bson::serialize_to_bson(&self.database.write_concern()).map_err(mongodb::error::Error::from)?;
            let command = doc! { "update": collection, "updates": chunk, "ordered": false, "writeConcern": concern };
            let answer = self.within(self.database.run_command(command)).await?;
            matched += read(bson::deserialize_from_document(answer).map_err(mongodb::error::Error::from)?)?;
        }
        Ok(matched)
    }
}

fn read(Answer { n, write_errors, write_concern_error }: Answer) -> Act<usize> {
    let failure = write_errors.into_iter().next().map(WriteFailure::WriteError);
    match failure.or(write_concern_error.map(WriteFailure::WriteConcernError)) {
        Some(failure) => Err(Fault::Driver(ErrorKind::Write(failure).into())),
        None => Ok(usize::try_from(n).unwrap_or_default()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_known_by_its_answer() {
        let answer = |answer: Document| read(bson::deserialize_from_document(answer).unwrap());
        assert_eq!(answer(doc! { "ok": 1.0, "n": 3, "nModified": 2_i64 }).unwrap(), 3);
        let invalid = doc! { "index": 1, "code": 121, "errmsg": "Document failed validation" };
        let concern =
            doc! { "code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out" };
        for (failed, code) in [
            (doc! { "ok": 1.0, "n": 1, "writeErrors": [invalid] }, 121),
            (doc! { "ok": 1.0, "n": 3, "writeConcernError": concern }, 64),
        ] {
            let Err(Fault::Driver(error)) = answer(failed) else { panic!("it is a failure") };
            assert_eq!(fault::code(&error), Some(code));
        }
    }
}
