#!/bin/bash
# What podherald costs on a real API server, beside other monitors of the same pods. From nothing: builds what it needs, starts
# etcd, an API server and Kafka, runs every scenario for every monitor in turn, prints medians as one table, stops all.
#
#   run.sh [--tiny] [SCENARIO...]    default: all scenarios, half an hour; --tiny: a few pods, one round, without pymon
#   run.sh frames                    prints the watch frames of one pod's life: tests/fixtures/frames_6k.jsonl
#
# Scenarios:
#   lat50, lat200      50, 200 status writes a second: time from the write, and from its frame at a raw watch, to an SSE client
#   max                2,000 pods, written as fast as the API server takes them
#   blast              recorded frames of 10,000 pods (pymon: 2,000) from a stub API server, as fast as the monitor takes them
#   cold               start with 5,000 pods that have ended
#   fanout, fanout5k   1,000, 5,000 SSE readers (pymon has a thread for each: 1,000 only)
#
# Monitors:
#   podherald   durable in its journal; it has no Kafka sink yet, so it publishes nowhere
#   gomon       client-go informer, SSE, and Kafka beside it; nothing is durable when a reader is told
#   gomon-ack   the same, but readers are told what Kafka has: the fairer twin of something durable
#   pymon       the usual Python watch loop, everything in memory
#   rawwatch    the floor: scans bytes, reads no logs, keeps nothing
#
# Environment: ROUNDS=3; OUT (a file that keeps the JSON lines); MONITORS="podherald gomon gomon-ack pymon rawwatch"; BIN (a
# podherald; default: built here, in release); KUBECONFIG with RUN unset uses that cluster as an administrator instead of
# starting one.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/podherald-bench.XXXXXX")
cluster=
servers=
finish() {
  [ -z "$cluster" ] || RUN=$cluster "$root/tests/env/k8s/cluster.sh" stop
  [ -z "$servers" ] || RUN=$servers "$root/tests/env/data/servers.sh" stop
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 143' INT TERM
# shellcheck source=benches/common.sh
. "$root/benches/common.sh"

tiny=
default_scenarios=(lat50 lat200 max blast cold fanout fanout5k)
default_monitors="podherald gomon gomon-ack pymon rawwatch"
if [ "${1:-}" = --tiny ]; then
  tiny=1 ROUNDS=1
  default_scenarios=(lat50 lat200 max blast cold fanout) # fanout5k would be the same again
  default_monitors="podherald gomon gomon-ack rawwatch"
  shift
fi
[ $# -gt 0 ] || set -- "${default_scenarios[@]}"
read -ra monitors <<< "${MONITORS:-$default_monitors}"
log=$work/monitors.log
peers=$("$here/build.sh" go)

if [ -z "${KUBECONFIG:-}" ]; then
  cluster=$work/cluster
  mkdir "$cluster"
  RUN=$cluster "$root/tests/env/k8s/cluster.sh" start core > /dev/null
  export KUBECONFIG=$cluster/admin.kubeconfig
fi
if [ "$1" = frames ]; then
  "$peers/load" frames
  exit
fi
for monitor in "${monitors[@]}"; do
  case $monitor in
    podherald) need_podherald ;;
    gomon*)
      [ -z "$servers" ] || continue
      servers=$work/servers
      mkdir "$servers"
      addresses=$(RUN=$servers "$root/tests/env/data/servers.sh" start kafka)
      kafka=$(sed -n 's/^KAFKA_BOOTSTRAP=//p' <<< "$addresses")
      ;;
    pymon) modules=$("$here/build.sh" python) ;;
    rawwatch) ;;
    *) echo "no monitor '$monitor'" >&2; exit 2 ;;
  esac
done

# count FULL TINY
count() { if [ -n "$tiny" ]; then echo "$2"; else echo "$1"; fi; }

# one SCENARIO MONITOR : appends a JSON line to $out
one() {
  local address url command options ready=/healthz pods=10000
  address=$(free_address)
  url=http://$address
  case $2 in
    podherald)
      ready=/readyz
      rm -rf "$work/data"
      command="env -u PODHERALD_CACHE PODHERALD_KUBE__MODE=cluster PODHERALD_HTTP__LISTEN=$address PODHERALD_DATA_DIR=$work/data $BIN serve"
      ;;
    gomon) command="$peers/gomon -listen $address -brokers $kafka" ;;
    gomon-ack) command="$peers/gomon -listen $address -brokers $kafka -after-ack" ;;
    pymon)
      command="env PYTHONPATH=$modules python3 $here/pymon/pymon.py $address"
      pods=2000
      ;;
    rawwatch) command="$peers/rawwatch -listen $address" ;;
  esac
  options=(-name "$2" -cmd "$command" -cmd-log "$log" -ready "$url$ready" -sse "$url/events")
  case $1 in
    lat50) options=(latency "${options[@]}" -raw -n "$(count 300 5)" -rate 50) ;;
    lat200) options=(latency "${options[@]}" -raw -n "$(count 1200 10)" -rate 200) ;;
    max) options=(latency "${options[@]}" -n "$(count 2000 20)" -rate 0) ;;
    blast) options=(blast "${options[@]}" -n "$(count "$pods" 50)") ;;
    cold) options=(cold "${options[@]}" -n "$(count 5000 20)" -sse "$url/events?last_event_id=0") ;;
    fanout) options=(sse-fanout "${options[@]}" -n "$(count 100 5)" -rate 0 -conns "$(count 1000 10)") ;;
    fanout5k) options=(sse-fanout "${options[@]}" -n "$(count 50 5)" -rate 0 -conns "$(count 5000 10)") ;;
    *) echo "no scenario '$1'" >&2; return 2 ;;
  esac
  keep "$1" "$log" "$peers/load" "${options[@]}"
  [ -n "$tiny" ] || sleep 2
}

for round in $(seq "${ROUNDS:-3}"); do
  for scenario in "$@"; do
    for monitor in "${monitors[@]}"; do
      [ "$scenario $monitor" != "fanout5k pymon" ] || continue
      progress "round $round: $scenario, $monitor"
      one "$scenario" "$monitor"
    done
  done
done
print_tables "$here/table.py"
