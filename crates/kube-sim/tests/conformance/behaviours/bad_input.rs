//! Bad input: what is asked, and the refusal that names what is wrong with it.

use http::Method;
use serde_json::{Value, json};

use super::super::place::{JSON, JSON_PATCH, MERGE, Place, job, pod, text};

/// Beyond what any request's body may have.
const HUGE: usize = 4 << 20;

struct Row {
    what: &'static str,
    method: Method,
    path: String,
    content_type: &'static str,
    body: Vec<u8>,
    code: u16,
    reason: &'static str,
    /// Parts of the message; the servers' sentences differ a little.
    says: Vec<String>,
}

impl Row {
    fn of(what: &'static str, method: Method, path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let (path, body) = (path.into(), body.into());
        Self { what, method, path, content_type: JSON, body, code: 0, reason: "", says: Vec::new() }
    }

    fn get(what: &'static str, path: impl Into<String>) -> Self {
        Self::of(what, Method::GET, path, "")
    }

    fn post(what: &'static str, path: &str, body: &Value) -> Self {
        Self::of(what, Method::POST, path, body.to_string())
    }

    /// A pod like any other, but for what is merged into it.
    fn pod(what: &'static str, change: Value) -> Self {
        let mut wanted = pod("a", &json!({}));
        merge(&mut wanted, change);
        Self::post(what, "pods?fieldValidation=Strict", &wanted)
    }

    /// One whose container is like any other, but for this.
    fn container(what: &'static str, change: Value) -> Self {
        let mut container = json!({"name": "main", "image": "none"});
        merge(&mut container, change);
        Self::pod(what, json!({"spec": {"containers": [container]}}))
    }

    fn config_map(what: &'static str, change: Value) -> Self {
        let mut wanted = json!({"metadata": {"name": "m"}});
        merge(&mut wanted, change);
        Self::post(what, "configmaps", &wanted)
    }

    /// A Job like any other, but for what is merged into its spec.
    fn job(what: &'static str, change: Value) -> Self {
        let mut wanted = job("j");
        merge(&mut wanted["spec"], change);
        Self::post(what, "jobs", &wanted)
    }

    fn patch(what: &'static str, content_type: &'static str, patch: &str) -> Self {
        Self { content_type, ..Self::of(what, Method::PATCH, "pods/there", patch) }
    }

    fn typed(self, content_type: &'static str) -> Self {
        Self { content_type, ..self }
    }

    fn gives(self, code: u16, reason: &'static str, says: &[&str]) -> Self {
        Self { code, reason, says: says.iter().map(|part| (*part).to_owned()).collect(), ..self }
    }

    fn bad_request(self, says: &[&str]) -> Self {
        self.gives(400, "BadRequest", says)
    }

    fn invalid(self, says: &[&str]) -> Self {
        self.gives(422, "Invalid", says)
    }

    fn not_found(self, says: &str) -> Self {
        self.gives(404, "NotFound", &[says])
    }

    fn not_allowed(self) -> Self {
        self.gives(405, "MethodNotAllowed", &["the server does not allow this method on the requested resource"])
    }

    /// How the answer differs.
    async fn wrong(&self, at: &Place) -> Option<String> {
        let (status, object) =
            at.ask_bytes(self.method.clone(), &self.path, self.content_type, self.body.clone()).await;
        let message = text(&object, "/message");
        let is_right = status == self.code
            && (text(&object, "/kind"), text(&object, "/reason")) == ("Status", self.reason)
            && self.says.iter().all(|part| message.contains(part));
        let expected = format!("{} {} {:?}", self.code, self.reason, self.says);
        (!is_right).then(|| format!("{}: expected {expected}, but it was {status} {object:.600}", self.what))
    }
}

/// As a merge patch does, but without removing anything.
fn merge(object: &mut Value, change: Value) {
    match (object, change) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(fields.entry(name).or_insert(Value::Null), change);
            }
        }
        (object, change) => *object = change,
    }
}

fn wrong_types() -> Vec<Row> {
    vec![
        Row::container("a command that is a text", json!({"command": "sh"})).bad_request(&["command", "string"]),
        Row::container("a command of numbers", json!({"command": [1]})).bad_request(&["command", "string"]),
        Row::container("arguments that are no list", json!({"args": {}})).bad_request(&["args"]),
        Row::container("a variable of a number", json!({"env": [{"name": "a", "value": 1}]}))
            .bad_request(&["env", "value", "string"]),
        Row::container("an amount that is none", json!({"resources": {"limits": {"memory": "lots"}}}))
            .bad_request(&["quantities must match the regular expression"]),
        Row::container("an amount of an odd unit", json!({"resources": {"requests": {"memory": "64MB"}}}))
            .bad_request(&["quantities must match the regular expression"]),
        Row::container("an amount of nothing", json!({"resources": {"limits": {"memory": ""}}}))
            .bad_request(&["quantities must match the regular expression"]),
        Row::container("an amount that is true", json!({"resources": {"limits": {"memory": true}}}))
            .bad_request(&["cannot be handled as a Pod"]),
        Row::pod("a container that is none", json!({"spec": {"containers": [7]}})).bad_request(&["containers"]),
        Row::pod("containers that are no list", json!({"spec": {"containers": "x"}})).bad_request(&["containers"]),
        Row::pod("a spec that is none", json!({"spec": 7})).bad_request(&["spec"]),
        Row::pod("metadata that is none", json!({"metadata": 7})).bad_request(&["metadata"]),
        Row::pod("a name that is a number", json!({"metadata": {"name": 7}})).bad_request(&["name", "string"]),
        Row::pod("a label that is a number", json!({"metadata": {"labels": {"a": 1}}}))
            .bad_request(&["labels", "string"]),
        Row::pod("an annotation that is a number", json!({"metadata": {"annotations": {"a": 1}}}))
            .bad_request(&["annotations"]),
        Row::pod("a deadline that is a text", json!({"spec": {"activeDeadlineSeconds": "5"}}))
            .bad_request(&["activeDeadlineSeconds"]),
        Row::pod("half a second", json!({"spec": {"activeDeadlineSeconds": 1.5}}))
            .bad_request(&["activeDeadlineSeconds"]),
        Row::pod("a field that nobody knows", json!({"spec": {"bogus": 1}}))
            .bad_request(&["strict decoding error", "unknown field \"spec.bogus\""]),
        Row::container("a field with a slip of the pen", json!({"comand": ["sh"]}))
            .bad_request(&["unknown field \"spec.containers[0].comand\""]),
        Row::post("a way to check fields that there is not", "pods?fieldValidation=Nope", &pod("a", &json!({})))
            .invalid(&["fieldValidation: Unsupported value: \"Nope\""]),
        Row::job("an amount that is none, of a Job's pod", json!({"template": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"memory": "lots"}}}]}}}))
            .bad_request(&["quantities must match the regular expression"]),
        Row::config_map("a text that is a number", json!({"data": {"a": 1}}))
            .bad_request(&["data"]),
        Row::config_map("bytes that are not in base64", json!({"binaryData": {"a": "%%"}}))
            .bad_request(&["ConfigMap in version \"v1\" cannot be handled as a ConfigMap"]),
    ]
}

fn wrong_values() -> Vec<Row> {
    let long = "x".repeat(64);
    vec![
        Row::pod("a long name", json!({"metadata": {"name": "x".repeat(254)}}))
            .invalid(&["metadata.name: Invalid value", "must be no more than 253 characters"]),
        Row::pod("a label that cannot be selected", json!({"metadata": {"labels": {"a": "b c"}}}))
            .invalid(&["metadata.labels: Invalid value: \"b c\": a valid label must be"]),
        Row::pod("a long label", json!({"metadata": {"labels": {"a": long}}}))
            .invalid(&["metadata.labels", "must be no more than 63 characters"]),
        Row::pod("a label's key that is none", json!({"metadata": {"labels": {"-a": "b"}}}))
            .invalid(&["metadata.labels: Invalid value: \"-a\": name part must"]),
        Row::pod("an annotation's key that is none", json!({"metadata": {"annotations": {"a b": "1"}}}))
            .invalid(&["metadata.annotations: Invalid value: \"a b\""]),
        Row::pod("annotations beyond measure", json!({"metadata": {"annotations": {"a": "x".repeat(300_000)}}}))
            .invalid(&["metadata.annotations: Too long: may not be more than 262144 bytes"]),
        Row::pod("a finalizer of nobody", json!({"metadata": {"finalizers": ["x"]}}))
            .invalid(&["metadata.finalizers[0]: Invalid value: \"x\"", "fully qualified"]),
        Row::pod("an owner without a name", json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "uid": "u"}]}}))
            .invalid(&["metadata.ownerReferences.name: Invalid value: \"\": must not be empty"]),
        Row::container("a container without a name", json!({"name": ""}))
            .invalid(&["spec.containers[0].name: Required value"]),
        Row::container("a container's name that is none", json!({"name": "Bad_"}))
            .invalid(&["spec.containers[0].name: Invalid value: \"Bad_\""]),
        Row::container("a container without an image", json!({"image": ""}))
            .invalid(&["spec.containers[0].image: Required value"]),
        Row::container("a variable without a name", json!({"env": [{"value": "1"}]}))
            .invalid(&["spec.containers[0].env[0].name: Required value"]),
        Row::container("a variable's name that is none", json!({"env": [{"name": "a=b"}]}))
            .invalid(&["spec.containers[0].env[0].name: Invalid value: \"a=b\""]),
        Row::container("an image that comes sometimes", json!({"imagePullPolicy": "x"}))
            .invalid(&["spec.containers[0].imagePullPolicy: Unsupported value: \"x\""]),
        Row::container("less memory than none", json!({"resources": {"limits": {"memory": "-1"}}}))
            .invalid(&["spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0"]),
        Row::container("more memory asked than allowed", json!({"resources": {"requests": {"memory": "2Mi"}, "limits": {"memory": "1Mi"}}}))
            .invalid(&["spec.containers[0].resources.requests: Invalid value: \"2Mi\": must be less than or equal to memory limit of 1Mi"]),
        Row::container("a mount of nothing", json!({"volumeMounts": [{"name": "x"}]}))
            .invalid(&["spec.containers[0].volumeMounts[0].name: Not found: \"x\"", "spec.containers[0].volumeMounts[0].mountPath: Required value"]),
        Row::pod("no time at all", json!({"spec": {"activeDeadlineSeconds": 0}}))
            .invalid(&["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and"]),
        Row::pod("a volume of less than nothing", json!({"spec": {"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "-1Mi"}}]}}))
            .invalid(&["spec.volumes[0].emptyDir.sizeLimit: Forbidden"]),
        Row::pod("volumes of one name", json!({"spec": {"volumes": [{"name": "v"}, {"name": "v"}, {}]}}))
            .invalid(&["spec.volumes[1].name: Duplicate value: \"v\"", "spec.volumes[2].name: Required value"]),
        Row::pod("a volume of two sorts", json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}, "configMap": {"name": "m"}}]}}))
            .invalid(&["spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type"]),
        Row::pod("a volume of no ConfigMap", json!({"spec": {"volumes": [{"name": "v", "configMap": {}}]}}))
            .invalid(&["spec.volumes[0].configMap.name: Required value"]),
        Row::post("nothing", "pods", &json!({}))
            .invalid(&["metadata.name: Required value: name or generateName is required", "spec.containers: Required value"]),
        Row::job("a Job that ends only on success", json!({"template": {"spec": {"restartPolicy": "Always"}}}))
            .invalid(&["Job.batch \"j\" is invalid: spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]),
        Row::post("a Job of nothing", "jobs", &json!({"metadata": {"name": "j"}}))
            .invalid(&["spec.template.spec.containers: Required value", "spec.template.spec.restartPolicy: Required value"]),
        Row::job("fewer tries than none", json!({"backoffLimit": -1, "parallelism": -1, "ttlSecondsAfterFinished": -1}))
            .invalid(&["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0", "spec.parallelism: Invalid", "spec.ttlSecondsAfterFinished: Invalid"]),
        Row::job("a way to complete that there is not", json!({"completionMode": "x"}))
            .invalid(&["spec.completionMode: Unsupported value: \"x\""]),
        Row::job("indexes without a number", json!({"completionMode": "Indexed", "parallelism": 2}))
            .invalid(&["spec.completions: Required value: when completion mode is Indexed"]),
        Row::job("a Job's container without an image", json!({"template": {"spec": {"containers": [{"name": "main"}]}}}))
            .invalid(&["spec.template.spec.containers[0].image: Required value"]),
        Row::config_map("an entry's name that is none", json!({"data": {"a b": "1"}}))
            .invalid(&["data[a b]: Invalid value: \"a b\""]),
        Row::config_map("an entry that is there twice", json!({"data": {"a": "1"}, "binaryData": {"a": "MQ=="}}))
            .invalid(&["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]),
        Row::config_map("a map beyond measure", json!({"data": {"a": "x".repeat((1 << 20) + 1)}}))
            .invalid(&["[]: Too long: may not be more than 1048576 bytes"]),
        Row::post("a namespace with a dot", "/api/v1/namespaces", &json!({"metadata": {"name": "a.b"}}))
            .invalid(&["metadata.name: Invalid value: \"a.b\""]),
    ]
}

fn wrong_bodies() -> Vec<Row> {
    vec![
        Row::of("a list of nothing", Method::POST, "pods", "[]").bad_request(&["must be of type Pod"]),
        Row::of("a text", Method::POST, "pods", "\"x\"").bad_request(&["must be of type Pod"]),
        Row::of("no body", Method::POST, "pods", "").bad_request(&["must be of type Pod"]),
        Row::of("half a body", Method::POST, "pods", "{\"metadata\":").bad_request(&["must be of type Pod"]),
        Row::post("a kind that nobody knows", "pods", &json!({"kind": "Nope", "apiVersion": "v1"}))
            .bad_request(&["Nope in version \"v1\" cannot be handled as a Pod"]),
        Row::post("another kind", "pods", &json!({"kind": "ConfigMap", "apiVersion": "v1"}))
            .bad_request(&["ConfigMap in version \"v1\" cannot be handled as a Pod"]),
        Row::post("another namespace", "pods", &json!({"metadata": {"name": "a", "namespace": "another"}}))
            .bad_request(&["the namespace of the provided object does not match the namespace sent on the request"]),
        Row::post("another version", "pods", &json!({"kind": "Pod", "apiVersion": "v2"}))
            .bad_request(&["Pod in version \"v2\" cannot be handled as a Pod"]),
        Row::of("a huge body", Method::POST, "pods", vec![b'x'; HUGE])
            .gives(413, "RequestEntityTooLarge", &["limit is 3145728"]),
        Row::of("a huge update", Method::PUT, "pods/there", vec![b'x'; HUGE])
            .gives(413, "RequestEntityTooLarge", &["limit is 3145728"]),
        Row::of("a body of no type", Method::POST, "pods", "{}").typed("text/plain")
            .gives(415, "UnsupportedMediaType", &["application/json"]),
        Row::of("options of no type", Method::DELETE, "pods/there", "{}").typed("text/plain")
            .gives(415, "UnsupportedMediaType", &["application/json"]),
        Row::of("a dependent's fate that there is not", Method::DELETE, "pods/there", json!({"propagationPolicy": "Nope"}).to_string())
            .invalid(&["propagationPolicy: Unsupported value: \"Nope\""]),
        Row::of("the same in the query", Method::DELETE, "pods/there?propagationPolicy=Nope", "")
            .invalid(&["propagationPolicy: Unsupported value: \"Nope\""]),
        Row::of("a grace that is no number", Method::DELETE, "pods/there?gracePeriodSeconds=x", "")
            .bad_request(&["\"x\""]),
        Row::patch("a patch of an unknown sort", JSON, "{}").gives(415, "UnsupportedMediaType", &[""]),
        Row::patch("steps that are no list", JSON_PATCH, r#"{"op": "remove"}"#).bad_request(&["error decoding patch"]),
        Row::patch("a merge of a list", MERGE, "[]").bad_request(&["error decoding patch"]),
        Row::patch("half a merge", MERGE, "{\"a\":").bad_request(&["error decoding patch"]),
        Row::patch("a merge into another type", MERGE, r#"{"metadata": {"labels": {"a": 1}}}"#)
            .invalid(&["patch: Invalid value", "labels"]),
        Row::patch("a merge into another kind", MERGE, r#"{"kind": "Nope"}"#)
            .invalid(&["patch: Invalid value", "Nope"]),
        Row::patch("a merge into another name", MERGE, r#"{"metadata": {"name": "zz"}}"#)
            .bad_request(&["(zz) does not match the name on the URL (there)"]),
        Row::patch("a merge of a bad label", MERGE, r#"{"metadata": {"labels": {"a": "b c"}}}"#)
            .invalid(&["metadata.labels: Invalid value: \"b c\""]),
        Row::patch("an operation that there is not", JSON_PATCH, r#"[{"op": "nope", "path": "/a"}]"#)
            .invalid(&["the server rejected our request due to an error in our request"]),
        Row::patch("a path that is none", JSON_PATCH, r#"[{"op": "add", "path": "a", "value": 1}]"#)
            .invalid(&["the server rejected our request due to an error in our request"]),
        Row::patch("another type by steps", JSON_PATCH, r#"[{"op": "add", "path": "/metadata/labels", "value": 7}]"#)
            .invalid(&["patch: Invalid value", "labels"]),
    ]
}

fn wrong_places() -> Vec<Row> {
    let nowhere = "the server could not find the requested resource";
    vec![
        Row::get("a kind that nobody knows", "nopes").not_found(nowhere),
        Row::get("another version", "/api/v2/pods").not_found(nowhere),
        Row::get("a pod in no namespace", "/api/v1/pods/there").not_found(nowhere),
        Row::get("what is in no namespace, in one", "nodes").not_found(nowhere),
        Row::get("a part that there is not", "pods/there/nope").not_found(nowhere),
        Row::get("more than a log", "pods/there/log/x").not_found(nowhere),
        Row::get("a pod of a namespace that is not there", "/api/v1/namespaces/none/pods/x")
            .not_found("pods \"x\" not found"),
        Row::get("a namespace that is not there", "/api/v1/namespaces/none").not_found("namespaces \"none\" not found"),
        Row::post("a pod for a namespace that is not there", "/api/v1/namespaces/none/pods", &pod("a", &json!({})))
            .not_found("namespaces \"none\" not found"),
        Row::of("the end of what is not there", Method::DELETE, "pods/none", "").not_found("pods \"none\" not found"),
        Row { path: "pods/none".to_owned(), ..Row::patch("a change of what is not there", MERGE, "{}") }.not_found("pods \"none\" not found"),
        Row::get("the log of what is not there", "pods/none/log").not_found("pods \"none\" not found"),
        Row::of("a change of all", Method::PUT, "pods", "{}").not_allowed(),
        Row::of("a patch of all", Method::PATCH, "pods", "{}").typed(MERGE).not_allowed(),
        Row::of("a pod made in its place", Method::POST, "pods/there", "{}").not_allowed(),
        Row::of("a log written", Method::POST, "pods/there/log", "{}").not_allowed(),
        Row::of("a log deleted", Method::DELETE, "pods/there/log", "").not_allowed(),
        Row::get("an eviction read", "pods/there/eviction").not_allowed(),
        Row::post("a pod made everywhere", "/api/v1/pods", &pod("a", &json!({}))).not_allowed(),
        Row::of("the end of everything", Method::DELETE, "/api/v1/pods", "").not_allowed(),
        Row::of("the end of all namespaces", Method::DELETE, "/api/v1/namespaces", "").not_allowed(),
        Row::of("a version written", Method::PUT, "/version", "").not_allowed(),
        Row::of("a word that is no method", Method::from_bytes(b"FOO").unwrap(), "pods", "").not_allowed(),
    ]
}

fn wrong_parameters() -> Vec<Row> {
    let long = "x".repeat(64);
    vec![
        Row::get("a limit that is no number", "pods?limit=x").bad_request(&["\"x\""]),
        Row::get("a time that is no number", "pods?timeoutSeconds=x").bad_request(&["\"x\""]),
        Row::get("a version below all", "pods?resourceVersion=-1")
            .bad_request(&["resourceVersion: Invalid value: \"-1\""]),
        Row::get("a version that is none", "pods?resourceVersion=abc")
            .bad_request(&["resourceVersion: Invalid value: \"abc\""]),
        Row::get("a match of no version", "pods?resourceVersionMatch=Exact")
            .invalid(&["resourceVersionMatch is forbidden unless resourceVersion is provided"]),
        Row::get("a match that there is not", "pods?resourceVersion=5&resourceVersionMatch=Nope")
            .invalid(&["resourceVersionMatch: Unsupported value: \"Nope\""]),
        Row::get("exactly any version", "pods?resourceVersion=0&resourceVersionMatch=Exact")
            .invalid(&["resourceVersionMatch: Forbidden"]),
        Row::get("a list that streams", "pods?sendInitialEvents=true")
            .invalid(&["sendInitialEvents is forbidden for list"]),
        Row::get("a watch of an exact version", "pods?watch=1&resourceVersion=1&resourceVersionMatch=Exact")
            .invalid(&["resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"]),
        Row::get("a token of no list", "pods?continue=!!").bad_request(&["continue key is not valid"]),
        Row::get("a label of three signs", "pods?labelSelector=a%3D%3D%3Db")
            .bad_request(&["unable to parse requirement"]),
        Row::get("a long label", format!("pods?labelSelector=a%3D{long}"))
            .bad_request(&["unable to parse requirement", &long]),
        Row::get("a label's key that is none", "pods?labelSelector=-a%3Db")
            .bad_request(&["unable to parse requirement", "-a"]),
        Row::get("a set without brackets", "pods?labelSelector=a+in+b").bad_request(&["unable to parse requirement"]),
        Row::get("a field that does not select", "pods?fieldSelector=spec.none%3Da")
            .bad_request(&["field label not supported: spec.none"]),
        Row::get("a field without a value", "pods?fieldSelector=metadata.name")
            .bad_request(&["invalid selector", "can't understand", "metadata.name"]),
        Row::get("fewer lines than none", "pods/there/log?tailLines=-1")
            .invalid(&["PodLogOptions \"there\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"]),
        Row::get("lines that are no number", "pods/there/log?tailLines=x").bad_request(&["\"x\""]),
        Row::get("no bytes", "pods/there/log?limitBytes=0")
            .invalid(&["limitBytes: Invalid value: 0: must be greater than 0"]),
        Row::get("fewer bytes than none", "pods/there/log?limitBytes=-1")
            .invalid(&["limitBytes: Invalid value: -1: must be greater than 0"]),
        Row::get("since now", "pods/there/log?sinceSeconds=0")
            .invalid(&["sinceSeconds: Invalid value: 0: must be greater than 0"]),
        Row::get("since the future", "pods/there/log?sinceSeconds=-1")
            .invalid(&["sinceSeconds: Invalid value: -1: must be greater than 0"]),
        Row::get("since a time that is none", "pods/there/log?sinceTime=x").bad_request(&["\"x\""]),
        Row::get("since two times", "pods/there/log?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z")
            .invalid(&["at most one of `sinceTime` or `sinceSeconds` may be specified"]),
        Row::get("one of two streams", "pods/there/log?stream=Stdout")
            .invalid(&["stream: Forbidden: may not be specified"]),
    ]
}

/// All that differ, so that one run shows them together. Nothing may have come of it.
async fn assert_refused_each(at: &Place, rows: &[Row]) {
    at.pod("there", &json!({})).await;
    let mut wrong = Vec::new();
    for row in rows {
        wrong.extend(row.wrong(at).await);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert_eq!(at.names("").await, ["there"]);
    assert_eq!(at.get("pods/there").await.1["metadata"]["generation"], 1);
}

behaviours! { bad_input:
    async fn a_field_of_the_wrong_type_or_of_no_name_is_named(at: &Place) {
        assert_refused_each(at, &wrong_types()).await;
    }

    async fn a_field_of_a_wrong_value_is_named_with_what_would_be_right(at: &Place) {
        assert_refused_each(at, &wrong_values()).await;
    }

    async fn a_body_that_cannot_be_meant_is_refused_with_a_sentence(at: &Place) {
        assert_refused_each(at, &wrong_bodies()).await;
    }

    async fn what_is_not_there_or_not_done_there_is_said(at: &Place) {
        assert_refused_each(at, &wrong_places()).await;
    }

    async fn a_parameter_that_is_none_is_named(at: &Place) {
        assert_refused_each(at, &wrong_parameters()).await;
    }

    async fn a_field_that_nobody_knows_is_told_of_and_left_out(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        wanted["spec"]["bogus"] = 1.into();
        let (warnings, made) = at.warnings(&wanted, "Warn").await;
        assert_eq!(warnings, ["299 - \"unknown field \\\"spec.bogus\\\"\""]);
        assert!(made["spec"].get("bogus").is_none(), "{made}");
        wanted["metadata"]["name"] = "b".into();
        assert_eq!(at.warnings(&wanted, "Ignore").await.0, [""; 0]);
    }
    async fn very_many_fields_that_nobody_knows_are_told_of_in_few_and_short_words(at: &Place) {
        let mut wanted = pod("a", &json!({}));
        for number in 100..300 {
            wanted["spec"][format!("x{number}{}", "x".repeat(300))] = 1.into();
        }
        let (warnings, made) = at.warnings(&wanted, "Warn").await;
        assert_eq!(text(&made, "/metadata/name"), "a", "{made}");
        // 4096 characters in all, 256 each: a quote counts once.
        let lengths: Vec<usize> = warnings.iter().map(String::len).collect();
        assert_eq!(lengths, [r#"299 - "\""#.len() + 256; 16]);
        let (_, refused) = at.warnings(&wanted, "Strict").await;
        let message = text(&refused, "/message");
        assert_eq!(message.matches("unknown field").count(), 100, "{message:.300}");
    }
}
