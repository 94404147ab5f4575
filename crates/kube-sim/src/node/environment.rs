//! What a container's program is given: its environment, its files, and its command with both filled in.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::cluster::{Cluster, Kind, items, text};

/// Programs are looked for here unless the container says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Name of the file of a container's last words, in its directory.
pub(super) const MESSAGE: &str = "termination-log";

/// Why a container cannot be made, in a kubelet's words; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unmade(String);

impl From<io::Error> for Unmade {
    fn from(error: io::Error) -> Self {
        Self(format!("cannot make the container's files: {error}"))
    }
}

/// A pod's volumes, by name, as directories.
pub(super) type Volumes = BTreeMap<String, PathBuf>;

/// Makes all volumes of a pod below `directory`.
pub(super) fn make_volumes(cluster: &Cluster, pod: &Value, directory: &Path) -> Result<Volumes, Unmade> {
    let mut volumes = Volumes::new();
    for volume in items(&pod["spec"]["volumes"]) {
        let name = text(volume, "/name");
        let path = make_volume(cluster, pod, volume, directory)
            .map_err(|Unmade(why)| Unmade(format!("MountVolume.SetUp failed for volume {name:?} : {why}")))?;
        volumes.insert(name.to_owned(), path);
    }
    Ok(volumes)
}

fn make_volume(cluster: &Cluster, pod: &Value, volume: &Value, directory: &Path) -> Result<PathBuf, Unmade> {
    let path = directory.join("volumes").join(inside(text(volume, "/name"))?);
    fs::create_dir_all(&path)?;
    if let Some(source) = volume.get("configMap").filter(|source| !source.is_null()) {
        fill_from_config_map(cluster, pod, source, &path)?;
    } else if volume.get("emptyDir").is_none_or(Value::is_null) {
        return Err(Unmade("it is neither an emptyDir nor a configMap: the embedded cluster has no others".to_owned()));
    }
    Ok(path)
}

fn fill_from_config_map(cluster: &Cluster, pod: &Value, source: &Value, path: &Path) -> Result<(), Unmade> {
    let Some(map) = config_map(cluster, pod, source)? else { return Ok(()) };
    let mut files = BTreeMap::new();
    for (key, value) in map["data"].as_object().into_iter().flatten() {
        files.insert(key.as_str(), text(value, "").as_bytes().to_vec());
    }
    for (key, value) in map["binaryData"].as_object().into_iter().flatten() {
        files.insert(key.as_str(), BASE64_STANDARD.decode(text(value, "")).unwrap_or_default());
    }
    let chosen: Vec<(&str, &str)> = match items(&source["items"]) {
        [] => files.keys().map(|key| (*key, *key)).collect(),
        chosen => chosen.iter().map(|item| (text(item, "/key"), text(item, "/path"))).collect(),
    };
    let mode = source["defaultMode"].as_u64().and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644);
    for (key, file) in chosen {
        let content = files.get(key).ok_or_else(|| Unmade(format!("references non-existent config key: {key}")))?;
        let file = path.join(inside(file)?);
        fs::create_dir_all(file.parent().expect("it is below the volume"))?;
        // A file of an earlier try may be read-only.
        let _ = fs::remove_file(&file);
        fs::write(&file, content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The map that is named here; none where it may be missing.
fn config_map(cluster: &Cluster, pod: &Value, source: &Value) -> Result<Option<std::sync::Arc<Value>>, Unmade> {
    let name = text(source, "/name");
    let found = cluster.get(Kind::ConfigMap, text(pod, "/metadata/namespace"), name);
    if found.is_none() && source["optional"] != true {
        return Err(Unmade(format!("configmap {name:?} not found")));
    }
    Ok(found)
}

/// A relative path that stays where it is.
fn inside(path: &str) -> Result<&Path, Unmade> {
    let path = Path::new(path);
    let stays = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if stays && path.components().next().is_some() {
        Ok(path)
    } else {
        Err(Unmade(format!("path {path:?} must be relative and must not contain '..'")))
    }
}

fn has_parents(path: &Path) -> bool {
    path.components().any(|part| part == std::path::Component::ParentDir)
}

/// What a container runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
}

/// A container's program, in a directory of its own.
///
/// There is no mount namespace: a volume stays the directory that it is, and where command, arguments or environment name
/// a mount path, they are given that directory's instead.
pub(super) fn program(
    cluster: &Cluster,
    pod: &Value,
    container: &Value,
    volumes: &Volumes,
    home: &Path,
) -> Result<Program, Unmade> {
    // What an earlier run of the container left is not this one's.
    if home.exists() {
        fs::remove_dir_all(home)?;
    }
    fs::create_dir_all(home)?;
    let mut mounts: Vec<(&str, PathBuf)> = Vec::new();
    for mount in items(&container["volumeMounts"]) {
        let path = volumes.get(text(mount, "/name")).ok_or_else(|| {
            Unmade(format!("the container mounts volume {:?}, which the pod does not have", text(mount, "/name")))
        })?;
        let path = match text(mount, "/subPath") {
            "" => path.clone(),
            below => path.join(inside(below)?),
        };
        mounts.push((text(mount, "/mountPath").trim_end_matches('/'), path));
    }
    let message_path = match text(container, "/terminationMessagePath") {
        "" => "/dev/termination-log",
        path => path,
    };
    mounts.push((message_path, home.join(MESSAGE)));
    // The longest first: one mount may lie in another.
    mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));

    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), home.display().to_string()),
        ("HOSTNAME".to_owned(), text(pod, "/metadata/name").to_owned()),
    ]);
    for (name, value) in declared(cluster, pod, container)? {
        let value = relocated(&expanded(&value, &environment), &mounts);
        environment.insert(name, value);
    }
    let words = items(&container["command"]).iter().chain(items(&container["args"]));
    let command = words.map(|word| relocated(&expanded(text(word, ""), &environment), &mounts)).collect();
    let directory = match text(container, "/workingDir") {
        "" => home.to_owned(),
        path => PathBuf::from(relocated(path, &mounts)),
    };
    // A container runtime makes a working directory that is missing. Here only a volume is the container's to make it in.
    if volumes.values().any(|volume| directory.starts_with(volume)) && !has_parents(&directory) {
        fs::create_dir_all(&directory)?;
    }
    Ok(Program { command, environment, directory })
}

/// `envFrom` and `env`, in their order.
fn declared(cluster: &Cluster, pod: &Value, container: &Value) -> Result<Vec<(String, String)>, Unmade> {
    let mut declared = Vec::new();
    for source in items(&container["envFrom"]) {
        if source.get("configMapRef").is_none_or(Value::is_null) {
            return Err(Unmade("envFrom names no configMapRef: the embedded cluster has nothing else".to_owned()));
        }
        let Some(map) = config_map(cluster, pod, &source["configMapRef"])? else { continue };
        for (key, value) in map["data"].as_object().into_iter().flatten() {
            declared.push((format!("{}{key}", text(source, "/prefix")), text(value, "").to_owned()));
        }
    }
    for variable in items(&container["env"]) {
        let from = &variable["valueFrom"];
        let value = if !from["fieldRef"].is_null() {
            field(pod, text(from, "/fieldRef/fieldPath"))?
        } else if !from["configMapKeyRef"].is_null() {
            let source = &from["configMapKeyRef"];
            let key = text(source, "/key");
            match config_map(cluster, pod, source)?.and_then(|map| map["data"][key].as_str().map(str::to_owned)) {
                Some(value) => value,
                None if source["optional"] == true => continue,
                None => return Err(Unmade(format!("couldn't find key {key} in ConfigMap {}", text(source, "/name")))),
            }
        } else if from.is_null() {
            text(variable, "/value").to_owned()
        } else {
            return Err(Unmade(format!(
                "environment variable {:?} comes from what the embedded cluster does not have",
                text(variable, "/name")
            )));
        };
        declared.push((text(variable, "/name").to_owned(), value));
    }
    Ok(declared)
}

/// The downward API.
fn field(pod: &Value, path: &str) -> Result<String, Unmade> {
    let keyed = |of: &str| path.strip_prefix(of)?.strip_prefix("['")?.strip_suffix("']");
    let value = if let Some(key) = keyed("metadata.labels") {
        &pod["metadata"]["labels"][key]
    } else if let Some(key) = keyed("metadata.annotations") {
        &pod["metadata"]["annotations"][key]
    } else {
        match path {
            "metadata.name" => &pod["metadata"]["name"],
            "metadata.namespace" => &pod["metadata"]["namespace"],
            "metadata.uid" => &pod["metadata"]["uid"],
            "spec.nodeName" => &pod["spec"]["nodeName"],
            "spec.serviceAccountName" => &pod["spec"]["serviceAccountName"],
            "status.hostIP" => &pod["status"]["hostIP"],
            "status.podIP" => &pod["status"]["podIP"],
            _ => return Err(Unmade(format!("unsupported fieldPath: {path}"))),
        }
    };
    Ok(text(value, "").to_owned())
}

/// `$(NAME)` is replaced where NAME is known; `$$` stands for one dollar sign.
fn expanded(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, tail) = rest.split_at(at);
        result.push_str(before);
        let reference = tail.strip_prefix("$(").and_then(|tail| tail.split_once(')'));
        rest = match reference {
            _ if tail.starts_with("$$") => {
                result.push('$');
                &tail[2..]
            }
            Some((name, after)) => {
                match environment.get(name) {
                    Some(value) => result.push_str(value),
                    None => result.push_str(&tail[..name.len() + 3]),
                }
                after
            }
            None => {
                result.push('$');
                &tail[1..]
            }
        };
    }
    result + rest
}

/// The text with every mount path in it replaced by where the volume is.
fn relocated(text: &str, mounts: &[(&str, PathBuf)]) -> String {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let begins_path = next == '/' && !result.ends_with(|c: char| is_name(c) || c == '/');
        let mount = mounts.iter().find(|(path, _)| {
            begins_path && rest.strip_prefix(path).is_some_and(|after| !path.is_empty() && !after.starts_with(is_name))
        });
        if let Some((path, place)) = mount {
            result.push_str(&place.to_string_lossy());
            rest = &rest[path.len()..];
        } else {
            result.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let environment = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expanded(text, &environment), expected, "{text}");
        }
    }

    #[test]
    fn mount_paths_are_replaced_where_they_are_whole_paths() {
        let mounts = [("/tmp/deep", PathBuf::from("/d")), ("/tmp", PathBuf::from("/t"))];
        for (text, expected) in [
            ("/tmp", "/t"),
            ("/tmp/a", "/t/a"),
            ("cat /tmp/deep/x > /tmp/y", "cat /d/x > /t/y"),
            ("/tmpfile", "/tmpfile"),
            ("/var/tmp", "/var/tmp"),
            ("A=/tmp:/tmp/", "A=/t:/t/"),
        ] {
            assert_eq!(relocated(text, &mounts), expected, "{text}");
        }
    }
}
