#!/bin/bash
# Real servers that events are published to, for the tests and the benches. Everything listens on 127.0.0.1 only.
#
#   servers.sh start [SERVER...]   servers: kafka redis; default: all. What runs already stays as it is, with what it keeps.
#   servers.sh stop [SERVER...]    ends only what it started, by pid
#   servers.sh status
#
# RUN is the directory of what belongs together (data, logs; default: a new one under the temporary directory). Others beside
# it take ports of their own: the first free ones from PORT_BASE (default 16400) on.
# REDIS_OPTIONS are further arguments of redis-server; @PORT@ in them is its port. `start` prints what a caller needs as NAME=value lines: RUN,
# KAFKA_BOOTSTRAP, REDIS_PORT.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../common.sh"
# shellcheck source=tests/env/processes.sh
. "$here/../processes.sh"

[ $# -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
command=$1
shift
need awk flock=util-linux

if [ -z "${RUN:-}" ]; then
  [ "$command" = start ] || die "RUN names no servers"
  RUN=$(mktemp -d "${TMPDIR:-/tmp}/podherald-servers.XXXXXX")
fi
mkdir -p "$RUN"/{pid,log}
RUN=$(cd "$RUN" && pwd)

ports() {
  local base
  base=$(cat "$RUN/port-base")
  kafka_port=$base kafka_controller_port=$((base + 1)) redis_port=$((base + 2))
}

kafka() {
  local settings=$RUN/kafka/server.properties jars java
  jars=$("$here/kafka/build.sh")
  java=(java -XX:+UseSerialGC -Djava.awt.headless=true "-Dlog4j2.configurationFile=file:$here/kafka/log4j2.properties" -cp "$jars/*")
  mkdir -p "$RUN/kafka"
  cat "$here/kafka/server.properties" - > "$settings" <<P
listeners=DIRECT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$kafka_controller_port
advertised.listeners=DIRECT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$kafka_controller_port
controller.quorum.bootstrap.servers=127.0.0.1:$kafka_controller_port
log.dirs=$RUN/kafka/data
P
  [ -f "$RUN/kafka/data/meta.properties" ] ||
    "${java[@]}" -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format --standalone -t b2f8YtF3S6-5evdzt0CR9A -c "$settings" \
      > "$RUN/log/kafka-format.log" 2>&1 || { tail -5 "$RUN/log/kafka-format.log" >&2; die "Kafka's directory could not be made"; }
  spawn kafka "${java[@]}" -Xms256m -Xmx512m kafka.Kafka "$settings"
  await kafka 60 grep -q 'Kafka Server started' "$RUN/log/kafka.log"
}

redis() {
  need redis-server redis-cli=redis-tools
  mkdir -p "$RUN/redis"
  local options=${REDIS_OPTIONS:-}
  # shellcheck disable=SC2086 # they are several words
  spawn redis redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$RUN/redis" --save '' ${options//@PORT@/$redis_port}
  await redis 20 grep -q 'Ready to accept connections' "$RUN/log/redis.log"
}

case $command in
  start)
    [ $# -gt 0 ] || set -- kafka redis
    if [ ! -f "$RUN/port-base" ]; then
      choose_ports
      spawn ports sleep infinity # keeps them while a server is away
    fi
    exec 9>&-
    ports
    for server in "$@"; do
      case $server in
        kafka | redis) "$server" ;;
        *) die "no server '$server'; there are kafka and redis" ;;
      esac
    done
    echo "RUN=$RUN"
    echo "KAFKA_BOOTSTRAP=127.0.0.1:$kafka_port"
    echo "REDIS_PORT=$redis_port"
    ;;
  stop)
    [ $# -gt 0 ] || set -- kafka redis ports
    for server in "$@"; do end_by TERM "$server"; done
    ;;
  status) print_status ;;
  *) die "no command '$command'; there are start, stop and status" ;;
esac
