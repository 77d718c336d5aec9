#!/usr/bin/env bash
# Measures the cost of many idle consumers: connections, CPU time, memory.
#
#   scripts/bench-idle.sh [CONSUMERS [STREAMS [SECONDS]]]     1000 consumers on 4 streams for 30 s
#
# The broker is a private one, or the one whose stream port is in RILLWAY_BENCH_PORT (user guest). The
# daemon is RILLWAY_BENCH_PROGRAM; without it, the release version is built. Each consumer needs two open
# files: its connection and the lock of its reference.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

consumers=${1:-1000} streams=${2:-4} seconds=${3:-30}
target=${CARGO_TARGET_DIR:-target}
program=${RILLWAY_BENCH_PROGRAM:-$target/release/rillway}
mkdir -p "$target"
home=$(mktemp -d) broker='' daemon=''
leave() {
  if [[ $daemon ]] && kill -KILL "$daemon" 2>/dev/null; then wait "$daemon" 2>/dev/null || true; fi
  if [[ $broker ]]; then scripts/broker.sh stop --dir "$broker" --now || true; fi
  rm -rf "$home" ${broker:+"$broker"}
}
trap leave EXIT
trap 'exit 130' INT TERM

ulimit -n $((consumers * 4 + 500)) 2>/dev/null || die "the limit of open files is too low: $(ulimit -n)"
if [[ ! ${RILLWAY_BENCH_PROGRAM:-} ]]; then
  scripts/setup.sh rust-build
  say 'building the release version (minutes the first time)'
  cargo build --release --bin rillway
fi
port=${RILLWAY_BENCH_PORT:-}
if [[ ! $port ]]; then
  broker=$(cd "$target" && pwd)/bench-idle-broker
  rm -rf "$broker"
  port=$(scripts/broker.sh start --dir "$broker" --version 4.3 --owner $$ | sed -n 's/^stream_port=//p')
fi

run=$$
{
  printf 'state_dir = "%s/state"\n[broker]\nuri = "rabbitmq-stream://guest:guest@localhost:%s/%%2f"\n' "$home" "$port"
  printf '[admin]\nlisten = "127.0.0.1:0"\n'
  for ((i = 0; i < consumers; i++)); do
    printf '[[consumer]]\nname = "idle-%s"\nstream = "idle-%s-%s"\nreference = "idle-%s-%s"\nsink = { type = "null" }\n' \
      "$i" "$run" $((i % streams)) "$run" "$i"
  done
} >"$home/rillway.toml"
for ((i = 0; i < streams; i++)); do
  printf 'one\n' | "$program" publish -c "$home/rillway.toml" --create "idle-$run-$i" >/dev/null
done

"$program" run -c "$home/rillway.toml" >/dev/null 2>"$home/log" &
daemon=$!
subscribed() { grep -c subscribed "$home/log" || true; }
for ((waited = 0; $(subscribed) < consumers; waited++)); do
  kill -0 "$daemon" 2>/dev/null || die "the daemon ended: $(tail -n 3 "$home/log")"
  ((waited < 120)) || die "$(subscribed) of $consumers are subscribed after 120 s: $(tail -n 3 "$home/log")"
  sleep 1
done
# By then the offsets of the messages read at the start are stored.
sleep 10
ticks() { awk '{ print $14 + $15 }' "/proc/$daemon/stat"; }
before=$(ticks)
sleep "$seconds"
spent=$(($(ticks) - before))
sockets=$(find "/proc/$daemon/fd" -lname 'socket:*' | wc -l)
awk -v n="$consumers" -v s="$streams" -v c="$sockets" -v t="$spent" -v hz="$(getconf CLK_TCK)" -v d="$seconds" \
  -v rss="$(awk '/^VmRSS/ { print int($2 / 1024) }' "/proc/$daemon/status")" \
  'BEGIN { printf "%d consumers of %d streams: %d sockets, %.2f %% of a core, %d MiB\n", n, s, c, 100 * t / hz / d, rss }'
