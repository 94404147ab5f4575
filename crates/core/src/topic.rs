//! Topics that events are published to: their names, sizes, and which event belongs where.

use jiff::SignedDuration;

/// A topic of the catalogue, without the prefix that a configuration may put before its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What becomes of executions.
    ExecutionEvents,
    /// What becomes of their pods.
    PodEvents,
    /// What was stored of them.
    ExecutionResults,
    /// Steps of sagas.
    SagaEvents,
    /// What sagas ask for.
    SagaCommands,
    /// What became of dead letters.
    DlqEvents,
    /// Messages that could not be processed or carried, as they were.
    DeadLetterQueue,
}

impl Topic {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ExecutionEvents,
        Self::PodEvents,
        Self::ExecutionResults,
        Self::SagaEvents,
        Self::SagaCommands,
        Self::DlqEvents,
        Self::DeadLetterQueue,
    ];

    /// The topic of events of this type; none for a type that is not of the catalogue.
    pub fn of(event_type: &str) -> Option<Self> {
        if event_type.ends_with("_command") {
            return Some(Self::SagaCommands);
        }
        let families = [
            ("execution_", Self::ExecutionEvents),
            ("pod_", Self::PodEvents),
            ("result_", Self::ExecutionResults),
            ("saga_", Self::SagaEvents),
            ("dlq_message_", Self::DlqEvents),
        ];
        families.into_iter().find(|(family, _)| event_type.starts_with(family)).map(|(_, topic)| topic)
    }

    /// Its name before any prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExecutionEvents => "execution_events",
            Self::PodEvents => "pod_events",
            Self::ExecutionResults => "execution_results",
            Self::SagaEvents => "saga_events",
            Self::SagaCommands => "saga_commands",
            Self::DlqEvents => "dlq_events",
            Self::DeadLetterQueue => "dead_letter_queue",
        }
    }

    /// How many partitions it is created with.
    pub fn partitions(self) -> i32 {
        match self {
            Self::ExecutionEvents | Self::PodEvents | Self::ExecutionResults | Self::SagaCommands => 10,
            Self::SagaEvents | Self::DlqEvents => 5,
            Self::DeadLetterQueue => 3,
        }
    }

    /// How long what is in it is kept, where it is created.
    pub fn retention(self) -> SignedDuration {
        let days = match self {
            Self::PodEvents => 1,
            Self::DeadLetterQueue => 14,
            _ => 7,
        };
        SignedDuration::from_hours(24 * days)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EVENT_TYPES;

    #[test]
    fn every_event_has_its_topic() {
        let table = [
            ("execution_completed", Topic::ExecutionEvents),
            ("execution_cancel_requested", Topic::ExecutionEvents),
            ("pod_refused", Topic::PodEvents),
            ("result_stored", Topic::ExecutionResults),
            ("saga_compensating", Topic::SagaEvents),
            ("create_pod_command", Topic::SagaCommands),
            ("dlq_message_retried", Topic::DlqEvents),
        ];
        for (event_type, topic) in table {
            assert_eq!(Topic::of(event_type), Some(topic), "{event_type}");
        }
        assert_eq!(Topic::of("weather_changed"), None);
        assert!(EVENT_TYPES.iter().all(|event_type| Topic::of(event_type).is_some()));
    }
}
