//! Objects against the types that Kubernetes has of them.

use k8s_openapi::serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// Takes away what the type does not know, as the API server does, and tells the names of that.
///
/// # Errors
/// What is of another type than it should be, and where it is.
pub(super) fn fit<T: DeserializeOwned + Serialize>(object: &mut Value) -> Result<Vec<String>, String> {
    let typed: T = serde_path_to_error::deserialize(&*object)
        .map_err(|error| format!("json: {}: {}", field(error.path()), error.inner()))?;
    let known = serde_json::to_value(typed).map_err(|error| error.to_string())?;
    let mut unknown = Vec::new();
    prune(object, &known, "", &mut unknown);
    Ok(unknown)
}

fn field(path: &Path) -> String {
    path.iter().fold(String::new(), |mut field, segment| {
        match segment {
            Segment::Seq { index } => field += &format!("[{index}]"),
            Segment::Map { key } | Segment::Enum { variant: key } => field = inside(&field, key),
            Segment::Unknown => field = inside(&field, "?"),
        }
        field
    })
}

fn inside(field: &str, name: &str) -> String {
    if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") }
}

fn prune(object: &mut Value, known: &Value, at: &str, unknown: &mut Vec<String>) {
    match (object, known) {
        (Value::Object(fields), Value::Object(known)) => fields.retain(|name, value| {
            let at = inside(at, name);
            let Some(known) = known.get(name) else {
                unknown.push(at);
                return false;
            };
            prune(value, known, &at, unknown);
            true
        }),
        (Value::Array(items), Value::Array(known)) => {
            for (index, (item, known)) in items.iter_mut().zip(known).enumerate() {
                prune(item, known, &format!("{at}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_pod_does_not_have_is_named_and_taken_away() {
        let mut pod =
            json!({"metadata": {"name": "a"}, "spec": {"x": 1, "containers": [{}, {"comand": ["sh"], "args": []}]}});
        assert_eq!(fit::<Pod>(&mut pod).unwrap(), ["spec.containers[1].comand", "spec.x"]);
        assert_eq!(pod, json!({"metadata": {"name": "a"}, "spec": {"containers": [{}, {"args": []}]}}));
    }

    #[test]
    fn what_is_of_another_type_is_said_with_its_place() {
        let mut pod = json!({"spec": {"containers": [{"command": "sh"}]}});
        let problem = fit::<Pod>(&mut pod).unwrap_err();
        assert!(problem.starts_with("json: spec.containers[0].command: invalid type: string \"sh\""), "{problem}");
    }
}
