//! A Kubernetes API server for pods, Jobs and Nodes whose every answer is in a test's hands.
//!
//! [`ScriptedApi`] stands under the real `kube::Client`, so that what is tested is the code that talks to a cluster. In
//! process ([`ScriptedApi::client`]) it goes by tokio's clock, paused or not; behind a port ([`ScriptedApi::listen`]) it
//! serves other processes. It answers as a real server does: selectors, pages, versions, bookmarks, time limits, errors.
//! Beyond that it does what the script says: frames, failures, silence. A request that nobody expects fails the test.
//!
//! It shares no belief with the program: pods are plain JSON here.

mod answer;
mod failure;
mod loopback;
mod request;
mod selector;
mod store;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body;
use serde_json::Value;
use tokio::time::timeout;

pub(crate) use self::{
    failure::{Failure, Refusal},
    loopback::{Loopback, write_kubeconfig},
    request::{Asked, Kind},
    selector::Sort,
    store::{End, GoneAs, LogAttempt, LogEnd},
};

use self::store::{Change, Entry, LogScript, Shared, Stale, State, frame, key_of};

/// Longest wait for anything, by tokio's clock.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server and its script. Dropping it fails the test if a request came that is not scripted.
pub(crate) struct ScriptedApi {
    shared: Arc<Shared>,
}

impl ScriptedApi {
    /// A cluster without pods.
    pub(crate) fn new() -> Self {
        Self { shared: Arc::new(Shared::new()) }
    }

    /// kube's client over this server.
    pub(crate) fn client(&self) -> kube::Client {
        let shared = self.shared.clone();
        let service = tower::service_fn(move |request: Request<Body>| -> BoxFuture<'static, io::Result<Response<_>>> {
            Box::pin(answer::answer(shared.clone(), request.into_parts().0))
        });
        kube::Client::new(service, "default")
    }

    /// The same on a port of its own.
    pub(crate) async fn listen(&self) -> Loopback {
        Loopback::start(self.shared.clone()).await
    }

    // Pods and Jobs

    /// Creates or changes a pod, or what says that it is a Job or a Node. Watches see it as their selectors have it: added, modified, deleted.
    pub(crate) fn apply(&self, pod: Value) {
        self.shared.change(|state| {
            let key = key_of(&pod);
            let (version, after) = state.stamp(unversioned(pod));
            let before = state.pods.insert(key, after.clone());
            state.log.push(Entry::Change(Change { version, before, after: Some(after), verbatim: None }));
        });
    }

    /// Removes a pod. The watches that saw it get its last state as `DELETED`.
    pub(crate) fn delete(&self, namespace: &str, name: &str) {
        self.shared.change(|state| {
            state.remove((Sort::Pod, namespace.to_owned(), name.to_owned()));
        });
    }

    /// The same of a Node.
    pub(crate) fn delete_node(&self, name: &str) {
        self.shared.change(|state| state.remove((Sort::Node, String::new(), name.to_owned())));
    }

    /// The same of a Job.
    pub(crate) fn delete_job(&self, namespace: &str, name: &str) {
        self.shared.change(|state| {
            state.remove((Sort::Job, namespace.to_owned(), name.to_owned()));
        });
    }

    /// Sends this pod in a frame of this type, whatever was known of it; what the server then has of it follows.
    pub(crate) fn send(&self, kind: &'static str, pod: Value) {
        self.shared.change(|state| {
            let key = key_of(&pod);
            let (version, object) = state.stamp(pod);
            let before = match kind {
                "DELETED" => state.pods.remove(&key),
                _ => state.pods.insert(key, object.clone()),
            };
            let after = (kind != "DELETED").then(|| object.clone());
            state.log.push(Entry::Change(Change { version, before, after, verbatim: Some((kind, object)) }));
        });
    }

    /// From now on there are exactly these pods, and no frame tells of it: only a list does.
    pub(crate) fn replace_silently(&self, pods: Vec<Value>) {
        self.shared.change(|state| {
            state.pods.retain(|(sort, ..), _| *sort != Sort::Pod);
            for pod in pods {
                let key = key_of(&pod);
                let (_, pod) = state.stamp(pod);
                state.pods.insert(key, pod);
            }
            // A list's own version is another than its last item's (T9).
            state.next_version();
        });
    }

    // Frames

    /// A frame to all open watches, word for word.
    pub(crate) fn send_raw(&self, kind: &str, object: &Value) {
        let line = frame(kind, object);
        self.shared.change(|state| state.log.push(Entry::Raw(line)));
    }

    /// A line to all open watches that need not be a frame.
    pub(crate) fn send_line(&self, text: &str) {
        let line = Bytes::from(format!("{text}\n"));
        self.shared.change(|state| state.log.push(Entry::Raw(line)));
    }

    /// An `ERROR` frame to all open watches, which end after it as a real server's do.
    pub(crate) fn send_error(&self, refusal: &Refusal) {
        let line = frame("ERROR", &refusal.body);
        self.shared.change(|state| state.log.extend([Entry::Raw(line), Entry::End(End::Eof)]));
    }

    /// A bookmark to all open watches that allow it.
    pub(crate) fn send_bookmark(&self) {
        self.shared.change(|state| {
            let version = state.version;
            state.log.push(Entry::Bookmark(version));
        });
    }

    /// Ends all open watches.
    pub(crate) fn disconnect(&self, end: End) {
        self.shared.change(|state| state.log.push(Entry::End(end)));
    }

    /// The watches that are open now stay open and say nothing any more, not even their end.
    pub(crate) fn play_dead(&self) {
        self.shared.change(|state| state.open.values_mut().for_each(|open| open.dead = true));
    }

    /// Ends all open watches at once, whatever they have not taken yet: what becomes of a reader that is too slow.
    pub(crate) fn drop_slow_watches(&self) {
        self.shared.change(|state| {
            let State { open, log, .. } = state;
            open.values_mut().for_each(|open| open.cursor = log.len());
            log.push(Entry::End(End::Eof));
        });
    }

    // A second server

    /// From now on there is a second API server at this address, which knows what is there now and nothing later. It answers the
    /// requests that `answers` admits.
    pub(crate) fn fall_behind(&self, answers: impl FnMut(Kind) -> bool + Send + 'static) {
        self.shared.change(|state| {
            let (pods, version, log) = (state.pods.clone(), state.version, state.log.len());
            state.stale = Some(Stale { pods, version, log, answers: Box::new(answers) });
        });
    }

    /// The second server is as good as the first.
    pub(crate) fn catch_up(&self) {
        self.shared.change(|state| state.stale = None);
    }

    // Versions and pages

    /// Forgets the history: a watch from any version before now, and any `continue` token, is too old.
    pub(crate) fn expire(&self, gone_as: GoneAs) {
        self.shared.change(|state| {
            state.oldest = state.next_version();
            state.snapshots.clear();
            state.gone_as = gone_as;
        });
    }

    /// Forgets the history up to the newest version, from which a watch can still go on.
    pub(crate) fn compact(&self) {
        self.shared.change(|state| state.oldest = state.version);
    }

    /// At most so many pods on a page of a list, even if more are asked for.
    pub(crate) fn limit_pages(&self, pods: usize) {
        self.shared.change(|state| state.page_limit = Some(pods));
    }

    /// The newest version.
    pub(crate) fn version(&self) -> u64 {
        self.shared.lock().version
    }

    // Failures

    /// The next requests of this kind fail.
    pub(crate) fn fail_next(&self, kind: Kind, times: usize, failure: impl Into<Failure>) {
        let failure = failure.into();
        self.shared.change(|state| {
            let planned: &mut VecDeque<_> = state.failures.entry(kind).or_default();
            planned.extend(std::iter::repeat_n(Some(failure), times));
        });
    }

    /// So many requests of this kind are answered before what is planned after this.
    pub(crate) fn pass_next(&self, kind: Kind, times: usize) {
        self.shared.change(|state| {
            let planned: &mut VecDeque<_> = state.failures.entry(kind).or_default();
            planned.extend(std::iter::repeat_n(None, times));
        });
    }

    /// All requests of this kind fail until [`ScriptedApi::restore`].
    pub(crate) fn fail(&self, kind: Kind, failure: impl Into<Failure>) {
        let failure = failure.into();
        self.shared.change(|state| state.refusals.insert(kind, failure));
    }

    /// All requests get 403 until [`ScriptedApi::restore`]; what is open stays open.
    pub(crate) fn forbid(&self) {
        self.shared.change(|state| state.forbidden = true);
    }

    /// No planned failure is left.
    pub(crate) fn restore(&self) {
        self.shared.change(|state| {
            state.forbidden = false;
            state.refusals.clear();
            state.failures.clear();
        });
    }

    // Logs

    /// What the log endpoint answers for this container, request by request; the last answer repeats.
    pub(crate) fn set_logs(&self, namespace: &str, pod: &str, container: &str, attempts: Vec<LogAttempt>) {
        self.script_logs(namespace, pod, container, false, attempts);
    }

    /// The same for `previous=true`.
    pub(crate) fn set_previous_logs(&self, namespace: &str, pod: &str, container: &str, attempts: Vec<LogAttempt>) {
        self.script_logs(namespace, pod, container, true, attempts);
    }

    fn script_logs(&self, namespace: &str, pod: &str, container: &str, previous: bool, attempts: Vec<LogAttempt>) {
        let key = ((Sort::Pod, namespace.to_owned(), pod.to_owned()), container.to_owned(), previous);
        self.shared.change(|state| state.logs.insert(key, LogScript { attempts, next: 0 }));
    }

    // What was asked

    /// The requests of one kind so far, in their order.
    pub(crate) fn requests_of(&self, kind: Kind) -> Vec<Asked> {
        self.shared.lock().asked.iter().filter(|asked| asked.kind == kind).cloned().collect()
    }

    /// Watches that are open and not dead.
    pub(crate) fn open_watches(&self) -> usize {
        self.shared.lock().open_watches()
    }

    /// Waits until at least so many watches are open and have taken all that there is.
    pub(crate) async fn wait_for_watches(&self, count: usize) {
        self.wait(&format!("{count} open watches that are up to date"), |state| {
            state.open_watches() >= count && state.is_delivered()
        })
        .await;
    }

    /// Waits until so many requests of this kind have come, counted from the beginning.
    pub(crate) async fn wait_for_requests(&self, kind: Kind, count: usize) {
        self.wait(&format!("{count} {kind:?} requests"), |state| {
            state.asked.iter().filter(|asked| asked.kind == kind).count() >= count
        })
        .await;
    }

    async fn wait(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let mut bell = self.shared.bell();
        let waiting = async {
            while !condition(&self.shared.lock()) {
                bell.changed().await.unwrap();
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            let state = self.shared.lock();
            let asked: BTreeMap<Kind, usize> = state.asked.iter().fold(BTreeMap::new(), |mut counts, asked| {
                *counts.entry(asked.kind).or_default() += 1;
                counts
            });
            let open = state.open.len();
            panic!("{what} did not come within {PATIENCE:?}; {open} watches are open, requests so far: {asked:?}");
        }
    }

    /// Takes the requests that were not scripted; a test that provokes them calls this.
    pub(crate) fn take_unexpected(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unexpected)
    }
}

impl Drop for ScriptedApi {
    fn drop(&mut self) {
        let unexpected = self.take_unexpected();
        if !std::thread::panicking() {
            assert!(unexpected.is_empty(), "requests that are not scripted:\n{}", unexpected.join("\n"));
        }
    }
}

/// A pod that the server itself gives a version.
fn unversioned(mut pod: Value) -> Value {
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    pod
}

/// A log that is all there.
pub(crate) fn log_text(text: &str) -> Vec<LogAttempt> {
    vec![LogAttempt::Text(vec![Bytes::copy_from_slice(text.as_bytes())], LogEnd::Complete)]
}
