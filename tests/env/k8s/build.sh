#!/bin/bash
# Builds the real components from Go modules, once for each version of what describes them, and prints their directory:
#   etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kubectl (links to one binary, kubecp), kwok, and
#   KWOK's own manifests.
# A cold build takes 5 to 11 minutes on two cores and 5 GB of disk; it needs a C-free Go toolchain and a module proxy.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../common.sh"

kwok_version=v0.8.0
kwok_files=(
  crd/bases/kwok.x-k8s.io_logs.yaml
  stage/node/fast/node-initialize.yaml
  stage/node/heartbeat/node-heartbeat.yaml
  stage/pod/fast/pod-ready.yaml
  stage/pod/fast/pod-delete.yaml
)

# The directory's name is the version stamp: what the binaries are made of.
stamp=$(cat "$here"/cp/{main.go,go.mod,go.sum} "$here/build.sh" | sha256sum | cut -c1-12)
dir=$CACHE/k8s/$stamp
if [ ! -d "$dir" ]; then
  need flock=util-linux
  command -v go > /dev/null || die "go is missing: install Go 1.24 or newer"
  mkdir -p "$CACHE/k8s"
  exec 8> "$CACHE/k8s/lock"
  flock 8 # another build may be at it: two would only take turns
  if [ ! -d "$dir" ]; then
    echo "building Kubernetes and KWOK (once a machine; minutes)" >&2
    new=$dir.new
    rm -rf "$new"
    mkdir -p "$new/kwok.d"

    k8s=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' "$here/cp/go.mod")
    minor=$(cut -d. -f2 <<< "$k8s")
    version=k8s.io/component-base/version
    (cd "$here/cp" && CGO_ENABLED=0 go build -buildvcs=false -trimpath -tags 'selinux,notest,grpcnotrace' \
      -ldflags "-s -w -X $version.gitVersion=$k8s -X $version.gitMajor=1 -X $version.gitMinor=$minor
        -X $version.gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=$k8s" \
      -o "$new/kubecp" .) >&2
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do
      ln -s kubecp "$new/$name"
    done

    GOBIN=$new CGO_ENABLED=0 GOFLAGS='-buildvcs=false -trimpath' \
      go install -ldflags '-s -w' "sigs.k8s.io/kwok/cmd/kwok@$kwok_version" >&2
    for file in "${kwok_files[@]}"; do
      install -m 644 "$(go env GOMODCACHE)/sigs.k8s.io/kwok@$kwok_version/kustomize/$file" "$new/kwok.d/"
    done
    mv "$new" "$dir" # only a whole build gets the name
  fi
fi
echo "$dir"
