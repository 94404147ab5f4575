//! What an error of the client means: whose fault it is, and what would be right; never a password.

use std::time::Duration;

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use crate::sink::Fault;

/// Whose fault it is that a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// This message's, or that of one that shared its batch.
    Record,
    /// Of another message: this one was not tried.
    Other,
    /// Of the brokers, or the way there.
    Sink,
}

/// See [`Blame`].
pub(super) fn blame(error: &KafkaError) -> Blame {
    match error.rdkafka_error_code() {
        Some(
            Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::KeySerialization
            | Code::ValueSerialization,
        ) => Blame::Record,
        Some(
            Code::InvalidDifferentRecord
            | Code::Fatal
            | Code::GaplessGuarantee
            | Code::PurgeQueue
            | Code::PurgeInflight
            | Code::OutOfOrderSequenceNumber,
        ) => Blame::Other,
        _ => Blame::Sink,
    }
}

/// True for what waiting does not mend.
pub(super) fn is_lasting(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::SSL
            | Code::UnsupportedSASLMechanism
            | Code::Resolve
    )
}

/// The way to a Kafka, as it is spoken of.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    name: String,
    secret: Option<String>,
    timeout: Duration,
}

impl Way {
    pub(crate) fn new(brokers: &str, timeout: Duration) -> Self {
        Self { name: format!("kafka.brokers = {brokers}"), secret: None, timeout }
    }

    /// The same with a password that must not be repeated.
    pub(crate) fn with_secret(&self, secret: Option<&str>) -> Self {
        Self { secret: secret.map(str::to_owned), ..self.clone() }
    }

    /// What an error means to who set this up; `trouble` is what the client last complained of by itself.
    pub(crate) fn fault(&self, error: &KafkaError, trouble: Option<&(Code, String)>) -> Fault {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        // What the client says by itself tells more than a wait that was over.
        let (code, said) = match trouble {
            Some((code, said)) if is_of_waiting(error) => (*code, said.clone()),
            Some((code, said)) if blame(error) == Blame::Other => (*code, format!("{error}; {said}")),
            _ => (code, error.to_string()),
        };
        let (what, advice) = meaning(code);
        Fault(self.mask(&format!(
            "{}: {what}{}{advice} ({said})",
            self.name,
            if advice.is_empty() { "" } else { "; " }
        )))
    }

    /// Nothing came back in time.
    pub(crate) fn silent(&self, trouble: Option<&(Code, String)>) -> Fault {
        if trouble.is_some() {
            return self.fault(&KafkaError::MessageProduction(Code::MessageTimedOut), trouble);
        }
        let timeout = self.timeout;
        Fault(format!(
            "{}: no acknowledgement within kafka.timeout, {timeout:?}; has it room, and enough replicas?",
            self.name
        ))
    }

    /// Something else than an answer of the brokers.
    pub(crate) fn wrong(&self, what: &str) -> Fault {
        Fault(self.mask(&format!("{}: {what}", self.name)))
    }

    fn mask(&self, said: &str) -> String {
        self.secret.as_deref().map_or_else(|| said.to_owned(), |secret| said.replace(secret, "***"))
    }
}

fn is_of_waiting(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        None | Some(
            Code::MessageTimedOut
                | Code::OperationTimedOut
                | Code::TimedOutQueue
                | Code::RequestTimedOut
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
        )
    )
}

fn meaning(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => (
            "it refuses the user or the password",
            "kafka.sasl_mechanism, kafka.username and kafka.password must be what the brokers know",
        ),
        Code::SSL => (
            "the TLS handshake failed",
            "kafka.ca_file must name who vouches for the brokers, by the names in kafka.brokers",
        ),
        Code::Resolve => ("its name cannot be resolved", ""),
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::MessageTimedOut => (
            "it cannot be reached",
            "is it running there, and do kafka.tls and kafka.sasl_mechanism say what that listener expects?",
        ),
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => (
            "its user may not do what is needed",
            "the ACLs are Describe and Write on the topics, and Create where kafka.create_topics is true",
        ),
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::UnknownTopicId => {
            ("a topic has gone", "it is made again if kafka.create_topics is true")
        }
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => ("it has not enough replicas in sync", ""),
        Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::UnknownProducerId => {
            ("it does not take this producer any more", "a new one begins where nothing is missing")
        }
        Code::Fenced => ("another podherald has taken over and shut this one out", ""),
        Code::TransactionalIdAuthorizationFailed => (
            "its user may not do what is needed",
            "with monitor.lease it needs Write on the transactional id podherald-*, behind kafka.topic_prefix",
        ),
        Code::UnsupportedFeature | Code::UnsupportedVersion => ("it is too old", "podherald needs Kafka 0.11 or newer"),
        _ => ("it refuses", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_with_one_record_is_held_against_it() {
        for (code, expected) in [
            (Code::MessageSizeTooLarge, Blame::Record),
            (Code::InvalidRecord, Blame::Record),
            (Code::InvalidDifferentRecord, Blame::Other),
            (Code::Fatal, Blame::Other),
            (Code::TopicAuthorizationFailed, Blame::Sink),
            (Code::UnknownTopicOrPartition, Blame::Sink),
            (Code::ProducerFenced, Blame::Sink),
            (Code::NotEnoughReplicas, Blame::Sink),
            (Code::InvalidRequiredAcks, Blame::Sink),
            (Code::Unknown, Blame::Sink),
        ] {
            assert_eq!(blame(&KafkaError::MessageProduction(code)), expected, "{code:?}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        let way = Way::new("one:9092", Duration::from_secs(1)).with_secret(Some("s3cret"));
        let trouble = (Code::Authentication, "who is s3cret".to_owned());
        let Fault(said) = way.silent(Some(&trouble));
        assert!(said.contains("kafka.brokers = one:9092: it refuses the user") && !said.contains("s3cret"), "{said}");
    }
}
