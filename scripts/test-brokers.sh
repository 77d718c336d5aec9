#!/usr/bin/env bash
# Starts and stops the brokers that tests share: one of each version, used by several runs of `cargo test`.
#
#   scripts/test-brokers.sh up DIR [--owner PID]     starts those that are not running; with an owner
#                                                    they end when that process ends
#   scripts/test-brokers.sh down DIR                 stops them and removes DIR
#
# Tests find them by RILLWAY_TEST_BROKERS=DIR, and start missing ones themselves. A version that is not
# available on this machine is skipped, with the reason.
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
. "$HERE/lib/common.sh"

VERSIONS=(4.3 4.0 3.10)

up() {
  local dir=$1 version status failed=0
  shift
  mkdir -p "$dir"
  for version in "${VERSIONS[@]}"; do
    if "$HERE/broker.sh" env --dir "$dir/$version" 2>/dev/null | grep -q '^pid='; then continue; fi
    status=0
    "$HERE/broker.sh" start --dir "$dir/$version" --version "$version" "$@" >/dev/null || status=$?
    case $status in
    0 | "$EXIT_UNAVAILABLE") ;;
    *) failed=1 ;;
    esac
  done
  return $failed
}

down() {
  local version
  for version in "${VERSIONS[@]}"; do
    [[ ! -e $1/$version/node.env ]] || "$HERE/broker.sh" stop --dir "$1/$version" --now
  done
  rm -rf "$1"
}

[[ $# -ge 2 && $2 != --* ]] || { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 64; }
case $1 in
up | down) "$@" ;;
*) die "expected up or down, not '$1'" ;;
esac
