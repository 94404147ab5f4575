//! What the endpoints count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Attempts by what came of them, and who is disabled.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    attempts: Family<Attempt, Counter>,
    disabled: Family<Whose, Gauge>,
    unlogged: Family<Whose, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempt {
    webhook: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Whose {
    webhook: String,
}

impl Metrics {
    /// Makes them part of `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        let (attempts, disabled, unlogged) = (self.attempts.clone(), self.disabled.clone(), self.unlogged.clone());
        registry.register("podherald_webhook_attempts", "Requests to webhooks, by what came of them", attempts);
        registry.register("podherald_webhook_disabled", "1 while nothing is sent to the webhook", disabled);
        let help = "Attempts, and changes of a webhook's state, that could not be kept on disk";
        registry.register("podherald_webhook_unlogged", help, unlogged);
    }

    pub(super) fn attempted(&self, webhook: &str, outcome: &'static str) {
        self.attempts.get_or_create(&Attempt { webhook: webhook.to_owned(), outcome }).inc();
    }

    pub(super) fn disabled(&self, webhook: &str, is_disabled: bool) {
        self.disabled.get_or_create(&Whose { webhook: webhook.to_owned() }).set(i64::from(is_disabled));
    }

    pub(super) fn unlogged(&self, webhook: &str) {
        self.unlogged.get_or_create(&Whose { webhook: webhook.to_owned() }).inc();
    }
}
