//! Keeps what a kubelet showed of a pod as a case for the suite `it`: the frames of its watch, its log, and the events that
//! they must yield. `PODHERALD_RECORD=DIRECTORY` records; `just record-real` has made `tests/fixtures/real` so.

use std::{cell::RefCell, fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
};
use serde_json::{Map, Value, json};

use super::case::{Case, Prints};
use crate::herald::ends;

/// A log larger than this is left out, and its case with it.
const MOST: usize = 4 << 10;

/// Until podherald with its default settings gives up what does not start.
const PATIENCE: u32 = 301;

/// The frames of a namespace's pods, if they are to be kept.
pub(super) struct Recorder {
    directory: Option<PathBuf>,
    /// Each with its type.
    frames: RefCell<Vec<(&'static str, Value)>>,
}

impl Recorder {
    #[expect(clippy::disallowed_methods, reason = "this is no setting of podherald")]
    pub(super) fn from_environment() -> Self {
        Self { directory: std::env::var_os("PODHERALD_RECORD").map(PathBuf::from), frames: RefCell::default() }
    }

    /// Records while `work` is done.
    pub(super) async fn during<T>(&self, pods: &Api<Pod>, work: impl Future<Output = T>) -> T {
        tokio::select! {
            result = work => result,
            () = self.watch(pods), if self.directory.is_some() => panic!("the recorder's watch ended"),
        }
    }

    async fn watch(&self, pods: &Api<Pod>) {
        let mut frames = pods.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        while let Some(frame) = frames.next().await {
            let (kind, pod) = match frame.unwrap() {
                WatchEvent::Added(pod) => ("ADDED", pod),
                WatchEvent::Modified(pod) => ("MODIFIED", pod),
                WatchEvent::Deleted(pod) => ("DELETED", pod),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => panic!("{status:?}"),
            };
            self.frames.borrow_mut().push((kind, serde_json::to_value(pod).unwrap()));
        }
    }

    /// Writes the case of execution `id`, which these events were told of.
    pub(super) fn save(&self, case: &Case, id: &str, events: &[Value]) {
        let Some(directory) = &self.directory else { return };
        if case.prints.bytes().len() > MOST {
            return;
        }
        let frames = self.frames.borrow();
        let of_pod = frames.iter().filter(|(_, pod)| pod["metadata"]["labels"]["execution-id"] == id);
        let container = if case.name == "init-fails" { "fetch" } else { "executor" };
        let log = json!({container: [{"parts": [{"b64": STANDARD.encode(case.prints.bytes())}]}]});
        let mut steps: Vec<Value> =
            of_pod.map(|(kind, pod)| json!({"op": "watch", "type": kind, "pod": telling(pod)})).collect();
        steps[0]["logs"] = log;
        if case.fields["exit"]["code"].is_null() && case.fields["cause"]["class"] == "never_started" {
            steps.push(json!({"op": "tick", "seconds": PATIENCE}));
        }
        let required: Vec<_> = events
            .iter()
            .map(|event| {
                let fields = if ends(event) { terminal_fields(case) } else { json!({}) };
                json!({"event_type": event["event_type"], "fields": fields})
            })
            .collect();
        let recorded = json!({
            "id": format!("real-{}", case.name),
            "title": format!("{} on a real node", case.name.replace('-', " ")),
            "tier": 1,
            "tags": ["real"],
            "steps": steps,
            "expect": {
                "required_in_order": required,
                "forbidden": [],
                "terminal_events": 1,
                "terminal_types": ["execution_completed", "execution_failed", "execution_timeout", "execution_cancelled"],
                "max_per_type_and_uid": 1,
            },
        });
        let text = serde_json::to_string(&recorded).unwrap();
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(format!("{}.json", case.name)), text.replace("{\"op\"", "\n{\"op\"") + "\n").unwrap();
    }
}

fn terminal_fields(case: &Case) -> Value {
    let mut fields = case.fields.clone();
    if let Prints::All(bytes) = &case.prints {
        fields["stdout"] = String::from_utf8_lossy(bytes).into();
    }
    fields
}

/// The pod without what decides nothing: who wrote it, and most of its spec.
fn telling(pod: &Value) -> Value {
    let chosen = |of: &Value, keys: &[&str]| -> Value {
        let fields = keys.iter().filter_map(|key| Some(((*key).to_owned(), of.get(key)?.clone())));
        fields.collect::<Map<_, _>>().into()
    };
    let mut spec =
        chosen(&pod["spec"], &["activeDeadlineSeconds", "containers", "initContainers", "nodeName", "restartPolicy"]);
    for containers in ["containers", "initContainers"] {
        let containers = spec.get_mut(containers).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            *container = chosen(container, &["name", "image", "command", "restartPolicy"]);
        }
    }
    let mut metadata = pod["metadata"].clone();
    let mut status = pod["status"].clone();
    for (of, key) in [
        (&mut metadata, ["managedFields", "generation", "resourceVersion"].as_slice()),
        (&mut status, ["qosClass", "hostIP", "hostIPs", "podIP", "podIPs"].as_slice()),
    ] {
        key.iter().for_each(|key| drop(of.as_object_mut().unwrap().remove(*key)));
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
}
