//! `[kafka]`: where events are published, and by which client.

use std::{fmt, path::PathBuf, time::Duration};

use rdkafka::{ClientConfig, error::KafkaError};
use toml::Value as Toml;

use super::{
    Error,
    setting::settings,
    source::Effective,
    value::{MASK, Size, Value, choice, positive},
};

/// A message cannot be less: its key and headers alone take about half a kilobyte.
const LEAST_MESSAGE: u64 = 1 << 10;
/// What librdkafka can be told.
const LARGEST_MESSAGE: u64 = 1 << 29;

settings! {
    /// Whether and how events go to a Kafka.
    pub struct Kafka in "kafka." {
        /// The brokers to begin with, `HOST:PORT`, several separated by commas; `off` for no Kafka.
        /// `PODHERALD_KAFKA__BROKERS`, default `"off"`.
        brokers: Option<Brokers> = "off",
        /// True to keep in the journal what Kafka has not had, whatever its age, until the journal is full; false to let
        /// retention take it, which is counted.
        /// `PODHERALD_KAFKA__REQUIRED`, default `true`.
        required: bool = true,
        /// Put before the name of every topic.
        /// `PODHERALD_KAFKA__TOPIC_PREFIX`, default `""`.
        topic_prefix: TopicPrefix = "",
        /// Whether topics that are missing are created.
        /// `PODHERALD_KAFKA__CREATE_TOPICS`, default `true`.
        create_topics: bool = true,
        /// Replicas of a topic that is created; `off` for the brokers' default.
        /// `PODHERALD_KAFKA__REPLICATION_FACTOR`, default `"off"`.
        replication_factor: Option<u32> = "off",
        /// Longest wait for the acknowledgement of a batch of events, and for any other answer.
        /// `PODHERALD_KAFKA__TIMEOUT`, default `"10s"`.
        timeout: Duration = "10s",
        /// A message at most, as it is sent, with key and headers, before compression. The brokers must take as much.
        /// `PODHERALD_KAFKA__MAX_MESSAGE_BYTES`, default `"1000KiB"`.
        max_message_bytes: Size = "1000KiB",
        /// How batches are compressed: `lz4`, `gzip`, `snappy` or `none`.
        /// `PODHERALD_KAFKA__COMPRESSION`, default `"lz4"`.
        compression: Compression = "lz4",
        /// Whether connections use TLS.
        /// `PODHERALD_KAFKA__TLS`, default `false`.
        tls: bool = false,
        /// A PEM file with the authorities that may vouch for the brokers, instead of the system's.
        /// `PODHERALD_KAFKA__CA_FILE`, default `"off"`.
        ca_file: Option<PathBuf> = "off",
        /// How podherald says who it is: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; `off` if it need not.
        /// `PODHERALD_KAFKA__SASL_MECHANISM`, default `"off"`.
        sasl_mechanism: Option<SaslMechanism> = "off",
        /// Who it is.
        /// `PODHERALD_KAFKA__USERNAME`, default `"off"`.
        username: Option<Username> = "off",
        /// The password of `username`.
        /// `PODHERALD_KAFKA__PASSWORD`, default `"off"`.
        password: Option<Secret> = "off",
        /// A file that holds the password, instead of `password`; it is read again for each client.
        /// `PODHERALD_KAFKA__PASSWORD_FILE`, default `"off"`.
        password_file: Option<PathBuf> = "off",
        /// Further properties of librdkafka, each `NAME=VALUE`; in the variable they are separated by `;`.
        /// `PODHERALD_KAFKA__PROPERTIES`, default `[]`.
        properties: Vec<Property> = [],
    }
}

impl Kafka {
    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        if self.ca_file.is_some() && !self.tls {
            return Err(effective.refuse("kafka.ca_file", "`off` unless `kafka.tls` is true"));
        }
        if self.password.is_some() && self.password_file.is_some() {
            let right = "`off` while `kafka.password` is set: only one of them counts";
            return Err(effective.refuse("kafka.password_file", right));
        }
        let has_password = self.password.is_some() || self.password_file.is_some();
        if self.sasl_mechanism.is_some() && !(self.username.is_some() && has_password) {
            let right = "`off` unless `kafka.username` and `kafka.password` or `kafka.password_file` are set";
            return Err(effective.refuse("kafka.sasl_mechanism", right));
        }
        if self.username.is_some() && self.sasl_mechanism.is_none() {
            return Err(effective.refuse("kafka.username", "`off` unless `kafka.sasl_mechanism` is set"));
        }
        if has_password && self.sasl_mechanism.is_none() {
            let key = if self.password.is_some() { "kafka.password" } else { "kafka.password_file" };
            return Err(effective.refuse(key, "`off` unless `kafka.sasl_mechanism` is set"));
        }
        if !(LEAST_MESSAGE..=LARGEST_MESSAGE).contains(&self.max_message_bytes.bytes()) {
            return Err(effective.refuse("kafka.max_message_bytes", "from `1KiB` to `512MiB`"));
        }
        if self.replication_factor.is_some_and(|factor| !(1..=i16::MAX.unsigned_abs().into()).contains(&factor)) {
            return Err(effective.refuse("kafka.replication_factor", "from 1 to 32767, or `off`"));
        }
        for property in &self.properties {
            property.check().map_err(|right| effective.refuse("kafka.properties", &right))?;
        }
        positive(effective, "kafka.timeout", self.timeout)
    }
}

choice! {
    /// How batches are compressed.
    pub enum Compression {
        /// LZ4.
        Lz4 = "lz4",
        /// gzip.
        Gzip = "gzip",
        /// Snappy.
        Snappy = "snappy",
        /// Not at all.
        None = "none",
    }
}

choice! {
    /// How a client says who it is.
    pub enum SaslMechanism {
        /// The password as it is.
        Plain = "PLAIN",
        /// Proof of the password, with SHA-256.
        ScramSha256 = "SCRAM-SHA-256",
        /// Proof of the password, with SHA-512.
        ScramSha512 = "SCRAM-SHA-512",
    }
}

impl Compression {
    /// As librdkafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::None => "none",
        }
    }
}

impl SaslMechanism {
    /// As librdkafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Where the brokers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brokers(String);

impl Brokers {
    /// Reads `HOST:PORT`, several separated by commas.
    pub fn parse(text: &str) -> Option<Self> {
        let is_broker = |broker: &str| {
            broker.trim().rsplit_once(':').is_some_and(|(host, port)| {
                let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']);
                is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        text.split(',').all(is_broker).then(|| Self(text.replace(' ', "")))
    }

    /// Separated by commas.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for Brokers {
    fn expects() -> String {
        "brokers such as `kafka.example:9092` or `one:9092,two:9092`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }
}

/// What the names of topics begin with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicPrefix(String);

impl TopicPrefix {
    /// Reads what a topic's name may begin with.
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        (text.len() <= 200 && text.chars().all(is_allowed)).then(|| Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for TopicPrefix {
    fn expects() -> String {
        "at most 200 letters, digits, `.`, `_` and `-`, such as `lab.`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }
}

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Username(pub String);

impl Value for Username {
    fn expects() -> String {
        "a name".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        value.as_str().filter(|text| !text.is_empty() && !text.contains('\0')).map(|text| Self(text.to_owned()))
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes any text but the mask, which somebody copied from where the secret was shown.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text != MASK && !text.contains('\0')).then(|| Self(text.to_owned()))
    }

    /// As it is.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Value for Secret {
    fn expects() -> String {
        "a password".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::new(value.as_str()?)
    }

    fn shown(value: &Toml) -> Toml {
        if value.is_str() { Toml::String(MASK.to_owned()) } else { value.clone() }
    }
}

/// A property of librdkafka.
#[derive(Clone, PartialEq, Eq)]
pub struct Property {
    /// As librdkafka calls it.
    pub name: String,
    /// What it is set to.
    pub value: String,
}

/// What has a setting of its own.
const OWN: [(&str, &str); 12] = [
    ("bootstrap.servers", "kafka.brokers"),
    ("metadata.broker.list", "kafka.brokers"),
    ("security.protocol", "kafka.tls"),
    ("ssl.ca.location", "kafka.ca_file"),
    ("sasl.mechanism", "kafka.sasl_mechanism"),
    ("sasl.mechanisms", "kafka.sasl_mechanism"),
    ("sasl.username", "kafka.username"),
    ("sasl.password", "kafka.password"),
    ("message.max.bytes", "kafka.max_message_bytes"),
    ("compression.type", "kafka.compression"),
    ("compression.codec", "kafka.compression"),
    ("delivery.timeout.ms", "kafka.timeout"),
];

/// What would let events be lost, or come out of order.
const PROMISED: [&str; 13] = [
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "enable.gapless.guarantee",
    "message.timeout.ms",
    "retries",
    "message.send.max.retries",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "transactional.id",
    "queuing.strategy",
    "delivery.report.only.error",
    "allow.auto.create.topics",
];

impl Property {
    /// Reads `NAME=VALUE`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let is_text = !name.is_empty() && !text.contains('\0') && value != MASK;
        is_text.then(|| Self { name: name.to_owned(), value: value.to_owned() })
    }

    /// What would be right, if this is not.
    fn check(&self) -> Result<(), String> {
        let name = &*self.name;
        if let Some((_, setting)) = OWN.iter().find(|(own, _)| *own == name) {
            return Err(format!("without `{name}`: that is what `{setting}` is for"));
        }
        if PROMISED.contains(&name) || name.starts_with("test.") {
            return Err(format!("without `{name}`: podherald sets it, so that no event is lost or out of order"));
        }
        if name == "group.instance.id" {
            return Err(format!(
                "without `{name}`: replicas that share it shut each other out of their groups for good"
            ));
        }
        match ClientConfig::new().set(name, &*self.value).create_native_config() {
            Err(KafkaError::ClientConfig(_, said, ..)) => Err(format!("properties that librdkafka knows: {said}")),
            Err(error) => Err(format!("properties that librdkafka knows: {error}")),
            Ok(_) => Ok(()),
        }
    }

    fn is_secret(name: &str) -> bool {
        ["password", "secret", "token", "passphrase", "key.pem", "oauthbearer.config"]
            .iter()
            .any(|part| name.contains(part))
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if Self::is_secret(&self.name) { MASK } else { &self.value };
        write!(f, "{}={value}", self.name)
    }
}

impl Value for Property {
    const SEPARATOR: char = ';';

    fn expects() -> String {
        "a property of librdkafka such as `linger.ms=5`".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }

    fn shown(value: &Toml) -> Toml {
        match value.as_str().and_then(Self::parse) {
            Some(property) => Toml::String(format!("{property:?}")),
            None if value.is_str() => Toml::String(MASK.to_owned()),
            None => value.clone(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_ports() {
        for good in ["localhost:9092", "10.0.0.7:9092,[::1]:9093", "one:1, two:65535"] {
            assert!(Brokers::parse(good).is_some(), "{good}");
        }
        for bad in ["", "localhost", ":9092", "one:0", "one:99999", "one:9092,", "kafka://one:9092", "u:p@one:9092"] {
            assert_eq!(Brokers::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_property_is_never_shown() {
        for (text, shown) in [
            ("linger.ms=5", "linger.ms=5"),
            ("ssl.key.password = s3cret", "ssl.key.password=***"),
            ("sasl.oauthbearer.client.secret=s3cret", "sasl.oauthbearer.client.secret=***"),
            ("s3cret", "***"),
        ] {
            assert_eq!(Property::shown(&Toml::String(text.to_owned())).as_str(), Some(shown));
        }
    }

    #[test]
    fn properties_that_would_break_a_promise_are_refused_with_why() {
        for (text, why) in [
            ("acks=1", "no event is lost"),
            ("test.mock.num.brokers=1", "no event is lost"),
            ("bootstrap.servers=one:1", "`kafka.brokers` is for"),
            ("group.instance.id=a", "shut each other out"),
            ("lingering=5", "librdkafka knows"),
        ] {
            let right = Property::parse(text).unwrap().check().unwrap_err();
            assert!(right.contains(why), "{text}: {right}");
        }
        Property::parse("linger.ms=5").unwrap().check().unwrap();
    }
}
