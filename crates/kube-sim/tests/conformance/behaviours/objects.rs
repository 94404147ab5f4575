//! What is made: what the server fills in, and what it does not take.

use serde_json::json;

use super::super::place::{Place, assert_refused, causes, pod, text};

behaviours! { objects:
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

    async fn less_grace_than_none_is_a_second(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["spec"]["terminationGracePeriodSeconds"] = (-5).into();
        assert_eq!(at.post("pods", &wanted).await.1["spec"]["terminationGracePeriodSeconds"], 1);
    }

    async fn an_amount_given_as_a_number_is_kept_as_a_text(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": 1, "memory": "64Mi"}});
        let (status, made) = at.post("pods", &wanted).await;
        assert_eq!((status, &made["spec"]["containers"][0]["resources"]["limits"]["cpu"]), (201, &"1".into()), "{made}");
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
}
