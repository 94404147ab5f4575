#!/bin/bash
# Makes the real node's images, with no registry and no container engine, once for each version of what describes them, and
# prints their directory:
#   busybox.tar  localhost/busybox:1, a shell and its tools
#   pause.tar    localhost/pause:1, what holds a pod's namespaces; the program itself is beside it
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../../common.sh"
need cc=gcc busybox=busybox-static jq flock=util-linux

case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) die "no name for the architecture $(uname -m)" ;;
esac

# image NAME COMMAND(json) : an archive of ./root as `ctr images import` takes it
image() {
  local layer configuration
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C root -cf layer.tar .
  layer=$(sha256sum layer.tar | cut -d' ' -f1)
  jq -cn --arg layer "sha256:$layer" --argjson command "$2" --arg architecture "$architecture" '{
    architecture: $architecture, os: "linux",
    config: {Cmd: $command, Env: ["PATH=/bin"], WorkingDir: "/"},
    rootfs: {type: "layers", diff_ids: [$layer]}}' > config
  configuration=$(sha256sum config | cut -d' ' -f1).json
  mv config "$configuration"
  jq -cn --arg name "localhost/$1:1" --arg configuration "$configuration" \
    '[{Config: $configuration, RepoTags: [$name], Layers: ["layer.tar"]}]' > manifest.json
  tar -cf "$1.tar" "$configuration" layer.tar manifest.json
  rm -r root "$configuration" layer.tar manifest.json
}

stamp=$(cat "$here"/{build.sh,pause.c} "$(command -v busybox)" | sha256sum | cut -c1-12)
dir=$CACHE/images/$stamp
if [ ! -d "$dir" ]; then
  mkdir -p "$CACHE/images"
  exec 8> "$CACHE/images/lock"
  flock 8
  if [ ! -d "$dir" ]; then
    new=$dir.new
    rm -rf "$new"
    mkdir -p "$new"
    cd "$new"

    cc -Os -static -s -o pause "$here/pause.c"
    mkdir root
    cp pause root/
    image pause '["/pause"]'

    mkdir -p root/{bin,etc,tmp}
    cp "$(command -v busybox)" root/bin/busybox
    for applet in $(busybox --list); do [ -e "root/bin/$applet" ] || ln -s busybox "root/bin/$applet"; done
    echo 'root:x:0:0:root:/:/bin/sh' > root/etc/passwd
    image busybox '["/bin/sh"]'

    mv "$new" "$dir" # only whole images get the name
  fi
fi
echo "$dir"
