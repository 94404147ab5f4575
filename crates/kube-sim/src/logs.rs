//! Where the API gets containers' logs: the node that ran them.

use std::io;

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use http::StatusCode;

/// What is asked of the log endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub pod: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Which container; the API has checked that the pod has it.
    pub container: String,
    /// Of the container's run before the last.
    pub previous: bool,
    /// Go on until the container has ended.
    pub follow: bool,
    /// Each line with the time it came.
    pub timestamps: bool,
    /// Only what is younger than this.
    pub since: Option<jiff::Timestamp>,
    /// Only so many last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Why there is no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NoLog {
    /// 400 where the container has not started, 404 where nobody knows it, 500 for anything else.
    pub status: StatusCode,
    /// In the API's words.
    pub message: String,
}

/// A log as it is sent.
pub type LogStream = BoxStream<'static, io::Result<Bytes>>;

/// A node's logs.
pub trait Logs: Send + Sync + 'static {
    /// Opens one.
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, NoLog>>;
}
