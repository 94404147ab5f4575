//! What the client is made of.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use rdkafka::{ClientConfig, error::KafkaError};

use crate::{
    config::{Brokers, Compression, Property, SaslMechanism, Secret},
    named_file::{Unreadable, read},
};

/// Beside the ceiling, so that the client never finds a message too large that is not above it.
const MARGIN_BYTES: u64 = 1024;
/// A batch at most, where the ceiling is not lower: the brokers' own limit is for batches.
const BATCH_BYTES: u64 = 1_000_000;

/// What the sink goes by; `config::Kafka` says what each means.
#[derive(Debug, Clone)]
pub struct Options {
    /// `kafka.brokers`.
    pub brokers: Brokers,
    /// `kafka.topic_prefix`.
    pub topic_prefix: String,
    /// `kafka.create_topics`.
    pub create_topics: bool,
    /// `kafka.replication_factor`.
    pub replication_factor: Option<u32>,
    /// `kafka.timeout`.
    pub timeout: Duration,
    /// `kafka.max_message_bytes`.
    pub max_message_bytes: u64,
    /// `kafka.compression`.
    pub compression: Compression,
    /// `kafka.tls`.
    pub tls: bool,
    /// `kafka.ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `kafka.sasl_mechanism`, with who it is.
    pub sasl: Option<Sasl>,
    /// `kafka.properties`.
    pub properties: Vec<Property>,
    /// With other podheralds before the same cluster: one at a time may publish.
    pub fence: Option<Fence>,
}

/// Tells the uid of the Lease as long as it is held. All who publish for one Lease share a transactional id: whoever opens a client
/// under it shuts the others' out.
#[derive(Clone)]
pub struct Fence(Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl Fence {
    /// One that asks this.
    pub fn new(lease: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lease))
    }

    pub(super) fn lease(&self) -> Option<String> {
        (self.0)()
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fence").field(&self.lease()).finish()
    }
}

/// Who podherald says it is.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// `kafka.sasl_mechanism`.
    pub mechanism: SaslMechanism,
    /// `kafka.username`.
    pub username: String,
    /// `kafka.password` or `kafka.password_file`.
    pub password: Password,
}

/// Where the password is.
#[derive(Debug, Clone)]
pub enum Password {
    /// `kafka.password`.
    Given(Secret),
    /// `kafka.password_file`.
    File(PathBuf),
}

/// A file that a setting names is not what it must be, or the settings do not go together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It holds no password.
    #[error("kafka.password_file {} does not hold a password", path.display())]
    NoPassword {
        /// The file.
        path: PathBuf,
    },
    /// No client can be made.
    #[error("kafka.ca_file, kafka.tls and kafka.properties make no client: {0}")]
    Client(String),
}

impl Options {
    /// Those of some brokers, with the defaults of the rest.
    pub fn new(brokers: Brokers) -> Self {
        Self {
            brokers,
            topic_prefix: String::new(),
            create_topics: true,
            replication_factor: None,
            timeout: Duration::from_secs(10),
            max_message_bytes: 1000 << 10,
            compression: Compression::Lz4,
            tls: false,
            ca_file: None,
            sasl: None,
            properties: Vec::new(),
            fence: None,
        }
    }

    /// The client's properties, with what is in files now, and the password among them.
    pub(crate) async fn client(&self) -> Result<(ClientConfig, Option<String>), Error> {
        let mut config = ClientConfig::new();
        for Property { name, value } in &self.properties {
            config.set(name, value);
        }
        let defaults = [
            ("client.id", "podherald"),
            ("linger.ms", "1"),
            ("log.connection.close", "false"),
            // As Java clients do it: what others publish with the same key lands in the same partition.
            ("partitioner", "murmur2_random"),
            ("reconnect.backoff.max.ms", "1000"),
        ];
        for (name, value) in defaults {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        config.set("bootstrap.servers", self.brokers.as_str());
        config.set("compression.type", self.compression.name());
        config.set("message.max.bytes", (self.max_message_bytes + MARGIN_BYTES).to_string());
        if config.get("batch.size").is_none() {
            config.set("batch.size", self.max_message_bytes.min(BATCH_BYTES).to_string());
        }
        // Here is what the promise rests on. A message is never given up by the client while a later one of its partition
        // goes on: none times out by itself, whatever fails for good ends the producer, and of a producer that it does not know a
        // broker takes any batch for the first, so none may follow one that is not acknowledged.
        config.set("acks", "all");
        config.set("enable.idempotence", "true");
        config.set("enable.gapless.guarantee", "true");
        config.set("message.timeout.ms", "0");
        config.set("max.in.flight.requests.per.connection", "1");
        // A topic that the brokers make by themselves has the wrong partitions and retention.
        config.set("allow.auto.create.topics", "false");
        self.secure(&mut config).await
    }

    async fn secure(&self, config: &mut ClientConfig) -> Result<(ClientConfig, Option<String>), Error> {
        let protocol = match (self.tls, &self.sasl) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if self.tls {
            let authorities = self.ca_file.as_ref().map_or("probe".into(), |path| path.to_string_lossy());
            config.set("ssl.ca.location", authorities);
        }
        let Some(sasl) = &self.sasl else { return Ok((config.clone(), None)) };
        let password = match &sasl.password {
            Password::Given(secret) => secret.expose().to_owned(),
            Password::File(path) => {
                let text = read("kafka.password_file", path).await?;
                let text = text.trim_end_matches(['\r', '\n']);
                let secret = Secret::new(text).ok_or_else(|| Error::NoPassword { path: path.clone() })?;
                secret.expose().to_owned()
            }
        };
        config.set("sasl.mechanism", sasl.mechanism.name());
        config.set("sasl.username", &sasl.username);
        config.set("sasl.password", &password);
        Ok((config.clone(), Some(password)))
    }

    /// Reads what is in files and makes a client that connects to nobody, so that what is wrong shows at start.
    ///
    /// # Errors
    /// The setting, the file, and what would be right.
    pub async fn examine(&self) -> Result<(), Error> {
        if let Some(path) = &self.ca_file {
            read("kafka.ca_file", path).await?;
        }
        let (mut config, _) = self.client().await?;
        config.remove("bootstrap.servers");
        let made = tokio::task::spawn_blocking(move || {
            config.create_with_context::<_, rdkafka::producer::BaseProducer<_>>(super::producer::Deaf).map(drop)
        });
        match made.await {
            Ok(Err(KafkaError::ClientCreation(said) | KafkaError::ClientConfig(_, said, ..))) => {
                Err(Error::Client(said))
            }
            Ok(Err(error)) => Err(Error::Client(error.to_string())),
            Ok(Ok(())) => Ok(()),
            Err(error) => Err(Error::Client(error.to_string())),
        }
    }
}
