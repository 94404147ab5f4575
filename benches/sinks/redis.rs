//! A Redis.

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use podherald::{
    config::RedisUrl,
    journal::Journal,
    sink::{Sink, redis},
};

use crate::Server;

/// Events in a pipeline, as the relay hands them over.
const PIPELINE: usize = 256;

pub(crate) struct Redis {
    pub(crate) url: String,
}

impl Server for Redis {
    fn name(&self) -> &'static str {
        redis::NAME
    }

    fn client(&self) -> &'static str {
        "redis, XADD by 256"
    }

    fn sink(&self, journal: &Arc<dyn Journal>) -> Arc<dyn Sink> {
        let url = RedisUrl::parse(&self.url).unwrap();
        Arc::new(redis::Redis::new(redis::Options::new(redis::Url::Given(url)), journal.clone()))
    }

    fn alone<'a>(&'a self, events: &'a [(String, Bytes)]) -> BoxFuture<'a, ()> {
        async {
            let client = ::redis::Client::open(&*self.url).unwrap();
            let mut connection = client.get_multiplexed_async_connection().await.unwrap();
            for batch in events.chunks(PIPELINE) {
                let mut pipeline = ::redis::pipe();
                for (id, event) in batch {
                    let key = format!("alone:{id}");
                    pipeline
                        .cmd("XADD")
                        .arg(key)
                        .arg("MAXLEN")
                        .arg("~")
                        .arg(1000)
                        .arg("*")
                        .arg("event")
                        .arg(&event[..]);
                }
                pipeline.exec_async(&mut connection).await.unwrap();
            }
        }
        .boxed()
    }
}
