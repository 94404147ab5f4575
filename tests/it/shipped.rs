//! What a shipped binary must not have.

use std::{
    fs,
    process::{Command, Stdio},
};

/// The other half is the crash test itself, for which the binary is built with the feature: there they work.
#[test]
fn only_a_build_for_the_crash_test_has_crash_points() {
    const VARIABLE: &str = "PODHERALD_CRASH_AT";
    let binary = fs::read(env!("CARGO_BIN_EXE_podherald")).unwrap();
    let is_named = binary.windows(VARIABLE.len()).any(|bytes| bytes == VARIABLE.as_bytes());
    assert_eq!(is_named, cfg!(feature = "crash-points"), "the binary knows {VARIABLE}");

    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_podherald"));
    command.arg("config").current_dir(&directory).env_clear().env(VARIABLE, "append:1").stdin(Stdio::null());
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    if cfg!(feature = "crash-points") {
        assert!(output.status.success(), "{error}");
    } else {
        let expected = format!("podherald: there is no setting {VARIABLE} (the environment); ");
        assert!(error.starts_with(&expected) && error.lines().count() == 1, "{error}");
        assert_eq!(output.status.code(), Some(2));
    }
}
