//! `[webhook.NAME]`: where events are POSTed to.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use podherald_core::{event::EVENT_TYPES, execution::Status};
use serde::{
    Deserialize,
    de::{IntoDeserializer, value::Error as NotOne},
};
use toml::Value as Toml;

use super::{
    Error, LabelPair, Namespace, Setting, WebhookUrl,
    setting::settings,
    source::Effective,
    value::{MASK, Value, choice, positive},
};

/// The section of all tables.
pub(super) const SECTION: &str = "webhook";
/// What stands for the table's name in the key of a setting.
pub(super) const PLACEHOLDER: &str = "NAME";
/// What is told to who has given no usable name.
pub(super) const HINT: &str =
    "a table of its own such as [webhook.orders], with a name of lower-case letters, digits and single `_`";
/// A name is in URLs, variables and metrics.
const LONGEST_NAME: usize = 40;
/// An API call that delivers must have its answer in time.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Before the key of a secret, as Standard Webhooks has it.
const SECRET_PREFIX: &str = "whsec_";
/// Bytes of a key, as Standard Webhooks has them.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

settings! {
    /// Whether and how events go to one endpoint.
    pub struct Webhook in "webhook.NAME." {
        /// Where each event is POSTed to, `https://HOST/PATH`. Redirects are not followed.
        /// `PODHERALD_WEBHOOK__NAME__URL`, default `"off"`.
        url: Option<WebhookUrl> = "off",
        /// The secret of the signature, `whsec_` and 24 to 64 bytes in base64 (`echo whsec_$(openssl rand -base64 32)`); several with
        /// a space between sign all at once, while the receiver changes from one to the next.
        /// `PODHERALD_WEBHOOK__NAME__SECRET`, default `"off"`.
        secret: Option<WebhookSecrets> = "off",
        /// A file that holds the secret or secrets, instead of `secret`; it is read again for each batch of events.
        /// `PODHERALD_WEBHOOK__NAME__SECRET_FILE`, default `"off"`.
        secret_file: Option<PathBuf> = "off",
        /// A PEM file with the authorities that may vouch for the server, instead of the system's.
        /// `PODHERALD_WEBHOOK__NAME__CA_FILE`, default `"off"`.
        ca_file: Option<PathBuf> = "off",
        /// `structured` sends the CloudEvent as one JSON object, `binary` the event alone with the attributes in headers `ce-*`.
        /// `PODHERALD_WEBHOOK__NAME__MODE`, default `"structured"`.
        mode: WebhookMode = "structured",
        /// Only events of these types; empty for all.
        /// `PODHERALD_WEBHOOK__NAME__EVENTS`, default `[]`.
        events: Vec<EventType> = [],
        /// Only events that bring one of these statuses about; empty for all.
        /// `PODHERALD_WEBHOOK__NAME__STATUSES`, default `[]`.
        statuses: Vec<StatusName> = [],
        /// Only events of pods in these namespaces; empty for all.
        /// `PODHERALD_WEBHOOK__NAME__NAMESPACES`, default `[]`.
        namespaces: Vec<Namespace> = [],
        /// Only events of pods with all of these labels, each `KEY=VALUE`; empty for all.
        /// `PODHERALD_WEBHOOK__NAME__LABELS`, default `[]`.
        labels: Vec<LabelPair> = [],
        /// Longest wait for one answer, the connection included; 20 s at most.
        /// `PODHERALD_WEBHOOK__NAME__TIMEOUT`, default `"10s"`.
        timeout: Duration = "10s",
        /// True to connect to addresses that are not public (loopback, private, link-local, metadata services) as well.
        /// `PODHERALD_WEBHOOK__NAME__ALLOW_PRIVATE`, default `false`.
        allow_private: bool = false,
        /// Pauses before the first, second, ... try again; the last one stays. Each is shortened by up to a fifth at random.
        /// `PODHERALD_WEBHOOK__NAME__RETRY`, default `["1s", "5s", "30s", "2m", "10m", "30m"]`.
        retry: Vec<Duration> = ["1s", "5s", "30s", "2m", "10m", "30m"],
        /// An endpoint that has acknowledged nothing for so long while it should is disabled until somebody enables it; `off` for never.
        /// `PODHERALD_WEBHOOK__NAME__DISABLE_AFTER`, default `"5d"`.
        disable_after: Option<Duration> = "5d",
        /// True to keep in the journal what the endpoint has not had, whatever its age, until the journal is full; false to let
        /// retention take it, which is counted.
        /// `PODHERALD_WEBHOOK__NAME__REQUIRED`, default `false`.
        required: bool = false,
    }
}

impl Webhook {
    fn validate(&self, effective: &Effective) -> Result<(), Error> {
        if self.url.is_none() {
            return Err(effective.refuse("webhook.NAME.url", &WebhookUrl::expects()));
        }
        if self.secret.is_none() && self.secret_file.is_none() {
            let right = format!("{} unless `secret_file` is set: every request is signed", WebhookSecrets::expects());
            return Err(effective.refuse("webhook.NAME.secret", &right));
        }
        if self.secret.is_some() && self.secret_file.is_some() {
            let right = "`off` while `secret` is set: only one of them counts";
            return Err(effective.refuse("webhook.NAME.secret_file", right));
        }
        if self.ca_file.is_some() && self.url.as_ref().is_some_and(|url| !url.is_tls()) {
            return Err(effective.refuse("webhook.NAME.ca_file", "`off` unless `url` begins with `https://`"));
        }
        if self.timeout.is_zero() || self.timeout > LONGEST_TIMEOUT {
            return Err(effective.refuse("webhook.NAME.timeout", "more than nothing and at most `20s`"));
        }
        if self.retry.is_empty() || self.retry.contains(&Duration::ZERO) {
            return Err(effective.refuse("webhook.NAME.retry", "at least one pause, each more than nothing"));
        }
        match self.disable_after {
            Some(after) => positive(effective, "webhook.NAME.disable_after", after),
            None => Ok(()),
        }
    }

    /// How its requests are signed.
    ///
    /// # Panics
    /// If nobody has validated it.
    pub fn signing(&self) -> Signing {
        match (&self.secret, &self.secret_file) {
            (Some(secrets), _) => Signing::Given(secrets.clone()),
            (None, Some(path)) => Signing::File(path.clone()),
            (None, None) => unreachable!("an endpoint without a secret is refused"),
        }
    }
}

/// Where the secrets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signing {
    /// `secret`.
    Given(WebhookSecrets),
    /// `secret_file`.
    File(PathBuf),
}

/// `[webhook.NAME]`, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Webhooks(pub BTreeMap<String, Webhook>);

impl Webhooks {
    /// None: a setting of a table is there as often as the table is.
    pub fn settings() -> Vec<&'static Setting> {
        Vec::new()
    }

    pub(super) fn read(effective: &Effective) -> Result<Self, Error> {
        let tables = effective.webhooks().iter();
        tables.map(|(name, table)| Ok((name.clone(), Webhook::read(table)?))).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn validate(&self, effective: &Effective) -> Result<(), Error> {
        self.0.iter().try_for_each(|(name, webhook)| webhook.validate(&effective.webhooks()[name]))
    }
}

/// True for what a table may be called: it is the same in a key, a variable, a path and a metric.
pub(super) fn is_name(text: &str) -> bool {
    let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= LONGEST_NAME
        && outer(text.chars().next())
        && outer(text.chars().next_back())
        && !text.contains("__")
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The name and the rest of a key `webhook.NAME.REST`.
pub(super) fn split(key: &str) -> Option<(&str, &str)> {
    let (name, field) = key.strip_prefix(SECTION)?.strip_prefix('.')?.split_once('.')?;
    is_name(name).then_some((name, field))
}

choice! {
    /// How a CloudEvent is put into a request.
    pub enum WebhookMode {
        /// As one JSON object.
        Structured = "structured",
        /// The attributes in headers.
        Binary = "binary",
    }
}

/// A type of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType(pub &'static str);

impl Value for EventType {
    fn expects() -> String {
        format!("one of {}", EVENT_TYPES.join(", "))
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        let name = value.as_str()?;
        EVENT_TYPES.into_iter().find(|known| *known == name).map(Self)
    }
}

/// A status that an event brings about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusName(pub Status);

impl Value for StatusName {
    fn expects() -> String {
        "one of queued, scheduled, running, completed, failed, timeout, cancelled".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        let name: serde::de::value::StrDeserializer<'_, NotOne> = value.as_str()?.into_deserializer();
        Status::deserialize(name).ok().filter(|status| *status != Status::Pending).map(Self)
    }
}

/// Keys of signatures, one or several: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecrets(Vec<Vec<u8>>);

impl WebhookSecrets {
    /// Reads secrets with spaces between. None if one of them is none.
    pub fn parse(text: &str) -> Option<Self> {
        let key = |secret: &str| {
            let key = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
            KEY_BYTES.contains(&key.len()).then_some(key)
        };
        let keys: Vec<_> = text.split_ascii_whitespace().map(key).collect::<Option<_>>()?;
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The keys.
    pub fn expose(&self) -> &[Vec<u8>] {
        &self.0
    }
}

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Value for WebhookSecrets {
    fn expects() -> String {
        "`whsec_` and 24 to 64 bytes in base64, or several such with a space between".into()
    }

    fn from_toml(value: &Toml) -> Option<Self> {
        Self::parse(value.as_str()?)
    }

    fn shown(_: &Toml) -> Toml {
        Toml::String(MASK.to_owned())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Config, Flag, Sources, document};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn refused(settings: &[(&str, &str)]) -> String {
        let right = [("webhook.a.url", "https://hooks.example/x"), ("webhook.a.secret", SECRET)];
        Config::of(&[&right[..], settings].concat()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_table_is_read_from_the_file_and_from_the_environment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("[webhook.one]\nurl = \"https://one.example\"\nsecret = \"{SECRET}\"\nlabels = [\"a=b\"]\n");
        std::fs::write(file.path(), text).unwrap();
        let variables = [
            ("PODHERALD_WEBHOOK__ONE__MODE", "binary"),
            ("PODHERALD_WEBHOOK__THE_2ND__URL", "http://two.example:81/x"),
            ("PODHERALD_WEBHOOK__THE_2ND__SECRET_FILE", "secret"),
            ("PODHERALD_WEBHOOK__THE_2ND__EVENTS", "execution_failed,execution_timeout"),
        ];
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let sources = Sources { file: Some(file.path().into()), environment, ..Sources::default() };
        let Webhooks(tables) = Config::load(&sources).unwrap().webhook;
        assert_eq!(tables.keys().collect::<Vec<_>>(), ["one", "the_2nd"]);
        assert_eq!(tables["one"].mode, WebhookMode::Binary);
        assert_eq!(tables["one"].labels[0].pair(), ("a", "b"));
        assert_eq!(tables["the_2nd"].events, [EventType("execution_failed"), EventType("execution_timeout")]);
        assert_eq!(tables["the_2nd"].retry.len(), 6);
    }

    #[test]
    fn every_wrong_setting_of_a_table_is_named_with_what_would_be_right() {
        for (settings, expected) in [
            (
                &[("webhook.a.url", "hooks.example")][..],
                "webhook.a.url is \"***\" (webhook.a.url), but must be `off`, or a URL",
            ),
            (&[("webhook.a.url", "off")], "webhook.a.url is \"off\""),
            (&[("webhook.b.url", "https://b")], "webhook.b.secret is \"off\" (the default), but must be `whsec_`"),
            (&[("webhook.a.secret", "whsec_c2hvcnQ=")], "webhook.a.secret is \"***\""),
            (&[("webhook.a.secret_file", "f")], "`off` while `secret` is set"),
            (&[("webhook.a.ca_file", "f"), ("webhook.a.url", "http://a")], "`off` unless `url` begins with `https://`"),
            (&[("webhook.a.mode", "batched")], "`structured` or `binary`"),
            (&[("webhook.a.events", "execution_ended")], "a list, each element one of pod_scheduled"),
            (&[("webhook.a.statuses", "pending")], "a list, each element one of queued"),
            (&[("webhook.a.namespaces", "Lab")], "the name of a namespace"),
            (&[("webhook.a.labels", "app in (x)")], "a label and its value such as"),
            (&[("webhook.a.timeout", "21s")], "at most `20s`"),
            (&[("webhook.a.retry", "")], "at least one pause"),
            (&[("webhook.a.retry", "1s,0s")], "each more than nothing"),
            (&[("webhook.a.disable_after", "0s")], "more than nothing"),
            (&[("webhook.a.ur", "x")], "there is no setting webhook.a.ur (webhook.a.ur); did you mean webhook.a.url?"),
            (&[("webhook.A.url", "x")], "did you mean a table of its own such as [webhook.orders]"),
            (&[("webhook.url", "x")], "did you mean a table of its own such as [webhook.orders]"),
        ] {
            let said = refused(settings);
            assert!(said.contains(expected), "{settings:?}: {said}");
        }
    }

    #[test]
    fn a_table_in_a_file_needs_a_name_and_an_address() {
        for (text, expected) in [
            ("[webhook]\nurl = \"x\"", "there is no setting webhook.url (p.toml); did you mean a table of its own"),
            ("[[webhook]]\nurl = \"x\"", "there is no setting webhook (p.toml); did you mean a table of its own"),
            ("[webhook.a]", "webhook.a.url is \"off\" (the default), but must be a URL"),
            ("[webhook.a-b]\nurl = \"x\"", "there is no setting webhook.a-b (p.toml); did you mean a table of its own"),
        ] {
            let dir = tempfile::TempDir::new().unwrap();
            let path = dir.path().join("p.toml");
            std::fs::write(&path, text).unwrap();
            let sources = Sources { file: Some(path.clone()), ..Sources::default() };
            let said = Config::load(&sources).unwrap_err().to_string();
            let said = said.replace(&path.display().to_string(), "p.toml");
            assert!(said.starts_with(expected), "{text}: {said}");
        }
    }

    #[test]
    fn neither_a_secret_nor_what_may_be_one_in_a_url_is_shown() {
        for (key, value) in [
            ("webhook.a.url", "https://hooks.example/x?token=s3cret"),
            ("webhook.a.url", "https://hooks.example/s3cret"),
            ("webhook.a.url", "https://user:s3cret@hooks.example"),
            ("webhook.a.url", "s3cret"),
            ("webhook.a.secret", "whsec_s3cret"),
            ("webhook.a.secret", SECRET),
        ] {
            let mut effective = Effective::defaults();
            effective.add_flag(&Flag { name: "--set".into(), key: key.into(), value: value.into() }).unwrap();
            let said = Config::from_effective(&effective).map_or_else(|error| error.to_string(), |c| format!("{c:?}"));
            let text = said + &document(&effective);
            assert!(!text.contains("s3cret") && !text.contains("MfKQ") && text.contains("***"), "{value}: {text}");
        }
    }
}
