//! What the compiler cannot hold: who may name whom, and that every trap of docs/TRAPS.md has its test.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The modules of the server, each using only those before it; the binary comes after all.
const ORDER: [&str; 39] = [
    "wording",
    "upstream",
    "jitter",
    "backoff",
    "crash",
    "contract",
    "clock",
    "health",
    "config",
    "named_file",
    "telemetry",
    "lock",
    "cluster",
    "open_files",
    "supervisor",
    "output_store",
    "blob",
    "live_output",
    "journal",
    "retention",
    "sink",
    "topics",
    "leadership",
    "relay",
    "webhook",
    "publisher",
    "inbox",
    "store",
    "worker",
    "replica",
    "monitor",
    "expected",
    "explain",
    "demo",
    "embedded",
    "http",
    "app",
    "cli",
    "main",
];

/// Beyond that order: the module on the left never names what is on the right.
const APART: [(&str, &[&str]); 15] = [
    (
        "monitor",
        &[
            "crate::http",
            "crate::sink",
            "crate::relay",
            "crate::webhook",
            "crate::publisher",
            "crate::inbox",
            "crate::store",
            "axum",
            "hyper",
            "rusqlite",
            "rdkafka",
            "mongodb",
            "redis",
        ],
    ),
    (
        "http",
        &["crate::monitor", "crate::config", "crate::sink", "crate::relay", "kube", "k8s_openapi", "rusqlite", "redis"],
    ),
    ("journal", &["kube", "k8s_openapi", "axum", "hyper", "crate::output_store", "redis"]),
    ("sink", &["crate::supervisor", "crate::output_store", "kube", "k8s_openapi", "axum", "hyper", "rusqlite"]),
    ("relay", &["crate::config", "kube", "k8s_openapi", "axum", "hyper", "rusqlite", "rdkafka", "redis"]),
    ("worker", &["crate::config", "kube", "k8s_openapi", "axum", "hyper", "rusqlite", "rdkafka", "mongodb", "redis"]),
    ("leadership", &["crate::config", "axum", "hyper", "rusqlite", "redis"]),
    ("replica", &["crate::config", "kube", "k8s_openapi", "axum", "hyper", "rusqlite", "rdkafka", "mongodb", "redis"]),
    ("publisher", &["crate::config", "kube", "k8s_openapi", "axum", "hyper", "rusqlite", "rdkafka", "redis"]),
    ("inbox", &["crate::config", "kube", "k8s_openapi", "axum", "hyper", "rusqlite", "redis"]),
    ("store", &["crate::journal", "kube", "k8s_openapi", "axum", "hyper", "rdkafka", "redis"]),
    ("webhook", &["crate::supervisor", "crate::output_store", "kube", "k8s_openapi"]),
    ("output_store", &["kube", "k8s_openapi", "axum", "hyper", "rusqlite", "object_store"]),
    ("blob", &["crate::journal", "kube", "k8s_openapi", "rusqlite"]),
    ("config", &["axum", "rusqlite", "tokio"]),
];

/// Of the workers these alone hold a client of the cluster: they change what is in it.
const IN_THE_CLUSTER: [&str; 1] = ["src/worker/resource_cleaner/"];

/// core decides and never does: no clock, no randomness, no input or output.
const IMPURE: [&str; 17] = [
    "tokio",
    "kube",
    "k8s_openapi",
    "rdkafka",
    "mongodb",
    "rusqlite",
    "rand",
    "reqwest",
    "hyper",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Traps of parts that are not built yet: their rows may say `later (which part)` instead of naming a test.
const LATER: [std::ops::RangeInclusive<u32>; 10] =
    [48..=49, 73..=73, 81..=81, 84..=88, 97..=97, 99..=100, 107..=107, 123..=123, 128..=129, 131..=133];

/// No trap bears these numbers.
const UNUSED: [u32; 6] = [30, 74, 80, 102, 126, 132];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a directory or, if it is none, the file itself.
fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.is_dir() || path.extension().is_some_and(|e| e == "rs"))
        .flat_map(|p| rust_files(&p))
        .collect()
}

/// The text without comments of its own line.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Names directly after `crate::`, in a group too.
fn modules_named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let after = &code[at + "crate::".len()..];
        let mut take = |text: &str| {
            let word: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !word.is_empty() {
                names.insert(word);
            }
        };
        if !after.starts_with('{') {
            take(after);
            continue;
        }
        let mut depth = 0;
        for (index, character) in after.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(character, '{' | ',') {
                take(&after[index + 1..]);
            }
        }
    }
    names
}

/// True if the code names this path, and not merely something that ends or goes on like it.
fn names_path(code: &str, path: &str) -> bool {
    if let Some(module) = path.strip_prefix("crate::") {
        return modules_named(code).contains(module);
    }
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '"');
    let needle = format!("{path}::");
    code.match_indices(&needle).any(|(at, _)| !code[..at].chars().next_back().is_some_and(is_word))
        || code.contains(&format!("use {path};"))
}

fn module_files(module: &str) -> Vec<PathBuf> {
    let source = root().join("src");
    [rust_files(&source.join(module)), rust_files(&source.join(format!("{module}.rs")))].concat()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn every_module_uses_only_those_before_it() {
    let rank: BTreeMap<&str, usize> = ORDER.iter().enumerate().map(|(rank, name)| (*name, rank)).collect();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        if name != "lib" && !rank.contains_key(name.as_str()) {
            wrong.push(format!("src/{name} has no place in the order of tests/it/rules.rs"));
        }
    }
    for (module, own) in &rank {
        for file in module_files(module) {
            for named in modules_named(&code(&file)) {
                if rank.get(named.as_str()).is_some_and(|other| other > own) {
                    wrong.push(format!("{} names crate::{named}", shown(&file)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_module_names_what_is_kept_from_it() {
    let mut wrong = Vec::new();
    for (module, forbidden) in APART {
        let files = module_files(module);
        assert!(!files.is_empty(), "there is no module {module}");
        for file in files {
            let code = code(&file);
            let is_in_cluster = IN_THE_CLUSTER.iter().any(|place| shown(&file).starts_with(place));
            let is_free = |path: &&&str| is_in_cluster && ["kube", "k8s_openapi"].contains(path);
            let named = forbidden.iter().filter(|path| !is_free(path) && names_path(&code, path));
            wrong.extend(named.map(|path| format!("{} names {path}", shown(&file))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn core_is_pure() {
    let mut wrong = Vec::new();
    for file in rust_files(&root().join("crates/core/src")) {
        let code = code(&file);
        let named = IMPURE.iter().filter(|path| names_path(&code, path));
        wrong.extend(named.map(|path| format!("{} names {path}", shown(&file))));
        if code.contains("::now(") {
            wrong.push(format!("{} asks what time it is", shown(&file)));
        }
    }
    let manifest: toml::Table = fs::read_to_string(root().join("crates/core/Cargo.toml")).unwrap().parse().unwrap();
    let allowed = ["jiff", "litemap", "serde", "serde_json", "sha2", "thiserror", "utoipa", "uuid"];
    let dependencies = manifest["dependencies"].as_table().unwrap().keys();
    let others = dependencies.filter(|name| !allowed.contains(&name.as_str()));
    wrong.extend(others.map(|name| format!("crates/core depends on {name}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn paths_are_found_however_they_are_written() {
    let code = "use crate::{\n    journal::{self, http},\n    clock::Clock,\n};\nlet x = crate::health::Role::Api;\nuse kube::Api;";
    assert_eq!(modules_named(code), ["clock", "health", "journal"].map(str::to_owned).into());
    assert!(names_path(code, "kube") && names_path(code, "crate::clock"));
    assert!(!names_path("use crate::config::kube::Kube; let s = \"kube::x\"; mykube::f();", "kube"));
}

/// Trap to the tests that its row names. A row is `| T24 | what it is | test, test |`.
fn table() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(root().join("docs/TRAPS.md")).unwrap();
    let mut table = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| T") && !line.starts_with("| Trap")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, tests] = cells[..] else { panic!("not three cells: {line}") };
        let tests = if tests.starts_with("later (") { "" } else { tests };
        let tests =
            tests.split(',').map(|test| test.trim().trim_matches('`').to_owned()).filter(|test| !test.is_empty());
        assert!(table.insert(number.to_owned(), tests.collect()).is_none(), "{number} stands twice");
    }
    table
}

/// The names of all test functions; a behaviour that runs on every cluster is one too.
fn tests() -> BTreeSet<String> {
    let places = ["src", "tests", "crates"].map(|place| root().join(place));
    let mut names = BTreeSet::new();
    for file in places.iter().flat_map(|place| rust_files(place)) {
        let code = code(&file);
        let of_behaviours = file.ends_with("tests/it/behaviours.rs");
        let mut is_test = false;
        for line in code.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            }
            let declaration = line.split_once("fn ").filter(|(before, _)| {
                before.split_whitespace().all(|word| matches!(word, "pub(crate)" | "pub(super)" | "pub" | "async"))
            });
            if let Some((before, rest)) = declaration {
                if is_test || (of_behaviours && before.contains("async")) {
                    names.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
                }
                is_test = false;
            }
        }
    }
    names
}

#[test]
fn every_trap_has_a_test_that_exists() {
    let (table, tests) = (table(), tests());
    assert!(tests.contains("every_trap_has_a_test_that_exists"));
    let mut wrong = Vec::new();
    for (trap, named) in &table {
        let missing = named.iter().filter(|name| !tests.contains(*name));
        wrong.extend(missing.map(|name| format!("{trap}: there is no test `{name}`")));
    }
    for number in (1..=133).filter(|number| !UNUSED.contains(number)) {
        let trap = format!("T{number}");
        let is_later = LATER.iter().any(|range| range.contains(&number));
        match table.get(&trap) {
            Some(named) if named.is_empty() && !is_later => wrong.push(format!("{trap}: no test is named")),
            None => wrong.push(format!("{trap} is missing")),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "docs/TRAPS.md:\n{}", wrong.join("\n"));
}
