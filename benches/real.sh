#!/bin/bash
# A bench beside real servers: starts them, runs the bench with their addresses, stops them.
#
#   benches/real.sh sinks|results [ARGUMENT...]     --tiny just to see it work
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=tests/env/common.sh
. "$root/tests/env/common.sh"
[ $# -gt 0 ] || die "which bench? sinks or results"
bench=$1
shift

RUN=$(mktemp -d "${TMPDIR:-/tmp}/podherald-bench.XXXXXX")
export RUN
servers=$root/tests/env/data/servers.sh
stop() {
  "$servers" stop || true
  rm -rf "$RUN"
}
trap stop EXIT
told=
start() { told=$("$servers" start "$@"); }
address() { sed -n "s/^$1=//p" <<< "$told"; }
case $bench in
  sinks)
    need redis-server redis-cli=redis-tools
    start kafka redis
    addresses=(--kafka "$(address KAFKA_BOOTSTRAP)" --redis "redis://127.0.0.1:$(address REDIS_PORT)")
    ;;
  results)
    start mongo
    addresses=(--mongo "mongodb://$(address MONGO)/?directConnection=true")
    ;;
  *) die "there is no bench $bench beside servers: sinks or results" ;;
esac
cd "$root"
cargo bench --locked ${PROFILE:+--profile "$PROFILE"} --bench "$bench" -- "${addresses[@]}" "$@"
