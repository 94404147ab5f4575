# Sourced by the benches' scripts, which have set `root` and `work` (a directory that goes with the run). Defines:
#   need_podherald   sets BIN: a podherald, built here in release where there is none
#   free_address     prints a loopback address that nobody listens on
#   progress         says what is being done, and how busy the machine is
#   keep             runs a command and keeps the JSON line that it prints in $out
#   print_tables     prints the medians of what was kept
# shellcheck shell=bash disable=SC2034,SC2154

out=${OUT:-$work/results.jsonl}

need_podherald() {
  [ -z "${BIN:-}" ] || return 0
  (cd "$root" && cargo build --release --locked --bin podherald)
  BIN=${CARGO_TARGET_DIR:-$root/target}/release/podherald
}

free_address() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print("127.0.0.1:%d" % s.getsockname()[1])'; }

progress() { echo "$* (load $(cut -d' ' -f1 /proc/loadavg))" >&2; }

# keep SCENARIO LOG COMMAND... : what the command, and what it starts, says of trouble goes into LOG
keep() {
  local scenario=$1 log=$2
  shift 2
  if ! timeout 300 "$@" > "$work/line" 2>> "$log"; then
    echo "$scenario failed; the last lines of its log:" >&2
    tail -5 "$log" >&2
    return 1
  fi
  sed "s/^{/{\"scenario\":\"$scenario\",/" "$work/line" >> "$out"
}

# print_tables TABLE.PY
print_tables() { PYTHONPATH=$root/benches python3 "$1" "$out"; }
