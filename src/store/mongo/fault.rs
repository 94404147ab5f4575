//! What can go wrong with a MongoDB, and what is said of it: which setting it is about, and whether to try again.

use mongodb::error::{ErrorKind, GridFsErrorKind, WriteFailure};

use crate::store::Error;

/// "Unauthorized": the user is known and lacks a right.
const UNAUTHORIZED: i32 = 13;
/// "AuthenticationFailed", and what Atlas says instead.
const NOT_AUTHENTICATED: [i32; 2] = [18, 8000];
/// "DuplicateKey".
const DUPLICATE_KEY: i32 = 11000;
/// "BadValue": an index that a query names is missing.
const BAD_HINT: i32 = 2;
/// "DocumentValidationFailure".
const INVALID_DOCUMENT: i32 = 121;

/// A failure before it is known what was being done, and to which database.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The driver's own.
    #[error(transparent)]
    Driver(#[from] mongodb::error::Error),
    /// Nothing was heard for `mongo.timeout`.
    #[error("there was no answer in {0:?} (mongo.timeout)")]
    Silence(std::time::Duration),
    /// A document that this program did not write like this.
    #[error("a document of {collection}: {reason}")]
    Document {
        /// Where.
        collection: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Others changed the same thing each time.
    #[error("executions are changed by others all the time, among them {0}")]
    Contended(String),
    /// As it is to be told.
    #[error(transparent)]
    Told(#[from] Error),
}

impl From<std::io::Error> for Fault {
    /// GridFS speaks through streams.
    fn from(error: std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<mongodb::error::Error>()) {
            Some(inner) => Self::Driver(inner.clone()),
            None => Self::Driver(error.into()),
        }
    }
}

/// The code that the server gave, wherever the driver keeps it.
pub(super) fn code(error: &mongodb::error::Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        ErrorKind::InsertMany(many) => {
            let codes: Vec<_> = many.write_errors.iter().flatten().map(|error| error.code).collect();
            // Beside one of these, the others say what is wrong.
            let worst = codes.iter().find(|code| **code != DUPLICATE_KEY).copied();
            worst.or(many.write_concern_error.as_ref().map(|error| error.code)).or(codes.first().copied())
        }
        _ => None,
    }
}

/// It is there already.
pub(super) fn is_duplicate(error: &mongodb::error::Error) -> bool {
    code(error) == Some(DUPLICATE_KEY)
}

/// The places in a batch that are there already, if nothing else was wrong with any of it.
pub(super) fn duplicates(error: &mongodb::error::Error) -> Option<Vec<usize>> {
    let ErrorKind::InsertMany(many) = &*error.kind else { return None };
    let errors = many.write_errors.as_ref()?;
    let is_all = many.write_concern_error.is_none() && errors.iter().all(|error| error.code == DUPLICATE_KEY);
    is_all.then(|| errors.iter().map(|error| error.index).collect())
}

/// Who explains: what of the settings an explanation needs.
#[derive(Debug, Clone)]
pub(super) struct Wording {
    /// `mongo.database`.
    pub(super) database: String,
    /// Never to be said.
    pub(super) secrets: Vec<String>,
}

impl Wording {
    /// The error that the caller sees.
    pub(super) fn explain(&self, fault: Fault, doing: &'static str) -> Error {
        match fault {
            Fault::Told(error) => error,
            Fault::Document { collection, reason } => {
                Error::Corrupt { place: format!("{}.{collection}", self.database), reason: self.mask(reason) }
            }
            Fault::Driver(error) => self.explain_driver(&error, doing),
            Fault::Silence(_) | Fault::Contended(_) => Error::Unavailable { doing, reason: fault.to_string() },
        }
    }

    fn explain_driver(&self, error: &mongodb::error::Error, doing: &'static str) -> Error {
        let said = self.mask(error.kind.to_string());
        let refused = |reason: String| Error::Refused { doing, reason };
        match (&*error.kind, code(error)) {
            (ErrorKind::Authentication { .. }, _) => refused(credentials(&said)),
            (_, Some(code)) if NOT_AUTHENTICATED.contains(&code) => refused(credentials(&said)),
            (_, Some(UNAUTHORIZED)) => refused(format!(
                "the user of `mongo.uri` lacks a right: {said}; it needs the roles readWrite and dbAdmin on the database {}",
                self.database
            )),
            (ErrorKind::InvalidTlsConfig { .. } | ErrorKind::InvalidArgument { .. }, _) => {
                refused(format!("`mongo.uri`: {said}"))
            }
            (ErrorKind::IncompatibleServer { .. } | ErrorKind::SessionsNotSupported, _) => {
                refused(format!("the server of `mongo.uri` is too old, or no MongoDB: {said}"))
            }
            (_, Some(BAD_HINT)) if said.contains("hint") => {
                refused(format!("an index is missing: {said}; `podherald migrate` makes what a database lacks"))
            }
            (_, Some(INVALID_DOCUMENT)) => refused(format!(
                "the database {} does not take what podherald writes: {said}; its validators are those of migrations/",
                self.database
            )),
            (ErrorKind::GridFs(GridFsErrorKind::FileNotFound { .. }), _) => Error::Corrupt {
                place: format!("{}.fs", self.database),
                reason: format!("a file that a document names is missing: {said}"),
            },
            (ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. }, _) => {
                Error::Unavailable { doing, reason: format!("no server of `mongo.uri` answers: {}", nearest(&said)) }
            }
            _ => Error::Unavailable { doing, reason: said },
        }
    }

    /// A server or a resolver may repeat what it was told.
    pub(super) fn mask(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, secret| text.replace(secret, "***"))
    }
}

/// Of the driver's account of all servers, what is wrong with the first.
fn nearest(said: &str) -> &str {
    let first = said.split_once("Kind: ").map(|(_, first)| first.split(", labels:").next().unwrap_or(first));
    first.unwrap_or(said)
}

fn credentials(said: &str) -> String {
    format!("the server does not take the user and password of `mongo.uri`, or its `authSource`: {said}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mongodb::error::CommandError;
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_hide_no_other_failure_of_a_batch() {
        let error = |index: u32, code: i32| json!({ "index": index, "code": code, "errmsg": "no" });
        let concern = json!({ "code": 64, "codeName": "WriteConcernFailed", "errmsg": "no" });
        let rows = [
            (json!({ "writeErrors": [error(0, 11000), error(1, 121)] }), Some(121), None),
            (json!({ "writeErrors": [error(0, 11000)], "writeConcernError": concern }), Some(64), None),
            (json!({ "writeErrors": [error(2, 11000)] }), Some(11000), Some(vec![2])),
        ];
        for (many, expected_code, expected_duplicates) in rows {
            let error = ErrorKind::InsertMany(serde_json::from_value(many).unwrap()).into();
            assert_eq!((code(&error), duplicates(&error)), (expected_code, expected_duplicates));
        }
    }

    #[test]
    fn of_many_servers_the_first_is_told() {
        let said = "Server selection timeout: No available servers. Topology: { Type: Single, Servers: [ { Address: h:1, Type: \
                    Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: {\"x\"}, source: None } ] }";
        assert_eq!(nearest(said), "I/O error: Connection refused (os error 111)");
        assert_eq!(nearest("no such name"), "no such name");
    }

    #[test]
    fn what_is_wrong_is_said_by_the_setting_that_is_wrong_and_without_its_secret() {
        let wording = Wording { database: "lab".to_owned(), secrets: vec!["s@crt".to_owned()] };
        let command = |code: i32, said: &str| {
            let error: CommandError = serde_json::from_value(json!({ "code": code, "errmsg": said })).unwrap();
            Fault::Driver(ErrorKind::Command(error).into())
        };
        let io = |text: &str| Fault::from(std::io::Error::other(text.to_owned()));
        let rows = [
            (command(18, "bad s@crt"), true, "does not take the user and password of `mongo.uri`, or its `authSource`"),
            (command(13, "not authorized"), true, "lacks a right: Command failed: Error code 13"),
            (command(13, "no"), true, "needs the roles readWrite and dbAdmin on the database lab"),
            (command(2, "hint provided does not correspond"), true, "`podherald migrate` makes what a database lacks"),
            (command(121, "Document failed validation"), true, "its validators are those of migrations/"),
            (command(91, "shutting down s@crt"), false, "shutting down ***"),
            (io("reset"), false, "I/O error: reset"),
            (Fault::Silence(std::time::Duration::from_secs(3)), false, "no answer in 3s (mongo.timeout)"),
            (Fault::Contended("e".to_owned()), false, "changed by others"),
        ];
        for (fault, is_refused, words) in rows {
            let error = wording.explain(fault, "keep events");
            assert_eq!(matches!(error, Error::Refused { .. }), is_refused, "{error}");
            let said = error.to_string();
            assert!(said.contains("keep events") && said.contains(words) && !said.contains("s@crt"), "{said}");
        }
    }
}
