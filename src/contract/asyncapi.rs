//! Where events are sent, as an AsyncAPI 3.0 document.

use std::collections::BTreeMap;

use podherald_core::{
    about,
    cloud_event::DATA_CONTENT_TYPE,
    evaluation::{self, Began, Ended},
    gap,
    topic::Topic,
};
use serde_json::{Map, Value, json};

use super::{
    catalogue::{Entry, catalogue},
    types::{self, Types},
};

const KAFKA_BINDING: &str = "0.5.0";
/// The message that is an entry of a stream in Redis.
const STREAM_ENTRY: &str = "stream_entry";
/// The message that could not be carried.
const DEAD_LETTER: &str = "dead_letter";
const EXECUTION_KEY: &str = "`execution_id`: an execution's events share a partition.";
/// What a dead letter has beside the headers of what it was: names and meanings.
pub const DEAD_LETTER_HEADERS: [(&str, &str); 4] = [
    ("dlq-reason", "Why it could not be carried."),
    ("dlq-sink", "Who could not carry it: `kafka`."),
    ("dlq-original-topic", "Where it was to go."),
    ("dlq-position", "Its place in podherald's journal."),
];

/// `/asyncapi.json`, and the file `openapi/asyncapi.json`.
pub fn document() -> Value {
    let entries = catalogue();
    let mut channels = kafka_channels(&entries);
    channels.extend(redis_channels());
    let operations: Map<String, Value> = channels
        .keys()
        .map(|name| (format!("send_{name}"), json!({"action": "send", "channel": channel(name)})))
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:podherald",
        "info": {
            "title": "podherald",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What became of pods that run someone's code. Every event is delivered at least once, in order for each \
                            execution: drop known ids. What retention took before it was delivered is told as a gap.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": DATA_CONTENT_TYPE,
        "servers": {
            "kafka": server("kafka", "localhost:9092", "The brokers of `kafka.brokers`."),
            "redis": server("redis", "localhost:6379", "The Redis of `redis.url`."),
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "schemas": schemas(&entries),
            "messages": messages(&entries),
        },
    })
}

fn server(protocol: &str, default: &str, description: &str) -> Value {
    json!({
        "host": "{address}",
        "protocol": protocol,
        "description": description,
        "variables": {"address": {"default": default, "description": "Host and port."}},
    })
}

fn channel(name: &str) -> Value {
    json!({"$ref": format!("#/channels/{name}")})
}

/// The topics that something is sent to.
fn kafka_channels(entries: &[Entry]) -> BTreeMap<String, Value> {
    let channel = |topic: Topic| {
        let events = entries.iter().filter(|entry| entry.topic == topic).map(|entry| entry.name.as_str());
        let dead = (topic == Topic::DeadLetterQueue).then_some(DEAD_LETTER);
        let messages = references(events.chain(dead));
        (!messages.is_empty()).then(|| (topic.name().to_owned(), kafka_channel(topic, &messages)))
    };
    Topic::ALL.into_iter().filter_map(channel).collect()
}

fn kafka_channel(topic: Topic, messages: &Map<String, Value>) -> Value {
    json!({
        "address": topic.name(),
        "description": "CloudEvents 1.0 in binary mode: the attributes are headers, the value is the event as it is in the journal. \
                        `kafka.topic_prefix` stands before the name. Partitions and retention are what podherald creates it with.",
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": messages,
        "bindings": {"kafka": {
            "topic": topic.name(),
            "partitions": topic.partitions(),
            "topicConfiguration": {
                "cleanup.policy": ["delete"],
                "retention.ms": i64::try_from(topic.retention().as_millis()).expect("days in milliseconds"),
            },
            "bindingVersion": KAFKA_BINDING,
        }},
    })
}

fn redis_channels() -> BTreeMap<String, Value> {
    let servers = json!([{"$ref": "#/servers/redis"}]);
    let published = |address: &str, message: &str| {
        let channel = json!({
            "address": address,
            "description": "Published; whoever does not listen misses it.",
            "servers": servers,
            "messages": references([message]),
        });
        (address.replace(':', "_"), channel)
    };
    let stream = json!({
        "address": format!("{}{{execution_id}}", evaluation::STREAM_PREFIX),
        "description": "A stream of each execution's events, capped by `redis.stream_max_events` and `redis.stream_retention`.",
        "parameters": {"execution_id": {"description": "Whose events."}},
        "servers": servers,
        "messages": references([STREAM_ENTRY]),
    });
    let gaps = json!({
        "address": evaluation::GAPS,
        "description": "A stream of what retention took before this Redis had it, capped in the same way.",
        "servers": servers,
        "messages": references([STREAM_ENTRY]),
    });
    BTreeMap::from([
        published(evaluation::RUNNING, "evaluation_began"),
        published(evaluation::COMPLETED, "evaluation_ended"),
        published(evaluation::FAILED, "evaluation_ended"),
        published(evaluation::CANCELLED, "evaluation_ended"),
        ("evaluation_events".to_owned(), stream),
        ("evaluation_gaps".to_owned(), gaps),
    ])
}

fn references<'a>(names: impl IntoIterator<Item = &'a str>) -> Map<String, Value> {
    let reference = |name: &str| (name.to_owned(), json!({"$ref": format!("#/components/messages/{name}")}));
    names.into_iter().map(reference).collect()
}

fn schemas(entries: &[Entry]) -> Map<String, Value> {
    let types = Types::of_events();
    let mut schemas = Map::new();
    for entry in entries {
        schemas.extend(types.behind(&entry.schema));
        schemas.insert(entry.name.clone(), entry.schema.clone());
    }
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    let entry = json!({
        "type": "object",
        "description": "The fields of an entry.",
        "required": ["event_type", "event"],
        "properties": {
            "event_type": {"type": "string", "enum": names},
            "event": {
                "type": "string",
                "contentMediaType": DATA_CONTENT_TYPE,
                "description": "The event as it is in the journal: see the schema of that type.",
            },
        },
    });
    schemas.insert(STREAM_ENTRY.to_owned(), entry);
    schemas.insert("evaluation_began".to_owned(), types::of::<Began<'_>>());
    schemas.insert("evaluation_ended".to_owned(), types::of::<Ended<'_>>());
    schemas
}

fn messages(entries: &[Entry]) -> Map<String, Value> {
    let of_redis = [
        ("evaluation_began", "An evaluation began."),
        ("evaluation_ended", "An evaluation ended."),
        (STREAM_ENTRY, "An event, as an entry of a stream."),
    ];
    let of_redis = of_redis.map(|(name, summary)| (name.to_owned(), message(name, summary)));
    let of_kafka = entries.iter().map(|entry| {
        let mut message = message(&entry.name, &entry.meaning);
        message["headers"] = headers(entry);
        if entry.name == gap::EVENT_TYPE {
            message["bindings"] = bindings("`source`.");
        } else {
            message["correlationId"] =
                json!({"location": "$message.header#/ce_subject", "description": "The execution."});
            message["bindings"] = bindings(EXECUTION_KEY);
        }
        (entry.name.clone(), message)
    });
    of_kafka.chain(of_redis).chain([(DEAD_LETTER.to_owned(), dead_letter())]).collect()
}

fn dead_letter() -> Value {
    let mut message = message(DEAD_LETTER, "An event that could not be carried, as it was.");
    let header =
        |(name, description): (&str, &str)| (name.to_owned(), json!({"type": "string", "description": description}));
    let properties: Map<String, Value> = DEAD_LETTER_HEADERS.into_iter().map(header).collect();
    let required: Vec<&String> = properties.keys().collect();
    message["headers"] = json!({"type": "object", "required": required, "properties": properties});
    message["payload"] = json!({"description": "Its bytes: an event, unless that is what is wrong with it."});
    message["bindings"] = bindings(EXECUTION_KEY);
    message
}

fn bindings(key: &str) -> Value {
    let key = json!({"type": "string", "description": key});
    json!({"kafka": {"key": key, "bindingVersion": KAFKA_BINDING}})
}

fn message(name: &str, summary: &str) -> Value {
    json!({
        "name": name,
        "title": name,
        "summary": summary,
        "contentType": DATA_CONTENT_TYPE,
        "payload": {"$ref": format!("#/components/schemas/{name}")},
    })
}

/// CloudEvents 1.0, binary mode of the Kafka protocol binding.
fn headers(entry: &Entry) -> Value {
    let attribute = |(name, description): (&str, &str)| {
        let mut schema = json!({"type": "string", "description": description});
        match name {
            "specversion" => schema["const"] = json!("1.0"),
            "type" => schema["const"] = json!(entry.name),
            "id" => schema["format"] = json!("uuid"),
            "time" => schema["format"] = json!("date-time"),
            "sequence" => schema["pattern"] = json!("^[0-9]{20}$"),
            _ => {}
        }
        (format!("ce_{name}"), schema)
    };
    let mut properties: Map<String, Value> = entry.attributes.iter().copied().map(attribute).collect();
    // Tracers look for it without the prefix of CloudEvents, so it is written twice.
    if let Some(traceparent) = properties.get("ce_traceparent").cloned() {
        properties.insert("traceparent".to_owned(), traceparent);
    }
    properties.insert("content-type".to_owned(), json!({"type": "string", "const": DATA_CONTENT_TYPE}));
    let required: Vec<String> = properties.keys().cloned().collect();
    if entry.name != gap::EVENT_TYPE {
        properties.extend(about::ATTRIBUTES.into_iter().map(attribute));
    }
    json!({"type": "object", "required": required, "properties": properties})
}
