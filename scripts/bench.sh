#!/usr/bin/env bash
# Measures throughput beside a plain socket reader and the official client, on a private broker.
# Arguments go to the benchmark: scripts/bench.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
broker=$(cd "$target" && pwd)/bench-broker

scripts/setup.sh rust-build
say 'building the release version (minutes the first time)'
cargo bench --no-run --bench throughput

rm -rf "$broker"
trap 'scripts/broker.sh stop --dir "$broker" --now || true; rm -rf "$broker"' EXIT
trap 'exit 130' INT TERM
RILLWAY_BENCH_PORT=$(scripts/broker.sh start --dir "$broker" --version 4.3 --owner $$ | sed -n 's/^stream_port=//p')
export RILLWAY_BENCH_PORT
cargo bench --quiet --bench throughput -- "$@"
