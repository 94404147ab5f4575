//! What is peculiar to the kinds that are no pods.

use serde_json::{Value, json};

use super::super::place::{MERGE, Place, assert_refused, causes, text, told};

fn event(name: &str, about: &Value, reason: &str) -> Value {
    json!({"metadata": {"name": name}, "involvedObject": about, "reason": reason, "message": "m", "type": "Normal"})
}

fn lease(name: &str, holder: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 0,
            "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    })
}

behaviours! { kinds:
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

    async fn a_lease_is_taken_renewed_and_found_again(at: &Place) {
        let (status, mut held) = at.post("leases", &lease("l", "a")).await;
        assert_eq!((status, text(&held, "/apiVersion")), (201, "coordination.k8s.io/v1"), "{held}");
        held["spec"]["renewTime"] = "2026-01-01T00:00:05.000000Z".into();
        assert_eq!(at.put("leases/l", &held).await.0, 200);
        let (status, found) = at.get("leases/l").await;
        assert_eq!((status, &found["spec"]), (200, &held["spec"]));
        let answer = at.put("leases/l", &held).await;
        assert_refused(&answer, 409, "Conflict");
        assert_eq!(answer.1["details"], json!({"name": "l", "group": "coordination.k8s.io", "kind": "leases"}));
    }

    async fn a_lease_is_not_updated_without_a_version(at: &Place) {
        at.post("leases", &lease("l", "a")).await;
        let answer = at.put("leases/l", &lease("l", "b")).await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(causes(&answer), [("metadata.resourceVersion", "FieldValueInvalid")]);
    }

    async fn an_update_of_a_lease_or_an_event_that_is_not_there_makes_it(at: &Place) {
        let about = json!({"namespace": at.namespace});
        assert_eq!(at.put("leases/l", &lease("l", "a")).await.0, 201);
        assert_eq!(at.put("events/e", &event("e", &about, "Started")).await.0, 201);
        assert_refused(&at.put("configmaps/m", &json!({"metadata": {"name": "m"}})).await, 404, "NotFound");
    }

    async fn a_lease_lasts_for_a_while_and_changes_hands_forward(at: &Place) {
        at.post("leases", &lease("l", "a")).await;
        for (field, value) in [("leaseDurationSeconds", 0), ("leaseTransitions", -1)] {
            let answer = at.patch("leases/l", MERGE, &json!({"spec": {field: value}})).await;
            assert_refused(&answer, 422, "Invalid");
            assert_eq!(causes(&answer), [(format!("spec.{field}").as_str(), "FieldValueInvalid")]);
        }
    }

    async fn events_are_selected_by_whom_they_are_about(at: &Place) {
        let about = |name: &str| json!({"kind": "Pod", "namespace": at.namespace, "name": name, "uid": format!("uid-{name}")});
        for (name, pod, reason) in [("x", "a", "Started"), ("y", "a", "Killing"), ("z", "b", "Started")] {
            let (status, made) = at.post("events", &event(name, &about(pod), reason)).await;
            assert_eq!(status, 201, "{made}");
        }
        for (selector, expected) in [
            ("involvedObject.name%3Da", &["x", "y"][..]),
            ("involvedObject.uid%3Duid-b,involvedObject.kind%3DPod", &["z"]),
            ("involvedObject.name%3Da,reason%3DKilling,type%3DNormal", &["y"]),
            ("reason!%3DStarted", &["y"]),
        ] {
            assert_eq!(at.names_of("events", &format!("fieldSelector={selector}")).await, expected, "{selector}");
        }
        assert_refused(&at.get("events?fieldSelector=involvedObject.color%3Dred").await, 400, "BadRequest");
    }

    async fn a_watch_of_events_tells_of_repetitions(at: &Place) {
        let about = |name: &str| json!({"kind": "Pod", "namespace": at.namespace, "name": name});
        let (_, list) = at.get("events").await;
        let version = text(&list, "/metadata/resourceVersion");
        at.post("events", &event("x", &about("a"), "BackOff")).await;
        at.post("events", &event("y", &about("b"), "BackOff")).await;
        at.patch("events/x", MERGE, &json!({"count": 2, "lastTimestamp": "2026-01-01T00:00:00Z"})).await;
        let query = format!("resourceVersion={version}&fieldSelector=involvedObject.name%3Da");
        let frames = at.watch_of("events", &query).await;
        assert_eq!(told(&frames), [("ADDED", "x"), ("MODIFIED", "x")]);
        assert_eq!(frames[1]["object"]["count"], 2);
    }

    async fn an_event_lies_where_that_is_which_it_is_about(at: &Place) {
        let answer = at.post("events", &event("x", &json!({"namespace": "another"}), "Started")).await;
        assert_refused(&answer, 422, "Invalid");
        assert_eq!(causes(&answer), [("involvedObject.namespace", "FieldValueInvalid")]);
    }

    async fn nothing_comes_to_a_namespace_that_goes(at: &Place) {
        let name = format!("{}-goes", at.namespace);
        let (status, made) = at.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await;
        assert_eq!((status, text(&made, "/status/phase")), (201, "Active"), "{made}");
        let (home, inside) = (format!("/api/v1/namespaces/{name}"), format!("/api/v1/namespaces/{name}/configmaps"));
        at.post(&inside, &json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}})).await;
        let (status, going) = at.delete(&home, &Value::Null).await;
        assert_eq!((status, text(&going, "/kind"), text(&going, "/status/phase")), (200, "Namespace", "Terminating"));
        assert!(!text(&going, "/metadata/deletionTimestamp").is_empty(), "{going}");
        let answer = at.post(&inside, &json!({"metadata": {"name": "late"}})).await;
        assert_refused(&answer, 403, "Forbidden");
        assert_eq!(causes(&answer), [("metadata.namespace", "NamespaceTerminating")]);
        assert_eq!(at.get(&format!("{inside}/held")).await.0, 200, "a finalizer holds it, and it the namespace");
    }

    async fn the_default_namespace_stays(at: &Place) {
        let answer = at.delete("/api/v1/namespaces/default", &Value::Null).await;
        assert_refused(&answer, 403, "Forbidden");
        assert_eq!(answer.1["message"], "namespaces \"default\" is forbidden: this namespace may not be deleted");
    }
}
