//! `[redis]`: where events are published besides.

use std::{fmt, path::PathBuf, time::Duration};

use ::redis::IntoConnectionInfo;
use toml::Value as Toml;

use super::{
    Error,
    setting::settings,
    source::Effective,
    value::{MASK, Value, positive, shown_url},
};

settings! {
    /// Whether and how events go to a Redis.
    pub struct Redis in "redis." {
        /// The server that events go to, `redis://USER:PASSWORD@HOST:PORT/DATABASE`, or `rediss://` for TLS; `off` for none.
        /// `PODHERALD_REDIS__URL`, default `"off"`.
        url: Option<RedisUrl> = "off",
        /// A file that holds the URL, instead of `url`; it is read again for each connection.
        /// `PODHERALD_REDIS__URL_FILE`, default `"off"`.
        url_file: Option<PathBuf> = "off",
        /// A PEM file with the authorities that may vouch for the server, instead of the system's.
        /// `PODHERALD_REDIS__CA_FILE`, default `"off"`.
        ca_file: Option<PathBuf> = "off",
        /// True to keep in the journal what Redis has not had, whatever its age, until the journal is full; false to let
        /// retention take it, which is counted.
        /// `PODHERALD_REDIS__REQUIRED`, default `false`.
        required: bool = false,
        /// Longest wait for a connection, and for the answer to a batch of events.
        /// `PODHERALD_REDIS__TIMEOUT`, default `"5s"`.
        timeout: Duration = "5s",
        /// Events that the stream of an execution keeps, about; older ones go.
        /// `PODHERALD_REDIS__STREAM_MAX_EVENTS`, default `1000`.
        stream_max_events: u32 = 1000,
        /// How long the stream of an execution is kept after its last event.
        /// `PODHERALD_REDIS__STREAM_RETENTION`, default `"1d"`.
        stream_retention: Duration = "1d",
    }
}

impl Redis {
    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        if self.url.is_some() && self.url_file.is_some() {
            return Err(effective.refuse("redis.url_file", "`off` while `redis.url` is set: only one of them counts"));
        }
        if self.required && self.url.is_none() && self.url_file.is_none() {
            return Err(effective.refuse("redis.required", "`false` unless `redis.url` or `redis.url_file` is set"));
        }
        if self.ca_file.is_some() && self.url.as_ref().is_some_and(|url| !url.is_tls()) {
            return Err(effective.refuse("redis.ca_file", "`off` unless `redis.url` begins with `rediss://`"));
        }
        positive(effective, "redis.timeout", self.timeout)?;
        positive(effective, "redis.stream_max_events", self.stream_max_events)?;
        positive(effective, "redis.stream_retention", self.stream_retention)
    }
}

/// Where a Redis is, and the password for it: shown without that.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// Reads `redis://` or `rediss://`, a host, and what else may follow. None if it is no such URL.
    pub fn parse(text: &str) -> Option<Self> {
        let url = ::redis::parse_redis_url(text)?;
        let is_network = matches!(url.scheme(), "redis" | "rediss");
        let is_plain =
            url.fragment().is_none() && url.query().is_none() && url.host_str().is_some_and(|host| !host.is_empty());
        // The mask is what somebody copied from where the URL was shown.
        let is_usable = url.password() != Some(MASK) && text.into_connection_info().is_ok();
        (is_network && is_plain && is_usable).then(|| Self(text.to_owned()))
    }

    /// True for `rediss://`.
    fn is_tls(&self) -> bool {
        self.0.starts_with("rediss:")
    }

    /// With the password.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The password alone, in the forms in which a server may repeat it.
    pub fn secrets(&self) -> Vec<String> {
        let written = ::redis::parse_redis_url(&self.0).and_then(|url| url.password().map(str::to_owned));
        let meant = self.0.as_str().into_connection_info();
        let meant = meant.ok().and_then(|info| info.redis_settings().password().map(str::to_owned));
        [written, meant].into_iter().flatten().filter(|secret| !secret.is_empty()).collect()
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(mut url) = ::redis::parse_redis_url(&self.0) else { return f.write_str(MASK) };
        if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
            return f.write_str(MASK);
        }
        fmt::Display::fmt(&url, f)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for RedisUrl {
    fn expects() -> String {
        "a URL such as `redis://localhost:6379` or `rediss://USER:PASSWORD@redis.example:6379/0`, where special characters \
         of user and password are percent-encoded"
            .into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }

    fn shown(value: &Toml) -> Toml {
        shown_url::<Self>(value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_redis_on_the_network() {
        for good in [
            "redis://localhost",
            "redis://127.0.0.1:6379/3",
            "rediss://app:s%40crt@redis.example:6380/0",
            "redis://:pw@[::1]:1/",
        ] {
            assert!(RedisUrl::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "localhost:6379",
            "http://localhost",
            "redis://",
            "redis://:pw@",
            "redis://localhost/zero",
            "redis://localhost:port",
            "redis://0.0.0.0",
            "unix:///run/redis.sock",
            "valkey://localhost",
            "rediss://localhost#insecure",
            "redis://localhost?protocol=resp3",
            "redis://app:***@localhost",
        ] {
            assert_eq!(RedisUrl::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let shown = |text: &str| RedisUrl::shown(&Toml::String(text.to_owned())).as_str().unwrap().to_owned();
        for (text, expected) in [
            ("redis://app:s%40crt@host:1/2", "redis://app:***@host:1/2"),
            ("redis://:s%40crt@host", "redis://:***@host"),
            ("redis://host:1", "redis://host:1"),
            ("http://app:s%40crt@host", "http://***"),
            ("redis://app:s%40crt", "redis://***"),
            ("app:s%40crt@host", "***"),
            ("redis:app:s%40crt@host", "***"),
        ] {
            assert_eq!(shown(text), expected);
        }
        let url = RedisUrl::parse("redis://app:s%40crt@host").unwrap();
        assert_eq!(format!("{url} {url:?}"), "redis://app:***@host redis://app:***@host");
        assert_eq!(url.secrets(), ["s%40crt", "s@crt"]);
    }
}
