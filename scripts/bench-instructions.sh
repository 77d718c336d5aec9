#!/usr/bin/env bash
# Counts instructions per message, which can be measured even on a busy machine.
#
#   scripts/bench-instructions.sh [CASE ...]        lines of benches/envelope.rs, chunks, whole sinks
#
# Needs valgrind. Each case runs with less and with more work, and the difference counts, so start-up does
# not. The cost of making the messages, which is that of the sink `null`, is subtracted from each sink's.
# Cargo's own variables select another profile: CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=false
# scripts/bench-instructions.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

have valgrind || die 'valgrind is not installed (apt-get install valgrind)'
scripts/setup.sh rust-build
# Path of the benchmark of this name.
built() {
  cargo bench --no-run --bench "$1" --message-format json |
    sed -n "s/.*\"name\":\"$1\".*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -1
}
say 'building the release version (minutes the first time)'
envelope=$(built envelope) sinks=$(built sinks)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/rillway-instructions.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

instructions() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 >"$scratch/out" |
    sed -n 's/.*Collected : //p'
}
tell() { printf '%-28s%10d\n' "$1" "$2"; }
lines() {
  local few more
  few=$(instructions "$envelope" --count 1 "$1")
  more=$(instructions "$envelope" --count 3 "$1")
  tell "$1" $(((more - few) / (2 * $(cat "$scratch/out"))))
}
# Instructions per message of one sink, including the cost of making the message. The second argument is a key
# of the consumer, such as a program.
fed() {
  local few more messages=20000 home=$scratch/home
  local consumer="[[consumer]]\\nname = \"bench\"\\nstream = \"events\"\\n${2:-}"
  rm -rf "$home"
  mkdir "$home"
  printf "[broker]\nuri = \"rabbitmq-stream://localhost\"\n$consumer\nsink = %s\n" "$1" >"$home/rillway.toml"
  few=$(instructions "$sinks" feed "$home/rillway.toml" $messages)
  rm -rf "$home"/out*
  more=$(instructions "$sinks" feed "$home/rillway.toml" $((2 * messages)))
  echo $(((more - few) / messages))
}
making=''
sink() {
  [[ $making ]] || making=$(fed '{ type = "null" }')
  tell "$1" $(($(fed "$2" "${3:-}") - making))
}
# Those of the sinks benchmark.
columns='seq = { from = "/seq", type = "integer" }, id = { from = "/user/id" }, amount = { from = "/amount", type = "numeric" }, paid = { from = "/paid", type = "boolean" }, note = { from = "/note" }'
where="where = '.paid != null'"
# The same for the interpreter: a variable makes it a program that is not simple.
interpreted="where = '.paid | . as \$paid | \$paid != null'"
cases=("$@")
((${#cases[@]})) || cases=('text 12 B' 'text 256 B' 'json 256 B' 'json 64 KiB' 'binary 12 B'
  'properties and text 12 B' chunk-to-ndjson chunk-to-columns file sqlite sqlite-columns parquet
  null-where file-where file-where-interpreted sqlite-columns-where file-map file-map-interpreted)
printf '%-28s%10s\n' '' 'instructions per message'
for case in "${cases[@]}"; do
  case $case in
    file) sink file '{ type = "file", dir = "out" }' ;;
    sqlite) sink sqlite '{ type = "sqlite", path = "out.db" }' ;;
    sqlite-columns) sink sqlite-columns "{ type = \"sqlite\", path = \"out.db\", columns = { $columns } }" ;;
    null-where) sink null-where '{ type = "null" }' "$where" ;;
    file-where) sink file-where '{ type = "file", dir = "out" }' "$where" ;;
    file-where-interpreted)
      sink file-where-interpreted '{ type = "file", dir = "out" }' "$interpreted"
      ;;
    sqlite-columns-where)
      sink sqlite-columns-where "{ type = \"sqlite\", path = \"out.db\", columns = { $columns } }" "$where"
      ;;
    file-map) sink file-map '{ type = "file", dir = "out" }' "map = '{seq, id: .user.id, amount}'" ;;
    file-map-interpreted)
      sink file-map-interpreted '{ type = "file", dir = "out" }' "map = '{seq, id: (.user | . as \$user | \$user.id), amount}'"
      ;;
    parquet) sink parquet '{ type = "object", url = "out" }' ;;
    *) lines "$case" ;;
  esac
done
