//! Which events an endpoint is sent.

use podherald_core::execution::Status;

use crate::{config::Webhook, journal::Record, sink::Item};

/// What must be so of an event; an empty list says nothing.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// It is of one of these types.
    pub events: Vec<&'static str>,
    /// It brings one of these statuses about.
    pub statuses: Vec<Status>,
    /// Its pod is in one of these namespaces.
    pub namespaces: Vec<String>,
    /// Its pod has all of these labels.
    pub labels: Vec<(String, String)>,
}

impl Filter {
    /// What the settings say.
    pub fn of(settings: &Webhook) -> Self {
        let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self {
            events: settings.events.iter().map(|event| event.0).collect(),
            statuses: settings.statuses.iter().map(|status| status.0).collect(),
            namespaces: settings.namespaces.iter().map(|namespace| namespace.as_str().to_owned()).collect(),
            labels: settings.labels.iter().map(|label| pair(label.pair())).collect(),
        }
    }

    /// Whatever it asks for may be what is missing, so a gap always passes.
    pub(super) fn admits(&self, item: &Item) -> bool {
        match item {
            Item::Event(record) => self.admits_event(record),
            Item::Gap(_) => true,
        }
    }

    fn admits_event(&self, record: &Record) -> bool {
        let is_status = |status| self.statuses.contains(&status);
        let is_of = |namespace: &String| self.namespaces.contains(namespace);
        (self.events.is_empty() || self.events.contains(&record.event_type))
            && (self.statuses.is_empty() || record.status.is_some_and(is_status))
            && (self.namespaces.is_empty() || record.about.namespace.as_ref().is_some_and(is_of))
            && self
                .labels
                .iter()
                .all(|(key, value)| record.about.labels.get(key.as_str()).is_some_and(|has| **has == **value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::{config::Config, sink::conformance::record};

    #[test]
    fn an_event_passes_if_it_is_what_each_list_asks() {
        let mut event = Record::clone(&record(1, ""));
        event.status = Some(Status::Failed);
        Arc::make_mut(&mut event.about).labels.insert("app".to_owned(), "runner".to_owned());
        let progress = Record { status: None, ..event.clone() };
        for (key, value, passes, passes_without_status) in [
            ("events", "", true, true),
            ("events", "execution_progress,pod_deleted", true, true),
            ("events", "pod_deleted", false, false),
            ("statuses", "timeout,failed", true, false),
            ("statuses", "completed", false, false),
            ("namespaces", "other,lab", true, true),
            ("namespaces", "other", false, false),
            ("labels", "app=runner", true, true),
            ("labels", "app=runner,tier=test", false, false),
            ("labels", "app=", false, false),
        ] {
            let key = format!("webhook.a.{key}");
            let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
            let settings = [("webhook.a.url", "http://a"), ("webhook.a.secret", secret), (&key, value)];
            let filter = Filter::of(&Config::of(&settings).unwrap().webhook.0["a"]);
            assert_eq!(
                (filter.admits_event(&event), filter.admits_event(&progress)),
                (passes, passes_without_status),
                "{key}={value}"
            );
        }
    }
}
