#!/bin/bash
# A real Kubernetes API with pods played by KWOK, for the tests and the demo. Everything listens on 127.0.0.1 only.
#
#   cluster.sh start [PART...]     parts: core (etcd + API server), second (another API server over the same etcd),
#                                  kcm (controller-manager), sched, kwok, kubelet (a real node, root only, see node.sh;
#                                  with kcm); default: core sched kwok. What runs already stays as it is; without a
#                                  running etcd a cluster begins anew.
#   cluster.sh stop [PROCESS...]   etcd, apiserver, second, kcm, sched, kwok, node, containerd, kubelet; default: all. Ends
#                                  only what it started, by pid; the end of `node` is that of all that runs on it.
#   cluster.sh namespace NAME...   namespaces in which pods can be made
#   cluster.sh grant               podherald's role from deploy/, and a kubeconfig for it
#   cluster.sh compact             etcd forgets every version but the newest; the API server may still know some until it
#                                  is started anew
#   cluster.sh status
#
# KUBELET_LOG_MAX_SIZE is the size at which a kubelet that starts rotates logs (default: 256Mi, more than any test prints).
#
# RUN is the directory of one cluster (state, logs, kubeconfigs; default: a new one under the temporary directory).
# Clusters beside each other take ports of their own: the first free ones from PORT_BASE (default 16400) on.
# `start` prints what a caller needs as NAME=value lines: RUN, KUBECTL, ADMIN_KUBECONFIG, SECOND_KUBECONFIG, PODHERALD_KUBECONFIG
# (the last one is there after `grant`).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../common.sh"
# shellcheck source=tests/env/processes.sh
. "$here/../processes.sh"

[ $# -gt 0 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 2; }
command=$1
shift
need openssl curl awk flock=util-linux
bin=$("$here/build.sh")

if [ -z "${RUN:-}" ]; then
  [ "$command" = start ] || die "RUN names no cluster"
  RUN=$(mktemp -d "${TMPDIR:-/tmp}/podherald-cluster.XXXXXX")
fi
mkdir -p "$RUN"/{pid,log}
RUN=$(cd "$RUN" && pwd)
pki=$RUN/pki
admin=$RUN/admin.kubeconfig

# end PROCESS : TERM, then KILL after 10 seconds. An API server is killed at once: it would wait that long for its watches.
# So is a kubelet, for the tests that want it dead in the midst of something.
end() {
  case $1 in
    apiserver | second | node | kubelet) end_by KILL "$1" ;;
    *) end_by TERM "$1" ;;
  esac
}

ports() {
  local base
  base=$(cat "$RUN/port-base")
  etcd_port=$base etcd_peer_port=$((base + 1)) api_port=$((base + 2)) second_port=$((base + 3))
  sched_port=$((base + 4)) kwok_port=$((base + 5)) kcm_port=$((base + 6))
  kubelet_port=$((base + 7)) kubelet_health_port=$((base + 8))
}

# kubeconfig FILE PORT NAME
kubeconfig() {
  cat > "$1" <<Y
apiVersion: v1
kind: Config
current-context: tests
clusters: [{name: tests, cluster: {server: "https://127.0.0.1:$2", certificate-authority-data: $(base64 -w0 < "$pki/ca.crt")}}]
contexts: [{name: tests, context: {cluster: tests, user: $3}}]
users: [{name: $3, user: {client-certificate-data: $(base64 -w0 < "$pki/$3.crt"), client-key-data: $(base64 -w0 < "$pki/$3.key")}}]
Y
}

kubectl() { "$bin/kubectl" --kubeconfig "$admin" "$@"; }

# apiserver PROCESS PORT
apiserver() {
  local extra
  read -ra extra <<< "${APISERVER_EXTRA:-}"
  spawn "$1" "$bin/kube-apiserver" \
    --etcd-servers="http://127.0.0.1:$etcd_port" \
    --bind-address=127.0.0.1 --advertise-address=127.0.0.1 --secure-port="$2" --endpoint-reconciler-type=none \
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --cert-dir="$RUN/certs" \
    --client-ca-file="$pki/ca.crt" --authorization-mode=Node,RBAC --service-cluster-ip-range=10.0.0.0/24 \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key" \
    --kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key" \
    --kubelet-preferred-address-types=InternalIP --profiling=false "${extra[@]}"
  await "$1" 90 curl -fs --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" "https://127.0.0.1:$2/readyz"
}

core() {
  if ! alive etcd; then
    rm -rf "$RUN/etcd" # it knows the old ports
    choose_ports
  fi
  ports
  "$here/certs.sh" "$pki"
  kubeconfig "$admin" "$api_port" admin
  spawn etcd "$bin/etcd" --name=tests --data-dir="$RUN/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls="http://127.0.0.1:$etcd_port" --advertise-client-urls="http://127.0.0.1:$etcd_port" \
    --listen-peer-urls="http://127.0.0.1:$etcd_peer_port" --initial-advertise-peer-urls="http://127.0.0.1:$etcd_peer_port" \
    --initial-cluster="tests=http://127.0.0.1:$etcd_peer_port" --quota-backend-bytes=4294967296
  exec 9>&-
  await etcd 30 curl -fs "http://127.0.0.1:$etcd_port/health"
  apiserver apiserver "$api_port"
}

second() {
  kubeconfig "$RUN/second.kubeconfig" "$second_port" admin
  apiserver second "$second_port"
}

kcm() {
  kubeconfig "$RUN/controllers.kubeconfig" "$api_port" controllers
  spawn kcm "$bin/kube-controller-manager" --kubeconfig="$RUN/controllers.kubeconfig" \
    --authentication-kubeconfig="$RUN/controllers.kubeconfig" --authorization-kubeconfig="$RUN/controllers.kubeconfig" \
    --bind-address=127.0.0.1 --secure-port="$kcm_port" --cert-dir="$RUN/certs" \
    --service-account-private-key-file="$pki/sa.key" --root-ca-file="$pki/ca.crt" --use-service-account-credentials=true \
    --controllers='*,-node-ipam-controller,-cloud-node-lifecycle-controller' \
    --leader-elect=false --kube-api-qps=1000 --kube-api-burst=2000
  await kcm 60 curl -fsk "https://127.0.0.1:$kcm_port/healthz"
}

sched() {
  kubeconfig "$RUN/scheduler.kubeconfig" "$api_port" scheduler
  spawn sched "$bin/kube-scheduler" --kubeconfig="$RUN/scheduler.kubeconfig" \
    --authentication-kubeconfig="$RUN/scheduler.kubeconfig" --authorization-kubeconfig="$RUN/scheduler.kubeconfig" \
    --bind-address=127.0.0.1 --secure-port="$sched_port" --cert-dir="$RUN/certs" \
    --leader-elect=false --kube-api-qps=1000 --kube-api-burst=2000
  await sched 60 curl -fsk "https://127.0.0.1:$sched_port/healthz"
}

kwok() {
  local file
  mkdir -p "$RUN/logs"
  echo '2026-01-01T00:00:00.000000000Z stdout F played by KWOK' > "$RUN/logs/default.log"
  for file in "$here/kwok.yaml" "$bin"/kwok.d/{node-initialize,node-heartbeat,pod-ready,pod-delete}.yaml; do
    cat "$file"
    printf '\n---\n'
  done > "$RUN/kwok.yaml"
  cat >> "$RUN/kwok.yaml" <<Y
kind: ClusterLogs
apiVersion: kwok.x-k8s.io/v1alpha1
metadata: {name: default}
spec: {logs: [{logsFile: $RUN/logs/default.log, follow: false}]}
Y
  kubectl apply -f "$bin/kwok.d/kwok.x-k8s.io_logs.yaml" > /dev/null
  kubectl wait --for=condition=Established crd/logs.kwok.x-k8s.io --timeout=60s > /dev/null
  spawn kwok "$bin/kwok" --kubeconfig="$admin" --config="$RUN/kwok.yaml" --enable-crds=Logs --cidr=10.44.0.0/16 \
    --manage-all-nodes=false --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake \
    --node-ip=127.0.0.1 --node-port="$kwok_port" --server-address="127.0.0.1:$kwok_port" --node-lease-duration-seconds=0 \
    --tls-cert-file="$pki/kwok.crt" --tls-private-key-file="$pki/kwok.key"
  await kwok 60 curl -fsk "https://127.0.0.1:$kwok_port/healthz"
  kubectl apply -f "$here/node.yaml" > /dev/null 2>&1
  kubectl wait --for=condition=Ready node/fake-0 --timeout=60s > /dev/null
  # Nobody else would take it off: that is the node controller's work, which does not run here.
  kubectl taint node fake-0 node.kubernetes.io/not-ready- > /dev/null 2>&1 || true
}

# printed NAMESPACE POD FILE: waits until KWOK serves this file as the pod's log. It hears of that some time after it was told, and
# until then serves what it serves of every pod.
printed() {
  local expected tries
  expected=$(cut -d' ' -f4- "$3")
  for ((tries = 0; tries < 600; tries++)); do
    [ "$(curl -fsk "https://127.0.0.1:$kwok_port/containerLogs/$1/$2/executor")" != "$expected" ] || return 0
    sleep 0.1
  done
  die "KWOK does not serve $3 as the log of $1/$2"
}

# The service account `default`, without which no pod is admitted, is made by a controller that may not run here, or be at it.
namespace() {
  local name
  for name in "$@"; do
    kubectl apply --server-side --force-conflicts -f - > /dev/null <<Y
{kind: List, apiVersion: v1, items: [
  {kind: Namespace, apiVersion: v1, metadata: {name: $name}},
  {kind: ServiceAccount, apiVersion: v1, metadata: {name: default, namespace: $name}}]}
Y
  done
}

# podherald's own role, exactly as it is deployed; its kubeconfig holds a token of its service account.
grant() {
  namespace podherald
  kubectl apply -k "$here/../../../deploy" > /dev/null
  kubectl apply -n podherald -f "$here/../../../deploy/lease.yaml" > /dev/null
  kubectl apply -f "$here/../../../deploy/cleaner.yaml" > /dev/null
  kubectl apply -f "$here/../../../deploy/hold.yaml" > /dev/null
  kubectl apply -f "$here/../../../deploy/nodes.yaml" > /dev/null
  cat > "$RUN/podherald.kubeconfig" <<Y
apiVersion: v1
kind: Config
current-context: tests
clusters: [{name: tests, cluster: {server: "https://127.0.0.1:$api_port", certificate-authority-data: $(base64 -w0 < "$pki/ca.crt")}}]
contexts: [{name: tests, context: {cluster: tests, user: podherald}}]
users: [{name: podherald, user: {token: $(kubectl -n podherald create token podherald --duration=24h)}}]
Y
}

compact() {
  local etcd=http://127.0.0.1:$etcd_port/v3/kv revision
  revision=$(curl -fsS "$etcd/range" -d '{"key":"AA=="}' | sed -n 's/.*"revision":"\([0-9]*\)".*/\1/p')
  curl -fsS -o /dev/null "$etcd/compaction" -d "{\"revision\":$revision,\"physical\":true}"
}

# shellcheck source=tests/env/k8s/node.sh
. "$here/node.sh"

case $command in
  start)
    [ $# -gt 0 ] || set -- core sched kwok
    [ ! -f "$RUN/port-base" ] || ports
    for part in "$@"; do
      case $part in
        core | second | kcm | sched | kwok | kubelet) "$part" ;;
        *) die "no part '$part'; there are core, second, kcm, sched, kwok and kubelet" ;;
      esac
    done
    echo "RUN=$RUN"
    echo "KUBECTL=$bin/kubectl"
    echo "ADMIN_KUBECONFIG=$admin"
    echo "SECOND_KUBECONFIG=$RUN/second.kubeconfig"
    echo "PODHERALD_KUBECONFIG=$RUN/podherald.kubeconfig"
    ;;
  stop)
    [ $# -gt 0 ] || set -- node kwok sched kcm second apiserver etcd
    for process in "$@"; do
      if [ "$process" = node ]; then end_node; else end "$process"; fi
    done
    ;;
  namespace) namespace "$@" ;;
  grant)
    ports
    grant
    ;;
  compact)
    ports
    compact
    ;;
  printed)
    ports
    printed "$@"
    ;;
  status) print_status ;;
  *) die "no command '$command'; there are start, stop, namespace, grant, compact, printed and status" ;;
esac
