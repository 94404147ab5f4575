# Sourced by cluster.sh: the node real-0 (pods reach it with `nodeSelector: {type: real}`), with containerd and a kubelet.
#
# They live in process and mount namespaces of their own, whose first process is `node`. When that is killed, by whatever
# means, the kernel ends the kubelet, containerd and every container, and no mount outlives them: nothing has to be looked for.
# What remains are files below RUN, a bridge, control groups below one of our name, and kernel settings; end_node sees to these.
# Pods have addresses, and a bridge that leads nowhere. There is no DNS and no Service.
# shellcheck shell=bash disable=SC2154

settings=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops) # that a kubelet changes
node=$RUN/node

node_names() {
  local number=$(($(cat "$RUN/port-base") / 10))
  bridge=phnode$number
  group=podherald-$number
  subnet=10.$((200 + number / 256 % 50)).$((number % 256)).0/24
}

# inside COMMAND... : runs it on the node
inside() {
  local first
  read -r first _ < "$RUN/pid/node"
  nsenter --target "$first" --mount --pid -- "$@"
}

# spawn_inside NAME COMMAND... : as spawn
spawn_inside() {
  local name=$1 first parent pid=
  shift
  ! alive "$name" || return 0
  read -r first _ < "$RUN/pid/node"
  setsid nsenter --target "$first" --mount --pid -- "$@" > "$RUN/log/$name.log" 2>&1 < /dev/null &
  parent=$!
  # nsenter stays outside; its only child is the process.
  until pid=$(only_child "$parent"); do
    kill -0 "$parent" 2>/dev/null || die "$name did not start, see $RUN/log/$name.log"
    sleep 0.01
  done
  echo "$pid $(born "$pid")" > "$RUN/pid/$name"
}

only_child() {
  local child
  child=$(cat "/proc/$1/task/$1/children" 2>/dev/null) && [ -n "$child" ] && echo "${child% }"
}

ctr() { command ctr --address "$node/containerd.sock" --namespace k8s.io "$@"; }

# The namespaces, what is writable in them, and the first process.
namespaces() {
  local hierarchy unshare pid
  ! alive node || return 0
  if [ ! -f "$CACHE/settings.saved" ]; then # if it is there, a node died without an end_node, and they were saved before
    sysctl "${settings[@]}" > "$CACHE/settings.new"
    mv "$CACHE/settings.new" "$CACHE/settings.saved"
  fi
  if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    for hierarchy in cpu cpuset io memory pids hugetlb; do
      echo "+$hierarchy" > /sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    done
    mkdir -p "/sys/fs/cgroup/$group"
  else
    for hierarchy in /sys/fs/cgroup/*/; do mkdir -p "$hierarchy$group" 2>/dev/null || true; done
  fi
  rm -rf "$node"
  mkdir -p "$node"/{cni,kubelet,containerd}
  # shellcheck disable=SC2016
  setsid unshare --pid --fork --kill-child --mount --propagation private -- bash -ec '
    mount -t proc proc /proc
    for directory in /run /var/log /var/lib/cni; do mkdir -p "$directory"; mount -t tmpfs node "$directory"; done
    exec "$1"' node "$images/pause" > "$RUN/log/node.log" 2>&1 < /dev/null &
  unshare=$!
  until pid=$(only_child "$unshare") && [ "$(cat "/proc/$pid/comm")" = pause ]; do
    kill -0 "$unshare" 2>/dev/null || die "no namespaces for a node, see $RUN/log/node.log"
    sleep 0.01
  done
  echo "$pid $(born "$pid")" > "$RUN/pid/node"
}

containerd() {
  cat > "$node/cni/10-bridge.conflist" <<Y
{"cniVersion": "0.4.0", "name": "tests", "plugins": [
  {"type": "bridge", "bridge": "$bridge", "isGateway": false, "ipMasq": false,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$subnet"}]]}}]}
Y
  cat > "$node/containerd.toml" <<Y
version = 2
root = "$node/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$node/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Root of a container lacks CAP_SYS_RESOURCE where these tests run in one.
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$node/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
Y
  spawn_inside containerd containerd --config "$node/containerd.toml"
  await containerd 30 ctr version
  for image in busybox pause; do
    ctr images list -q | grep -qx "localhost/$image:1" || ctr images import "$images/$image.tar" > /dev/null
  done
}

kubelet() {
  local images image
  [ "$(id -u)" = 0 ] || die "a real node needs root: it makes namespaces, mounts and control groups"
  need containerd runc /usr/lib/cni/bridge=containernetworking-plugins ip=iproute2 nsenter=util-linux sysctl=procps
  images=$("$here/image/build.sh")
  node_names
  kcm # makes the root certificates that pods mount
  namespaces
  containerd
  kubeconfig "$RUN/node.kubeconfig" "$api_port" node
  cat > "$node/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: $kubelet_port
healthzBindAddress: 127.0.0.1
healthzPort: $kubelet_health_port
readOnlyPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/node.crt
tlsPrivateKeyFile: $pki/node.key
containerRuntimeEndpoint: unix://$node/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$group
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
resolvConf: ""
maxPods: 200
serializeImagePulls: false
containerLogMaxSize: ${KUBELET_LOG_MAX_SIZE:-256Mi}
containerLogMaxFiles: 2
containerLogMonitorInterval: 3s
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
nodeStatusUpdateFrequency: 5s
kubeAPIQPS: 200
kubeAPIBurst: 400
Y
  spawn_inside kubelet "$bin/kubelet" --config="$node/kubelet.yaml" --kubeconfig="$RUN/node.kubeconfig" \
    --root-dir="$node/kubelet" --cert-dir="$RUN/certs" --hostname-override=real-0 --node-labels=type=real \
    --cloud-provider=external
  await kubelet 60 curl -fs "http://127.0.0.1:$kubelet_health_port/healthz"
  await kubelet 60 kubectl get node real-0
  # A kubelet takes no loopback address for its own: as its "external cloud provider" we give it that one.
  kubectl patch node real-0 --subresource=status --type=merge -p '{"status": {"addresses": [
    {"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": "real-0"}]}}' > /dev/null
  kubectl taint node real-0 node.cloudprovider.kubernetes.io/uninitialized- > /dev/null 2>&1 || true
  kubectl wait --for=condition=Ready node/real-0 --timeout=60s > /dev/null
}

# Ends the first process, and with it all others; then what the kernel keeps without processes.
end_node() {
  local hierarchy deadline=$((SECONDS + 10))
  [ -f "$RUN/pid/node" ] || return 0
  node_names
  end node
  ip link delete "$bridge" 2>/dev/null || true
  for hierarchy in /sys/fs/cgroup/*/"$group" "/sys/fs/cgroup/$group"; do
    [ -d "$hierarchy" ] || continue
    # The kernel empties a group a moment after its last process.
    until find "$hierarchy" -depth -type d -exec rmdir {} + 2>/dev/null; do
      [ "$SECONDS" -lt "$deadline" ] || die "control group $hierarchy is still in use"
      sleep 0.05
    done
  done
  rm -f "$RUN"/pid/{kubelet,containerd}
  if [ -f "$CACHE/settings.saved" ]; then
    sysctl -q -p "$CACHE/settings.saved"
    rm "$CACHE/settings.saved"
  fi
  rm -rf "$node"
}
