#!/bin/bash
# Fetches a server that speaks MongoDB's protocol from PyPI, once for each version, and prints the directory to run it from (20 s).
# It is SecantusDB, on MongoDB's storage engine WiredTiger: no package registry has MongoDB itself.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../common.sh"

need flock=util-linux python3
version=0.7.0b3
dir=$CACHE/mongo/secantusdb-$version
if [ ! -d "$dir" ]; then
  mkdir -p "$CACHE/mongo"
  exec 8> "$CACHE/mongo/lock"
  flock 8 # another run may be at it
  if [ ! -d "$dir" ]; then
    echo "fetching SecantusDB (once a machine)" >&2
    rm -rf "$dir.new"
    python3 -m venv "$dir.new/venv" >&2 # brings pip, where Debian's python3 has none
    "$dir.new/venv/bin/pip" install -q --disable-pip-version-check --pre --target "$dir.new/lib" "secantusdb==$version" >&2
    rm -rf "$dir.new/venv"
    mv "$dir.new" "$dir" # only a whole one gets the name
  fi
fi
echo "$dir/lib"
