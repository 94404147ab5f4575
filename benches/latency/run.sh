#!/bin/bash
# What podherald costs on a real API server, beside a raw watch of the same frames. From nothing: builds what it needs,
# starts etcd and an API server, runs every scenario for podherald and the raw watch in turn, prints medians, stops all.
#
#   run.sh [--tiny] [SCENARIO...]    scenarios: lat50 lat200 blast cold fanout (default: all); --tiny: a few pods, one round
#   run.sh frames                    prints the watch frames of one pod's life: tests/fixtures/frames_6k.jsonl
#
# lat50, lat200   50, 200 status writes a second: time from the frame at a raw watch to the event at an SSE client
# blast           recorded frames of 10,000 pods from a stub API server, as fast as podherald takes them
# cold            start with 5,000 pods that have ended
# fanout          1,000 SSE readers
#
# Environment: ROUNDS=3; OUT (a file that keeps the JSON lines); MONITORS="podherald rawwatch"; BIN (a podherald; default:
# built here, in release); KUBECONFIG with RUN unset uses that cluster as an administrator instead of starting one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/podherald-bench.XXXXXX")
started=
finish() {
  [ -z "$started" ] || RUN=$started "$root/tests/env/k8s/cluster.sh" stop
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 143' INT TERM
# shellcheck source=benches/common.sh
. "$root/benches/common.sh"

tiny=
if [ "${1:-}" = --tiny ]; then
  tiny=1 ROUNDS=1
  shift
fi
[ $# -gt 0 ] || set -- lat50 lat200 blast cold fanout
log=$work/monitors.log

(cd "$here" && go build -o "$work/" ./...)
if [ -z "${KUBECONFIG:-}" ]; then
  started=$work/cluster
  mkdir "$started"
  RUN=$started "$root/tests/env/k8s/cluster.sh" start core > /dev/null
  export KUBECONFIG=$started/admin.kubeconfig
fi
if [ "$1" = frames ]; then
  "$work/load" frames
  exit
fi
need_podherald

# count FULL TINY
count() { if [ -n "$tiny" ]; then echo "$2"; else echo "$1"; fi; }

# one SCENARIO MONITOR : appends a JSON line to $out
one() {
  local address url command ready options
  address=$(free_address)
  url=http://$address
  case $2 in
    rawwatch)
      ready=/healthz
      command="$work/rawwatch -listen $address"
      ;;
    podherald)
      ready=/readyz
      rm -rf "$work/data"
      command="env -u PODHERALD_CACHE PODHERALD_KUBE__MODE=cluster PODHERALD_HTTP__LISTEN=$address PODHERALD_DATA_DIR=$work/data $BIN serve"
      ;;
    *) echo "no monitor '$2'" >&2; return 2 ;;
  esac
  options=(-name "$2" -cmd "$command" -cmd-log "$log" -ready "$url$ready" -sse "$url/events")
  case $1 in
    lat50) options=(latency "${options[@]}" -raw -n "$(count 300 5)" -rate 50) ;;
    lat200) options=(latency "${options[@]}" -raw -n "$(count 1200 10)" -rate 200) ;;
    blast) options=(blast "${options[@]}" -n "$(count 10000 50)") ;;
    cold) options=(cold "${options[@]}" -n "$(count 5000 20)" -sse "$url/events?last_event_id=0") ;;
    fanout) options=(sse-fanout "${options[@]}" -n "$(count 100 5)" -rate 0 -conns "$(count 1000 10)") ;;
    *) echo "no scenario '$1'" >&2; return 2 ;;
  esac
  keep "$1" "$log" "$work/load" "${options[@]}"
  [ -n "$tiny" ] || sleep 2
}

for round in $(seq "${ROUNDS:-3}"); do
  for scenario in "$@"; do
    for monitor in ${MONITORS:-podherald rawwatch}; do
      progress "round $round: $scenario, $monitor"
      one "$scenario" "$monitor"
    done
  done
done
print_tables "$here/table.py"
