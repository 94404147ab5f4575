//! The log endpoint, as far as it goes without a node.

use serde_json::{Value, json};

use super::super::place::{Place, assert_refused, pod};

behaviours! { logs:
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
}
