//! The command line, the configuration and what is said when they are wrong.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A cluster that is not there.
const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: none
clusters: [{name: none, cluster: {server: 'http://127.0.0.1:9'}}]
users: [{name: none, user: {}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
";

/// The program in an empty directory, without the tester's own environment.
fn podherald(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podherald"));
    command.current_dir(directory).env_clear().stdin(Stdio::null());
    command
}

fn run(directory: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    podherald(directory.path()).args(arguments).envs(environment.iter().copied()).output().unwrap()
}

/// What it prints with these settings, which must be right.
fn printed(directory: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> toml::Table {
    let output = run(directory, &[&["config"], arguments].concat(), environment);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && error.is_empty(), "{error}");
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

/// What it says of settings that are wrong, and how it exits.
fn refused(directory: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> (String, i32) {
    let output = run(directory, arguments, environment);
    assert!(output.stdout.is_empty(), "nothing but the error is printed");
    (String::from_utf8(output.stderr).unwrap(), output.status.code().unwrap())
}

#[test]
fn the_file_outranks_defaults_the_environment_the_file_and_flags_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let listen = |arguments: &[&str], environment: &[(&str, &str)]| {
        printed(&directory, arguments, environment)["http"]["listen"].as_str().unwrap().to_owned()
    };
    let environment = [("PODHERALD_HTTP__LISTEN", "127.0.0.1:3")];
    assert_eq!(listen(&[], &[]), "127.0.0.1:8080");
    fs::write(directory.path().join("podherald.toml"), "[http]\nlisten = \"127.0.0.1:2\"").unwrap();
    assert_eq!(listen(&[], &[]), "127.0.0.1:2");
    assert_eq!(listen(&[], &environment), "127.0.0.1:3");
    assert_eq!(listen(&["--set", "http.listen=127.0.0.1:4"], &environment), "127.0.0.1:4");
    assert_eq!(listen(&["--listen", "127.0.0.1:5", "--set", "http.listen=127.0.0.1:4"], &environment), "127.0.0.1:5");
}

#[test]
fn the_file_is_the_flags_then_the_environments_then_the_one_that_lies_there() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["podherald.toml", "environment.toml", "flag.toml"] {
        fs::write(directory.path().join(name), format!("data_dir = \"{name}\"")).unwrap();
    }
    let data_dir = |arguments: &[&str], environment: &[(&str, &str)]| {
        printed(&directory, arguments, environment)["data_dir"].as_str().unwrap().to_owned()
    };
    let environment = [("PODHERALD_CONFIG", "environment.toml")];
    assert_eq!(data_dir(&[], &[]), "podherald.toml");
    assert_eq!(data_dir(&[], &environment), "environment.toml");
    assert_eq!(data_dir(&["--config", "flag.toml"], &environment), "flag.toml");
}

#[test]
fn what_config_prints_is_a_configuration_of_the_same_meaning() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["config", "--set", "kube.label_selectors=app in (a,b);eval-id", "--listen", "[::1]:9"];
    let output = run(&directory, &arguments, &[("PODHERALD_ROLES", "monitor")]);
    fs::write(directory.path().join("podherald.toml"), &output.stdout).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("roles = [\"monitor\"] # set by PODHERALD_ROLES\n"), "{text}");
    assert!(text.contains("# `PODHERALD_HTTP__HEARTBEAT`, default `\"15s\"`.\nheartbeat = \"15s\"\n"), "{text}");
    assert_eq!(printed(&directory, &[], &[]), text.parse().unwrap());
}

#[test]
fn wrong_settings_are_refused_by_name_with_what_would_be_right() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.toml");
    for (text, expected) in [
        ("http.lisen = 1", "there is no setting http.lisen (wrong.toml); did you mean http.listen?"),
        (
            "http.max_connections = \"many\"",
            "http.max_connections is \"many\" (wrong.toml), but must be a whole number",
        ),
        ("logs.deadline = 30", "logs.deadline is 30 (wrong.toml), but must be a duration such as `500ms`, `5s`"),
        ("kube.label_selectors = [\"a b\"]", "kube.label_selectors is [\"a b\"] (wrong.toml), but must be a list"),
        ("http.end_on = \"result\"", "http.end_on is \"result\" (wrong.toml), but must be `auto` or `terminal`"),
        ("logs.max_indexes = 10001", "logs.max_indexes is 10001 (wrong.toml), but must be at most 10000"),
        ("monitor.hold = \"always\"", "monitor.hold is \"always\" (wrong.toml), but must be"),
        ("monitor.hold_ceiling = \"0s\"", "monitor.hold_ceiling is \"0s\" (wrong.toml), but must be"),
        ("kube.mode = \"local\"", "kube.mode is \"local\" (wrong.toml), but must be `cluster` or `embedded`"),
        (
            "roles = [\"judge\"]",
            "roles is [\"judge\"] (wrong.toml), but must be a list, each element `api`, `monitor`, `result_processor` or `resource_cleaner`",
        ),
        ("[http\n", "the configuration file wrong.toml is not TOML (line 1): unclosed table"),
    ] {
        fs::write(&file, text).unwrap();
        for command in ["serve", "config"] {
            let (error, code) = refused(&directory, &[command, "--config", "wrong.toml"], &[]);
            assert!(error.starts_with(&format!("podherald: {expected}")), "{error}");
            assert_eq!(code, 2);
        }
    }
    for (arguments, environment, expected) in [
        (
            &["--set", "logs.dedline=5s"][..],
            &[][..],
            "there is no setting logs.dedline (--set logs.dedline); did you mean logs.deadline?",
        ),
        (&["--listen", "8080"], &[], "http.listen is \"8080\" (--listen), but must be an IP address and port"),
        (
            &["--listen", "0.0.0.0:8080"],
            &[],
            "http.listen is \"0.0.0.0:8080\" (--listen), but must be a loopback address such as `127.0.0.1:8080`, or \
             `http.allow_unauthenticated = true`",
        ),
        (
            &[],
            &[("PODHERALD_HTTP__LISEN", "x")],
            "there is no setting PODHERALD_HTTP__LISEN (the environment); did you mean PODHERALD_HTTP__LISTEN?",
        ),
        (
            &[],
            &[("PODHERALD_MARS__AIR", "x")],
            "there is no setting PODHERALD_MARS__AIR (the environment); `podherald config` lists all settings",
        ),
        (
            &[],
            &[("PODHERALD_MONITOR__EXIT_GRACE", "ten")],
            "monitor.exit_grace is \"ten\" (PODHERALD_MONITOR__EXIT_GRACE), but must be a duration",
        ),
        (
            &["--config", "gone.toml"],
            &[],
            "cannot read the configuration file gone.toml (named by --config): No such file",
        ),
        (
            &[],
            &[("PODHERALD_CONFIG", "gone.toml")],
            "cannot read the configuration file gone.toml (named by PODHERALD_CONFIG): No such file",
        ),
    ] {
        let (error, code) = refused(&directory, arguments, environment);
        assert!(error.starts_with(&format!("podherald: {expected}")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert_eq!(code, 2);
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in
        [&["frobnicate"][..], &["--colour"], &["--set", "http.listen"], &["--config"], &["finalizers", "drop"]]
    {
        let (error, code) = refused(&directory, arguments, &[]);
        assert!(error.starts_with("error: "), "{error}");
        assert_eq!(code, 2);
    }
    let version = String::from_utf8(run(&directory, &["--version"], &[]).stdout).unwrap();
    assert_eq!(version, concat!("podherald ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_data_directory_that_cannot_be_is_named() {
    let directory = tempfile::tempdir().unwrap();
    // Below a file nobody can make a directory, not even root.
    fs::write(directory.path().join("file"), "").unwrap();
    fs::write(directory.path().join("kubeconfig"), KUBECONFIG).unwrap();
    let arguments = ["--data-dir", "file/data", "--listen", "127.0.0.1:0"];
    let (error, code) = refused(&directory, &arguments, &[("KUBECONFIG", "kubeconfig")]);
    assert!(
        error.contains("podherald: data_dir file/data cannot be created; it must be a directory that podherald may write to: Not a directory"),
        "{error}"
    );
    assert_eq!(code, 1);
}
