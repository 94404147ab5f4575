# Sourced by the scripts that show podherald to its users, which have set `dir` and `herald`, its process, which logs JSON to $dir/log.
# Defines:
#   within    until a command succeeds
#   listens   sets `url` once podherald says where it listens
#   end_herald
# shellcheck shell=bash disable=SC2034,SC2154

# within SECONDS COMMAND...
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    if ! kill -0 "$herald" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
      tail -20 "$dir/log" >&2
      die "not in time: $*"
    fi
    sleep 0.1
  done
}

listens() {
  local address # jq -e of an older version succeeds without any input
  address=$(jq -r 'select(.message == "listening") | .address' "$dir/log") && [ -n "$address" ] && url=http://$address
}

end_herald() {
  [ -n "$herald" ] || return 0
  kill "$herald" 2>/dev/null || true
  wait "$herald" 2>/dev/null || true
}
