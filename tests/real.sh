#!/bin/bash
# Starts a real API server and KWOK (a test adds a real node, which needs root; others start a Redis, a Kafka or a MongoDB each, or share one), runs the suite tests/real against them under podherald's own role, stops everything.
# What is missing is built or installed; what then still is fails the run. Arguments go to the test binary, for instance a
# test's name.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/env/common.sh
. tests/env/common.sh
command -v cargo >/dev/null || die "cargo is missing: install rustup, the toolchain is named in rust-toolchain.toml"

dir=$(mktemp -d "${TMPDIR:-/tmp}/podherald-real.XXXXXX")
cluster=$PWD/tests/env/k8s/cluster.sh
servers=$PWD/tests/env/data/servers.sh
need redis-server redis-cli=redis-tools
stop_clusters() { # the tests' own too
  local run starting
  if starting=$(cat "$dir/starting" 2>/dev/null); then # or it would start more behind our back
    kill -- "-$starting" 2>/dev/null || true
  fi
  for run in "$dir"/*/; do
    if [ -d "$run/redis" ] || [ -d "$run/kafka" ] || [ -d "$run/mongo" ]; then
      RUN=$run "$servers" stop || true
    elif [ -d "$run/pid" ]; then
      RUN=$run "$cluster" stop || true
    fi
  done
}
stop() {
  local status=$?
  stop_clusters
  if [ "$status" = 0 ]; then rm -rf "$dir"; else echo "logs are in $dir" >&2; fi
}
trap stop EXIT
trap 'exit 130' INT TERM
# After a kill -9 of this script nobody else would stop them.
export -f stop_clusters
# shellcheck disable=SC2016
dir=$dir cluster=$cluster servers=$servers setsid bash -c 'tail --pid="$1" -f /dev/null; stop_clusters' guard $$ > /dev/null 2>&1 &

# An API server that has been started anew remembers nothing from before, and with what etcd has forgotten version 1 is
# too old for it altogether: for a watch, a list and the pages of one.
start() {
  "$cluster" start core
  "$cluster" grant
  "$cluster" stop apiserver
  "$cluster" compact
  "$cluster" start core kcm sched kwok # Jobs need the controller-manager
}

# The cluster starts while the tests are compiled.
set -m # a process group of its own, to be ended as a whole
RUN=$dir/shared start > /dev/null &
starting=$!
set +m
echo "$starting" > "$dir/starting"
# The binary that the crash test kills; a shipped one has no crash points.
cargo build --locked --features crash-points --bin podherald
cp "${CARGO_TARGET_DIR:-target}/debug/podherald" "$dir/podherald-with-crash-points"
cargo test --locked --test real --no-run
wait "$starting"
rm "$dir/starting"

TMPDIR=$dir \
  PODHERALD_REAL_CLUSTER=$cluster \
  PODHERALD_REAL_RUN=$dir/shared \
  PODHERALD_REAL_SERVERS=$servers \
  PODHERALD_CRASH_BINARY=$dir/podherald-with-crash-points \
  cargo test --locked --test real -- --test-threads=2 "$@"
