#!/bin/bash
# podherald at work: a real Kubernetes API server with pods that KWOK plays, podherald beside it, and five example pods.
#   examples/demo.sh          goes on until Ctrl-C, so that you can try things
#   examples/demo.sh --once   checks what became of the pods and ends
# Takes half a minute, the first time on a machine ten: the API server is built from source then.
# PODHERALD_HTTP__LISTEN chooses the address (default 127.0.0.1:8080, or the next free port).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/env/common.sh
. tests/env/common.sh
need curl jq
command -v cargo >/dev/null || die "cargo is missing: install rustup, the toolchain is named in rust-toolchain.toml"

once=
case ${1:-} in
  --once) once=yes ;;
  '') ;;
  *) die "no option '$1'; there is --once" ;;
esac

dir=$(mktemp -d "${TMPDIR:-/tmp}/podherald-demo.XXXXXX")
export RUN=$dir/cluster
cluster=tests/env/k8s/cluster.sh
starting=
herald=
stop() {
  if [ -n "$starting" ]; then # or it would start more behind our back
    kill "$starting" 2>/dev/null || true
    wait "$starting" 2>/dev/null || true
  fi
  if [ -n "$herald" ]; then
    kill "$herald" 2>/dev/null || true
    wait "$herald" 2>/dev/null || true
  fi
  [ ! -d "$RUN/pid" ] || "$cluster" stop
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "Starting the Kubernetes API server and KWOK, building podherald"
"$cluster" start > "$dir/cluster.env" &
starting=$!
cargo build --locked --bin podherald
wait "$starting"
# shellcheck source=/dev/null
. "$dir/cluster.env"
"$cluster" grant
"$cluster" namespace demo
export KUBECONFIG=$ADMIN_KUBECONFIG

# What a pod prints: KWOK serves it from a file in the format of the container runtime, named by a Logs object.
for file in examples/logs/*.log; do
  pod=$(basename "$file" .log)
  sed "s/^/$(date -u +%FT%T.000000000Z) stdout F /" "$file" > "$RUN/logs/$pod.log"
  cat <<Y
{kind: Logs, apiVersion: kwok.x-k8s.io/v1alpha1, metadata: {name: $pod, namespace: demo},
 spec: {logs: [{containers: [executor], logsFile: $RUN/logs/$pod.log, follow: false}]}}
---
Y
done | "$KUBECTL" create -f - > /dev/null

listen=${PODHERALD_HTTP__LISTEN:-}
if [ -z "$listen" ]; then
  port=8080
  while (: < "/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  listen=127.0.0.1:$port
fi
podherald=${CARGO_TARGET_DIR:-$PWD/target}/debug/podherald
# Without the variables of these scripts: podherald refuses what is no setting of its own.
env -u PODHERALD_CACHE -u PODHERALD_KUBECONFIG KUBECONFIG="$PODHERALD_KUBECONFIG" PODHERALD_KUBE__MODE=cluster \
  PODHERALD_HTTP__LISTEN="$listen" PODHERALD_DATA_DIR="$dir/data" \
  "$podherald" serve > "$dir/podherald.log" 2>&1 &
herald=$!
url=http://$listen
deadline=$((SECONDS + 30))
until curl -fs "$url/readyz" > /dev/null; do
  if ! kill -0 "$herald" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
    tail -20 "$dir/podherald.log" >&2
    die "podherald did not become ready"
  fi
  sleep 0.1
done

say "Creating five pods in namespace demo"
"$KUBECTL" -n demo create -f examples/fails.yaml -f examples/hello.yaml -f examples/out-of-memory.yaml -f examples/report.yaml \
  -f examples/long-running.yaml

say "Following one:  curl -N -H 'Accept: text/event-stream' $url/executions/fails/events"
curl -fsSN --max-time 60 -H 'Accept: text/event-stream' "$url/executions/fails/events" | tee "$dir/stream" | cut -c -200
grep -q '^event: end' "$dir/stream" || die "the stream did not come to its end"

say "What became of it:  curl $url/executions/fails"
curl -fsS "$url/executions/fails" | jq .

if [ -z "$once" ]; then
  say "Now it is your turn; Ctrl-C ends everything"
  cat <<Y
  curl '$url/executions' | jq .
  curl '$url/executions/report?wait=30s' | jq .
  curl '$url/executions/hello/output?stream=stdout'
  curl '$url/executions/fails/events' | jq .
  curl -N -H 'Accept: text/event-stream' '$url/events?namespace=demo'
  curl '$url/pods' | jq .

  alias k='$KUBECTL --kubeconfig $ADMIN_KUBECONFIG -n demo'
  k delete pod executor-long-running      # then: curl '$url/executions/long-running?wait=30s' | jq .cause
  k get pod executor-out-of-memory -o json | $podherald explain

  podherald's log: $dir/podherald.log
Y
  wait "$herald"
  exit
fi

say "Checking the others"
"$KUBECTL" -n demo delete pod executor-long-running --wait=false
# expect ID JQ_CONDITION : of the execution once it has ended
expect() {
  curl -fsS "$url/executions/$1?wait=30s" > "$dir/execution"
  jq -e "$2" "$dir/execution" > /dev/null || { jq . "$dir/execution" >&2; die "execution $1: not $2"; }
  echo "$1: $2"
}
expect hello '.status == "completed" and .exit.code == 0 and .stdout == "hello, world\n"'
expect fails '.status == "failed" and .exit.code == 3 and .cause.class == "user_code"'
expect out-of-memory '.status == "failed" and .exit.code == 137 and .cause.class == "resource_limit"'
expect report '.status == "failed" and .exit == {"code": 4, "signal": null, "source": "report"} and .resource_usage.peak_memory_kb == 18244'
expect long-running '.status == "failed" and .exit.code == null and .cause.class == "deleted"'
say "All as expected"
