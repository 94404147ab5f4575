//! Where a behaviour is looked at: a client, and a namespace of its own.

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// Media types of bodies.
pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";

/// A namespace in which nothing schedules or runs these pods.
pub(crate) struct Place {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Status code and object.
pub(crate) type Answer = (u16, Value);

impl Place {
    /// Where something of this namespace is; what begins with a slash is the whole path already.
    fn path(&self, rest: &str) -> String {
        if rest.starts_with('/') {
            return rest.to_owned();
        }
        let group = match rest {
            rest if rest.starts_with("leases") => "apis/coordination.k8s.io/v1",
            rest if rest.starts_with("jobs") => "apis/batch/v1",
            _ => "api/v1",
        };
        format!("/{group}/namespaces/{}/{rest}", self.namespace)
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.client.send(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    pub(crate) async fn text(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (u16, String) {
        let response = self.send(method, path, headers, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    pub(crate) async fn ask_bytes(&self, method: Method, rest: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let has_body = !body.is_empty() || [Method::POST, Method::PUT, Method::PATCH].contains(&method);
        let headers: &[(&str, &str)] = if has_body { &[("content-type", content_type)] } else { &[] };
        let (status, text) = self.text(method, &self.path(rest), headers, body).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn ask(&self, method: Method, rest: &str, content_type: &str, body: &Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.ask_bytes(method, rest, content_type, bytes).await
    }

    /// What is said besides of a pod that is made, and the pod.
    pub(crate) async fn warnings(&self, pod: &Value, validation: &str) -> (Vec<String>, Value) {
        self.warnings_of(&format!("pods?fieldValidation={validation}"), pod).await
    }

    /// The same of another kind.
    pub(crate) async fn warnings_of(&self, rest: &str, object: &Value) -> (Vec<String>, Value) {
        let (path, body) = (self.path(rest), object.to_string().into_bytes());
        let response = self.send(Method::POST, &path, &[("content-type", JSON)], body).await;
        let warnings = response.headers().get_all("warning");
        let warnings = warnings.iter().map(|warning| warning.to_str().unwrap().to_owned()).collect();
        let made = response.into_body().collect().await.unwrap().to_bytes();
        (warnings, serde_json::from_slice(&made).unwrap())
    }

    pub(crate) async fn get(&self, rest: &str) -> Answer {
        self.ask(Method::GET, rest, JSON, &Value::Null).await
    }

    pub(crate) async fn post(&self, rest: &str, body: &Value) -> Answer {
        self.ask(Method::POST, rest, JSON, body).await
    }

    pub(crate) async fn put(&self, rest: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, rest, JSON, body).await
    }

    pub(crate) async fn patch(&self, rest: &str, content_type: &str, body: &Value) -> Answer {
        self.ask(Method::PATCH, rest, content_type, body).await
    }

    pub(crate) async fn delete(&self, rest: &str, options: &Value) -> Answer {
        self.ask(Method::DELETE, rest, JSON, options).await
    }

    /// Makes a pod that nobody runs.
    pub(crate) async fn pod(&self, name: &str, labels: &Value) -> Value {
        let (status, pod) = self.post("pods", &pod(name, labels)).await;
        assert_eq!(status, 201, "{pod}");
        pod
    }

    /// Makes a pod bound to a node that is not there, so that a deletion waits for it.
    pub(crate) async fn bound_pod(&self, name: &str, finalizers: &Value) -> Value {
        let mut pod = pod(name, &json!({}));
        pod["spec"]["nodeName"] = "nowhere".into();
        pod["metadata"]["finalizers"] = finalizers.clone();
        let (status, pod) = self.post("pods", &pod).await;
        assert_eq!(status, 201, "{pod}");
        pod
    }

    /// All frames of a watch of pods that has nothing more to tell after a second.
    pub(crate) async fn watch(&self, query: &str) -> Vec<Value> {
        self.watch_of("pods", query).await
    }

    /// The same of another kind.
    pub(crate) async fn watch_of(&self, plural: &str, query: &str) -> Vec<Value> {
        let path = self.path(&format!("{plural}?watch=true&timeoutSeconds=1&{query}"));
        let (status, text) = self.text(Method::GET, &path, &[], Vec::new()).await;
        assert_eq!(status, 200, "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The names in a list of pods.
    pub(crate) async fn names(&self, query: &str) -> Vec<String> {
        self.names_of("pods", query).await
    }

    /// The same of another kind.
    pub(crate) async fn names_of(&self, plural: &str, query: &str) -> Vec<String> {
        let (status, list) = self.get(&format!("{plural}?{query}")).await;
        assert_eq!(status, 200, "{list}");
        list["items"].as_array().unwrap().iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect()
    }

    /// The newest version, of an empty list too.
    pub(crate) async fn version(&self) -> String {
        text(&self.get("pods").await.1, "/metadata/resourceVersion").to_owned()
    }
}

pub(crate) fn pod(name: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "main", "image": "none"}]},
    })
}

/// A Job that waits to be told to begin.
pub(crate) fn job(name: &str) -> Value {
    let containers = json!([{"name": "main", "image": "none"}]);
    let template = json!({"spec": {"schedulerName": "nobody", "restartPolicy": "Never", "containers": containers}});
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name},
        "spec": {"suspend": true, "template": template},
    })
}

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The same, with changes in a row told once: schedulers and the server itself may make some more.
pub(crate) fn told_once(frames: &[Value]) -> Vec<(&str, &str)> {
    let mut told = told(frames);
    told.dedup();
    told
}

/// Type of frame and name of the object.
pub(crate) fn told(frames: &[Value]) -> Vec<(&str, &str)> {
    frames.iter().map(|frame| (text(frame, "/type"), text(frame, "/object/metadata/name"))).collect()
}

/// Holds a refusal against its code and reason.
pub(crate) fn assert_refused(answer: &Answer, code: u16, reason: &str) {
    let (status, object) = answer;
    assert_eq!((*status, text(object, "/kind"), text(object, "/reason")), (code, "Status", reason), "{object}");
    assert_eq!((&object["code"], &object["status"]), (&code.into(), &"Failure".into()), "{object}");
    assert!(!text(object, "/message").is_empty(), "{object}");
}

/// Fields and reasons of what is wrong with an object.
pub(crate) fn causes(answer: &Answer) -> Vec<(&str, &str)> {
    let causes = answer.1.pointer("/details/causes").and_then(Value::as_array).into_iter().flatten();
    causes.into_iter().map(|cause| (text(cause, "/field"), text(cause, "/reason"))).collect()
}
