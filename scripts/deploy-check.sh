#!/usr/bin/env bash
# Tries everything in deploy/ for real, as far as this machine can, and says what it could not try and why.
#
#   scripts/deploy-check.sh [NAME...]
#
#     systemd      systemd accepts the unit, and rates it as secure as before
#     prometheus   promtool accepts the rules, which fire when they should
#     kubernetes   the manifests fit the schemas of Kubernetes, and each other
#     package      the Debian package, installed, upgraded, removed and purged in a clean Debian; and the service
#                    under a systemd with a journal of its own
#     image        the container image, built and run
#
# The dashboard's queries, the journal's fields and the rights of readers are tests of `make test`, which need brokers.
# RILLWAY_BINARY names a binary to try; otherwise the newest one in target/ is taken, and built if there is none.
# Exit codes: 0 nothing failed (something may have been skipped), 1 something failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

ALL=(systemd prometheus kubernetes package image)
for name in "$@"; do
  [[ " ${ALL[*]} " == *" $name "* ]] || usage
done
[[ $# -gt 0 ]] || set -- "${ALL[@]}"

binary=${RILLWAY_BINARY:-}
if [[ ! $binary ]]; then
  target=${CARGO_TARGET_DIR:-target}
  for built in "$target"/{release,debug}/rillway; do
    if [[ -x $built && (! $binary || $built -nt $binary) ]]; then binary=$built; fi
  done
  if [[ ! $binary ]]; then
    scripts/setup.sh rust-build
    cargo build --locked --features otel --bin rillway
    binary=$target/debug/rillway
  fi
fi
binary=$(realpath "$binary")
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "trying $binary"

passed=0 failed=0 skipped=0
for name in "$@"; do
  status=0
  began=$SECONDS
  "scripts/deploy/$name.sh" "$binary" >"$log" 2>&1 || status=$?
  last=$(tail -n 1 "$log")
  case $status in
  0)
    passed=$((passed + 1)) && echo "OK $name ($((SECONDS - began)) s): $last"
    sed -n 's/^NOT CHECKED: /   NOT CHECKED: /p' "$log"
    ;;
  "$EXIT_UNAVAILABLE") skipped=$((skipped + 1)) && echo "SKIPPED $name because ${last#*.sh: }" ;;
  *)
    failed=$((failed + 1))
    sed 's/^/    /' "$log"
    echo "FAILED $name"
    ;;
  esac
done
echo "deploy: $passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]
