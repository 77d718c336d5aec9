#!/usr/bin/env bash
# How long from publish to durable, sink by sink, and what that costs.
#
#   scripts/bench-latency.sh [RATE [SECONDS [SINK ...]]]     1000 messages a second for 10 s, every sink
#
# On a broker of its own, or on the one whose stream port is in RILLWAY_BENCH_PORT (as guest). The
# program is that of RILLWAY_BENCH_PROGRAM, else it is built here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

rate=${1:-1000} seconds=${2:-10}
shift $(($# < 2 ? $# : 2))
target=${CARGO_TARGET_DIR:-target}
program=${RILLWAY_BENCH_PROGRAM:-$target/release/rillway}
mkdir -p "$target"
broker=''
leave() {
  if [[ $broker ]]; then
    scripts/broker.sh stop --dir "$broker" --now || true
    rm -rf "$broker"
  fi
}
trap leave EXIT
trap 'exit 130' INT TERM

scripts/setup.sh rstream
python=$(scripts/setup.sh rstream --where)/bin/python
if [[ ! ${RILLWAY_BENCH_PROGRAM:-} ]]; then
  scripts/setup.sh rust-build
  say 'building, optimised (minutes the first time)'
  cargo build --release --bin rillway
fi
port=${RILLWAY_BENCH_PORT:-}
if [[ ! $port ]]; then
  broker=$(cd "$target" && pwd)/bench-latency-broker
  rm -rf "$broker"
  port=$(scripts/broker.sh start --dir "$broker" --version 4.3 --owner $$ | sed -n 's/^stream_port=//p')
fi
"$python" scripts/lib/latency.py "$(realpath "$program")" "$port" "$seconds" "$rate" "$@"
