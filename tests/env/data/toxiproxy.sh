#!/bin/bash
# Builds the proxy that makes a network bad, once a machine, and prints its path (3 s).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../common.sh"

version=2.5.0
server=$CACHE/tools/toxiproxy-$version
if [ ! -x "$server" ]; then
  command -v go > /dev/null || die "go is needed"
  new=$(mktemp -d "$CACHE/toxiproxy.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  GOBIN=$new go install "github.com/Shopify/toxiproxy/v2/cmd/server@v$version" >&2
  mkdir -p "$CACHE/tools"
  mv "$new/server" "$server" # only a whole one gets the name
fi
echo "$server"
