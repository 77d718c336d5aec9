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

# A server of its own, as it comes: what is committed is synced.
programs='' postgres='' as=()
start_postgres() {
  local user port
  programs=$(scripts/setup.sh postgres --where) || return
  have psql || PATH=$PATH:$programs
  postgres=$(mktemp -d "${TMPDIR:-/tmp}/rillway-bench-postgres.XXXXXX")
  if [[ $(id -u) == 0 ]]; then
    # It does not run as root.
    user=$(id -un postgres 2>/dev/null || echo nobody)
    chown "$user" "$postgres"
    as=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
  fi
  port=$((20000 + RANDOM % 10000))
  (
    cd "$postgres"
    "${as[@]}" "$programs/initdb" -U rillway -E UTF8 --locale=C -A trust -D data >initdb.log
    "${as[@]}" "$programs/pg_ctl" -D data -l data/log -w -s -o "-p $port -k $postgres -c listen_addresses=127.0.0.1" start
  )
  stop_postgres() {
    "${as[@]}" "$programs/pg_ctl" -D "$postgres/data" -m immediate -s stop || true
    rm -rf "$postgres"
  }
  trap stop_postgres EXIT
  export RILLWAY_BENCH_POSTGRES=postgres://rillway@127.0.0.1:$port/postgres
}
trap 'exit 130' INT TERM
start_postgres || say 'no PostgreSQL: its sink cannot be measured'
say 'building, optimised (minutes the first time)'
cargo bench --no-run --bench sinks
cargo bench --quiet --bench sinks -- "$@"
