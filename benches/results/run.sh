#!/bin/bash
# Results beside a MongoDB's server: starts it, runs `cargo bench --bench results` with its address, stops it. Arguments go to the bench: --tiny
# just to see it work.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tests/env/common.sh
. "$root/tests/env/common.sh"

RUN=$(mktemp -d "${TMPDIR:-/tmp}/podherald-results.XXXXXX")
export RUN
servers=$root/tests/env/data/servers.sh
stop() {
  "$servers" stop || true
  rm -rf "$RUN"
}
trap stop EXIT
told=$("$servers" start mongo)
mongo=$(sed -n 's/^MONGO=//p' <<< "$told")
cd "$root"
cargo bench --locked ${PROFILE:+--profile "$PROFILE"} --bench results -- --mongo "mongodb://$mongo/?directConnection=true" "$@"
