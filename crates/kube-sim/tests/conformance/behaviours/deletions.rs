//! Deletions: grace, finalizers, preconditions.

use serde_json::{Value, json};

use super::super::place::{JSON_PATCH, MERGE, Place, assert_refused, causes, text};

behaviours! { deletions:
    async fn a_pod_of_no_node_is_gone_at_once(at: &Place) {
        at.pod("a", &json!({})).await;
        let (status, last) = at.delete("pods/a", &Value::Null).await;
        assert_eq!((status, text(&last, "/kind")), (200, "Pod"));
        assert_refused(&at.get("pods/a").await, 404, "NotFound");
    }

    async fn a_deletion_with_grace_only_marks_the_pod(at: &Place) {
        at.bound_pod("a", &json!([])).await;
        let (status, marked) = at.delete("pods/a", &json!({"gracePeriodSeconds": 7})).await;
        assert_eq!((status, &marked["metadata"]["deletionGracePeriodSeconds"]), (200, &7.into()), "{marked}");
        let found = at.get("pods/a").await.1;
        assert!(!text(&found, "/metadata/deletionTimestamp").is_empty());
        assert_eq!(found["metadata"]["generation"], 2);
    }

    async fn a_second_deletion_only_shortens_the_grace(at: &Place) {
        at.bound_pod("a", &json!([])).await;
        at.delete("pods/a", &json!({"gracePeriodSeconds": 20})).await;
        let grace = |answer: (u16, Value)| answer.1["metadata"]["deletionGracePeriodSeconds"].clone();
        assert_eq!(grace(at.delete("pods/a", &json!({"gracePeriodSeconds": 60})).await), 20);
        assert_eq!(grace(at.delete("pods/a", &json!({"gracePeriodSeconds": 5})).await), 5);
    }

    async fn without_grace_a_bound_pod_is_gone_at_once(at: &Place) {
        at.bound_pod("a", &json!([])).await;
        at.delete("pods/a", &json!({"gracePeriodSeconds": 0})).await;
        assert_refused(&at.get("pods/a").await, 404, "NotFound");
    }

    async fn a_finalizer_holds_what_is_deleted_until_it_is_removed(at: &Place) {
        at.bound_pod("a", &json!(["example.com/hold"])).await;
        at.delete("pods/a", &json!({"gracePeriodSeconds": 0})).await;
        let held = at.get("pods/a").await.1;
        assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0, "{held}");
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": held["metadata"]["uid"]},
            {"op": "test", "path": "/metadata/finalizers/0", "value": "example.com/hold"},
            {"op": "remove", "path": "/metadata/finalizers/0"},
        ]);
        assert_eq!(at.patch("pods/a", JSON_PATCH, &patch).await.0, 200);
        assert_refused(&at.get("pods/a").await, 404, "NotFound");
    }

    async fn no_finalizer_comes_to_what_is_being_deleted(at: &Place) {
        at.bound_pod("a", &json!(["example.com/hold"])).await;
        at.delete("pods/a", &json!({"gracePeriodSeconds": 0})).await;
        let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
        let answer = at.patch("pods/a", MERGE, &more).await;
        assert_refused(&answer, 422, "Invalid");
        // The real server says it twice.
        let mut causes = causes(&answer);
        causes.dedup();
        assert_eq!(causes, [("metadata.finalizers", "FieldValueForbidden")]);
        at.patch("pods/a", MERGE, &json!({"metadata": {"finalizers": null}})).await;
    }

    async fn a_deletion_of_another_uid_or_version_is_a_conflict(at: &Place) {
        at.pod("a", &json!({})).await;
        let answer = at.delete("pods/a", &json!({"preconditions": {"uid": "another"}})).await;
        assert_refused(&answer, 409, "Conflict");
        assert!(text(&answer.1, "/message").contains("the UID in the precondition (another)"), "{}", answer.1);
        assert_refused(&at.delete("pods/a", &json!({"preconditions": {"resourceVersion": "1"}})).await, 409, "Conflict");
        assert_eq!(at.get("pods/a").await.0, 200);
    }

    async fn a_collection_is_deleted_by_selector(at: &Place) {
        at.pod("a", &json!({"x": "1"})).await;
        at.pod("b", &json!({"x": "2"})).await;
        let (status, list) = at.delete("pods?labelSelector=x%3D1", &Value::Null).await;
        assert_eq!((status, text(&list, "/kind")), (200, "PodList"));
        assert_eq!(at.names("").await, ["b"]);
    }

    async fn what_of_a_collection_is_not_deleted_is_said(at: &Place) {
        at.pod("a", &json!({})).await;
        let answer = at.delete("pods", &json!({"preconditions": {"uid": "another"}})).await;
        assert_refused(&answer, 409, "Conflict");
        assert_eq!(at.names("").await, ["a"]);
    }
}
