//! What podherald relies on of a Kubernetes API server. Each function holds on the scripted one and on a real one, so
//! that what is tested against the script is true in the field.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams, VersionMatch, WatchEvent, WatchParams},
    core::Status,
};

/// Longest wait for a frame.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster with a namespace that is this test's alone, where nothing schedules or runs the pods.
pub(crate) trait Cluster {
    /// As podherald has it.
    fn client(&self) -> kube::Client;
    /// Empty at first.
    fn namespace(&self) -> &str;
    /// A pod with the containers `main` and `side`.
    async fn create(&self, name: &str, labels: &[(&str, &str)]);
    /// Replaces the labels.
    async fn relabel(&self, name: &str, labels: &[(&str, &str)]);
    /// Removes the pod at once.
    async fn delete(&self, name: &str);
    /// From now on no watch can start from a version of before.
    async fn forget_history(&self);
}

fn pods(cluster: &impl Cluster) -> Api<Pod> {
    Api::namespaced(cluster.client(), cluster.namespace())
}

fn labelled(selector: &str) -> ListParams {
    ListParams::default().labels(selector)
}

fn names(pods: &[Pod]) -> Vec<String> {
    pods.iter().map(ResourceExt::name_any).collect()
}

fn version(pod: &Pod) -> u64 {
    pod.resource_version().unwrap().parse().unwrap()
}

/// The newest version that a list shows.
async fn head(cluster: &impl Cluster) -> String {
    pods(cluster).list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap()
}

fn refusal(error: kube::Error) -> Box<Status> {
    match error {
        kube::Error::Api(status) => status,
        other => panic!("no Status but {other}"),
    }
}

type Frame = kube::Result<WatchEvent<Pod>>;

/// The next frame; none at the end.
async fn next_of_all(frames: &mut (impl Stream<Item = Frame> + Unpin)) -> Option<WatchEvent<Pod>> {
    let frame = tokio::time::timeout(PATIENCE, frames.next()).await.expect("a frame or the end in time");
    frame.map(|frame| frame.expect("a readable frame"))
}

/// The same without bookmarks, which may come at any time.
async fn next(frames: &mut (impl Stream<Item = Frame> + Unpin)) -> Option<WatchEvent<Pod>> {
    loop {
        match next_of_all(frames).await {
            Some(WatchEvent::Bookmark(_)) => {}
            frame => return frame,
        }
    }
}

/// `ADDED name`, `BOOKMARK`, ...
fn told(frame: &WatchEvent<Pod>) -> String {
    match frame {
        WatchEvent::Added(pod) => format!("ADDED {}", pod.name_any()),
        WatchEvent::Modified(pod) => format!("MODIFIED {}", pod.name_any()),
        WatchEvent::Deleted(pod) => format!("DELETED {}", pod.name_any()),
        WatchEvent::Bookmark(_) => "BOOKMARK".to_owned(),
        WatchEvent::Error(status) => format!("ERROR {}", status.code),
    }
}

/// T13: pages, and a snapshot that stays what it was while they are read.
pub(crate) async fn a_list_comes_in_pages_of_one_snapshot(cluster: &impl Cluster) {
    for name in ["a", "b", "c", "d", "e"] {
        cluster.create(name, &[]).await;
    }
    let api = pods(cluster);
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(names(&first.items), ["a", "b"]);
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    cluster.create("bb", &[]).await;
    cluster.delete("d").await;

    let token = first.metadata.continue_.clone().unwrap();
    let second = api.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(names(&second.items), ["c", "d"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);

    let token = second.metadata.continue_.clone().unwrap();
    let third = api.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(names(&third.items), ["e"]);
    assert_eq!(third.metadata.continue_.filter(|token| !token.is_empty()), None);
}

/// The selectors of podherald's configuration.
pub(crate) async fn a_list_honours_label_and_field_selectors(cluster: &impl Cluster) {
    cluster.create("plain", &[]).await;
    cluster.create("one", &[("execution-id", "e1"), ("tier", "a")]).await;
    cluster.create("two", &[("eval-id", "e2"), ("tier", "b")]).await;
    let api = pods(cluster);
    for (selector, expected) in [
        ("execution-id", vec!["one"]),
        ("!execution-id", vec!["plain", "two"]),
        ("!no-such-label", vec!["one", "plain", "two"]),
        ("tier in (a, b),execution-id!=e1", vec!["two"]),
        ("tier notin (a)", vec!["plain", "two"]),
        ("tier=b", vec!["two"]),
    ] {
        assert_eq!(names(&api.list(&labelled(selector)).await.unwrap().items), expected, "{selector}");
    }
    let by_name = api.list(&ListParams::default().fields("metadata.name=two")).await.unwrap();
    assert_eq!(names(&by_name.items), ["two"]);

    let status = refusal(api.list(&labelled("a b")).await.unwrap_err());
    assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"), "{}", status.message);
    let status = refusal(api.list(&ListParams::default().fields("spec.color=red")).await.unwrap_err());
    assert_eq!((status.code, status.message.as_str()), (400, "field label not supported: spec.color"));
}

/// T9: the list's own version is where a watch goes on.
pub(crate) async fn a_watch_from_the_lists_version_starts_after_the_list(cluster: &impl Cluster) {
    cluster.create("before", &[]).await;
    let list = pods(cluster).list(&ListParams::default()).await.unwrap();
    let own = list.metadata.resource_version.unwrap();
    assert!(own.parse::<u64>().unwrap() >= version(&list.items[0]));
    let mut frames = pin!(pods(cluster).watch(&WatchParams::default().timeout(10), &own).await.unwrap());
    cluster.create("after", &[]).await;
    assert_eq!(told(&next(&mut frames).await.unwrap()), "ADDED after");
}

/// T15: leaving a selector looks like a deletion, without a deletionTimestamp.
pub(crate) async fn a_pod_that_enters_and_leaves_the_selector_is_added_and_deleted(cluster: &impl Cluster) {
    cluster.create("p", &[]).await;
    let params = WatchParams::default().labels("tier=a").timeout(10);
    let mut frames = pin!(pods(cluster).watch(&params, &head(cluster).await).await.unwrap());
    cluster.relabel("p", &[("tier", "b")]).await;
    cluster.relabel("p", &[("tier", "a")]).await;
    cluster.relabel("p", &[("tier", "a"), ("more", "x")]).await;
    cluster.relabel("p", &[("tier", "c")]).await;
    assert_eq!(told(&next(&mut frames).await.unwrap()), "ADDED p");
    assert_eq!(told(&next(&mut frames).await.unwrap()), "MODIFIED p");
    let Some(WatchEvent::Deleted(left)) = next(&mut frames).await else { panic!("it left the selector") };
    assert_eq!(left.labels()["tier"], "a", "the last state that the watch could see");
    assert_eq!(left.metadata.deletion_timestamp, None);
    assert_eq!(left.resource_version(), pods(cluster).get("p").await.unwrap().resource_version());
}

/// The frame of a deletion is newer than all that was seen of the pod, so that a watch can go on from it.
pub(crate) async fn a_delete_frame_bears_the_version_of_the_deletion(cluster: &impl Cluster) {
    let mut frames =
        pin!(pods(cluster).watch(&WatchParams::default().timeout(10), &head(cluster).await).await.unwrap());
    cluster.create("p", &[]).await;
    let Some(WatchEvent::Added(added)) = next(&mut frames).await else { panic!("it was created") };
    cluster.delete("p").await;
    let deleted = loop {
        match next(&mut frames).await {
            Some(WatchEvent::Modified(_)) => {}
            Some(WatchEvent::Deleted(deleted)) => break deleted,
            other => panic!("it was deleted, not {:?}", other.as_ref().map(told)),
        }
    };
    assert_eq!(deleted.uid(), added.uid());
    assert!(version(&deleted) > version(&added));
}

/// T16: a name tells nothing.
pub(crate) async fn a_recreated_pod_has_another_uid(cluster: &impl Cluster) {
    let mut frames =
        pin!(pods(cluster).watch(&WatchParams::default().timeout(10), &head(cluster).await).await.unwrap());
    for _ in 0..2 {
        cluster.create("p", &[]).await;
        cluster.delete("p").await;
    }
    let mut uids = Vec::new();
    while uids.len() < 4 {
        match next(&mut frames).await {
            Some(WatchEvent::Added(pod) | WatchEvent::Deleted(pod)) => uids.push(pod.uid().unwrap()),
            Some(WatchEvent::Modified(_)) => {}
            other => panic!("unexpected {:?}", other.as_ref().map(told)),
        }
    }
    assert!(uids[0] == uids[1] && uids[2] == uids[3] && uids[0] != uids[2], "{uids:?}");
}

/// `timeoutSeconds` ends a watch with a plain end; from its last version nothing is missed and nothing repeated.
pub(crate) async fn a_watch_ends_after_its_time_and_is_resumed_without_a_gap(cluster: &impl Cluster) {
    let params = WatchParams::default().timeout(1).disable_bookmarks();
    let mut last = head(cluster).await;
    let mut seen = Vec::new();
    for name in ["a", "b"] {
        let mut frames = pin!(pods(cluster).watch(&params, &last).await.unwrap());
        cluster.create(name, &[]).await;
        while let Some(frame) = next(&mut frames).await {
            seen.push(told(&frame));
            let WatchEvent::Added(pod) = frame else { panic!("only creations happen here: {seen:?}") };
            last = pod.resource_version().unwrap();
        }
        cluster.create(&format!("after-{name}"), &[]).await;
    }
    let mut frames = pin!(pods(cluster).watch(&params, &last).await.unwrap());
    seen.push(told(&next(&mut frames).await.unwrap()));
    assert_eq!(seen, ["ADDED a", "ADDED after-a", "ADDED b", "ADDED after-b"]);
}

/// T10: a quiet watch learns the newest version before it ends, if it wants to.
pub(crate) async fn a_quiet_watch_gets_a_bookmark_before_it_ends(cluster: &impl Cluster) {
    let from = head(cluster).await;
    let params = WatchParams::default().labels("tier=none").timeout(4);
    let quiet = params.clone().disable_bookmarks();
    let api = pods(cluster);
    let (with, without) = futures::join!(api.watch(&params, &from), api.watch(&quiet, &from));
    let (mut with, mut without) = (pin!(with.unwrap()), pin!(without.unwrap()));
    cluster.create("unseen", &[("tier", "other")]).await;
    let newest = version(&api.get("unseen").await.unwrap());
    let Some(WatchEvent::Bookmark(bookmark)) = next_of_all(&mut with).await else { panic!("a bookmark comes first") };
    assert!(bookmark.metadata.resource_version.parse::<u64>().unwrap() >= newest);
    assert_eq!(next_of_all(&mut without).await.as_ref().map(told), None);
}

/// Without a version a watch first tells what is there.
pub(crate) async fn a_watch_from_nowhere_begins_with_what_is_there(cluster: &impl Cluster) {
    cluster.create("a", &[("tier", "a")]).await;
    cluster.create("b", &[("tier", "a")]).await;
    cluster.create("c", &[("tier", "b")]).await;
    let params = WatchParams::default().labels("tier=a").timeout(10).disable_bookmarks();
    let mut frames = pin!(pods(cluster).watch(&params, "0").await.unwrap());
    let mut first = [told(&next(&mut frames).await.unwrap()), told(&next(&mut frames).await.unwrap())];
    first.sort();
    assert_eq!(first, ["ADDED a", "ADDED b"]);
    cluster.relabel("c", &[("tier", "a")]).await;
    assert_eq!(told(&next(&mut frames).await.unwrap()), "ADDED c");
}

/// The streaming list: everything, then a bookmark that says so.
pub(crate) async fn a_streaming_list_ends_with_a_marked_bookmark(cluster: &impl Cluster) {
    cluster.create("a", &[]).await;
    let params = WatchParams::default().initial_events().timeout(10);
    let mut frames = pin!(pods(cluster).watch(&params, "").await.unwrap());
    assert_eq!(told(&next(&mut frames).await.unwrap()), "ADDED a");
    let Some(WatchEvent::Bookmark(bookmark)) = next_of_all(&mut frames).await else { panic!("the list ends here") };
    let expected = BTreeMap::from([("k8s.io/initial-events-end".to_owned(), "true".to_owned())]);
    assert_eq!(bookmark.metadata.annotations, expected);
    cluster.create("b", &[]).await;
    assert_eq!(told(&next(&mut frames).await.unwrap()), "ADDED b");
}

/// T5: an outdated version is told in an `ERROR` frame within a 200, after which the watch ends.
pub(crate) async fn a_watch_from_before_the_history_gets_an_error_frame(cluster: &impl Cluster) {
    let from = head(cluster).await;
    cluster.create("a", &[]).await;
    cluster.forget_history().await;
    let mut frames = pin!(pods(cluster).watch(&WatchParams::default().timeout(10), &from).await.unwrap());
    let first = next(&mut frames).await;
    let Some(WatchEvent::Error(status)) = first else { panic!("too old, not {:?}", first.as_ref().map(told)) };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(status.message.starts_with(&format!("too old resource version: {from} (")), "{}", status.message);
    assert_eq!(next(&mut frames).await.as_ref().map(told), None);
}

/// T18: a version that the server has not reached is refused for now.
pub(crate) async fn a_version_beyond_the_newest_is_too_large(cluster: &impl Cluster) {
    let newest: u64 = head(cluster).await.parse().unwrap();
    let beyond = (newest + 1_000_000).to_string();
    let params = ListParams::default().at(&beyond).matching(VersionMatch::NotOlderThan);
    let status = refusal(pods(cluster).list(&params).await.unwrap_err());
    assert_eq!((status.code, status.reason.as_str()), (504, "Timeout"));
    assert!(
        status.message.starts_with(&format!("Timeout: Too large resource version: {beyond}, current: ")),
        "{}",
        status.message
    );
    assert_eq!(status.details.unwrap().causes[0].reason, "ResourceVersionTooLarge");
}

/// T98: what is not there is said to be not there.
pub(crate) async fn a_missing_pod_is_a_404_status(cluster: &impl Cluster) {
    let status = refusal(pods(cluster).get("nobody").await.unwrap_err());
    assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"));
    assert_eq!(status.message, "pods \"nobody\" not found");
    let details = status.details.unwrap();
    assert_eq!((details.name.as_str(), details.kind.as_str()), ("nobody", "pods"));
    assert!(pods(cluster).get_opt("nobody").await.unwrap().is_none());

    let status = refusal(pods(cluster).logs("nobody", &LogParams::default()).await.unwrap_err());
    assert_eq!((status.code, status.message.as_str()), (404, "pods \"nobody\" not found"));
}

/// The log endpoint wants to know whose log.
pub(crate) async fn a_log_of_no_certain_container_is_a_400_status(cluster: &impl Cluster) {
    cluster.create("p", &[]).await;
    let status = refusal(pods(cluster).logs("p", &LogParams::default()).await.unwrap_err());
    assert_eq!((status.code, status.reason.as_str()), (400, "BadRequest"));
    assert_eq!(status.message, "a container name must be specified for pod p, choose one of: [main side]");

    let other = LogParams { container: Some("other".to_owned()), ..LogParams::default() };
    let status = refusal(pods(cluster).logs("p", &other).await.unwrap_err());
    assert_eq!((status.code, status.message.as_str()), (400, "container other is not valid for pod p"));
}

/// Calls `$run!(name, ...)` with all behaviours but the one that costs a cluster its history.
macro_rules! for_each_behaviour {
    ($run:ident) => {
        $run!(
            a_list_comes_in_pages_of_one_snapshot,
            a_list_honours_label_and_field_selectors,
            a_watch_from_the_lists_version_starts_after_the_list,
            a_pod_that_enters_and_leaves_the_selector_is_added_and_deleted,
            a_delete_frame_bears_the_version_of_the_deletion,
            a_recreated_pod_has_another_uid,
            a_watch_ends_after_its_time_and_is_resumed_without_a_gap,
            a_quiet_watch_gets_a_bookmark_before_it_ends,
            a_watch_from_nowhere_begins_with_what_is_there,
            a_streaming_list_ends_with_a_marked_bookmark,
            a_version_beyond_the_newest_is_too_large,
            a_missing_pod_is_a_404_status,
            a_log_of_no_certain_container_is_a_400_status,
        );
    };
}
pub(crate) use for_each_behaviour;
