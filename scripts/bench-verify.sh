#!/usr/bin/env bash
# Measures `rillway verify` beside reading alone: the same stream, by `rillway replay` into the sink `null`.
#
#   scripts/bench-verify.sh [MESSAGES [ROUNDS [SINK ...]]]
#
# Defaults: a million messages of about 200 bytes, 5 rounds, the sinks file, zstd, sqlite, sqlite-upsert,
# parquet, stream and postgres. In each round everything runs once, in turns. With at most 100,000 messages, and
# where valgrind is installed, instructions per message are counted too, which do not depend on what else runs.
# The broker is a private one, or the one whose stream port is in RILLWAY_BENCH_PORT (user guest). The program is
# RILLWAY_BENCH_PROGRAM; without it, the release version is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh
. scripts/lib/postgres.sh

messages=${1:-1000000} rounds=${2:-5}
shift $(($# < 2 ? $# : 2))
sinks=("$@")
[[ ${#sinks[@]} -gt 0 ]] || sinks=(file zstd sqlite sqlite-upsert parquet stream postgres)
program=${RILLWAY_BENCH_PROGRAM:-${CARGO_TARGET_DIR:-target}/release/rillway}
home=$(mktemp -d "${TMPDIR:-/tmp}/rillway-verify.XXXXXX")
broker='' daemon=''
leave() {
  [[ ! $daemon ]] || kill "$daemon" 2>/dev/null || true
  stop_postgres
  [[ ! $broker ]] || scripts/broker.sh stop --dir "$broker" --now || true
  rm -rf "$home"
}
trap leave EXIT
trap 'exit 130' INT TERM

if [[ " ${sinks[*]} " == *' postgres '* ]] && ! start_postgres; then
  say 'no PostgreSQL here: its sink is skipped'
  read -ra sinks <<<"$(printf '%s ' "${sinks[@]}" | sed 's/postgres//')"
fi
if [[ ! ${RILLWAY_BENCH_PROGRAM:-} ]]; then
  scripts/setup.sh rust-build
  say 'building the release version (minutes the first time)'
  cargo build --release --bin rillway
fi
program=$(realpath "$program")
port=${RILLWAY_BENCH_PORT:-}
if [[ ! $port ]]; then
  broker=$home/broker
  port=$(scripts/broker.sh start --dir "$broker" --version 4.3 --owner $$ | sed -n 's/^stream_port=//p')
fi

stream=bench-verify-$$
columns='columns = { i = { from = "/i", type = "integer" }, name = "/name" }'
keyed='mode = "upsert", key = ["k"], columns = { k = { from = "/k", type = "integer" }, i = { from = "/i", type = "integer" } }'
sink_of() {
  case $1 in
  file) echo 'type = "file", dir = "file"' ;;
  zstd) echo 'type = "file", dir = "zstd", compression = "zstd"' ;;
  sqlite) echo "type = \"sqlite\", path = \"data.db\", table = \"rows\", $columns" ;;
  sqlite-upsert) echo "type = \"sqlite\", path = \"keyed.db\", table = \"rows\", $keyed" ;;
  parquet) echo 'type = "object", url = "file:archive"' ;;
  stream) echo "type = \"stream\", stream = \"$stream-copy\", create = true, annotate = true" ;;
  postgres) echo "type = \"postgres\", url = \"$RILLWAY_BENCH_POSTGRES\", table = \"verified\", $columns" ;;
  *) die "no sink $1 here" ;;
  esac
}
{
  printf 'state_dir = "state"\n[broker]\nuri = "rabbitmq-stream://guest:guest@localhost:%s"\n' "$port"
  printf '[admin]\nlisten = "127.0.0.1:0"\n'
  for sink in "${sinks[@]}"; do
    printf '[[consumer]]\nname = "%s"\nstream = "%s"\nstart = "first"\nsink = { %s }\n' "$sink" "$stream" "$(sink_of "$sink")"
  done
} >"$home/rillway.toml"
export RILLWAY_CONFIG=$home/rillway.toml
cd "$home"

say "publishing $messages messages"
seq "$messages" | awk '{ printf "{\"i\":%d,\"k\":%d,\"name\":\"n%d\",\"note\":\"%0120d\"}\n", $1, ($1 * 7919) % 10007, $1, $1 }' |
  "$program" publish "$stream" - --create >/dev/null 2>&1
say 'writing them to every sink'
"$program" run >daemon.log 2>&1 &
daemon=$!
for sink in "${sinks[@]}"; do
  until [[ $("$program" offsets show "$sink" --json | sed -n 's/.*"lag_messages": \([0-9]*\).*/\1/p') == 0 ]]; do
    kill -0 "$daemon" || { cat daemon.log >&2; die 'the daemon has ended'; }
    sleep 1
  done
done
kill "$daemon"
wait "$daemon" || true
daemon=''

first=${sinks[0]}
run() {
  case $1 in
  reading) "$program" replay "$first" --from first --to "${2:-end}" --sink null --quiet ;;
  *) "$program" verify "$1" --from first ${2:+--to "$2"} --quiet ;;
  esac >out.txt 2>&1 || { cat out.txt >&2; die "$1 failed"; }
}
TIMEFORMAT='%R %U %S'
for ((round = 0; round < rounds; round++)); do
  for what in reading "${sinks[@]}"; do
    { time run "$what"; } 2>time.txt || { cat time.txt >&2; exit 1; }
    tail -1 time.txt | awk '{ print $1, $2 + $3 }' >>"$what.times"
  done
done
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
printf '%-16s %14s %16s %12s\n' "" 'messages/s' 'CPU µs/message' '× reading'
for what in reading "${sinks[@]}"; do
  wall=$(cut -d' ' -f1 "$what.times" | median) cpu=$(cut -d' ' -f2 "$what.times" | median)
  [[ $what != reading ]] || alone=$cpu
  awk -v what="$what" -v n="$messages" -v wall="$wall" -v cpu="$cpu" -v alone="$alone" \
    'BEGIN { printf "%-16s %14d %16.2f %12.1f\n", what, n / wall, cpu * 1e6 / n, cpu / alone }'
done

# Of a run that reads nearly nothing, which is start-up, and of a whole one.
((messages <= 100000)) || exit 0
have valgrind || { say 'no valgrind here: no instructions are counted'; exit 0; }
instructions() {
  case $1 in
  reading) valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" replay "$first" --from "$2" --to end --sink null --quiet ;;
  *) valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" verify "$1" --from "$2" --quiet ;;
  esac 2>&1 | sed -n 's/.*Collected : //p'
}
printf '\n%-16s %22s %12s\n' "" 'instructions/message' '× reading'
for what in reading "${sinks[@]}"; do
  count=$((($(instructions "$what" first) - $(instructions "$what" last)) / messages))
  [[ $what != reading ]] || alone=$count
  awk -v what="$what" -v count="$count" -v alone="$alone" \
    'BEGIN { printf "%-16s %22d %12.1f\n", what, count, count / alone }'
done
