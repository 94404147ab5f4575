# Sourced by the scripts that start real components, which have set `RUN`, the directory of what they start. Defines:
#   spawn, alive, await, end_by, signal   processes by name, each with a log; none is ended but what was started here
#   choose_ports                  ten ports for what has RUN
#   print_status                  what runs, and how big it is
# shellcheck shell=bash

# A pid alone may have been given to a stranger since: its start time tells.
born() { awk '{ print $22 }' "/proc/$1/stat" 2>/dev/null; }
alive() {
  local pid since
  [ -f "$RUN/pid/$1" ] && read -r pid since < "$RUN/pid/$1" && [ -n "$since" ] && [ "$(born "$pid")" = "$since" ]
}

# spawn NAME COMMAND...
spawn() {
  local name=$1
  shift
  ! alive "$name" || return 0
  setsid "$@" > "$RUN/log/$name.log" 2>&1 < /dev/null &
  echo "$! $(born $!)" > "$RUN/pid/$name"
}

# await PROCESS SECONDS COMMAND... : until the command succeeds; a process that died or took too long ends the script
await() {
  local name=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@" > /dev/null 2>&1; do
    alive "$name" || { tail -5 "$RUN/log/$name.log" >&2; die "$name died, see $RUN/log/$name.log"; }
    [ "$SECONDS" -lt "$deadline" ] || die "$name is not ready in time, see $RUN/log/$name.log"
    sleep 0.05
  done
}

# end_by SIGNAL PROCESS : and KILL after 10 seconds
end_by() {
  local pid deadline=$((SECONDS + 10))
  if alive "$2"; then
    read -r pid _ < "$RUN/pid/$2"
    kill "-$1" "$pid" 2>/dev/null || true
    while alive "$2"; do
      [ "$SECONDS" -lt "$deadline" ] || kill -9 "$pid" 2>/dev/null || true
      sleep 0.05
    done
  fi
  rm -f "$RUN/pid/$2"
}

# signal SIGNAL PROCESS
signal() {
  local pid
  alive "$2" || die "$2 does not run"
  read -r pid _ < "$RUN/pid/$2"
  kill "-$1" "$pid"
}

# Takes ten ports that nobody listens on, from PORT_BASE on, and writes the first to $RUN/port-base. The lock stays with the
# process that is spawned before `exec 9>&-`: as long as it lives, no other takes the same ports.
choose_ports() {
  local base port
  mkdir -p "$CACHE/ports"
  for ((base = ${PORT_BASE:-16400}; base < 32000; base += 10)); do
    exec 9> "$CACHE/ports/$base"
    flock -n 9 || continue
    for ((port = base; port < base + 10; port++)); do
      ! (: < "/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue 2
    done
    echo "$base" > "$RUN/port-base"
    return
  done
  die "no ten free ports from ${PORT_BASE:-16400} on"
}

print_status() {
  local file name pid
  for file in "$RUN"/pid/*; do
    [ -f "$file" ] || continue
    name=$(basename "$file")
    if alive "$name"; then
      read -r pid _ < "$file"
      echo "$name: pid $pid, $(awk '/VmRSS/ { print int($2 / 1024) }' "/proc/$pid/status") MiB"
    else
      echo "$name: dead"
    fi
  done
}
