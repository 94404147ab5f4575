//! What podherald is told: defaults, overridden by `podherald.toml`, overridden by the environment, overridden by flags.
//!
//! The file is the one that `--config` names, else the one that `PODHERALD_CONFIG` names, else `podherald.toml` in the
//! working directory if there is one. The variable of a setting is `PODHERALD_<SECTION>__<KEY>`, at the top level
//! `PODHERALD_<KEY>`; an empty one counts as unset. Durations are written `500ms`, `5s`, `2m`, `7d`, sizes `16MiB`; lists in variables and flags are
//! separated by commas, label selectors and properties by `;`. A webhook has a table of its own, `[webhook.NAME]`, whose variables are
//! `PODHERALD_WEBHOOK__<NAME>__<KEY>`. What podherald does not know, it refuses.

mod blob;
mod cleaner;
mod document;
mod embedded;
mod error;
mod http;
mod journal;
mod kafka;
mod kube;
mod logs;
mod mongo;
mod monitor;
mod names;
mod redis;
mod setting;
mod source;
mod store;
mod telemetry;
mod value;
mod webhook;
mod webhook_url;

use std::path::PathBuf;

pub use self::redis::{Redis, RedisUrl};
pub use blob::{Blob, BlobUrl, Endpoint, Region};
pub use cleaner::Cleaner;
pub use document::document;
pub use embedded::Embedded;
pub use error::Error;
pub use http::{EndOn, Http, MonitorUrl};
pub use journal::Journal;
pub use kafka::{Brokers, Compression, Kafka, Property, SaslMechanism, Secret, TopicPrefix, Username};
pub use kube::{Kube, Mode};
pub use logs::{Follow, Logs};
pub use mongo::{Database, Mongo, MongoUri};
pub use monitor::Monitor;
pub use names::{ContainerName, Environment, HostName, LabelPair, LabelSelector, LeaseName, LogFilter, Namespace};
pub use setting::Setting;
pub use source::{Effective, Flag, Origin, Sources};
pub use store::Store;
pub use telemetry::{Format, Telemetry};
pub(crate) use value::MASK;
pub use value::Size;
pub use webhook::{EventType, Signing, StatusName, Webhook, WebhookMode, WebhookSecrets, Webhooks};
pub use webhook_url::WebhookUrl;
pub(crate) use webhook_url::percent_decoded;

use crate::health::Role;

setting::settings! {
    /// All settings, each checked by itself and together with the others.
    pub struct Config in "" {
        /// Directory of the journal and the output. One process at a time owns it; another one waits as its standby.
        /// `PODHERALD_DATA_DIR`, default `"./data"`.
        data_dir: PathBuf = "./data",
        /// What this process does: `monitor` watches the cluster, `api` answers requests, `result_processor` stores what executions came to,
        /// `resource_cleaner` deletes their pods then.
        /// `PODHERALD_ROLES`, default `["api", "monitor"]`.
        roles: Vec<Role> = ["api", "monitor"],
    }
    sections {
        /// `[http]`.
        http: Http,
        /// `[kube]`.
        kube: Kube,
        /// `[embedded]`.
        embedded: Embedded,
        /// `[monitor]`.
        monitor: Monitor,
        /// `[logs]`.
        logs: Logs,
        /// `[journal]`.
        journal: Journal,
        /// `[kafka]`.
        kafka: Kafka,
        /// `[blob]`.
        blob: Blob,
        /// `[redis]`.
        redis: Redis,
        /// `[store]`.
        store: Store,
        /// `[mongo]`.
        mongo: Mongo,
        /// `[cleaner]`.
        cleaner: Cleaner,
        /// `[webhook.NAME]`, any number of them.
        webhook: Webhooks,
        /// `[telemetry]`.
        telemetry: Telemetry,
    }
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// The first thing found wrong, with the key or variable, what was found, and what would be right.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        Self::from_effective(&Effective::gather(sources)?)
    }

    /// Reads and checks what the sources say together.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_effective(effective: &Effective) -> Result<Self, Error> {
        let config = Self::read(effective)?;
        config.validate(effective)?;
        Ok(config)
    }

    fn validate(&self, effective: &Effective) -> Result<(), Error> {
        if self.roles.is_empty() {
            return Err(effective
                .refuse("roles", "at least one of `api`, `monitor`, `result_processor` and `resource_cleaner`"));
        }
        self.http.validate(effective, self.hears_of_results(), self.roles.contains(&Role::Monitor))?;
        self.validate_replica(effective)?;
        let is_apart = self.roles.contains(&Role::ResultProcessor) && !self.roles.contains(&Role::Monitor);
        let is_shared = self.stores_in_mongo();
        if is_apart && (self.kafka.brokers.is_none() || self.blob.url.is_none() || !is_shared) {
            return Err(effective.refuse(
                "roles",
                "`result_processor` together with `monitor`, or kafka.brokers, mongo.uri and blob.url as well: what processes share goes by \
                 way of Kafka and stays in MongoDB and the blob store",
            ));
        }
        self.validate_cleaner(effective, is_shared)?;
        self.kube.validate(effective)?;
        self.embedded.validate(effective, self.kube.mode)?;
        self.monitor.validate(effective, self.kafka.brokers.is_some(), self.kube.mode)?;
        self.logs.validate(effective)?;
        self.journal.validate(effective)?;
        self.kafka.validate(effective)?;
        self.blob.validate(effective)?;
        self.redis.validate(effective)?;
        self.mongo.validate(effective)?;
        self.cleaner.validate(effective)?;
        self.webhook.validate(effective)
    }

    /// True if this process stores results, or learns from Kafka that another one has.
    pub fn hears_of_results(&self) -> bool {
        self.roles.contains(&Role::ResultProcessor) || self.is_replica() || self.follows_results()
    }

    /// True if it answers requests and watches nothing: it shows what others tell.
    pub fn is_replica(&self) -> bool {
        self.roles.contains(&Role::Api) && !self.roles.contains(&Role::Monitor)
    }

    /// True if it watches, and others store what comes of that.
    pub fn follows_results(&self) -> bool {
        let is_alone = self.monitor.lease.is_none();
        let is_apart = self.roles.contains(&Role::Monitor) && !self.roles.contains(&Role::ResultProcessor);
        is_apart && is_alone && self.kafka.brokers.is_some() && self.stores_in_mongo()
    }

    /// True if what is kept for good is in a MongoDB, where other clusters may keep theirs.
    pub fn stores_in_mongo(&self) -> bool {
        self.mongo.uri.is_some() || self.mongo.uri_file.is_some()
    }

    fn validate_replica(&self, effective: &Effective) -> Result<(), Error> {
        if self.is_replica() && (self.kafka.brokers.is_none() || !self.stores_in_mongo()) {
            return Err(effective.refuse(
                "roles",
                "`api` together with `monitor`, or kafka.brokers and mongo.uri as well: what this process shows comes by way of Kafka, and \
                 what was before is in MongoDB",
            ));
        }
        Ok(())
    }

    /// Whoever deletes must know what is stored, and of which cluster.
    fn validate_cleaner(&self, effective: &Effective, is_shared: bool) -> Result<(), Error> {
        let has = |role| self.roles.contains(&role);
        if !has(Role::ResourceCleaner) {
            return Ok(());
        }
        let is_apart = !has(Role::Monitor) || !has(Role::ResultProcessor);
        if is_apart && (self.kafka.brokers.is_none() || !is_shared) {
            return Err(effective.refuse(
                "roles",
                "`resource_cleaner` together with `monitor` and `result_processor`, or kafka.brokers and mongo.uri as well: it \
                 has to learn what is stored",
            ));
        }
        if !has(Role::Monitor) && self.kube.mode == Mode::Embedded {
            let wanted = "`resource_cleaner` together with `monitor` where `kube.mode` is `embedded`: that cluster is in this \
                          process only";
            return Err(effective.refuse("roles", wanted));
        }
        Ok(())
    }
}

impl Config {
    /// The defaults with these keys set, in the notation of variables: for a podherald inside another program. Neither a
    /// file nor the environment is read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of(settings: &[(&str, &str)]) -> Result<Self, Error> {
        let mut effective = Effective::defaults();
        for (key, value) in settings {
            effective.add_flag(&Flag { name: (*key).into(), key: (*key).into(), value: (*value).into() })?;
        }
        Self::from_effective(&effective)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::from_effective(&Effective::defaults()).expect("the defaults are right; every_default_is_right reads them")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;

    #[test]
    fn every_default_is_right() {
        let config = Config::default();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.roles, [Role::Api, Role::Monitor]);
        assert_eq!(
            config.kube.label_selectors.iter().map(LabelSelector::as_str).collect::<Vec<_>>(),
            ["execution-id", "eval-id"]
        );
        assert_eq!(config.monitor.unschedulable_deadline, None);
        assert_eq!(config.logs.max_bytes, Size::new(16 << 20));
        assert_eq!(config.journal.retention, Duration::from_hours(7 * 24));
    }

    #[test]
    fn every_setting_documents_its_variable_and_default() {
        let mut keys = BTreeSet::new();
        for setting in Config::settings().into_iter().chain(Webhook::settings()) {
            assert!(keys.insert(setting.key), "{} is declared once", setting.key);
            let last = setting.doc.last().unwrap().trim();
            let default: toml::Value = setting.default.parse().unwrap();
            assert_eq!(last, format!("`{}`, default `{default}`.", setting.variable()), "{}", setting.key);
            assert!(setting.doc.len() > 1, "{} says what it is for", setting.key);
        }
        assert_eq!(keys.len(), 101);
    }

    #[test]
    fn every_setting_can_be_set_by_key_to_its_own_default() {
        for setting in Config::settings() {
            let default: toml::Value = setting.default.parse().unwrap();
            let separator = if matches!(setting.key, "kube.label_selectors" | "kafka.properties") { ";" } else { "," };
            let plain = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text = match &default {
                toml::Value::Array(elements) => elements.iter().map(plain).collect::<Vec<_>>().join(separator),
                other => plain(other),
            };
            assert_eq!(Config::of(&[(setting.key, &text)]).unwrap(), Config::default(), "{}", setting.key);
        }
    }

    #[test]
    fn every_setting_refuses_a_wrong_type_by_name() {
        for setting in Config::settings() {
            let text = format!("{} = 2026-02-10", setting.key);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let sources = Sources { file: Some(file.path().into()), ..Sources::default() };
            let error = Config::load(&sources).unwrap_err().to_string();
            let expected = format!("{} is 2026-02-10 ({}), but must be ", setting.key, file.path().display());
            assert!(error.starts_with(&expected), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_would_be_right() {
        let seventeen = (1..=17).map(|n| format!("team-{n}")).collect::<Vec<_>>().join(",");
        for (settings, expected) in [
            (vec![("http.listen", "0.0.0.0:80")], "`http.allow_unauthenticated = true` as well"),
            (vec![("http.hosts", "a.example")], "`[]` unless `http.listen` is beyond loopback"),
            (vec![("http.hosts", "https://a.example")], "a name in lower-case letters and without a port"),
            (vec![("http.end_on", "result")], "without the role result_processor"),
            (vec![("http.monitor_url", "http://m:1")], "`off` with the role monitor"),
            (vec![("http.monitor_url", "http://u@m:1")], "the URL of another podherald"),
            (vec![("http.monitor_url", "m:1")], "the URL of another podherald"),
            (vec![("http.monitor_url", "ftp://m")], "the URL of another podherald"),
            (vec![("http.monitor_url", "http://m/?a=b")], "the URL of another podherald"),
            (vec![("roles", "api")], "`api` together with `monitor`, or kafka.brokers and mongo.uri"),
            (vec![("roles", "api"), ("kafka.brokers", "k:9092")], "`api` together with `monitor`, or"),
            (vec![("http.heartbeat", "0s")], "more than nothing"),
            (vec![("http.max_connections", "0")], "more than nothing"),
            (vec![("http.max_connections", "10000")], "more than `http.max_streams`, 10000"),
            (vec![("kube.mode", "local")], "`cluster` or `embedded`"),
            (vec![("embedded.listen", "0.0.0.0:0")], "a loopback address"),
            (vec![("embedded.listen", "on")], "`off`, or an IP address"),
            (vec![("embedded.demo", "true"), ("kube.mode", "cluster")], "the demo runs on the embedded cluster only"),
            (vec![("embedded.max_pods", "0")], "more than nothing"),
            (vec![("kube.label_selectors", "")], "at least one label selector"),
            (vec![("kube.label_selectors", "a;b=c d")], "a label selector such as"),
            (vec![("kube.namespaces", "Default")], "the name of a namespace"),
            (vec![("kube.watch_timeout", "5m")], "from `1s` to `290s`"),
            (vec![("kube.namespaces", seventeen.as_str())], "fewer namespaces, or none for all: at most 64 watches"),
            (vec![("roles", "")], "at least one of"),
            (vec![("roles", "result_processor")], "together with `monitor`, or kafka.brokers, mongo.uri and blob.url"),
            (
                vec![("roles", "api,result_processor"), ("kafka.brokers", "k:9092"), ("mongo.uri", "mongodb://m")],
                "together with `monitor`, or kafka.brokers, mongo.uri and blob.url",
            ),
            (vec![("roles", "monitor,resource_cleaner")], "together with `monitor` and `result_processor`, or"),
            (
                vec![("roles", "resource_cleaner"), ("kafka.brokers", "k:9092")],
                "or kafka.brokers and mongo.uri as well",
            ),
            (
                vec![("roles", "resource_cleaner"), ("kafka.brokers", "k:9092"), ("mongo.uri", "mongodb://m")],
                "together with `monitor` where `kube.mode` is `embedded`",
            ),
            (vec![("cleaner.selector", "app=a b")], "a label selector such as"),
            (vec![("cleaner.selector", "")], "a label selector such as"),
            (vec![("cleaner.min_age", "5")], "a duration such as"),
            (vec![("cleaner.keep_failed", "off")], "a duration such as"),
            (vec![("cleaner.orphan_age", "off")], "a duration such as"),
            (vec![("cleaner.unstored_age", "59m")], "`off`, or at least `1h`"),
            (vec![("cleaner.interval", "0s")], "more than nothing"),
            (vec![("cleaner.dry_run", "maybe")], "`true` or `false`"),
            (vec![("roles", "api,coordinator")], "the roles that this version has"),
            (vec![("monitor.exit_grace", "10")], "a duration such as"),
            (vec![("monitor.must_hear_grace", "0s")], "more than nothing"),
            (vec![("monitor.must_hear_by", "0s")], "more than nothing"),
            (vec![("monitor.lease", "podherald")], "a Lease as `NAMESPACE/NAME`"),
            (vec![("monitor.lease", "a/b/c")], "a Lease as `NAMESPACE/NAME`"),
            (vec![("monitor.lease", "a/b"), ("kube.mode", "cluster")], "`off` without kafka.brokers"),
            (vec![("monitor.lease", "a/b"), ("kafka.brokers", "k:9092")], "`off` with kube.mode = embedded"),
            (vec![("monitor.lease_duration", "2s")], "whole seconds from 3s to 1h"),
            (vec![("monitor.lease_duration", "3500ms")], "whole seconds from 3s to 1h"),
            (vec![("journal.max_bytes", "4GB")], "a size such as"),
            (vec![("journal.max_bytes", "4KiB")], "at least `256KiB`"),
            (vec![("kafka.brokers", "localhost")], "brokers such as `kafka.example:9092`"),
            (vec![("kafka.topic_prefix", "a/b")], "letters, digits"),
            (vec![("kafka.replication_factor", "40000")], "from 1 to 32767"),
            (vec![("kafka.timeout", "0s")], "more than nothing"),
            (vec![("kafka.max_message_bytes", "512B")], "from `1KiB` to `512MiB`"),
            (vec![("kafka.compression", "zstd")], "`lz4` or `gzip`"),
            (vec![("kafka.ca_file", "f")], "unless `kafka.tls` is true"),
            (vec![("kafka.sasl_mechanism", "GSSAPI")], "`PLAIN` or `SCRAM-SHA-256`"),
            (vec![("kafka.sasl_mechanism", "PLAIN"), ("kafka.username", "u")], "unless `kafka.username` and"),
            (vec![("kafka.username", "u")], "unless `kafka.sasl_mechanism` is set"),
            (vec![("kafka.password", "p")], "unless `kafka.sasl_mechanism` is set"),
            (vec![("kafka.password_file", "f"), ("kafka.password", "p")], "`off` while `kafka.password` is set"),
            (vec![("kafka.properties", "linger.ms")], "such as `linger.ms=5`"),
            (vec![("kafka.properties", "linger.m=5")], "No such configuration property: \"linger.m\""),
            (vec![("kafka.properties", "linger.ms=soon")], "Invalid value for configuration property"),
            (vec![("kafka.properties", "linger.ms=5;acks=1")], "without `acks`: podherald sets it"),
            (vec![("kafka.properties", "sasl.password=x")], "that is what `kafka.password` is for"),
            (vec![("blob.url", "gs://results")], "`file:///DIRECTORY` or `s3://BUCKET/PREFIX`"),
            (vec![("blob.endpoint", "https://minio.example")], "`off` unless `blob.url` begins with `s3://`"),
            (
                vec![("blob.region", "eu-central-1"), ("blob.url", "file:///shared")],
                "`off` unless `blob.url` begins with",
            ),
            (vec![("blob.endpoint", "https://a/b"), ("blob.url", "s3://results")], "a URL of a server such as"),
            (vec![("blob.region", "Mars!"), ("blob.url", "s3://results")], "the name of a region such as"),
            (vec![("blob.credentials_file", "f"), ("blob.url", "file:///shared")], "`off` unless"),
            (
                vec![("blob.ca_file", "f"), ("blob.url", "s3://results"), ("blob.endpoint", "http://a")],
                "`off` unless `blob.endpoint` begins with `https://`",
            ),
            (vec![("blob.timeout", "0s")], "more than nothing"),
            (vec![("blob.deadline", "0s")], "more than nothing"),
            (vec![("redis.url", "http://localhost")], "a URL such as `redis://localhost:6379`"),
            (vec![("redis.url_file", "u"), ("redis.url", "redis://localhost")], "`off` while `redis.url` is set"),
            (vec![("redis.required", "true")], "unless `redis.url` or `redis.url_file` is set"),
            (
                vec![("redis.ca_file", "f"), ("redis.url", "redis://localhost")],
                "`off` unless `redis.url` begins with `rediss",
            ),
            (vec![("redis.timeout", "0s")], "more than nothing"),
            (vec![("redis.stream_max_events", "0")], "more than nothing"),
            (vec![("redis.stream_max_events", "-1")], "a whole number"),
            (vec![("redis.stream_max_events", "many")], "a whole number"),
            (vec![("redis.stream_retention", "0s")], "more than nothing"),
            (vec![("telemetry.log", "podherald=loud")], "a level"),
        ] {
            let error = Config::of(&settings).unwrap_err().to_string();
            assert!(error.starts_with(settings[0].0) && error.contains(expected), "{settings:?}: {error}");
        }
    }

    #[test]
    fn what_looks_bold_but_works_is_allowed() {
        for settings in [
            vec![
                ("http.listen", "0.0.0.0:80"),
                ("http.allow_unauthenticated", "true"),
                ("http.hosts", "podherald,a.example"),
            ],
            vec![("http.listen", "[::1]:0")],
            vec![("monitor.exit_grace", "0s")],
            vec![("roles", "monitor")],
            vec![
                ("roles", "api"),
                ("kafka.brokers", "k:9092"),
                ("mongo.uri", "mongodb://m"),
                ("http.monitor_url", "http://[::1]:8080/podherald"),
                ("http.end_on", "result"),
            ],
            vec![("embedded.listen", "off"), ("embedded.demo", "true")],
        ] {
            Config::of(&settings).unwrap();
        }
    }

    #[test]
    fn a_secret_is_printed_neither_as_it_is_nor_where_it_is_wrong() {
        let password = [("kafka.password", "s3cret"), ("kafka.properties", "ssl.key.password=s3cret")];
        let urls = ["redis://app:s3cret@host/1", "http://app:s3cret@host", "redis://app:s3cret", "s3cret@host"];
        for (key, url) in password.into_iter().chain(urls.map(|url| ("redis.url", url))) {
            let mut effective = Effective::defaults();
            effective.add_flag(&Flag { name: "--set".into(), key: key.into(), value: url.into() }).unwrap();
            let refused =
                Config::from_effective(&effective).map_or_else(|error| error.to_string(), |c| format!("{c:?}"));
            let printed = document(&effective);
            for text in [refused, printed] {
                assert!(!text.contains("s3cret") && text.contains("***"), "{url}: {text}");
            }
        }
    }

    #[test]
    fn the_printed_configuration_means_the_same_when_read_again() {
        let mut effective = Effective::defaults();
        for (key, value) in [
            ("http.listen", "[::1]:9090"),
            ("kube.label_selectors", "app in (a,b);eval-id"),
            ("kube.namespaces", "one,two"),
            ("telemetry.environment", "a \"quoted\" \\ name"),
            ("monitor.unschedulable_deadline", "1h30m"),
        ] {
            effective.add_flag(&Flag { name: "--set\n#".into(), key: key.into(), value: value.into() }).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document(&effective)).unwrap();
        let again = Config::load(&Sources { file: Some(file.path().into()), ..Sources::default() }).unwrap();
        assert_eq!(again, Config::from_effective(&effective).unwrap());
        assert_ne!(again, Config::default());
    }
}
