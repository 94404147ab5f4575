#!/bin/bash
# Passes all tests that need nothing but Rust: unit tests, and whole servers against a scripted Kubernetes API.
# The tests on the real API server are tests/real.sh. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/env/common.sh
. tests/env/common.sh
need cc=gcc c++=g++ make perl
command -v cargo >/dev/null || die "cargo is missing: install rustup, the toolchain is named in rust-toolchain.toml"
unset "${!PODHERALD_@}" # nobody's own settings decide what is tested
exec cargo test --workspace --locked --no-fail-fast "$@"
