#!/usr/bin/env bash
# A super stream of six partitions, read by two daemons that share them. One is killed while messages are
# published; the other one takes over. In the end the counts have to add up. Installs what is missing on
# the machine, builds, and ends by itself. Exit code 0 only if all counts are right.
#
# Broker: a private one; or RILLWAY__BROKER__URI, if that is set. It has to be RabbitMQ 3.11 or later, and
# there the super stream has to exist:
#   rabbitmq-streams add_super_stream rillway-demo-super --partitions 6
# DEMO_MESSAGES (60000) is the number of events to publish. The results stay in demo-data/super/, and a
# later run continues there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh
. scripts/lib/ports.sh
. scripts/lib/node.sh
. scripts/lib/demo.sh
. scripts/lib/demo_super.sh

MESSAGES=${DEMO_MESSAGES:-60000}
DATA=$PWD/demo-data/super
LOG=$DATA/one.log
SUPER=rillway-demo-super
PARTITIONS=()
for nth in 0 1 2 3 4 5; do PARTITIONS+=("$SUPER-$nth"); done
WHO=(one two)
DEMO_BROKERS='4.3 4.0'
RILLWAY=${CARGO_TARGET_DIR:-target}/demo/rillway
export RILLWAY_CONFIG=config/super.toml
export RILLWAY_LOG=${RILLWAY_LOG:-info}
export RILLWAY__CONSUMER__0__SUPER_STREAM=$SUPER

own_broker='' publishing='' preparing='' failed='' told=0
daemons=('' '') ports=('' '')
declare -A state=() durable=() lag=()
leave() {
  local pid
  for pid in $publishing "${daemons[@]}" $preparing; do
    if [[ $pid ]] && kill -KILL "$pid" 2>/dev/null; then wait "$pid" 2>/dev/null || true; fi
  done
  if [[ $own_broker && -e $DATA/broker/node.env ]]; then scripts/broker.sh stop --dir "$DATA/broker" || true; fi
}
trap leave EXIT
trap 'exit 130' INT TERM HUP

mkdir -p "$DATA"
exec {demo_lock}>"$DATA/lock"
flock -n "$demo_lock" || die "another demo runs in $DATA"

step 'Setting up what the build needs'
scripts/setup.sh rust-build

if [[ ${RILLWAY__BROKER__URI:-} ]]; then
  step 'Using the broker of RILLWAY__BROKER__URI'
else
  step 'Starting a private broker while the build runs (RabbitMQ 4: one active consumer needs 3.11 or later)'
  own_broker=yes
  # Not held by what stays running: it would keep the lock.
  start_broker >"$DATA/broker.env" 2>"$DATA/broker.log" {demo_lock}>&- &
  preparing=$!
fi

step 'Building rillway: not optimised, and only with the sinks that the demos show'
cargo build --locked --bin rillway --profile demo --no-default-features --features object
find_reader

[[ ! $own_broker ]] || use_own_broker
check_super_stream

[[ ! -e $DATA/publishing ]] ||
  note 'An earlier demo was cut off while it published: what it published is not known exactly.'

step "Publishing $((MESSAGES / 2)) events into the six partitions of \"$SUPER\" (rillway publish)"
publish_all $((MESSAGES / 12)) | sed 's/^/  /'

step "Running two daemons on it (rillway run -c $RILLWAY_CONFIG, single_active = true)"
rillway check | sed 's/^/  /'
start_daemon 0
until_shown 'daemon one reads all of them' is_spread
start_daemon 1
note 'Daemon two has come: RabbitMQ gives it its share. What was written is not written again.'
until_shown 'each daemon reads its share' is_spread

step 'Publishing the other half meanwhile, and killing daemon one (kill -9)'
(publish_in_turn $((MESSAGES / 12)) >/dev/null) &
publishing=$!
until_shown 'the new messages arrive' has_moved
kill -KILL "${daemons[0]}"
wait "${daemons[0]}" 2>/dev/null || true
daemons[0]=''
note 'Daemon one is gone: daemon two takes over, right behind the last row of each partition.'
until_shown 'daemon two reads all of them' is_spread
wait_for "$publishing" || wrong 'rillway publish failed'
publishing=
until_shown 'everything has landed' has_landed

step 'Stopping daemon two: SIGTERM, which drains and stores the offsets'
kill -TERM "${daemons[1]}"
status=0
wait_for "${daemons[1]}" || status=$?
daemons[1]=''
LOG=$DATA/two.log
[[ $status == 0 ]] || fail "rillway run ended with exit code $status"

step 'Does it add up?'
verify_super

step "Done. What was made is in $DATA:"
note 'orders.db      a SQLite database with all partitions     one.log, two.log   the logs'
[[ ! $own_broker ]] || note 'broker/        the private broker, stopped now'
note 'make demo-super goes on there; to begin anew: rm -rf demo-data/super'
[[ ! $failed ]] || { say 'Something is wrong: see above.'; exit 1; }
