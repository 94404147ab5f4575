//! What is said of trouble with a store: the setting at fault, and what would be right; never a secret.

use std::{error::Error as _, io};

use object_store::client::{HttpError, HttpErrorKind};

use crate::{config::BlobUrl, wording};

/// Longest quotation of what a store said.
const LONGEST: usize = 300;

/// Why something could not be done, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    text: String,
    /// It will not pass within a moment: somebody has to do something.
    pub(super) is_lasting: bool,
}

struct Meaning(&'static str, &'static str, bool);

impl Fault {
    /// What an error of the store means to who set it up.
    pub(super) fn of(url: &BlobUrl, error: &object_store::Error) -> Self {
        let answer = error.to_string();
        let code = within("Code", &answer);
        let meaning = code.and_then(of_code).or_else(|| of_cause(error)).unwrap_or_else(|| of_text(&answer));
        let Meaning(what, advice, is_lasting) = meaning;
        let said = match (code, within("Message", &answer)) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            _ => wording::of(error),
        };
        let separator = if advice.is_empty() { "" } else { "; " };
        Self { text: format!("blob.url = {url}: {what}{separator}{advice} ({})", shortened(&said)), is_lasting }
    }

    /// Nothing came of it in time.
    pub(super) fn late(url: &BlobUrl, what: &str) -> Self {
        Self { text: format!("blob.url = {url}: {what}"), is_lasting: true }
    }

    /// The disk's copy, of which the blob was to be made, cannot be read.
    pub(super) fn unreadable(error: &crate::output_store::Error) -> Self {
        Self { text: wording::of(error), is_lasting: true }
    }
}

/// The text of an element of an answer in XML.
fn within<'a>(element: &str, answer: &'a str) -> Option<&'a str> {
    let (_, rest) = answer.split_once(&format!("<{element}>"))?;
    rest.split_once(&format!("</{element}>")).map(|(text, _)| text)
}

/// The code with which S3 refuses.
fn of_code(code: &str) -> Option<Meaning> {
    Some(match code {
        "NoSuchBucket" => Meaning("there is no such bucket", "make it, or name another", true),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" | "InvalidClientTokenId" => {
            Meaning("it refuses the credentials", CREDENTIALS, true)
        }
        "AccessDenied" | "AllAccessDisabled" => Meaning("the credentials do not permit it", RIGHTS, true),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" => {
            Meaning("the bucket is in another region", "set blob.region to the bucket's", true)
        }
        "SlowDown" | "ServiceUnavailable" | "InternalError" => Meaning("it is busy or broken", "", false),
        _ => return None,
    })
}

const CREDENTIALS: &str = "see blob.credentials_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
const RIGHTS: &str = "they need s3:PutObject, s3:GetObject, s3:DeleteObject and s3:AbortMultipartUpload below it";

fn of_cause(error: &object_store::Error) -> Option<Meaning> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return Some(match error.kind() {
                HttpErrorKind::Connect => {
                    Meaning("it cannot be reached", "is blob.endpoint right, and the store running?", false)
                }
                _ => Meaning("the connection was cut, or nothing came within blob.timeout", "", false),
            });
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(match error.kind() {
                io::ErrorKind::NotFound => Meaning("there is no such directory", "make it, or mount it", true),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Meaning("podherald may not write there", "its user needs to", true)
                }
                io::ErrorKind::NotADirectory => Meaning("it is no directory", "name one", true),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Meaning("it is full", "make room", true),
                _ => Meaning("the disk refuses", "", false),
            });
        }
        cause = error.source();
    }
    None
}

fn of_text(answer: &str) -> Meaning {
    match answer {
        _ if answer.contains("blob.credentials_file") => Meaning("there are no credentials", "", true),
        _ if answer.contains("Forbidden") || answer.contains("403") => {
            Meaning("the credentials do not permit it", RIGHTS, true)
        }
        _ if answer.contains("LOCATION") => {
            Meaning("the bucket is in another region", "set blob.region to the bucket's", true)
        }
        _ => Meaning("it refuses", "", false),
    }
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
