//! What roles publish straight to a Kafka.

#[path = "../../src/publisher/conformance.rs"]
pub(crate) mod conformance;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
pub(crate) use podherald::publisher::Publisher;
use podherald::{
    publisher::kafka::Direct,
    sink::kafka::{Kafka, Options},
};

use crate::kafka::{Broker, prefix};

struct Real {
    publisher: Arc<Direct>,
    /// The test's own, where it goes away.
    own: Option<Broker>,
    prefix: String,
}

impl conformance::Far for Real {
    fn publisher(&self) -> Arc<dyn Publisher> {
        self.publisher.clone()
    }
    fn published(&self) -> BoxFuture<'_, Vec<Bytes>> {
        async {
            let broker = match &self.own {
                Some(own) => own,
                None => Broker::shared().await,
            };
            let all = broker.consume_all(&format!("{}execution_events", self.prefix)).await;
            all.into_iter().filter(|message| message.key == "e").map(|message| message.bytes).collect()
        }
        .boxed()
    }
    fn leave(&mut self) -> BoxFuture<'_, ()> {
        self.own.as_ref().unwrap().stop();
        async {}.boxed()
    }
    fn come_back(&mut self) -> BoxFuture<'_, ()> {
        self.own.as_mut().unwrap().go_on();
        async {}.boxed()
    }
}

async fn shared() -> Real {
    let prefix = prefix();
    let sink = Kafka::new(Broker::shared().await.options(&prefix));
    Real { publisher: Arc::new(Direct::new(Arc::new(sink))), own: None, prefix }
}

async fn own() -> Real {
    let own = Broker::start("");
    let sink = Kafka::new(Options { timeout: Duration::from_secs(3), ..own.options("") });
    Real { publisher: Arc::new(Direct::new(Arc::new(sink))), own: Some(own), prefix: String::new() }
}

conformance::suite!(shared:
    what_is_acknowledged_is_there_in_order_and_numbered_without_a_gap,
    events_that_are_published_again_are_known_by_their_ids,
);
conformance::suite!(own: a_far_side_that_is_away_is_a_fault_and_a_second_try_loses_nothing);
