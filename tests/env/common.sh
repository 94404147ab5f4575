# Sourced by the scripts around the tests. Defines:
#   CACHE   everything that is built once a machine, outside the checkout
#   die     says what is wrong and ends the script
#   need    makes sure that commands are there, from Debian packages where they are not
# shellcheck shell=bash disable=SC2034

CACHE=${PODHERALD_CACHE:-$HOME/.cache/podherald-env}

die() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# need COMMAND[=PACKAGE]... : a missing command fails the run, nothing is skipped
need() {
  local item missing=()
  for item in "$@"; do
    command -v "${item%%=*}" >/dev/null || missing+=("${item##*=}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "please install: ${missing[*]}"
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  for item in "$@"; do
    command -v "${item%%=*}" >/dev/null || die "${item%%=*} is still missing after installing ${item##*=}"
  done
}
