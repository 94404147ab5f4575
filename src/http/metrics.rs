//! What the listener counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The listener's own numbers.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    connections: Gauge,
    refused: Counter,
    stuck: Counter,
    streams: Gauge,
    refused_streams: Counter,
    lagged: Counter,
    answers: Family<Answer, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    route: String,
    status: u16,
}

/// One open thing; it is counted until dropped.
#[derive(Debug)]
pub(super) struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Makes them part of `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("podherald_http");
        registry.register("connections", "Connections that are open", self.connections.clone());
        registry.register("connections_refused", "Connections beyond http.max_connections", self.refused.clone());
        registry.register("connections_stuck", "Connections cut since the client took nothing", self.stuck.clone());
        registry.register("streams", "Event streams that are open", self.streams.clone());
        registry.register(
            "streams_refused",
            "Event streams and held requests beyond http.max_streams",
            self.refused_streams.clone(),
        );
        registry.register(
            "streams_lagged",
            "Times that a stream fell behind and read the journal",
            self.lagged.clone(),
        );
        registry.register("answers", "Answers by route and status", self.answers.clone());
    }

    pub(super) fn open_connection(&self) -> Open {
        Open::new(&self.connections)
    }

    pub(super) fn open_stream(&self) -> Open {
        Open::new(&self.streams)
    }

    pub(super) fn refused(&self) {
        self.refused.inc();
    }

    pub(super) fn refused_stream(&self) {
        self.refused_streams.inc();
    }

    pub(super) fn stuck(&self) {
        self.stuck.inc();
    }

    pub(super) fn lagged(&self) {
        self.lagged.inc();
    }

    /// `route` is the pattern, never the path: paths are without number.
    pub(super) fn answered(&self, route: &str, status: u16) {
        self.answers.get_or_create(&Answer { route: route.to_owned(), status }).inc();
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (i64, i64, u64) {
        (self.connections.get(), self.streams.get(), self.lagged.get())
    }
}
