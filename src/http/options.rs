//! Bounds of the listener and its streams.

use std::time::Duration;

use super::Access;

/// Bounds of the listener and its streams; `[http]` of the configuration gives some of them.
#[derive(Debug, Clone)]
pub struct Options {
    /// Who may call.
    pub access: Access,
    /// Connections open at a time; further ones get a 503.
    pub max_connections: usize,
    /// Event streams and held requests at a time; further ones get a 503.
    pub max_streams: usize,
    /// Pause after which a silent stream carries a heartbeat.
    pub heartbeat: Duration,
    /// A client that takes nothing for so long is disconnected.
    pub write_timeout: Duration,
    /// An execution's stream ends with its result, not with its terminal event.
    pub ends_on_result: bool,
    /// What others tell comes here later than to some readers.
    pub hears_late: bool,
    /// A request line and headers must be complete within this.
    pub header_timeout: Duration,
    /// A handler must have its answer within this; streams and waits have their own time.
    pub request_timeout: Duration,
    /// Connections still open so long after the stop are cut.
    pub drain_timeout: Duration,
}

impl Options {
    /// The defaults for a listener with this access.
    pub fn new(access: Access) -> Self {
        Self {
            access,
            max_connections: 10_240,
            max_streams: 10_000,
            heartbeat: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            ends_on_result: false,
            hears_late: false,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(8),
        }
    }
}
