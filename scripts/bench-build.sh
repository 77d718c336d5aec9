#!/usr/bin/env bash
# Times builds from nothing, in a fresh clone of HEAD: up to the demo's first line about its consumers, the release
# build, and the tests. Needs a machine on which nothing else runs.
#
#   scripts/bench-build.sh [demo] [release] [tests]      all of them without arguments
#
# The toolchain, the crates' sources and the brokers' packages are downloaded before, and not part of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

for part in "$@"; do [[ $part =~ ^(demo|release|tests)$ ]] || usage; done
[[ $# != 0 ]] || set -- demo release tests
scripts/setup.sh rust-build
cargo fetch --locked --quiet
place=$(mktemp -d) demo=''
leave() {
  if [[ $demo ]] && kill -TERM "$demo" 2>/dev/null; then wait "$demo" || true; fi
  rm -rf "$place"
}
trap leave EXIT
trap 'exit 130' INT TERM
unset CARGO_TARGET_DIR
export CI=true

for part in "$@"; do
  rm -rf "$place/clone"
  SECONDS=0
  git clone --quiet . "$place/clone"
  case $part in
  demo)
    make --no-print-directory -C "$place/clone" demo >"$place/log" 2>&1 &
    demo=$!
    until grep -q '^== Lag' "$place/log"; do
      kill -0 "$demo" 2>/dev/null || { tail -n 20 "$place/log"; die 'the demo has failed'; }
      sleep 0.2
    done
    echo "demo: $SECONDS s from the clone to the first line of lag"
    wait "$demo" || die 'the demo has failed'
    demo=''
    ;;
  release)
    (cd "$place/clone" && cargo build --release --locked --quiet)
    echo "release: $SECONDS s"
    ;;
  tests)
    (cd "$place/clone" && CARGO_INCREMENTAL=0 cargo test --no-run --locked --quiet --features otel)
    echo "tests: $SECONDS s for the build"
    ;;
  esac
done
