//! Events on a Redis: messages on the channels `evaluation:*` for who listens, and a stream of each execution for who was
//! away.
//!
//! A batch is one pipeline: of each event the entry in the stream, then the message, so that who hears the message finds
//! the entry. Only then are the streams given their time to live, and only those that took an entry: a key of the same name
//! that is somebody else's must not expire because of us.

mod entry;
#[cfg(test)]
mod tests;
mod wording;

use std::{path::PathBuf, sync::Arc, time::Duration};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Pipeline, RedisError, TlsCertificates, Value,
    aio::MultiplexedConnection, pipe,
};
use futures::{FutureExt, future::BoxFuture};
use tokio::{sync::Mutex, time::timeout};

use self::{entry::Entry, wording::Way};
use super::{Fault, Item, Rejection, Sink};
use crate::{
    config::RedisUrl,
    journal::Journal,
    named_file::{Unreadable, read},
};

/// The name of this sink's cursor, and in metrics.
pub const NAME: &str = "redis";
/// Bytes of one event at most, far more than an event has: a server that is asked to take more than it may cuts the
/// connection, and would do so again and again.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// Where the URL is.
#[derive(Debug, Clone)]
pub enum Url {
    /// `redis.url`.
    Given(RedisUrl),
    /// `redis.url_file`.
    File(PathBuf),
}

/// What the sink goes by; `config::Redis` says what each means.
#[derive(Debug, Clone)]
pub struct Options {
    /// `redis.url` or `redis.url_file`.
    pub url: Url,
    /// `redis.ca_file`.
    pub ca_file: Option<PathBuf>,
    /// `redis.timeout`.
    pub timeout: Duration,
    /// `redis.stream_max_events`.
    pub stream_max_events: u32,
    /// `redis.stream_retention`.
    pub stream_retention: Duration,
    /// Of one event.
    pub max_event_bytes: usize,
}

impl Options {
    /// Those of a URL, with the defaults of the rest.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            ca_file: None,
            timeout: Duration::from_secs(5),
            stream_max_events: 1000,
            stream_retention: Duration::from_hours(24),
            max_event_bytes: MAX_EVENT_BYTES,
        }
    }

    /// Reads what is in files, so that a wrong one shows at start.
    ///
    /// # Errors
    /// The setting, the file, and what would be right.
    pub async fn examine(&self) -> Result<(), Error> {
        self.target().await.map(drop)
    }

    async fn target(&self) -> Result<Target, Error> {
        let (setting, url) = match &self.url {
            Url::Given(url) => ("redis.url", url.clone()),
            Url::File(path) => {
                let text = read("redis.url_file", path).await?;
                let url = RedisUrl::parse(text.trim());
                ("redis.url_file", url.ok_or_else(|| Error::NoUrl { path: path.clone() })?)
            }
        };
        let authorities = match &self.ca_file {
            Some(path) => Some(read("redis.ca_file", path).await?.into_bytes()),
            None => None,
        };
        Ok(Target { setting, url, authorities })
    }
}

/// A file that a setting names is not what it must be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It holds no URL. What it holds may be a secret.
    #[error("redis.url_file {} does not hold a URL such as `redis://USER:PASSWORD@redis.example:6379`", path.display())]
    NoUrl {
        /// The file.
        path: PathBuf,
    },
}

/// Whom to connect to, as it stands now.
struct Target {
    setting: &'static str,
    url: RedisUrl,
    authorities: Option<Vec<u8>>,
}

impl Target {
    fn client(self) -> Result<Client, RedisError> {
        // A name for the client is not worth a right of its own.
        let info = self.url.expose().into_connection_info()?;
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let info = info.set_redis_settings(settings);
        match self.authorities {
            Some(authorities) => {
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(authorities) })
            }
            None => Client::open(info),
        }
    }
}

/// The sink. Its connection is made when it is needed, and made anew after any trouble.
pub struct Redis {
    options: Options,
    /// Says when an execution began, which the event of its end does not.
    journal: Arc<dyn Journal>,
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    redis: MultiplexedConnection,
    way: Way,
}

impl Redis {
    /// A sink that is not connected yet.
    pub fn new(options: Options, journal: Arc<dyn Journal>) -> Self {
        Self { options, journal, connection: Mutex::default() }
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        let target = self.options.target().await.map_err(|error| Fault(crate::wording::of(&error)))?;
        let way = Way::new(target.setting, &target.url, self.options.timeout);
        let client = target.client().map_err(|error| way.fault(&error))?;
        // Timed as a whole below.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connected = async {
            let mut redis = client.get_multiplexed_async_connection_with_config(&config).await?;
            // Whatever is at the other end has said nothing yet.
            ::redis::cmd("PING").exec_async(&mut redis).await?;
            Ok::<_, RedisError>(redis)
        };
        match timeout(self.options.timeout, connected).await {
            Ok(Ok(redis)) => Ok(Connection { redis, way }),
            Ok(Err(error)) => Err(way.fault(&error)),
            Err(_) => Err(way.silent()),
        }
    }

    /// Sends the pipeline. The connection is kept only if it has answered: a future that is dropped takes it along.
    async fn send(&self, pipeline: &mut Pipeline) -> Result<(Vec<Result<Value, RedisError>>, Way), Fault> {
        let mut place = self.connection.lock().await;
        let mut connection = match place.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let sent = pipeline.ignore_errors().query_async(&mut connection.redis);
        let answers = match timeout(self.options.timeout, sent).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(error)) => return Err(connection.way.fault(&error)),
            Err(_) => return Err(connection.way.silent()),
        };
        let way = connection.way.clone();
        *place = Some(connection);
        Ok((answers, way))
    }

    async fn carry_all(&self, items: &[Item]) -> Result<Vec<Rejection>, Fault> {
        let mut rejections = Vec::new();
        let mut entries = Vec::with_capacity(items.len());
        for item in items {
            match entry::of(item, self.options.max_event_bytes, &*self.journal).await? {
                Ok(entry) => entries.push(entry),
                Err(reason) => rejections.push(Rejection { position: item.position(), reason }),
            }
        }
        if entries.is_empty() {
            return Ok(rejections);
        }
        let (answers, way) = self.send(&mut publication(&entries, self.options.stream_max_events)).await?;
        let mut answers = answers.into_iter();
        let mut streams: Vec<&str> = Vec::new();
        for entry in &entries {
            let mut answer = || answers.next().unwrap_or_else(|| Err(wording::no_answer()));
            match answer() {
                Ok(_) if streams.contains(&&*entry.stream) => {}
                Ok(_) => streams.push(&entry.stream),
                Err(error) if wording::is_of_one_key(&error) => {
                    let reason = format!("{} holds something else than a stream: {error}", entry.stream);
                    rejections.push(Rejection { position: entry.position, reason });
                }
                Err(error) => return Err(way.fault(&error)),
            }
            if entry.message.is_some() {
                answer().map_err(|error| way.fault(&error))?;
            }
        }
        if !streams.is_empty() {
            let (answers, way) = self.send(&mut expiry(&streams, self.options.stream_retention)).await?;
            let refused = answers.into_iter().find_map(Result::err);
            refused.map_or(Ok(()), |error| Err(way.fault(&error)))?;
        }
        Ok(rejections)
    }
}

fn publication(entries: &[Entry], max_events: u32) -> Pipeline {
    let mut pipeline = pipe();
    for entry in entries {
        let mut add = Cmd::with_capacity(11, entry.event.len() + 256);
        add.arg("XADD").arg(&entry.stream).arg("MAXLEN").arg("~").arg(max_events).arg("*");
        add.arg("event_type").arg(entry.event_type).arg("event").arg(&entry.event[..]);
        pipeline.add_command(add);
        if let Some(message) = &entry.message {
            pipeline.cmd("PUBLISH").arg(message.channel).arg(&message.body);
        }
    }
    pipeline
}

fn expiry(streams: &[&str], retention: Duration) -> Pipeline {
    let mut pipeline = pipe();
    for stream in streams {
        pipeline.cmd("PEXPIRE").arg(*stream).arg(u64::try_from(retention.as_millis()).unwrap_or(u64::MAX));
    }
    pipeline
}

impl Sink for Redis {
    fn carry<'a>(&'a self, items: &'a [Item]) -> BoxFuture<'a, Result<Vec<Rejection>, Fault>> {
        self.carry_all(items).boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Fault>> {
        async {
            let (answers, way) = self.send(pipe().cmd("PING")).await?;
            let refused = answers.into_iter().find_map(Result::err);
            refused.map_or(Ok(()), |error| Err(way.fault(&error)))
        }
        .boxed()
    }
}
