//! Watches and streaming lists.

use serde_json::{Value, json};

use super::super::place::{MERGE, Place, assert_refused, causes, text, told, told_once};

behaviours! { watches:
    async fn a_watch_tells_what_happened_since_a_version(at: &Place) {
        let version = at.version().await;
        at.pod("a", &json!({})).await;
        at.patch("pods/a", MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
        at.delete("pods/a", &Value::Null).await;
        let frames = at.watch(&format!("resourceVersion={version}")).await;
        assert_eq!(told_once(&frames), [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]);
        let versions: Vec<u64> =
            frames.iter().map(|frame| text(frame, "/object/metadata/resourceVersion").parse().unwrap()).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "the last state is under the version of the deletion: {versions:?}");
    }

    async fn a_watch_without_a_version_begins_with_what_is_there(at: &Place) {
        at.pod("a", &json!({})).await;
        assert_eq!(told(&at.watch("").await), [("ADDED", "a")]);
    }

    async fn a_watch_sees_a_selector_entered_and_left(at: &Place) {
        let version = at.version().await;
        at.pod("a", &json!({})).await;
        at.patch("pods/a", MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
        at.patch("pods/a", MERGE, &json!({"metadata": {"labels": {"x": null}}})).await;
        let frames = at.watch(&format!("resourceVersion={version}&labelSelector=x")).await;
        assert_eq!(told(&frames), [("ADDED", "a"), ("DELETED", "a")]);
        assert_eq!(frames[1]["object"]["metadata"]["labels"]["x"], "1", "as it was when it was selected");
    }

    async fn a_deletion_with_grace_is_a_modification_until_it_is_done(at: &Place) {
        let version = at.version().await;
        at.bound_pod("a", &json!([])).await;
        at.delete("pods/a", &json!({"gracePeriodSeconds": 9})).await;
        at.delete("pods/a", &json!({"gracePeriodSeconds": 0})).await;
        let frames = at.watch(&format!("resourceVersion={version}")).await;
        assert_eq!(told_once(&frames), [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]);
        assert_eq!(frames[1]["object"]["metadata"]["deletionGracePeriodSeconds"], 9);
    }

    async fn a_streaming_list_ends_with_a_marked_bookmark(at: &Place) {
        at.pod("a", &json!({})).await;
        let frames = at.watch("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true").await;
        assert_eq!(text(&frames[0], "/type"), "ADDED");
        let end = frames.iter().find(|frame| frame["type"] == "BOOKMARK").expect("a bookmark");
        assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        assert!(!text(end, "/object/metadata/resourceVersion").is_empty());
    }

    async fn a_streaming_list_needs_its_match(at: &Place) {
        let answer = at.get("pods?watch=true&sendInitialEvents=true").await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(causes(&answer), [("resourceVersionMatch", "FieldValueForbidden")]);
    }

    async fn a_watch_from_a_version_that_is_forgotten_is_told_so(at: &Place) {
        let frames = at.watch("resourceVersion=1").await;
        assert_eq!(frames.len(), 1, "{frames:?}");
        assert_eq!(text(&frames[0], "/type"), "ERROR");
        assert_refused(&(410, frames[0]["object"].clone()), 410, "Expired");
        assert!(text(&frames[0], "/object/message").starts_with("too old resource version: 1"), "{frames:?}");
    }

    async fn a_watch_from_a_version_that_is_not_there_yet_waits(at: &Place) {
        at.pod("a", &json!({})).await;
        assert_eq!(told(&at.watch("resourceVersion=99999999").await), []);
    }
}
