#!/bin/bash
# podherald in front of a real Kubernetes API, Kafka, Redis and a MongoDB-wire server, by one command: a pod fails, Kafka's console consumer,
# the example consumer in Python and a Redis have its events, and its result is kept.
#
#   tests/everything.sh          shows it once, and ends what it started
#   tests/everything.sh --stay   goes on until Ctrl-C, and says where everything is
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/env/common.sh
. tests/env/common.sh
# shellcheck source=tests/env/herald.sh
. tests/env/herald.sh
need curl jq redis-server redis-cli=redis-tools
command -v cargo > /dev/null || die "cargo is missing: install rustup, the toolchain is named in rust-toolchain.toml"

dir=$(mktemp -d "${TMPDIR:-/tmp}/podherald-everything.XXXXXX")
cluster=$PWD/tests/env/k8s/cluster.sh
servers=$PWD/tests/env/data/servers.sh
consumer=examples/consumer/consumer.py
herald=
stop() {
  end_herald
  RUN=$dir/cluster "$cluster" stop || true
  RUN=$dir/servers "$servers" stop || true
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM

unset "${!PODHERALD_@}" KUBECONFIG
mkdir "$dir"/{cluster,servers}
touch "$dir"/{log,shown}
RUN=$dir/cluster "$cluster" start core kcm sched kwok > "$dir/variables"
RUN=$dir/cluster "$cluster" grant > /dev/null
RUN=$dir/cluster "$cluster" namespace lab > /dev/null
RUN=$dir/servers "$servers" start kafka redis mongo >> "$dir/variables"
told() { sed -n "s/^$1=//p" "$dir/variables" | tail -1; }
PYTHONPATH=$(tests/contract/python.sh)
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1

cargo build --locked # so that the pid below is podherald's
podherald=${CARGO_TARGET_DIR:-target}/debug/podherald
KUBECONFIG=$(told PODHERALD_KUBECONFIG) "$podherald" --listen 127.0.0.1:0 --data-dir "$dir/data" --set telemetry.format=json \
  --set kube.mode=cluster --set kafka.brokers="$(told KAFKA_BOOTSTRAP)" --set redis.url="redis://127.0.0.1:$(told REDIS_PORT)" \
  --set roles=api,monitor,result_processor --set mongo.uri="mongodb://$(told MONGO)/?directConnection=true" \
  > "$dir/log" 2>&1 &
herald=$!

has_all() { curl -fsS "$url/readyz" | jq -e '.sinks | length == 2 and all(.lag_events == 0 and .failing == false)' > /dev/null; }
within 20 listens
within 20 curl -fso /dev/null "$url/readyz"

kubectl=("$(told KUBECTL)" --kubeconfig "$(told ADMIN_KUBECONFIG)" -n lab)
"${kubectl[@]}" create -f - <<'P'
{"apiVersion": "v1", "kind": "Pod",
 "metadata": {"name": "executor-first", "labels": {"execution-id": "first"}, "annotations": {"test/exit-code": "3"}},
 "spec": {"restartPolicy": "Never", "nodeSelector": {"type": "kwok"}, "tolerations": [{"operator": "Exists"}],
          "containers": [{"name": "executor", "image": "none"}]}}
P
curl -fsS "$url/executions/first?wait=30s" | jq -e '.status == "failed" and .exit.code == 3' > /dev/null || die "first did not fail"
within 30 has_all
within 30 curl -fsSo "$dir/result" "$url/executions/first/result"
jq -e '.status == "failed" and .exit.code == 3' "$dir/result" > /dev/null || die "the result is not what it was: $(cat "$dir/result")"

echo "=== the console consumer"
RUN=$dir/servers "$servers" consume --topic execution_events --from-beginning --timeout-ms 3000 \
  --formatter-property print.key=true --formatter-property print.headers=true 2> /dev/null | tee "$dir/consumed"
grep -q 'ce_type:execution_failed.*"exit_code":3' "$dir/consumed" || die "the console consumer lacks the end of the execution"

echo "=== the example consumer"
"$podherald" events --schema > "$dir/schemas.json"
timeout --signal=INT 20 python3 "$consumer" --schemas "$dir/schemas.json" --brokers "$(told KAFKA_BOOTSTRAP)" > "$dir/shown" 2> "$dir/counted" &
reader=$!
shown() { grep -q 'first/1 execution_failed code=3' "$dir/shown"; }
within 20 shown
kill -INT "$reader"
wait "$reader" || die "the example consumer found fault: $(cat "$dir/counted")"
cat "$dir/shown" "$dir/counted"

echo "=== Redis"
redis-cli -p "$(told REDIS_PORT)" xrange evaluation:events:first - + | grep -c '^event_type$'

echo "=== the result"
jq . "$dir/result"

if [ "${1:-}" = --stay ]; then
  printf '\npage: %s\nKafka: %s\nRedis: redis://127.0.0.1:%s\nkubectl: %s\n' "$url" "$(told KAFKA_BOOTSTRAP)" "$(told REDIS_PORT)" "${kubectl[*]}"
  wait "$herald"
fi
