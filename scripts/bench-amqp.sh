#!/usr/bin/env bash
# Measures Rillway over AMQP 0.9.1 beside plain consumers on lapin (Rust) and pika (Python), on a private
# broker.
#
#   scripts/bench-amqp.sh [ROUNDS [SECONDS [SIZE[xMESSAGES] ...]]]
#
# Defaults: 5 rounds, at most 12 s for each run, 400,000 messages of 12 and of 256 bytes. The broker is a
# private one, or the one whose ports are in RILLWAY_BENCH_AMQP_PORT and RILLWAY_BENCH_PORT (user guest).
# The daemon is RILLWAY_BENCH_PROGRAM; without it, the release version is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

rounds=${1:-5} seconds=${2:-12}
shift $(($# < 2 ? $# : 2))
cases=("$@")
[[ ${#cases[@]} -gt 0 ]] || cases=(12 256)
target=${CARGO_TARGET_DIR:-target}
program=${RILLWAY_BENCH_PROGRAM:-$target/release/rillway}
mkdir -p "$target"
target=$(cd "$target" && pwd)
broker=''
leave() {
  if [[ $broker ]]; then
    scripts/broker.sh stop --dir "$broker" --now || true
    rm -rf "$broker"
  fi
}
trap leave EXIT
trap 'exit 130' INT TERM

scripts/setup.sh rust-build
scripts/setup.sh pika
python=$(scripts/setup.sh pika --where)/bin/python
if [[ ! ${RILLWAY_BENCH_PROGRAM:-} ]]; then
  say 'building the release version (minutes the first time)'
  cargo build --release --bin rillway
fi
say 'building a consumer on lapin'
cargo build --quiet --release --manifest-path benches/lapin/Cargo.toml --target-dir "$target/lapin"
stream_port=${RILLWAY_BENCH_PORT:-} amqp_port=${RILLWAY_BENCH_AMQP_PORT:-}
if [[ ! $stream_port || ! $amqp_port ]]; then
  broker=$target/bench-amqp-broker
  rm -rf "$broker"
  started=$(scripts/broker.sh start --dir "$broker" --version 4.3 --owner $$)
  stream_port=$(sed -n 's/^stream_port=//p' <<<"$started")
  amqp_port=$(sed -n 's/^amqp_port=//p' <<<"$started")
fi
"$python" scripts/lib/bench_amqp.py "$(realpath "$program")" "$target/lapin/release/rillway-bench-lapin" \
  "$amqp_port" "$stream_port" "$rounds" "$seconds" "${cases[@]}"
