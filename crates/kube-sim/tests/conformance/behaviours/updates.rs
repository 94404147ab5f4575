//! Changes: versions, conflicts, merge and JSON patches, and what may not be changed.

use serde_json::{Value, json};

use super::super::place::{JSON_PATCH, MERGE, Place, assert_refused, causes, job, pod, text};

behaviours! { updates:
    async fn versions_rise_with_each_change(at: &Place) {
        let number = |pod: &Value| text(pod, "/metadata/resourceVersion").parse::<u64>().unwrap();
        let made = at.pod("a", &json!({})).await;
        let (_, changed) = at.patch("pods/a", MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
        assert!(number(&changed) > number(&made));
        let (_, same) = at.patch("pods/a", MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
        assert_eq!(number(&same), number(&changed), "a change of nothing is none");
    }

    async fn an_update_from_an_old_version_is_a_conflict(at: &Place) {
        let old = at.pod("a", &json!({})).await;
        at.patch("pods/a", MERGE, &json!({"metadata": {"labels": {"x": "1"}}})).await;
        let answer = at.put("pods/a", &old).await;
        assert_refused(&answer, 409, "Conflict");
        assert!(text(&answer.1, "/message").contains("the object has been modified"), "{}", answer.1);
    }

    async fn an_update_of_another_uid_is_a_conflict(at: &Place) {
        let mut wanted = at.pod("a", &json!({})).await;
        wanted["metadata"]["uid"] = "another".into();
        wanted["metadata"]["resourceVersion"] = "".into();
        assert_refused(&at.put("pods/a", &wanted).await, 409, "Conflict");
    }

    async fn the_name_in_the_body_is_that_of_the_path(at: &Place) {
        let mut wanted = at.pod("a", &json!({})).await;
        wanted["metadata"]["name"] = "b".into();
        assert_refused(&at.put("pods/a", &wanted).await, 400, "BadRequest");
    }

    async fn an_update_of_nothing_is_not_found(at: &Place) {
        assert_refused(&at.put("pods/a", &pod("a", &json!({}))).await, 404, "NotFound");
    }

    async fn the_spec_of_a_pod_stays_but_for_its_image(at: &Place) {
        at.pod("a", &json!({})).await;
        let answer = at.patch("pods/a", MERGE, &json!({"spec": {"restartPolicy": "Never"}})).await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(causes(&answer), [("spec", "FieldValueForbidden")]);
        let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "other"}]);
        let (status, changed) = at.patch("pods/a", JSON_PATCH, &image).await;
        assert_eq!((status, &changed["metadata"]["generation"]), (200, &2.into()), "{changed}");
    }

    async fn the_status_is_not_written_with_the_rest(at: &Place) {
        at.pod("a", &json!({})).await;
        let both = json!({"metadata": {"labels": {"x": "1"}}, "status": {"phase": "Running"}});
        let (_, changed) = at.patch("pods/a", MERGE, &both).await;
        assert_eq!((&changed["status"]["phase"], &changed["metadata"]["labels"]["x"]), (&"Pending".into(), &"1".into()));
    }

    async fn the_rest_is_not_written_with_the_status(at: &Place) {
        at.pod("a", &json!({})).await;
        let both = json!({"spec": {"containers": null}, "status": {"phase": "Running", "message": "m"}});
        let (status, changed) = at.patch("pods/a/status", MERGE, &both).await;
        assert_eq!((status, &changed["status"]["phase"]), (200, &"Running".into()), "{changed}");
        assert_eq!(changed["spec"]["containers"][0]["name"], "main");
    }

    async fn a_null_in_a_merge_patch_removes(at: &Place) {
        at.pod("a", &json!({"x": "1", "y": "2"})).await;
        let (_, changed) = at.patch("pods/a", MERGE, &json!({"metadata": {"labels": {"x": null}}})).await;
        assert_eq!(changed["metadata"]["labels"], json!({"y": "2"}));
    }

    async fn what_a_job_runs_stays_and_where_it_runs_until_it_begins(at: &Place) {
        let (status, made) = at.post("jobs", &job("j")).await;
        assert_eq!((status, &made["spec"]["completions"]), (201, &1.into()), "{made}");
        let moved = json!({"spec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}});
        assert_eq!(at.patch("jobs/j", MERGE, &moved).await.0, 200);
        let (_, begun) = at.patch("jobs/j", MERGE, &json!({"spec": {"suspend": false, "backoffLimit": 2}})).await;
        assert_eq!(begun["spec"]["backoffLimit"], 2, "{begun}");
        for (field, change) in [
            ("template", json!({"spec": {"nodeSelector": {"a": "c"}}})),
            ("template", json!({"spec": {"terminationGracePeriodSeconds": 7}})),
            ("completions", 2.into()),
            ("completionMode", "Indexed".into()),
            ("selector", json!({"matchLabels": {"a": "b"}})),
        ] {
            let answer = at.patch("jobs/j", MERGE, &json!({"spec": {field: change}})).await;
            assert_refused(&answer, 422, "Invalid");
            let field = format!("spec.{field}");
            assert!(causes(&answer).contains(&(&field, "FieldValueInvalid")), "{field}: {}", answer.1);
        }
    }

    async fn a_merge_patch_of_an_old_version_is_a_conflict(at: &Place) {
        at.pod("a", &json!({})).await;
        let answer = at.patch("pods/a", MERGE, &json!({"metadata": {"resourceVersion": "1"}})).await;
        assert_refused(&answer, 409, "Conflict");
    }

    async fn a_json_patch_whose_test_fails_changes_nothing(at: &Place) {
        at.pod("a", &json!({})).await;
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": "another"},
            {"op": "add", "path": "/metadata/labels", "value": {"x": "1"}},
        ]);
        assert_refused(&at.patch("pods/a", JSON_PATCH, &patch).await, 422, "Invalid");
        assert!(at.get("pods/a").await.1["metadata"].get("labels").is_none());
    }

    async fn a_json_patch_of_a_missing_path_is_refused(at: &Place) {
        at.pod("a", &json!({})).await;
        let patch = json!([{"op": "remove", "path": "/metadata/labels/none"}]);
        assert_refused(&at.patch("pods/a", JSON_PATCH, &patch).await, 422, "Invalid");
    }

    async fn a_uid_is_not_patched(at: &Place) {
        at.pod("a", &json!({})).await;
        let answer = at.patch("pods/a", MERGE, &json!({"metadata": {"uid": "another"}})).await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(causes(&answer)[0], ("metadata.uid", "FieldValueInvalid"));
    }
}
