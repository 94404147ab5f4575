#!/bin/bash
# Holds the contract of events against the tools of others: the AsyncAPI document against the official parser, and events
# against their JSON Schemas with the example consumer in Python. Kafka is not needed. Arguments go to unittest.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/env/common.sh
. tests/env/common.sh
need node=nodejs npm python3
command -v cargo >/dev/null || die "cargo is missing: install rustup, the toolchain is named in rust-toolchain.toml"

cargo build --locked --bin podherald
export PODHERALD=${CARGO_TARGET_DIR:-$PWD/target}/debug/podherald

(
  cd tests/contract
  [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --ignore-scripts --no-audit --no-fund
)
node tests/contract/asyncapi.js openapi/asyncapi.json

PYTHONPATH=$(tests/contract/python.sh)
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1
python3 -c 'import confluent_kafka' # that the example can be used, not only its tests
exec timeout 300 python3 tests/contract/test_consumer.py "$@"
