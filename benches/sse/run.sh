#!/bin/bash
# What many readers of event streams cost, and how soon they are told. Needs no cluster: podherald watches a stub API
# server that plays a recorded frame. podherald has one core to itself, its readers another. Prints medians.
#
#   run.sh [--tiny] [SCENARIO...]    scenarios: 1000 10000 burst1000 burst10000 mixed (default: all); --tiny: a few readers
#
# 1000, 10000             so many readers of /events, at 200 and 20 events a second: 200,000 deliveries a second
# burst1000, burst10000   the same readers, 1,000 and 200 events at once
# mixed                   1,000 readers at 200 events a second; 500 of them follow one execution each
#
# Needs two cores. Environment: ROUNDS=3; OUT (a file that keeps the JSON lines); BINS="before=PATH after=PATH" compares podheralds, each
# scenario with each in turn; BIN (one podherald; default: built here, in release); CORES="0 1" (podherald's, the readers').
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/podherald-sse.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM

tiny=
if [ "${1:-}" = --tiny ]; then
  tiny=1 ROUNDS=1
  shift
fi
[ $# -gt 0 ] || set -- 1000 10000 burst1000 burst10000 mixed
out=${OUT:-$work/results.jsonl}
read -r server client <<< "${CORES:-0 1}"

(cd "$here" && go build -o "$work/sse" .)
if [ -z "${BINS:-}" ]; then
  if [ -z "${BIN:-}" ]; then
    (cd "$root" && cargo build --release --locked --bin podherald)
    BIN=${CARGO_TARGET_DIR:-$root/target}/release/podherald
  fi
  BINS=podherald=$BIN
fi

free_address() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print("127.0.0.1:%d" % s.getsockname()[1])'; }

# one SCENARIO NAME BIN : appends a JSON line to $out
one() {
  local options
  case $1 in
    1000) options=(-readers 1000 -events 2000 -rate 200) ;;
    10000) options=(-readers 10000 -events 200 -rate 20) ;;
    burst1000) options=(-readers 1000 -events 1000) ;;
    burst10000) options=(-readers 10000 -events 200) ;;
    mixed) options=(-readers 1000 -one 500 -events 2000 -rate 200) ;;
    *) echo "no scenario '$1'" >&2; return 2 ;;
  esac
  [ -z "$tiny" ] || options=("${options[@]}" -readers 20 -events 40 -settle 100ms)
  [ -z "$tiny" ] || [ "$1" != mixed ] || options=("${options[@]}" -one 10)
  if ! TMPDIR=$work timeout 300 taskset -c "$client" "$work/sse" -name "$2" -bin "$3" -core "$server" -address "$(free_address)" \
    -frame "$root/tests/fixtures/frames_6k.jsonl" "${options[@]}" > "$work/line" 2> "$work/log"; then
    echo "$1 of $2 failed:" >&2
    tail -5 "$work/log" >&2
    return 1
  fi
  sed "s/^{/{\"scenario\":\"$1\",/" "$work/line" >> "$out"
}

for round in $(seq "${ROUNDS:-3}"); do
  for scenario in "$@"; do
    for pair in $BINS; do
      echo "round $round: $scenario, ${pair%%=*} (load $(cut -d' ' -f1 /proc/loadavg))" >&2
      one "$scenario" "${pair%%=*}" "${pair#*=}"
    done
  done
done
python3 "$here/table.py" "$out"
