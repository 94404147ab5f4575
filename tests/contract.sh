#!/bin/bash
# Holds the contract of events against the tools of others: the AsyncAPI document against the official parser, and events
# against their JSON Schemas with the example consumer in Python. Kafka is not needed. Arguments go to unittest.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/env/common.sh
. tests/env/common.sh
need node=nodejs npm python3 pip3=python3-pip flock=util-linux
command -v cargo >/dev/null || die "cargo is missing: install rustup, the toolchain is named in rust-toolchain.toml"

cargo build --locked --bin podherald
export PODHERALD=${CARGO_TARGET_DIR:-$PWD/target}/debug/podherald

(
  cd tests/contract
  [ node_modules/.package-lock.json -nt package-lock.json ] || npm ci --ignore-scripts --no-audit --no-fund
)
node tests/contract/asyncapi.js openapi/asyncapi.json

requirements=examples/consumer/requirements.txt
modules=$CACHE/contract/python-$({ cat "$requirements"; python3 --version; } | sha256sum | cut -c1-12)
mkdir -p "$CACHE/contract"
exec 8> "$CACHE/contract/python.lock"
flock 8 # another run may be at it
if [ ! -d "$modules" ]; then
  rm -rf "$modules.new"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$modules.new" -r "$requirements"
  mv "$modules.new" "$modules" # only a whole one gets the name
fi
exec 8>&-
export PYTHONPATH=$modules PYTHONDONTWRITEBYTECODE=1
python3 -c 'import confluent_kafka' # that the example can be used, not only its tests
exec timeout 300 python3 tests/contract/test_consumer.py "$@"
