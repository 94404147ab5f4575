#!/bin/bash
# What many readers of event streams cost, and how soon they are told. Needs no cluster: podherald watches a stub API
# server that plays a recorded frame. podherald has one core to itself, its readers another. Prints medians.
#
#   run.sh [--tiny] [SCENARIO...]    default: all scenarios; --tiny: a few readers, one round
#
# calm1000, calm10000     so many readers of /events, at 20 and 2 events a second: 20,000 deliveries a second. What an event
#                         takes when nothing queues: until its first reader has it, its last, and all deliveries together
# 1000, 10000             the same at 200 and 20 events a second: 200,000 deliveries a second, the goal
# burst1000, burst10000   the same readers, 1,000 and 200 events at once: how much can be delivered
# mixed                   1,000 readers at 200 events a second; 500 of them follow one execution each
#
# Where a core is busy all the time, latency is a queue's length and no more. Latency counts from the frame that the API
# server sends, the journal's commit included, to the bytes at the reader.
#
# Needs two cores that nothing else uses. Environment: ROUNDS=3; OUT (a file that keeps the JSON lines); BINS="before=PATH
# after=PATH" compares podheralds, each scenario with each in turn; BIN (one podherald; default: built here, in release);
# CORES="0 1" (podherald's, the readers').
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/podherald-sse.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM
# shellcheck source=benches/common.sh
. "$root/benches/common.sh"

tiny=
if [ "${1:-}" = --tiny ]; then
  tiny=1 ROUNDS=1
  shift
fi
[ $# -gt 0 ] || set -- calm1000 calm10000 1000 10000 burst1000 burst10000 mixed
read -r server client <<< "${CORES:-0 1}"

(cd "$here" && go build -o "$work/sse" .)
if [ -z "${BINS:-}" ]; then
  need_podherald
  BINS=podherald=$BIN
fi

# one SCENARIO NAME BIN : appends a JSON line to $out
one() {
  local options
  case $1 in
    calm1000) options=(-readers 1000 -events 400 -rate 20) ;;
    calm10000) options=(-readers 10000 -events 40 -rate 2) ;;
    1000) options=(-readers 1000 -events 2000 -rate 200) ;;
    10000) options=(-readers 10000 -events 200 -rate 20) ;;
    burst1000) options=(-readers 1000 -events 1000) ;;
    burst10000) options=(-readers 10000 -events 200) ;;
    mixed) options=(-readers 1000 -one 500 -events 2000 -rate 200) ;;
    *) echo "no scenario '$1'" >&2; return 2 ;;
  esac
  [ -z "$tiny" ] || options=("${options[@]}" -readers 20 -events 10 -settle 100ms)
  [ -z "$tiny" ] || [ "$1" != mixed ] || options=("${options[@]}" -one 5)
  TMPDIR=$work keep "$1" "$work/log" taskset -c "$client" "$work/sse" -name "$2" -bin "$3" -core "$server" \
    -address "$(free_address)" -frame "$root/tests/fixtures/frames_6k.jsonl" "${options[@]}"
}

for round in $(seq "${ROUNDS:-3}"); do
  for scenario in "$@"; do
    for pair in $BINS; do
      progress "round $round: $scenario, ${pair%%=*}"
      one "$scenario" "${pair%%=*}" "${pair#*=}"
    done
  done
done
print_tables "$here/table.py"
