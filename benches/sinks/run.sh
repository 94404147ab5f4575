#!/bin/bash
# How fast events reach real servers: starts them, runs `cargo bench --bench sinks` with their addresses, stops them. Arguments go to
# the bench: --tiny just to see it work.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/env/common.sh
. "$root/tests/env/common.sh"

RUN=$(mktemp -d "${TMPDIR:-/tmp}/podherald-sinks.XXXXXX")
export RUN
servers=$root/tests/env/data/servers.sh
stop() {
  "$servers" stop || true
  rm -rf "$RUN"
}
trap stop EXIT
need redis-server redis-cli=redis-tools
told=$("$servers" start kafka redis)
address() { sed -n "s/^$1=//p" <<< "$told"; }
cd "$root"
cargo bench --locked ${PROFILE:+--profile "$PROFILE"} --bench sinks -- --kafka "$(address KAFKA_BOOTSTRAP)" --redis "redis://127.0.0.1:$(address REDIS_PORT)" "$@"
