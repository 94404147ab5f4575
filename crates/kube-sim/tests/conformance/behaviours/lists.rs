//! Lists: selectors, pages, versions, tables.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::place::{Place, assert_refused, causes, text};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// A token is JSON in base64 to both servers, and says there of which version its list is.
fn of_version_1(token: &str) -> String {
    let mut token: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap();
    token["rv"] = 1.into();
    BASE64_URL_SAFE_NO_PAD.encode(token.to_string())
}

behaviours! { lists:
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

    async fn how_many_are_left_is_not_known_under_a_selector(at: &Place) {
        for name in ["a", "b"] {
            at.pod(name, &json!({"x": "1"})).await;
        }
        for selector in ["labelSelector=x", "fieldSelector=status.phase%3DPending"] {
            let (_, list) = at.get(&format!("pods?limit=1&{selector}")).await;
            assert!(!text(&list, "/metadata/continue").is_empty(), "{list}");
            assert!(list["metadata"].get("remainingItemCount").is_none(), "{list}");
        }
    }

    async fn a_token_that_has_expired_gives_one_for_what_there_is_now(at: &Place) {
        for name in ["a", "b"] {
            at.pod(name, &json!({})).await;
        }
        let (_, first) = at.get("pods?limit=1").await;
        let token = of_version_1(text(&first, "/metadata/continue"));
        let answer = at.get(&format!("pods?limit=1&continue={token}")).await;
        assert_refused(&answer, 410, "Expired");
        let (status, rest) = at.get(&format!("pods?continue={}", text(&answer.1, "/metadata/continue"))).await;
        assert_eq!(status, 200, "{rest}");
        assert_eq!(text(&rest, "/items/0/metadata/name"), "b");
    }

    async fn a_token_says_of_which_version_its_list_is(at: &Place) {
        for name in ["a", "b"] {
            at.pod(name, &json!({})).await;
        }
        let (_, first) = at.get("pods?limit=1").await;
        let query = format!("resourceVersion=5&continue={}", text(&first, "/metadata/continue"));
        let answer = at.get(&format!("pods?{query}")).await;
        assert_refused(&answer, 400, "BadRequest");
        assert_eq!(answer.1["message"], "specifying resource version is not allowed when using continue");
        assert_refused(&at.get(&format!("pods?{query}&resourceVersionMatch=Exact")).await, 422, "Invalid");
    }

    async fn a_list_of_an_exact_version_that_is_forgotten_has_expired(at: &Place) {
        assert_refused(&at.get("pods?resourceVersion=1&resourceVersionMatch=Exact").await, 410, "Expired");
    }

    async fn a_version_that_is_not_there_yet_is_waited_for_in_vain(at: &Place) {
        at.pod("a", &json!({})).await;
        for rest in ["pods?resourceVersion=99999999", "pods/a?resourceVersion=99999999"] {
            let began = Instant::now();
            let answer = at.get(rest).await;
            assert_refused(&answer, 504, "Timeout");
            assert!(text(&answer.1, "/message").starts_with("Timeout: Too large resource version: 99999999, current: "));
            assert_eq!(causes(&answer), [("", "ResourceVersionTooLarge")]);
            assert_eq!(answer.1["details"]["retryAfterSeconds"], 1);
            assert!(began.elapsed() >= Duration::from_secs(3), "{rest}: {:?}", began.elapsed());
        }
    }

    async fn a_list_of_an_exact_version_is_as_it_was(at: &Place) {
        let made = at.pod("a", &json!({})).await;
        at.pod("b", &json!({})).await;
        let version = text(&made, "/metadata/resourceVersion");
        assert_eq!(at.names(&format!("resourceVersion={version}&resourceVersionMatch=Exact")).await, ["a"]);
        assert_eq!(at.names(&format!("resourceVersion={version}&resourceVersionMatch=NotOlderThan")).await, ["a", "b"]);
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
}
