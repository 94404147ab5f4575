//! What components go by, as the settings say it.

use jiff::SignedDuration;
use podherald_core::{mapper::Policy, output::Limits, silence::Patience};

use crate::{
    config::Config,
    monitor::{collector, watcher::Scope},
    sink::{kafka, redis},
    worker::resource_cleaner,
};

pub(super) fn kafka_options(config: &Config) -> Option<kafka::Options> {
    let settings = &config.kafka;
    let brokers = settings.brokers.clone()?;
    let password = settings.password.clone().map(kafka::Password::Given);
    let password = password.or_else(|| settings.password_file.clone().map(kafka::Password::File));
    let sasl = settings.sasl_mechanism.zip(settings.username.clone()).zip(password);
    Some(kafka::Options {
        topic_prefix: settings.topic_prefix.as_str().to_owned(),
        create_topics: settings.create_topics,
        replication_factor: settings.replication_factor,
        timeout: settings.timeout,
        max_message_bytes: settings.max_message_bytes.bytes(),
        compression: settings.compression,
        tls: settings.tls,
        ca_file: settings.ca_file.clone(),
        sasl: sasl.map(|((mechanism, username), password)| kafka::Sasl { mechanism, username: username.0, password }),
        properties: settings.properties.clone(),
        ..kafka::Options::new(brokers)
    })
}

pub(super) fn cleaner_options(config: &Config) -> resource_cleaner::Options {
    let settings = &config.cleaner;
    resource_cleaner::Options {
        policy: resource_cleaner::plan::Policy {
            min_age: settings.min_age,
            keep_failed: settings.keep_failed,
            orphan_age: settings.orphan_age,
            unstored_age: settings.unstored_age,
        },
        places: config.kube.execution_id.clone(),
        namespaces: config.kube.namespaces.iter().map(|namespace| namespace.as_str().to_owned()).collect(),
        selector: settings.selector.as_str().to_owned(),
        interval: settings.interval,
        dry_run: settings.dry_run,
    }
}

pub(super) fn redis_options(config: &Config) -> Option<redis::Options> {
    let settings = &config.redis;
    let url = settings.url.clone().map(redis::Url::Given);
    let url = url.or_else(|| settings.url_file.clone().map(redis::Url::File))?;
    Some(redis::Options {
        ca_file: settings.ca_file.clone(),
        timeout: settings.timeout,
        stream_max_events: settings.stream_max_events,
        stream_retention: settings.stream_retention,
        ..redis::Options::new(url)
    })
}

/// Label of every pod of a Job.
const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";

pub(super) fn pod_scopes(config: &Config) -> Vec<Scope> {
    let of_jobs = config.kube.job_pods.then_some(JOB_NAME_LABEL);
    scopes(
        config,
        &config.kube.label_selectors.iter().map(|selector| selector.as_str()).chain(of_jobs).collect::<Vec<_>>(),
    )
}

pub(super) fn job_scopes(config: &Config) -> Vec<Scope> {
    let selectors = config.kube.label_selectors.iter().filter(|_| config.kube.jobs);
    scopes(config, &selectors.map(|selector| selector.as_str()).collect::<Vec<_>>())
}

/// One watch for each selector in each namespace, or in all at once (T19).
fn scopes(config: &Config, selectors: &[&str]) -> Vec<Scope> {
    let mut namespaces: Vec<Option<String>> =
        config.kube.namespaces.iter().map(|namespace| Some(namespace.as_str().to_owned())).collect();
    if namespaces.is_empty() {
        namespaces.push(None);
    }
    let mut scopes = Vec::new();
    for namespace in namespaces {
        for selector in selectors {
            scopes.push(Scope { namespace: namespace.clone(), selector: (*selector).to_owned() });
        }
    }
    scopes
}

/// What the mapper goes by.
pub fn policy(config: &Config) -> Policy {
    let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    Policy {
        container: config.kube.container.as_str().to_owned(),
        exit_grace: signed(config.monitor.exit_grace),
        image_pull_grace: signed(config.monitor.image_pull_grace),
        config_error_grace: signed(config.monitor.config_error_grace),
        unschedulable_deadline: config.monitor.unschedulable_deadline.map(signed),
        max_indexes: config.logs.max_indexes,
        must_hear: Some(Patience {
            grace: signed(config.monitor.must_hear_grace),
            by: config.monitor.must_hear_by.map(signed),
        }),
        hold: config.monitor.hold,
        environment: config.telemetry.environment.as_str().to_owned(),
        ..Policy::default()
    }
}

/// How much of a log is held, shown and kept.
pub fn limits(config: &Config) -> Limits {
    Limits {
        max_report_bytes: usize::try_from(config.logs.max_report_bytes.bytes()).unwrap_or(usize::MAX),
        max_bytes: config.logs.max_bytes.bytes(),
        ..Limits::default()
    }
}

pub(super) fn collector_options(config: &Config) -> collector::Options {
    let concurrency = config.logs.concurrency as usize;
    // One node may take most of the places, but not all: the others go on while its kubelet hangs.
    collector::Options { limits: limits(config), concurrency, per_node: (concurrency * 3 / 4).max(1) }
}
