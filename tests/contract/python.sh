#!/bin/bash
# Installs what the example consumer needs, once a machine, and prints the directory for PYTHONPATH.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../env/common.sh"
need python3 pip3=python3-pip flock=util-linux

requirements=$here/../../examples/consumer/requirements.txt
modules=$CACHE/contract/python-$({ cat "$requirements"; python3 --version; } | sha256sum | cut -c1-12)
mkdir -p "$CACHE/contract"
exec 8> "$CACHE/contract/python.lock"
flock 8 # another run may be at it
if [ ! -d "$modules" ]; then
  rm -rf "$modules.new"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$modules.new" -r "$requirements" >&2
  mv "$modules.new" "$modules" # only a whole one gets the name
fi
echo "$modules"
