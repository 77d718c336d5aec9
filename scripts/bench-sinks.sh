#!/usr/bin/env bash
# Each sink beside the bulk loader of its own medium, on the same rows.
# Arguments go to the benchmark: scripts/bench-sinks.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

scripts/setup.sh rust-build
# A medium that cannot be had is passed over by name.
scripts/setup.sh sqlite3 || say 'no sqlite3: its loader cannot be run'
if scripts/setup.sh pyarrow; then
  RILLWAY_BENCH_PYARROW=$(scripts/setup.sh pyarrow --where)
  export RILLWAY_BENCH_PYARROW
else
  say 'no pyarrow: its writer cannot be run'
fi
say 'building, optimised (minutes the first time)'
cargo bench --no-run --bench sinks
cargo bench --quiet --bench sinks -- "$@"
