//! What a member counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Of one group.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Messages given to the role, each time.
    pub given: Counter,
    /// Of those, acknowledged.
    pub acknowledged: Counter,
    /// Of those, refused or dropped.
    pub refused: Counter,
    /// Not given, for they had been acknowledged.
    pub known: Counter,
    /// Gone to the dead letters.
    pub dead_letters: Counter,
    /// Answers to what was revoked meanwhile.
    pub late_answers: Counter,
    /// Failures to receive, to keep how far the group has come, or to put a letter away.
    pub faults: Counter,
    /// Messages that are not done with.
    pub in_hand: Gauge,
}

impl Metrics {
    /// Registers them as `podherald_inbox_*` with the label `group`.
    pub fn register(&self, registry: &mut Registry, group: &'static str) {
        let registry = registry.sub_registry_with_prefix("podherald_inbox");
        let registry = registry.sub_registry_with_label(("group".into(), group.into()));
        for (name, help, counter) in [
            ("given", "Messages given to the role, each time", &self.given),
            ("acknowledged", "Messages that the role acknowledged", &self.acknowledged),
            ("refused", "Messages that the role refused, each time", &self.refused),
            ("known", "Messages not given, for the event had been acknowledged", &self.known),
            ("dead_letters", "Messages that went to the dead letters", &self.dead_letters),
            ("late_answers", "Answers to messages that were another member's meanwhile", &self.late_answers),
            ("faults", "Failures to receive, to commit or to put a dead letter away", &self.faults),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register("in_hand", "Messages that are not done with", self.in_hand.clone());
    }
}
