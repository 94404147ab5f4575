//! What a Kubernetes API does, each seen on the real server and held against the embedded cluster.
//!
//! Where the two differ the embedded one is wrong.

use http::Method;
use serde_json::{Value, json};

use super::place::{JSON, JSON_PATCH, MERGE, Place, assert_refused, causes, pod, text, told, told_once};

macro_rules! behaviours {
    ($($(#[$doc:meta])* async fn $name:ident($at:ident: &Place) $body:block)*) => {
        $($(#[$doc])* pub(crate) async fn $name($at: &Place) $body)*

        /// Calls a macro with the names of all behaviours.
        macro_rules! for_each_behaviour {
            ($then:ident) => { $then! { $($name,)* } };
        }
        pub(crate) use for_each_behaviour;
    };
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

behaviours! {
    async fn a_created_pod_has_what_the_server_fills_in(at: &Place) {
        let made = at.pod("a", &json!({})).await;
        assert_eq!(made["status"]["phase"], "Pending");
        assert_eq!(made["spec"]["restartPolicy"], "Always");
        assert_eq!(made["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!(made["spec"]["dnsPolicy"], "ClusterFirst");
        assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(made["metadata"]["generation"], 1);
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            assert!(!text(&made, &format!("/metadata/{field}")).is_empty(), "{field}");
        }
    }

    async fn a_status_given_at_birth_is_ignored(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["status"] = json!({"phase": "Running"});
        assert_eq!(at.post("pods", &wanted).await.1["status"]["phase"], "Pending");
    }

    async fn what_was_made_is_found_again(at: &Place) {
        let made = at.pod("a", &json!({})).await;
        let (status, found) = at.get("pods/a").await;
        assert_eq!((status, text(&found, "/metadata/uid")), (200, text(&made, "/metadata/uid")));
        assert_eq!((text(&found, "/kind"), text(&found, "/apiVersion")), ("Pod", "v1"));
    }

    async fn what_is_not_there_is_not_found(at: &Place) {
        let answer = at.get("pods/none").await;
        assert_refused(&answer, 404, "NotFound");
        assert_eq!(answer.1["message"], "pods \"none\" not found");
        assert_eq!(answer.1["details"], json!({"name": "none", "kind": "pods"}));
    }

    async fn an_unknown_kind_is_not_found(at: &Place) {
        let answer = at.get("nopes").await;
        assert_refused(&answer, 404, "NotFound");
        assert_eq!(answer.1["message"], "the server could not find the requested resource");
    }

    async fn an_unknown_subresource_is_not_found(at: &Place) {
        at.pod("a", &json!({})).await;
        assert_refused(&at.get("pods/a/nope").await, 404, "NotFound");
    }

    async fn a_name_that_is_taken_already_exists(at: &Place) {
        at.pod("a", &json!({})).await;
        let answer = at.post("pods", &pod("a", &json!({}))).await;
        assert_refused(&answer, 409, "AlreadyExists");
        assert_eq!(answer.1["message"], "pods \"a\" already exists");
    }

    async fn a_generated_name_begins_as_asked_and_is_its_own(at: &Place) {
        let mut wanted = pod("", &json!({}));
        wanted["metadata"] = json!({"generateName": "job-"});
        let (first, second) = (at.post("pods", &wanted).await, at.post("pods", &wanted).await);
        let names = [&first.1, &second.1].map(|pod| text(pod, "/metadata/name").to_owned());
        assert!(names.iter().all(|name| name.len() == "job-".len() + 5 && name.starts_with("job-")), "{names:?}");
        assert_ne!(names[0], names[1]);
    }

    async fn a_recreated_object_has_another_uid(at: &Place) {
        let first = at.pod("a", &json!({})).await;
        at.delete("pods/a", &json!({"gracePeriodSeconds": 0})).await;
        assert_ne!(at.pod("a", &json!({})).await["metadata"]["uid"], first["metadata"]["uid"]);
    }

    async fn a_name_that_is_none_is_invalid(at: &Place) {
        let answer = at.post("pods", &pod("Bad_Name", &json!({}))).await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(causes(&answer), [("metadata.name", "FieldValueInvalid")]);
    }

    async fn an_object_without_a_name_is_invalid(at: &Place) {
        let mut wanted = pod("", &json!({}));
        wanted["metadata"] = json!({});
        let answer = at.post("pods", &wanted).await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(causes(&answer), [("metadata.name", "FieldValueRequired")]);
        assert_eq!(answer.1["message"], "Pod \"\" is invalid: metadata.name: Required value: name or generateName is required");
    }

    async fn a_pod_without_containers_is_invalid(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["spec"] = json!({"containers": []});
        let answer = at.post("pods", &wanted).await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(answer.1["message"], "Pod \"a\" is invalid: spec.containers: Required value");
        assert_eq!(causes(&answer), [("spec.containers", "FieldValueRequired")]);
    }

    async fn every_fault_of_a_pod_is_named_with_its_field(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["spec"] = json!({
            "restartPolicy": "x", "activeDeadlineSeconds": -1,
            "containers": [
                {"name": "a"},
                {"name": "a", "image": "i", "volumeMounts": [{"name": "nope", "mountPath": "/x"}]},
            ],
        });
        let answer = at.post("pods", &wanted).await;
        assert_refused(&answer, 422, "Invalid");
        let expected = [
            ("spec.containers[0].image", "FieldValueRequired"),
            ("spec.containers[1].volumeMounts[0].name", "FieldValueNotFound"),
            ("spec.containers[1].name", "FieldValueDuplicate"),
            ("spec.restartPolicy", "FieldValueNotSupported"),
            ("spec.activeDeadlineSeconds", "FieldValueInvalid"),
        ];
        assert_eq!(causes(&answer), expected);
    }

    async fn a_field_of_the_wrong_type_is_a_bad_request(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["spec"]["containers"] = "x".into();
        assert_refused(&at.post("pods", &wanted).await, 400, "BadRequest");
    }

    async fn an_amount_that_is_none_is_a_bad_request(at: &Place) {
        for memory in [json!("64MB"), json!("much"), json!(""), json!(true)] {
            let mut wanted = pod("a", &json!({}));
            wanted["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": memory}});
            assert_refused(&at.post("pods", &wanted).await, 400, "BadRequest");
        }
    }

    async fn an_amount_below_nothing_is_invalid(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "-1Mi"}});
        let answer = at.post("pods", &wanted).await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(causes(&answer)[0], ("spec.containers[0].resources.limits[memory]", "FieldValueInvalid"));
    }

    async fn a_body_that_is_no_json_is_a_bad_request(at: &Place) {
        let path = format!("/api/v1/namespaces/{}/pods", at.namespace);
        let (status, _) = at.text(Method::POST, &path, &[("content-type", JSON)], b"{\"metadata\":".to_vec()).await;
        assert_eq!(status, 400);
    }

    async fn another_kind_in_the_body_is_a_bad_request(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["kind"] = "Nope".into();
        assert_refused(&at.post("pods", &wanted).await, 400, "BadRequest");
    }

    async fn another_namespace_in_the_body_is_a_bad_request(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["metadata"]["namespace"] = "another".into();
        assert_refused(&at.post("pods", &wanted).await, 400, "BadRequest");
    }

    async fn nothing_is_made_in_a_namespace_that_is_not_there(at: &Place) {
        let nowhere = Place { client: at.client.clone(), namespace: format!("{}-none", at.namespace) };
        let answer = nowhere.post("pods", &pod("a", &json!({}))).await;
        assert_refused(&answer, 404, "NotFound");
        assert_eq!(answer.1["details"]["kind"], "namespaces");
    }

    async fn a_body_of_another_media_type_is_refused(at: &Place) {
        let path = format!("/api/v1/namespaces/{}/pods", at.namespace);
        let (status, text) = at.text(Method::POST, &path, &[("content-type", "text/plain")], b"{}".to_vec()).await;
        assert_refused(&(status, serde_json::from_str(&text).unwrap()), 415, "UnsupportedMediaType");
    }

    async fn a_patch_of_an_unknown_sort_is_refused(at: &Place) {
        at.pod("a", &json!({})).await;
        assert_refused(&at.patch("pods/a", JSON, &json!({})).await, 415, "UnsupportedMediaType");
    }

    async fn a_method_that_makes_no_sense_is_not_allowed(at: &Place) {
        at.pod("a", &json!({})).await;
        assert_refused(&at.post("pods/a", &json!({})).await, 405, "MethodNotAllowed");
        assert_refused(&at.put("pods", &json!({})).await, 405, "MethodNotAllowed");
    }

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

    async fn a_json_patch_that_is_no_list_is_a_bad_request(at: &Place) {
        at.pod("a", &json!({})).await;
        assert_refused(&at.patch("pods/a", JSON_PATCH, &json!({"op": "remove"})).await, 400, "BadRequest");
    }

    async fn a_uid_is_not_patched(at: &Place) {
        at.pod("a", &json!({})).await;
        let answer = at.patch("pods/a", MERGE, &json!({"metadata": {"uid": "another"}})).await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(causes(&answer)[0], ("metadata.uid", "FieldValueInvalid"));
    }

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

    async fn labels_select(at: &Place) {
        at.pod("a", &json!({"tier": "x", "only": "a"})).await;
        at.pod("b", &json!({"tier": "y"})).await;
        at.pod("c", &json!({})).await;
        for (selector, expected) in [
            ("tier%3Dx", &["a"][..]),
            ("tier%3D%3Dy", &["b"]),
            ("tier!%3Dx", &["b", "c"]),
            ("tier", &["a", "b"]),
            ("!tier", &["c"]),
            ("tier+in+(x,y)", &["a", "b"]),
            ("tier+notin+(x)", &["b", "c"]),
            ("tier,!only", &["b"]),
        ] {
            assert_eq!(at.names(&format!("labelSelector={selector}")).await, expected, "{selector}");
        }
    }

    async fn fields_select(at: &Place) {
        at.pod("a", &json!({})).await;
        at.bound_pod("b", &json!([])).await;
        for (selector, expected) in [
            ("metadata.name%3Da", &["a"][..]),
            ("metadata.name!%3Da", &["b"]),
            ("spec.nodeName%3Dnowhere", &["b"]),
            ("status.phase%3DPending,spec.nodeName%3D", &["a"]),
            ("status.phase%3DRunning", &[]),
        ] {
            assert_eq!(at.names(&format!("fieldSelector={selector}")).await, expected, "{selector}");
        }
    }

    async fn an_unknown_field_does_not_select(at: &Place) {
        let answer = at.get("pods?fieldSelector=spec.none%3Da").await;
        assert_refused(&answer, 400, "BadRequest");
        assert!(text(&answer.1, "/message").contains("field label not supported: spec.none"), "{}", answer.1);
    }

    async fn a_selector_that_is_none_is_a_bad_request(at: &Place) {
        assert_refused(&at.get("pods?labelSelector=a+in+b").await, 400, "BadRequest");
    }

    async fn items_of_a_list_do_not_repeat_its_kind(at: &Place) {
        at.pod("a", &json!({})).await;
        let (_, list) = at.get("pods").await;
        assert_eq!((text(&list, "/kind"), text(&list, "/apiVersion")), ("PodList", "v1"));
        assert!(list["items"][0].get("kind").is_none() && list["items"][0].get("apiVersion").is_none());
    }

    async fn pages_are_of_one_snapshot(at: &Place) {
        for name in ["a", "b", "c"] {
            at.pod(name, &json!({})).await;
        }
        let (_, first) = at.get("pods?limit=2").await;
        let token = text(&first, "/metadata/continue");
        assert_eq!((first["items"].as_array().unwrap().len(), &first["metadata"]["remainingItemCount"]), (2, &1.into()));
        at.pod("d", &json!({})).await;
        let (status, second) = at.get(&format!("pods?limit=2&continue={token}")).await;
        assert_eq!(status, 200, "{second}");
        assert_eq!(second["items"].as_array().unwrap().len(), 1, "d is younger than the list");
        assert_eq!(text(&second, "/metadata/continue"), "");
        assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    }

    async fn a_token_that_is_none_is_a_bad_request(at: &Place) {
        assert_refused(&at.get("pods?continue=zz").await, 400, "BadRequest");
    }

    async fn a_version_that_is_none_is_a_bad_request(at: &Place) {
        assert_refused(&at.get("pods?resourceVersion=abc").await, 400, "BadRequest");
    }

    async fn a_list_of_an_exact_version_is_as_it_was(at: &Place) {
        let made = at.pod("a", &json!({})).await;
        at.pod("b", &json!({})).await;
        let version = text(&made, "/metadata/resourceVersion");
        assert_eq!(at.names(&format!("resourceVersion={version}&resourceVersionMatch=Exact")).await, ["a"]);
        assert_eq!(at.names(&format!("resourceVersion={version}&resourceVersionMatch=NotOlderThan")).await, ["a", "b"]);
    }

    async fn a_match_without_a_version_is_invalid(at: &Place) {
        assert_refused(&at.get("pods?resourceVersionMatch=Exact").await, 422, "Invalid");
    }

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

    async fn a_table_has_the_columns_that_kubectl_prints(at: &Place) {
        at.pod("a", &json!({})).await;
        let path = format!("/api/v1/namespaces/{}/pods", at.namespace);
        let (_, text_of) = at.text(Method::GET, &path, &[("accept", TABLE)], Vec::new()).await;
        let table: Value = serde_json::from_str(&text_of).unwrap();
        assert_eq!((text(&table, "/kind"), text(&table, "/apiVersion")), ("Table", "meta.k8s.io/v1"));
        let columns: Vec<&str> =
            table["columnDefinitions"].as_array().unwrap().iter().map(|column| text(column, "/name")).collect();
        assert_eq!(columns[..6], ["Name", "Ready", "Status", "Restarts", "Age", "IP"]);
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("a"), json!("0/1"), json!("Pending")]);
        assert_eq!(text(&table, "/rows/0/object/kind"), "PartialObjectMetadata");
    }

    async fn the_log_of_several_containers_needs_a_name(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["spec"]["containers"] = json!([{"name": "x", "image": "i"}, {"name": "y", "image": "i"}]);
        wanted["spec"]["initContainers"] = json!([{"name": "z", "image": "i"}]);
        at.post("pods", &wanted).await;
        let answer = at.get("pods/a/log").await;
        assert_refused(&answer, 400, "BadRequest");
        assert_eq!(answer.1["message"], "a container name must be specified for pod a, choose one of: [z x y]");
    }

    async fn the_log_of_an_unknown_container_is_refused(at: &Place) {
        at.pod("a", &json!({})).await;
        let answer = at.get("pods/a/log?container=none").await;
        assert_refused(&answer, 400, "BadRequest");
        assert_eq!(answer.1["message"], "container none is not valid for pod a");
    }

    async fn the_log_of_a_pod_without_a_node_is_empty(at: &Place) {
        at.pod("a", &json!({})).await;
        assert_eq!(at.get("pods/a/log").await, (204, Value::String(String::new())));
    }

    async fn a_config_map_holds_texts(at: &Place) {
        let (status, made) = at.post("configmaps", &json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await;
        assert_eq!((status, &made["data"]["a"]), (201, &"1".into()));
        let answer = at.post("configmaps", &json!({"metadata": {"name": "n"}, "data": {"a": 1}})).await;
        assert_refused(&answer, 400, "BadRequest");
    }

    async fn a_deleted_config_map_answers_with_success(at: &Place) {
        let (_, made) = at.post("configmaps", &json!({"metadata": {"name": "m"}})).await;
        let (status, answer) = at.delete("configmaps/m", &Value::Null).await;
        assert_eq!((status, text(&answer, "/status")), (200, "Success"));
        assert_eq!(answer["details"], json!({"name": "m", "kind": "configmaps", "uid": made["metadata"]["uid"]}));
    }
}
