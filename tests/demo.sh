#!/bin/bash
# The README's first command, and what it promises: example pods come and end as they should, and plain kubectl, the API and
# the page agree on a pod that somebody else makes.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/env/common.sh
. tests/env/common.sh
# shellcheck source=tests/env/herald.sh
. tests/env/herald.sh
need curl jq
command -v cargo > /dev/null || die "cargo is missing: install rustup, the toolchain is named in rust-toolchain.toml"

kubectl=$(tests/env/k8s/build.sh)/kubectl
dir=$(mktemp -d "${TMPDIR:-/tmp}/podherald-demo.XXXXXX")
herald=
stop() {
  end_herald
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM

unset "${!PODHERALD_@}" KUBECONFIG
cargo build --locked # so that the pid below is podherald's
"${CARGO_TARGET_DIR:-target}/debug/podherald" --demo --listen 127.0.0.1:0 --data-dir "$dir/data" \
  --set telemetry.format=json > "$dir/log" 2>&1 &
herald=$!

within 20 listens
within 10 curl -fso /dev/null "$url/readyz"
curl -fsS "$url/" | grep -q '<title>' || die "no page at $url/"

export KUBECONFIG=$dir/data/kubeconfig
"$kubectl" create -f examples/hello.yaml
within 20 "$kubectl" wait --for=jsonpath='{.status.phase}'=Running pod/executor-hello --timeout=1s > /dev/null
"$kubectl" logs -f executor-hello > "$dir/followed"
curl -fsS "$url/executions/hello?wait=20s" > "$dir/hello"
curl -fsS "$url/executions/hello/output" > "$dir/served"
cmp "$dir/followed" "$dir/served" || die "kubectl logs and podherald do not agree"
printf 'hello, world\ngoodbye\n' | cmp - "$dir/served" || die "hello printed something else"
jq -e '.status == "completed" and .exit.code == 0 and .output.stdout.verdict == "complete"' "$dir/hello" > /dev/null ||
  die "hello: $(cat "$dir/hello")"
"$kubectl" get pods
"$kubectl" delete pod executor-hello
KUBECTL=$kubectl tests/kubectl.sh

# shows EXAMPLE CONDITION : some run of it has ended so
shows() {
  curl -fsS "$url/executions?limit=100" > "$dir/list"
  jq -e --arg name "$1-" "[.items[] | select(.execution_id | startswith(\$name)) | select($2)] | length > 0" "$dir/list" > /dev/null
}
ended() {
  within 60 shows "$1" "$2"
  echo "$1: $2"
}
ended hello '.status == "completed" and .exit.code == 0'
ended fails '.status == "failed" and .exit.code == 3 and .cause.class == "user_code"'
ended progress '.status == "completed" and .exit.code == 0'
ended out-of-memory '.status == "failed" and .exit.code == 137 and .cause.class == "resource_limit"'
ended report '.status == "failed" and .exit == {"code": 4, "signal": null, "source": "report"} and .resource_usage.peak_memory_kb == 18244'
ended times-out '.status == "timeout"'
ended binary '.status == "completed" and .output.stdout.bytes_total == 532'
ended flood '.status == "completed" and .output.stdout.verdict == "truncated"'
echo "all as promised"
