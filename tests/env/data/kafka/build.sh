#!/bin/bash
# Fetches a Kafka broker from Maven, once for each version of pom.xml, and prints the directory of its jars (45 MB; 12 s).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/env/common.sh
. "$here/../../common.sh"

need flock=util-linux java=openjdk-17-jre-headless mvn=maven
stamp=$(sha256sum < "$here/pom.xml" | cut -c1-12)
dir=$CACHE/kafka/$stamp
if [ ! -d "$dir" ]; then
  mkdir -p "$CACHE/kafka"
  exec 8> "$CACHE/kafka/lock"
  flock 8 # another run may be at it
  if [ ! -d "$dir" ]; then
    echo "fetching Kafka (once a machine)" >&2
    rm -rf "$dir.new"
    mvn -q -B -Dstyle.color=never -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$dir.new" >&2
    mv "$dir.new" "$dir" # only a whole one gets the name
  fi
fi
echo "$dir"
