//! What is said of trouble with a Redis: the setting at fault, and what would be right; never a password.

use std::{io, time::Duration};

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::{config::RedisUrl, sink::Fault};

/// The way to a Redis, as it is spoken of.
#[derive(Clone)]
pub(super) struct Way {
    /// `redis.url = redis://...`, masked.
    name: String,
    secrets: Vec<String>,
    timeout: Duration,
}

impl Way {
    pub(super) fn new(setting: &str, url: &RedisUrl, timeout: Duration) -> Self {
        Self { name: format!("{setting} = {url}"), secrets: url.secrets(), timeout }
    }

    /// What an error means to who set this up.
    pub(super) fn fault(&self, error: &RedisError) -> Fault {
        let (what, advice) = meaning(error);
        // A server may repeat what it did not understand, and that may have been the password.
        let said = self.secrets.iter().fold(error.to_string(), |said, secret| said.replace(secret, "***"));
        Fault(format!("{}: {what}{}{advice} ({said})", self.name, if advice.is_empty() { "" } else { "; " }))
    }

    /// Nothing came back in time.
    pub(super) fn silent(&self) -> Fault {
        let timeout = self.timeout;
        Fault(format!("{}: no answer within redis.timeout, {timeout:?}; is that a Redis, and reachable?", self.name))
    }
}

fn meaning(error: &RedisError) -> (&'static str, &'static str) {
    match error.code() {
        Some("NOAUTH") => return ("it asks for a password", "the URL must be redis://USER:PASSWORD@HOST"),
        Some("WRONGPASS") => return REFUSED,
        Some("OOM") => return ("it is full", "raise its maxmemory, or shorten redis.stream_retention"),
        _ => {}
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => REFUSED,
        ErrorKind::Server(ServerErrorKind::NoPerm) => (
            "its user may not do what is needed",
            "the ACL rule is `+ping +select +publish +xadd +pexpire ~evaluation:events:* &evaluation:*`",
        ),
        ErrorKind::Server(
            ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::CrossSlot
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain,
        ) => ("it is a node of a Redis Cluster", "podherald needs a Redis that is not clustered"),
        ErrorKind::Server(ServerErrorKind::ReadOnly) => ("it is a replica", "the URL must name the primary"),
        ErrorKind::Server(ServerErrorKind::BusyLoading) => ("it is loading its data", ""),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => ("what answers there is no Redis", ""),
        ErrorKind::Io if error.is_connection_refusal() => ("it cannot be reached", "is it running there?"),
        ErrorKind::Io if error.is_connection_dropped() => ("the connection was cut", ""),
        ErrorKind::Io => ("it cannot be reached", ""),
        ErrorKind::InvalidClientConfig => ("the connection cannot be set up", ""),
        _ => ("it refuses", ""),
    }
}

const REFUSED: (&str, &str) = ("it refuses the user or the password", "the URL must be redis://USER:PASSWORD@HOST");

/// True for what concerns one key only, and will not pass.
pub(super) fn is_of_one_key(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

/// A server that answers fewer commands than it was sent.
pub(super) fn no_answer() -> RedisError {
    io::Error::from(io::ErrorKind::UnexpectedEof).into()
}
