//! A Kafka.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, try_join_all},
};
use podherald::{
    config::Brokers,
    journal::Journal,
    sink::{Sink, kafka},
};
use podherald_core::cloud_event::Envelope;
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use crate::Server;

/// Messages that are under way at a time: enough for the client to be busy, without a queue that is full.
const WINDOW: usize = 10_000;

pub(crate) struct Kafka {
    pub(crate) brokers: String,
    /// As with `monitor.lease`: every batch is a transaction.
    pub(crate) is_fenced: bool,
}

impl Server for Kafka {
    fn name(&self) -> &'static str {
        if self.is_fenced { "kafka, fenced" } else { kafka::NAME }
    }

    fn client(&self) -> &'static str {
        "rdkafka, acks=all"
    }

    fn sink(&self, _: &Arc<dyn Journal>) -> Arc<dyn Sink> {
        let mut options = kafka::Options::new(Brokers::parse(&self.brokers).unwrap());
        options.fence = self.is_fenced.then(|| kafka::Fence::new(|| Some("lease".to_owned())));
        Arc::new(kafka::Kafka::new(options))
    }

    fn alone<'a>(&'a self, events: &'a [(String, Bytes)]) -> BoxFuture<'a, ()> {
        async {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &self.brokers).set("enable.idempotence", "true").set("acks", "all");
            config.set("compression.type", "lz4").set("linger.ms", "1").set("partitioner", "murmur2_random");
            let producer: FutureProducer = config.create().unwrap();
            for window in events.chunks(WINDOW) {
                let sent = window.iter().map(|(id, event)| {
                    let record =
                        FutureRecord::to("execution_events").key(id).payload(&event[..]).headers(headers(event));
                    producer.send_result(record).map_err(|(error, _)| error).unwrap()
                });
                for report in try_join_all(sent).await.unwrap() {
                    report.unwrap();
                }
            }
        }
        .boxed()
    }
}

/// Those that podherald sends too.
fn headers(event: &[u8]) -> OwnedHeaders {
    let envelope = Envelope::parse(event).unwrap();
    let attributes = envelope.attributes();
    attributes.iter().fold(OwnedHeaders::new_with_capacity(attributes.len()), |headers, (name, value)| {
        headers.insert(Header { key: &format!("ce_{name}"), value: Some(value.as_bytes()) })
    })
}
