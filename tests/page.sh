#!/bin/bash
# Tests the page in headless Chromium, against podherald with its embedded cluster and against an API that plays what no
# cluster does on demand. Node and Chromium are needed for this only, not to build or run podherald.
#   tests/page.sh                  all tests; further arguments go to `node --test`
#   tests/page.sh --screenshots    makes docs/screenshots anew instead
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/env/common.sh
. tests/env/common.sh
need chromium node=nodejs npm
command -v cargo >/dev/null || die "cargo is missing: install rustup, the toolchain is named in rust-toolchain.toml"

cargo build --locked --bin podherald
export PODHERALD=${CARGO_TARGET_DIR:-$PWD/target}/debug/podherald
CHROMIUM=$(command -v chromium)
export CHROMIUM

cd tests/page
[ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --ignore-scripts --no-audit --no-fund
if [ "${1:-}" = --screenshots ]; then
  exec node screenshots.js
fi
# The time limit counts a whole file too; what a test waits for has its own.
exec timeout 600 node --test --test-concurrency=1 --test-timeout=280000 "$@" scripted.test.js herald.test.js
