//! That the topics are there.

use std::{collections::BTreeSet, time::Duration};

use podherald_core::topic::Topic;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::KafkaError,
    producer::Producer as _,
    types::RDKafkaErrorCode as Code,
};
use tokio::{runtime::Handle, task::spawn_blocking, time::Instant};

use super::{
    Options,
    message::Names,
    producer::Producer,
    wording::{self, Way},
};
use crate::sink::Fault;

/// What podherald itself publishes to: without these it cannot go on.
const NEEDED: [Topic; 3] = [Topic::ExecutionEvents, Topic::PodEvents, Topic::DeadLetterQueue];
/// Of one question; a longer wait is several of them, so that none outlives its caller for long.
const QUESTION: Duration = Duration::from_secs(1);

/// Sees that all topics are there, and makes those that are not, if that is allowed.
pub(super) async fn ensure(
    producer: &Producer,
    config: &ClientConfig,
    options: &Options,
    names: &Names,
    way: &Way,
) -> Result<(), Fault> {
    let there = list(producer, options.timeout, way).await?;
    let is_absent = |topic: &Topic| !there.contains(&*names.of(*topic));
    let absent: Vec<Topic> = Topic::ALL.into_iter().filter(is_absent).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let refused = if options.create_topics {
        create(config, options, names, &absent).await.map_err(|error| way.fault(&error, None))?
    } else {
        Vec::new()
    };
    let is_refused = |topic: &Topic| refused.iter().any(|(other, _)| other == topic);
    let lacking = absent.iter().filter(|topic| NEEDED.contains(topic) && (!options.create_topics || is_refused(topic)));
    let lacking: Vec<String> =
        lacking.map(|topic| format!("{} ({} partitions)", names.of(*topic), topic.partitions())).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let lacking = lacking.join(", ");
    Err(way.wrong(&match refused.first() {
        Some((_, code)) => format!(
            "these topics are not there, or its user may not see them, and it refuses to create them: {lacking}; create \
             them, or allow its user to Describe, Write and Create ({code})"
        ),
        None => format!(
            "these topics are not there, or its user may not see them: {lacking}; create them, or set \
             kafka.create_topics = true"
        ),
    }))
}

/// The names of all topics that the user may see. Nothing is asked of one topic, which would create it.
async fn list(producer: &Producer, timeout: Duration, way: &Way) -> Result<BTreeSet<String>, Fault> {
    let deadline = Instant::now() + timeout;
    loop {
        let client = producer.client();
        let asked = spawn_blocking(move || {
            let metadata = client.client().fetch_metadata(None, QUESTION)?;
            let topics = metadata.topics().iter().filter(|topic| topic.error().is_none());
            Ok::<_, KafkaError>(topics.map(|topic| topic.name().to_owned()).collect())
        });
        match asked.await.map_err(|error| way.wrong(&format!("asking it failed: {error}")))? {
            Ok(names) => return Ok(names),
            Err(error) => {
                let trouble = producer.trouble();
                let is_lasting = trouble.as_ref().is_some_and(|(code, _)| wording::is_lasting(*code));
                if is_lasting || Instant::now() >= deadline {
                    return Err(way.fault(&error, trouble.as_ref()));
                }
            }
        }
    }
}

/// Makes these topics; gives those that could not be made.
async fn create(
    config: &ClientConfig,
    options: &Options,
    names: &Names,
    topics: &[Topic],
) -> Result<Vec<(Topic, Code)>, KafkaError> {
    let named: Vec<_> = topics.iter().map(|topic| (*topic, names.of(*topic))).collect();
    let replicas = options.replication_factor.map_or(-1, |factor| i32::try_from(factor).unwrap_or(i32::MAX));
    let (config, timeout) = (config.clone(), options.timeout);
    let created = spawn_blocking(move || {
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let retentions: Vec<String> =
            named.iter().map(|(topic, _)| topic.retention().as_millis().to_string()).collect();
        let topics: Vec<NewTopic<'_>> = named
            .iter()
            .zip(&retentions)
            .map(|((topic, name), retention)| {
                let replication = TopicReplication::Fixed(replicas);
                NewTopic::new(name, topic.partitions(), replication).set("retention.ms", retention)
            })
            .collect();
        let patience = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
        let results = Handle::current().block_on(admin.create_topics(&topics, &patience))?;
        let mut refused = Vec::new();
        for result in results {
            match result {
                Ok(name) => tracing::info!(topic = name, "the topic has been created"),
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    refused.extend(named.iter().find(|(_, other)| **other == *name).map(|(topic, _)| (*topic, code)));
                }
            }
        }
        Ok(refused)
    });
    created.await.unwrap_or(Err(KafkaError::Canceled))
}
