#!/bin/bash
# Makes what the bench runs beside podherald, once for each version of what it is made of, and prints its directory:
#
#   build.sh go       load, rawwatch, gomon (a minute or two, and 1 GB of Go's module cache)
#   build.sh python   the modules that pymon imports
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../../tests/env/common.sh"

go_sources() { cat "$here"/go.{mod,sum} "$here"/*/*.go; }
build_go() {
  command -v go > /dev/null || die "go is missing: install Go 1.26 or newer"
  cd "$here"
  CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$1/" ./...
}

python_sources() {
  cat "$here/pymon/requirements.txt"
  python3 --version
}
build_python() {
  need pip3=python3-pip
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$1" -r "$here/pymon/requirements.txt"
}

case ${1:-} in
  go | python) part=$1 ;;
  *) die "which part: go or python" ;;
esac
need flock=util-linux python3
dir=$CACHE/peers/$part-$("${part}_sources" | sha256sum | cut -c1-12)
if [ ! -d "$dir" ]; then
  mkdir -p "$CACHE/peers"
  exec 8> "$CACHE/peers/$part.lock"
  flock 8 # another run may be at it
  if [ ! -d "$dir" ]; then
    echo "building the bench's $part part (once for each version)" >&2
    rm -rf "$dir.new"
    mkdir "$dir.new"
    "build_$part" "$dir.new" >&2
    mv "$dir.new" "$dir" # only a whole one gets the name
  fi
fi
echo "$dir"
