#!/usr/bin/env bash
# Measures each sink beside the bulk loader of its destination, on the same rows.
# Arguments go to the benchmark: scripts/bench-sinks.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh
. scripts/lib/postgres.sh

scripts/setup.sh rust-build
# A destination that is not available here is skipped, by name.
scripts/setup.sh sqlite3 || say 'no sqlite3 here: its loader is skipped'
if scripts/setup.sh pyarrow; then
  RILLWAY_BENCH_PYARROW=$(scripts/setup.sh pyarrow --where)
  export RILLWAY_BENCH_PYARROW
else
  say 'no pyarrow here: its writer is skipped'
fi

trap stop_postgres EXIT
trap 'exit 130' INT TERM
start_postgres || say 'no PostgreSQL here: its sink is skipped'
say 'building the release version (minutes the first time)'
cargo bench --no-run --bench sinks
cargo bench --quiet --bench sinks -- "$@"
