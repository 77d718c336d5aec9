# shellcheck shell=bash
# A private PostgreSQL server for benchmarks, with its default settings: every commit is synced.
# Source it after common.sh.

pg_programs='' pg_dir='' pg_as=()

# start_postgres: sets RILLWAY_BENCH_POSTGRES to the server's URL. Fails if there is no PostgreSQL here.
# The caller calls stop_postgres when it exits.
start_postgres() {
  local user port
  pg_programs=$(scripts/setup.sh postgres --where) || return
  have psql || PATH=$PATH:$pg_programs
  pg_dir=$(mktemp -d "${TMPDIR:-/tmp}/rillway-bench-postgres.XXXXXX")
  if [[ $(id -u) == 0 ]]; then
    # The server refuses to run as root.
    user=$(id -un postgres 2>/dev/null || echo nobody)
    chown "$user" "$pg_dir"
    pg_as=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
  fi
  port=$((20000 + RANDOM % 10000))
  (
    cd "$pg_dir"
    "${pg_as[@]}" "$pg_programs/initdb" -U rillway -E UTF8 --locale=C -A trust -D data >initdb.log
    "${pg_as[@]}" "$pg_programs/pg_ctl" -D data -l data/log -w -s -o "-p $port -k $pg_dir -c listen_addresses=127.0.0.1" start
  ) || return
  export RILLWAY_BENCH_POSTGRES=postgres://rillway@127.0.0.1:$port/postgres
}

# stop_postgres: stops the server, if there is one, and removes its data.
stop_postgres() {
  [[ $pg_dir ]] || return 0
  "${pg_as[@]}" "$pg_programs/pg_ctl" -D "$pg_dir/data" -m immediate -s stop || true
  rm -rf "$pg_dir"
  pg_dir=''
}
