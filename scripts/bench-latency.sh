#!/usr/bin/env bash
# Measures the time from publish to durable, for each sink and rate, and what it costs.
#
#   scripts/bench-latency.sh [RATE[,RATE...] [SECONDS [SINK ...]]]
#
# Defaults: 10, 1,000 and 100,000 messages per second, 10 s each, every sink. Sinks: null, stdout, file,
# sqlite, stream, postgres. The broker is a private one, or the one whose stream port is in
# RILLWAY_BENCH_PORT (user guest). The daemon is RILLWAY_BENCH_PROGRAM; without it, the release version
# is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh
. scripts/lib/postgres.sh

rates=${1:-10,1000,100000} seconds=${2:-10}
shift $(($# < 2 ? $# : 2))
sinks=("$@")
[[ ${#sinks[@]} -gt 0 ]] || sinks=(null stdout file sqlite stream postgres)
target=${CARGO_TARGET_DIR:-target}
program=${RILLWAY_BENCH_PROGRAM:-$target/release/rillway}
mkdir -p "$target"
broker=''
leave() {
  stop_postgres
  if [[ $broker ]]; then
    scripts/broker.sh stop --dir "$broker" --now || true
    rm -rf "$broker"
  fi
}
trap leave EXIT
trap 'exit 130' INT TERM

scripts/setup.sh rstream
python=$(scripts/setup.sh rstream --where)/bin/python
if [[ " ${sinks[*]} " == *' postgres '* ]] && ! start_postgres; then
  say 'no PostgreSQL here: its sink is skipped'
  kept=()
  for sink in "${sinks[@]}"; do [[ $sink == postgres ]] || kept+=("$sink"); done
  [[ ${#kept[@]} -gt 0 ]] || exit "$EXIT_UNAVAILABLE"
  sinks=("${kept[@]}")
fi
if [[ ! ${RILLWAY_BENCH_PROGRAM:-} ]]; then
  scripts/setup.sh rust-build
  say 'building the release version (minutes the first time)'
  cargo build --release --bin rillway
fi
port=${RILLWAY_BENCH_PORT:-}
if [[ ! $port ]]; then
  broker=$(cd "$target" && pwd)/bench-latency-broker
  rm -rf "$broker"
  port=$(scripts/broker.sh start --dir "$broker" --version 4.3 --owner $$ | sed -n 's/^stream_port=//p')
fi
"$python" scripts/lib/latency.py "$(realpath "$program")" "$port" "$seconds" "$rates" "${sinks[@]}"
