#!/bin/bash
# Real servers that events are published to, for the tests and the benches. Everything listens on 127.0.0.1 only.
#
#   servers.sh start [SERVER...]   servers: kafka mongo redis toxiproxy; default: all. What runs already stays as it is, with what it keeps.
#   servers.sh stop [SERVER...]    ends only what it started, by pid
#   servers.sh pause|resume SERVER it is there, and answers nothing
#   servers.sh kill SERVER         as kill -9 does
#   servers.sh acl ARGUMENT...     Kafka's AclCommand, for instance: --add --allow-principal User:herald --operation All --topic '*'
#   servers.sh consume ARGUMENT... Kafka's ConsoleConsumer, for instance: --topic execution_events --from-beginning
#   servers.sh status
#
# RUN is the directory of what belongs together (data, logs; default: a new one under the temporary directory). Others beside
# it take ports of their own: the first free ones from PORT_BASE (default 16400) on.
# REDIS_OPTIONS are further arguments of redis-server; @PORT@ in them is its port. KAFKA_OPTIONS are further lines of server.properties.
# MONGO_OPTIONS are further arguments of the MongoDB server (`--auth`, for instance); what it acknowledges is on disk.
# `start` prints what a caller needs as NAME=value lines: RUN, KAFKA_BOOTSTRAP, KAFKA_PROXIED (by way of toxiproxy), KAFKA_SECURE (TLS by
# KAFKA_CA, SASL as `herald` or `admin`, password `secret`; `herald` may do what `acl` allows), REDIS_PORT, REDIS_PROXIED,
# MONGO, MONGO_PROXIED (host and port; a replica set of one, so say directConnection=true), TOXIPROXY (its API; its proxies are `kafka`,
# `mongo` and `redis`).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../common.sh"
# shellcheck source=tests/env/processes.sh
. "$here/../processes.sh"

[ $# -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
command=$1
shift
declare -A signals
need awk curl flock=util-linux

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
  kafka_behind_port=$((base + 3)) kafka_proxied_port=$((base + 4)) toxiproxy_port=$((base + 5)) kafka_secure_port=$((base + 6))
  redis_proxied_port=$((base + 7)) mongo_port=$((base + 8)) mongo_proxied_port=$((base + 9))
}

# kafka_java LOGGING : sets `java`, the command without its class
kafka_java() {
  local jars
  jars=$("$here/kafka/build.sh")
  java=(java -XX:+UseSerialGC -Djava.awt.headless=true "-Dlog4j2.$1" -cp "$jars/*")
}

kafka_tool() {
  kafka_java level=OFF # it would stand between the messages
  "${java[@]}" -XX:TieredStopAtLevel=1 "$@" --bootstrap-server "127.0.0.1:$kafka_port"
}

# An authority and the broker's certificate, once for each RUN.
kafka_certificates() {
  local dir=$RUN/kafka/tls
  [ ! -f "$dir/server.p12" ] || return 0
  need openssl
  mkdir -p "$dir"
  {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=authority of the tests' \
      -keyout "$dir/ca.key" -out "$dir/ca.pem"
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=kafka -keyout "$dir/server.key" -out "$dir/server.csr"
    openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
      -extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1') -out "$dir/server.pem"
    openssl pkcs12 -export -in "$dir/server.pem" -inkey "$dir/server.key" -passout pass:secret -out "$dir/server.p12"
  } > "$RUN/log/kafka-certificates.log" 2>&1 || die "Kafka's certificates could not be made, see $RUN/log/kafka-certificates.log"
}

kafka() {
  local settings=$RUN/kafka/server.properties java user scram=()
  kafka_java "configurationFile=file:$here/kafka/log4j2.properties"
  mkdir -p "$RUN/kafka"
  kafka_certificates
  cat "$here/kafka/server.properties" - > "$settings" <<P
listeners=DIRECT://127.0.0.1:$kafka_port,BEHIND://127.0.0.1:$kafka_behind_port,SECURE://127.0.0.1:$kafka_secure_port,CONTROLLER://127.0.0.1:$kafka_controller_port
advertised.listeners=DIRECT://127.0.0.1:$kafka_port,BEHIND://127.0.0.1:$kafka_proxied_port,SECURE://127.0.0.1:$kafka_secure_port,CONTROLLER://127.0.0.1:$kafka_controller_port
controller.quorum.bootstrap.servers=127.0.0.1:$kafka_controller_port
log.dirs=$RUN/kafka/data
ssl.keystore.location=$RUN/kafka/tls/server.p12
${KAFKA_OPTIONS:-}
P
  for user in herald admin; do
    scram+=(--add-scram "SCRAM-SHA-256=[name=$user,password=secret]" --add-scram "SCRAM-SHA-512=[name=$user,password=secret]")
  done
  [ -f "$RUN/kafka/data/meta.properties" ] ||
    "${java[@]}" -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format --standalone "${scram[@]}" -t b2f8YtF3S6-5evdzt0CR9A -c "$settings" \
      > "$RUN/log/kafka-format.log" 2>&1 || { tail -5 "$RUN/log/kafka-format.log" >&2; die "Kafka's directory could not be made"; }
  spawn kafka "${java[@]}" -Xms256m -Xmx512m kafka.Kafka "$settings"
  await kafka 60 grep -q 'Kafka Server started' "$RUN/log/kafka.log"
}

toxiproxy() {
  local server
  server=$("$here/toxiproxy.sh")
  cat > "$RUN/toxiproxy.json" <<J
[{"name": "kafka", "listen": "127.0.0.1:$kafka_proxied_port", "upstream": "127.0.0.1:$kafka_behind_port", "enabled": true},
 {"name": "mongo", "listen": "127.0.0.1:$mongo_proxied_port", "upstream": "127.0.0.1:$mongo_port", "enabled": true},
 {"name": "redis", "listen": "127.0.0.1:$redis_proxied_port", "upstream": "127.0.0.1:$redis_port", "enabled": true}]
J
  spawn toxiproxy "$server" -host 127.0.0.1 -port "$toxiproxy_port" -config "$RUN/toxiproxy.json"
  await toxiproxy 20 curl -sf "http://127.0.0.1:$toxiproxy_port/proxies/redis"
}

redis() {
  need redis-server redis-cli=redis-tools
  mkdir -p "$RUN/redis"
  local options=${REDIS_OPTIONS:-}
  # shellcheck disable=SC2086 # they are several words
  spawn redis redis-server --bind 127.0.0.1 --port "$redis_port" --dir "$RUN/redis" --save '' ${options//@PORT@/$redis_port}
  await redis 20 grep -q 'Ready to accept connections' "$RUN/log/redis.log"
}

mongo() {
  local library
  library=$("$here/mongo.sh")
  mkdir -p "$RUN/mongo"
  # shellcheck disable=SC2086 # they are several words
  spawn mongo env "PYTHONPATH=$library" python3 -c 'from secantus.cli import main; main()' --host 127.0.0.1 --port "$mongo_port" \
    --storage-path "$RUN/mongo/data" --cache-size 256M --sync-on-commit --enable-test-commands ${MONGO_OPTIONS:-}
  await mongo 30 bash -c ": < /dev/tcp/127.0.0.1/$mongo_port"
}

case $command in
  start)
    [ $# -gt 0 ] || set -- kafka mongo redis toxiproxy
    if [ ! -f "$RUN/port-base" ]; then
      choose_ports
      spawn ports sleep infinity # keeps them while a server is away
    fi
    exec 9>&-
    ports
    for server in "$@"; do
      case $server in
        kafka | mongo | redis | toxiproxy) "$server" ;;
        *) die "no server '$server'; there are kafka, mongo, redis and toxiproxy" ;;
      esac
    done
    cat <<P
RUN=$RUN
KAFKA_BOOTSTRAP=127.0.0.1:$kafka_port
KAFKA_PROXIED=127.0.0.1:$kafka_proxied_port
KAFKA_SECURE=localhost:$kafka_secure_port
KAFKA_CA=$RUN/kafka/tls/ca.pem
REDIS_PORT=$redis_port
REDIS_PROXIED=127.0.0.1:$redis_proxied_port
MONGO=127.0.0.1:$mongo_port
MONGO_PROXIED=127.0.0.1:$mongo_proxied_port
TOXIPROXY=http://127.0.0.1:$toxiproxy_port
P
    ;;
  stop)
    [ $# -gt 0 ] || set -- toxiproxy kafka mongo redis ports
    for server in "$@"; do end_by TERM "$server"; done
    ;;
  kill) for server in "$@"; do end_by KILL "$server"; done ;;
  pause | resume)
    signals=([pause]=STOP [resume]=CONT)
    for server in "$@"; do signal "${signals[$command]}" "$server"; done
    ;;
  acl)
    ports
    kafka_tool org.apache.kafka.tools.AclCommand --force "$@"
    ;;
  consume)
    ports
    kafka_tool org.apache.kafka.tools.consumer.ConsoleConsumer "$@"
    ;;
  status) print_status ;;
  *) die "no command '$command'; there are start, stop, kill, pause, resume, acl, consume and status" ;;
esac
