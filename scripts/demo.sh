#!/usr/bin/env bash
# A demonstration: a broker, three consumers and published events. Installs what is missing on the
# machine, builds, publishes, and shows the results.
#
#   scripts/demo.sh        on a terminal it runs until Ctrl-C; without one, or with CI set, it ends
#                          by itself when everything is written. Exit code 0 only if all counts are right.
#
# Broker: RILLWAY__BROKER__URI if that is set; else one that answers on localhost:5552 (the stream is
# then `rillway-demo`, so that other streams are not touched); else a private one.
# DEMO_MESSAGES (100000) is the number of events to publish. The results stay in demo-data/, and a later
# run continues there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh
. scripts/lib/ports.sh
. scripts/lib/node.sh
. scripts/lib/demo.sh

MESSAGES=${DEMO_MESSAGES:-100000}
DATA=$PWD/demo-data
LOG=$DATA/rillway.log
CONSUMERS=(analytics monitoring archiver)
interactive=
if [[ -t 0 && -t 1 && ! ${CI:-} ]]; then interactive=yes; fi
target=${CARGO_TARGET_DIR:-target}
RILLWAY=$target/demo/rillway
export RILLWAY_CONFIG=config/rillway.toml
export RILLWAY_LOG=${RILLWAY_LOG:-info,rillway::consumer=debug}
STREAM=events

own_broker='' daemon='' feeding='' preparing='' failed='' told=0
leave() {
  local pid
  rm -f "$DATA/trickle"
  for pid in $feeding $daemon $preparing; do
    if kill -KILL "$pid" 2>/dev/null; then wait "$pid" 2>/dev/null || true; fi
  done
  if [[ $own_broker && -e $DATA/broker/node.env ]]; then scripts/broker.sh stop --dir "$DATA/broker" || true; fi
}
trap leave EXIT
trap 'told=$((told + 1))' INT TERM HUP

mkdir -p "$DATA"
exec {demo_lock}>"$DATA/lock"
flock -n "$demo_lock" || die "another demo runs in $DATA"

step 'Setting up what the build needs'
scripts/setup.sh rust-build

if [[ ${RILLWAY__BROKER__URI:-} ]]; then
  step 'Using the broker of RILLWAY__BROKER__URI'
  STREAM=rillway-demo
elif stream_port_answers 5552; then
  step 'Using the broker on localhost:5552, as guest (set RILLWAY__BROKER__URI for another one)'
  export RILLWAY__BROKER__URI='rabbitmq-stream://guest:guest@localhost:5552/%2f'
  STREAM=rillway-demo
else
  step 'No broker answers on localhost:5552: starting a private one while the build runs'
  own_broker=yes
  # The lock's descriptor must not leak into processes that keep running: they would hold the lock.
  start_broker >"$DATA/broker.env" 2>"$DATA/broker.log" {demo_lock}>&- &
  preparing=$!
fi
for index in "${!CONSUMERS[@]}"; do
  export "RILLWAY__CONSUMER__${index}__STREAM=$STREAM"
done

step 'Building rillway: not optimised, and only with the sinks that the demo shows (cargo build --release makes all of it)'
cargo build --locked --bin rillway --profile demo --no-default-features --features object
((told == 0)) || exit 130

step 'Setting up DuckDB, which will read what the archiver wrote'
READER=
if reader=$(scripts/setup.sh duckdb --where); then READER=$reader/bin/python; fi
((told == 0)) || exit 130

if [[ $own_broker ]]; then
  step 'Waiting for the broker'
  status=0
  wait "$preparing" || status=$?
  preparing=
  cat "$DATA/broker.log" >&2
  if [[ $status != 0 ]]; then
    own_broker=
    say 'There is no broker, and none could be started. Start one with the stream plugin, then:'
    say "  RILLWAY__BROKER__URI='rabbitmq-stream://USER:PASSWORD@HOST:5552/%2f' make demo"
    exit "$status"
  fi
  . "$DATA/broker.env"
  # shellcheck disable=SC2154 # in broker.env
  export RILLWAY__BROKER__URI="rabbitmq-stream://guest:guest@localhost:$stream_port/%2f"
  # shellcheck disable=SC2154
  note "RabbitMQ $version on localhost:$stream_port; management UI: http://localhost:$management_port (guest, guest)"
fi

[[ ! -e $DATA/publishing ]] ||
  note 'An earlier demo was cut off while it published: what it published is not known exactly.'
before=$(published)

step "Publishing $MESSAGES events of 200 bytes to stream \"$STREAM\" (rillway publish)"
publish --generate "$MESSAGES" --size 200
((told == 0)) || exit 130

port=$(free_port 9552)
export RILLWAY__ADMIN__LISTEN=127.0.0.1:$port
step "Running three consumers (rillway run -c $RILLWAY_CONFIG)"
rillway check | sed 's/^/  /'
touch "$LOG"
log_begin=$(stat -c %s "$LOG")
# A session of its own: Ctrl-C is for this script, which passes it on.
setsid "$RILLWAY" run </dev/null >/dev/null 2>>"$LOG" {demo_lock}>&- &
daemon=$!
await_daemon
note "status page: http://127.0.0.1:$port/   metrics: http://127.0.0.1:$port/metrics"

step 'Lag, once a second'
watch_lag until_landed
if ((told == 0)); then
  note 'Everything has landed.'
  step 'What landed where'
  show_monitoring
  check_monitoring $(($(published) - before))
  show_landed
fi

if [[ $interactive && $told == 0 ]]; then
  step 'A trickle of 20 events per second goes on until you press Ctrl-C'
  touch "$DATA/trickle"
  feed &
  feeding=$!
  watch_lag until_told
  # The input ends, and rillway publish waits for the last confirmations.
  rm -f "$DATA/trickle"
  wait_for "$feeding" || wrong 'rillway publish failed'
  feeding=
fi

step 'Stopping: SIGTERM, which drains and commits'
kill -TERM "$daemon"
status=0
wait_for "$daemon" || status=$?
daemon=
tail -c "+$((log_begin + 1))" "$LOG" | grep -a -A 100 ' draining; ' | sed 's/^/  /' || true
[[ $status == 0 ]] || fail "rillway run ended with exit code $status"

step 'Does it add up?'
verify "$before"

step "Done. What was made is in $DATA:"
note 'analytics.db   a SQLite database        archive/       Parquet files, partitioned by date and hour'
note 'state/         positions, as remembered   rillway.log    the log'
[[ ! $own_broker ]] || note 'broker/        the private broker, stopped now'
note 'make demo goes on there; to begin anew: rm -rf demo-data'
[[ ! $failed ]] || { say 'Something is wrong: see above.'; exit 1; }
