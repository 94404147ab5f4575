//! `[http]`: the listener and its streams.

use std::{net::SocketAddr, time::Duration};

use http::Uri;
use toml::Value as Toml;

use super::{
    Error, HostName,
    setting::settings,
    source::Effective,
    value::{Value, choice, positive},
};

settings! {
    /// Where podherald answers, and within which bounds.
    pub struct Http in "http." {
        /// Address and port to listen on; port 0 takes a free one.
        /// `PODHERALD_HTTP__LISTEN`, default `"127.0.0.1:8080"`.
        listen: SocketAddr = "127.0.0.1:8080",
        /// Must be true for a listener beyond loopback, since podherald does not ask who is calling.
        /// `PODHERALD_HTTP__ALLOW_UNAUTHENTICATED`, default `false`.
        allow_unauthenticated: bool = false,
        /// Names by which a listener beyond loopback is called, without port. What changes something must have one of them, an IP
        /// address or `localhost` as its Host; who only reads may call it anything.
        /// `PODHERALD_HTTP__HOSTS`, default `[]`.
        hosts: Vec<HostName> = [],
        /// What ends an execution's stream: `terminal`, its terminal event, or `result`, that its result is stored (or 30 s without); `auto`:
        /// `result` where this process has the role `result_processor`, or hears of those who have (by kafka.brokers and mongo.uri, without
        /// monitor.lease); else `terminal`.
        /// `PODHERALD_HTTP__END_ON`, default `"auto"`.
        end_on: EndOn = "auto",
        /// Where a process without the role `monitor` asks for what only the monitor has: pods, the audit, what running programs print, and
        /// output that is in no blob store.
        /// `PODHERALD_HTTP__MONITOR_URL`, default `"off"`.
        monitor_url: Option<MonitorUrl> = "off",
        /// Connections open at a time; further ones are refused with a 503. Each takes a file descriptor.
        /// `PODHERALD_HTTP__MAX_CONNECTIONS`, default `10240`.
        max_connections: u32 = 10240,
        /// Event streams open at a time, requests held by `wait` counted with them; further ones are refused with a 503.
        /// What `max_connections` has above this is left to probes, metrics and whoever else only asks.
        /// `PODHERALD_HTTP__MAX_STREAMS`, default `10000`.
        max_streams: u32 = 10000,
        /// Pause after which a silent stream carries a heartbeat.
        /// `PODHERALD_HTTP__HEARTBEAT`, default `"15s"`.
        heartbeat: Duration = "15s",
        /// A client that takes nothing for so long is disconnected.
        /// `PODHERALD_HTTP__WRITE_TIMEOUT`, default `"30s"`.
        write_timeout: Duration = "30s",
    }
}

choice! {
    /// What ends an execution's stream.
    pub enum EndOn {
        /// What there is to wait for.
        Auto = "auto",
        /// The terminal event.
        Terminal = "terminal",
        /// `result_stored` or `result_failed`.
        Result = "result",
    }
}

/// The address of another podherald.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorUrl(Uri);

impl MonitorUrl {
    /// Reads `http://` or `https://`, a host, and a path that may follow.
    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_plain =
            uri.query().is_none() && !text.contains(['#', '@']) && uri.host().is_some_and(|host| !host.is_empty());
        (is_web && is_plain).then_some(Self(uri))
    }

    /// As it was written.
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

impl Value for MonitorUrl {
    fn expects() -> String {
        "the URL of another podherald such as `http://podherald-monitor:8080`, without user, query and fragment".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }
}

impl Http {
    pub(super) fn validate(&self, effective: &Effective, stores_results: bool, is_monitor: bool) -> Result<(), Error> {
        if is_monitor && self.monitor_url.is_some() {
            return Err(effective.refuse("http.monitor_url", "`off` with the role monitor: this is the monitor"));
        }
        positive(effective, "http.max_connections", self.max_connections)?;
        positive(effective, "http.max_streams", self.max_streams)?;
        if self.max_connections <= self.max_streams {
            let wanted =
                format!("more than `http.max_streams`, {}, so that probes find a place beside them", self.max_streams);
            return Err(effective.refuse("http.max_connections", &wanted));
        }
        positive(effective, "http.heartbeat", self.heartbeat)?;
        positive(effective, "http.write_timeout", self.write_timeout)?;
        if self.end_on == EndOn::Result && !stores_results {
            return Err(effective.refuse("http.end_on", "`auto` or `terminal` without the role result_processor, unless results are in the MongoDB of mongo.uri and told by Kafka"));
        }
        if !self.listen.ip().is_loopback() && !self.allow_unauthenticated {
            return Err(effective.refuse(
                "http.listen",
                "a loopback address such as `127.0.0.1:8080`, or `http.allow_unauthenticated = true` as well: podherald \
                 does not ask who is calling",
            ));
        }
        if self.listen.ip().is_loopback() && !self.hosts.is_empty() {
            let right =
                "`[]` unless `http.listen` is beyond loopback: there it is called `localhost` or by its address";
            return Err(effective.refuse("http.hosts", right));
        }
        Ok(())
    }
}
