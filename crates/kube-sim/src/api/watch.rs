//! Watches: what happens to the objects that a filter admits, from a version on.
//!
//! A watch takes from the history at its own pace. One that falls behind it is ended, as a slow reader of a real API server
//! is; it holds nothing up.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Body,
    lists::{check_watch, filter, version_number},
    request::Asked,
    selector::Filter,
    table,
};
use crate::cluster::{Cluster, Event, Kind, Refusal};

/// Without `timeoutSeconds`.
const LONGEST: Duration = Duration::from_secs(45 * 60);
/// How often a watch gets a bookmark unasked, and how long before its end a last one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
const FAREWELL: Duration = Duration::from_secs(2);
/// Marks the bookmark after the objects that were there.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

struct Watch {
    cluster: Cluster,
    kind: Kind,
    filter: Filter,
    bell: watch::Receiver<u64>,
    version: u64,
    ready: VecDeque<Bytes>,
    bookmarks: bool,
    next_bookmark: Instant,
    ends_at: Instant,
    as_table: bool,
    has_ended: bool,
}

pub(super) fn open(
    cluster: &Cluster,
    kind: Kind,
    namespace: &str,
    name: &str,
    asked: &Asked,
) -> Result<Response<Body>, Refusal> {
    let filter = filter(kind, namespace, name, asked)?;
    check_watch(asked)?;
    // Nothing means the longest, and less than nothing the end.
    let timeout = asked.query.number("timeoutSeconds")?.filter(|seconds| *seconds != 0);
    let timeout = timeout.map_or(LONGEST, |seconds| Duration::from_secs(seconds.try_into().unwrap_or(0))).min(LONGEST);
    let wants_first = asked.query.flag("sendInitialEvents");
    let from = version_number(asked.query.get("resourceVersion").unwrap_or("0"))?;

    let now = Instant::now();
    let mut watch = Watch {
        bell: cluster.lock().bell(),
        cluster: cluster.clone(),
        kind,
        filter,
        version: from,
        ready: VecDeque::new(),
        bookmarks: asked.query.flag("allowWatchBookmarks"),
        next_bookmark: now + BOOKMARK_EVERY,
        ends_at: now + timeout,
        as_table: asked.as_table,
        has_ended: false,
    };
    if wants_first || from == 0 {
        watch.begin(wants_first);
    }
    let frames = stream::unfold(watch, |mut watch| async move {
        let frame = watch.next().await?;
        Some((Ok::<_, io::Error>(Frame::data(frame)), watch))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

impl Watch {
    /// Tells of what is there already.
    fn begin(&mut self, marks_the_end: bool) {
        let cluster = self.cluster.clone();
        let state = cluster.lock();
        for (_, object) in state.all(self.kind).filter(|(_, object)| self.filter.admits(object)) {
            let frame = self.frame("ADDED", object);
            self.ready.push_back(frame);
        }
        self.version = state.version();
        if marks_the_end && self.bookmarks {
            let bookmark = self.bookmark(json!({INITIAL_EVENTS_END: "true"}));
            self.ready.push_back(bookmark);
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.has_ended {
                return None;
            }
            self.bell.mark_unchanged();
            self.look();
            if !self.ready.is_empty() || self.has_ended {
                continue;
            }
            let now = Instant::now();
            if now >= self.ends_at {
                return None;
            }
            if self.bookmarks && now >= self.next_bookmark {
                self.next_bookmark = now + BOOKMARK_EVERY;
                return Some(self.bookmark(json!({})));
            }
            let farewell = self.ends_at.checked_sub(FAREWELL).filter(|at| self.bookmarks && *at > now);
            if let Some(farewell) = farewell {
                self.next_bookmark = self.next_bookmark.min(farewell);
            }
            let wake = if self.bookmarks { self.next_bookmark.min(self.ends_at) } else { self.ends_at };
            tokio::select! {
                rung = self.bell.changed() => rung.ok()?,
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Takes what has happened since.
    fn look(&mut self) {
        let cluster = self.cluster.clone();
        let state = cluster.lock();
        let Some(events) = state.after(self.kind, self.version) else {
            cluster.count_cut_watch();
            let refusal = Refusal::expired(format!("too old resource version: {}", self.version));
            self.ready.push_back(line("ERROR", &refusal.to_status()));
            self.has_ended = true;
            return;
        };
        let frames: Vec<Bytes> = events.filter_map(|event| self.seen(event)).collect();
        self.ready.extend(frames);
        self.version = self.version.max(state.version());
    }

    /// What a watch with this filter sees of a change.
    fn seen(&self, event: &Event) -> Option<Bytes> {
        let was = event.before.as_ref().is_some_and(|before| self.filter.admits(before));
        let is = !event.is_gone && self.filter.admits(&event.now);
        match (was, is) {
            (false, true) => Some(self.frame("ADDED", &event.now)),
            (true, true) => Some(self.frame("MODIFIED", &event.now)),
            (true, false) if event.is_gone => Some(self.frame("DELETED", &event.now)),
            // T15: it left the selector; the last state that the watch could see, under the version of the change.
            (true, false) => {
                let mut last = event.before.as_deref().cloned().unwrap_or_default();
                last["metadata"]["resourceVersion"] = json!(event.version.to_string());
                Some(self.frame("DELETED", &Arc::new(last)))
            }
            (false, false) => None,
        }
    }

    fn frame(&self, change: &str, object: &Arc<Value>) -> Bytes {
        if self.as_table {
            let version = object["metadata"]["resourceVersion"].clone();
            let table =
                table::of(&self.cluster, self.kind, std::slice::from_ref(object), &json!({"resourceVersion": version}));
            return line(change, &table);
        }
        line(change, object)
    }

    fn bookmark(&self, annotations: Value) -> Bytes {
        let mut object = json!({
            "kind": self.kind.resource().kind, "apiVersion": self.kind.resource().api_version(),
            "metadata": {"resourceVersion": self.version.to_string(), "creationTimestamp": null},
        });
        if annotations.as_object().is_some_and(|annotations| !annotations.is_empty()) {
            object["metadata"]["annotations"] = annotations;
        }
        if self.kind == Kind::Pod {
            object["spec"] = json!({"containers": null});
            object["status"] = json!({});
        }
        line("BOOKMARK", &object)
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut line = format!(r#"{{"type":"{kind}","object":"#).into_bytes();
    serde_json::to_writer(&mut line, object).expect("JSON in memory can be written");
    line.extend_from_slice(b"}\n");
    line.into()
}
