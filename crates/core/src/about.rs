//! What is known of an event's pod beside the event itself: wherever the event is carried, it stands in the headers.

use serde::{Deserialize, Serialize};

use crate::pod::Labels;

/// The extension attributes that say it, and what each is. All may be absent.
pub const ATTRIBUTES: [(&str, &str); 3] = [
    ("namespace", "Of the pod or Job that the event is about."),
    ("labels", "Of the same, as a JSON object of strings."),
    ("poduid", "`metadata.uid` of the pod that the event is about."),
];

/// Which pod, or which Job, an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The pod's uid; none if it is about a Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
}

impl About {
    /// Name and value of each attribute that there is, names without any prefix.
    pub fn attributes(&self) -> Vec<(&'static str, String)> {
        let [namespace, labels, pod_uid] = ATTRIBUTES.map(|(name, _)| name);
        let json = || serde_json::to_string(&self.labels).expect("labels are strings");
        let labels_json = (!self.labels.is_empty()).then(json);
        let all = [(namespace, self.namespace.clone()), (labels, labels_json), (pod_uid, self.pod_uid.clone())];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// Takes in an attribute, if it is one of these. What cannot be read is as if it were absent: anybody may write headers.
    pub fn read(&mut self, name: &str, value: &[u8]) {
        let text = || std::str::from_utf8(value).ok().filter(|text| !text.is_empty()).map(str::to_owned);
        match name {
            "namespace" => self.namespace = text(),
            "labels" => self.labels = serde_json::from_slice(value).unwrap_or_default(),
            "poduid" => self.pod_uid = text(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_back_and_noise_says_nothing() {
        let labels: Labels =
            [("a\"b", "c"), ("team", "blue")].map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect();
        for about in [
            About::default(),
            About { namespace: Some("lab".to_owned()), labels, pod_uid: Some("u".to_owned()) },
            About { namespace: Some("lab".to_owned()), ..About::default() },
        ] {
            let mut read = About::default();
            for (name, value) in about.attributes() {
                assert!(ATTRIBUTES.iter().any(|(known, _)| *known == name));
                read.read(name, value.as_bytes());
            }
            assert_eq!(read, about);
        }
        let mut read = About::default();
        for (name, value) in [("labels", "[1]"), ("labels", "{\"a\":1}"), ("namespace", ""), ("other", "x")] {
            read.read(name, value.as_bytes());
        }
        read.read("poduid", b"\xff");
        assert_eq!(read, About::default());
    }
}
