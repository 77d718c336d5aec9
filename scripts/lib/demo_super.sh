# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154 # demo-super.sh sets, and reads, what stands here
# The steps of scripts/demo-super.sh. Source after demo.sh.

# A Python with SQLite's own library, to ask the database with; nothing if there is none.
find_reader() {
  local reader
  READER=
  if python3 -c 'import sqlite3' 2>/dev/null; then
    READER=python3
  elif reader=$(scripts/setup.sh duckdb --where); then
    READER=$reader/bin/python
  fi
}

use_own_broker() {
  local status=0 said
  step 'Waiting for the broker'
  wait "$preparing" || status=$?
  preparing=
  cat "$DATA/broker.log" >&2
  if [[ $status != 0 ]]; then
    own_broker=
    say 'No RabbitMQ 4 could be started here, and this demo needs RabbitMQ 3.11 or later. Start one with'
    say 'the stream plugin, then:'
    say "  rabbitmq-streams add_super_stream $SUPER --partitions ${#PARTITIONS[@]}"
    say "  RILLWAY__BROKER__URI='rabbitmq-stream://USER:PASSWORD@HOST:5552/%2f' make demo-super"
    exit "$status"
  fi
  . "$DATA/broker.env"
  export RILLWAY__BROKER__URI="rabbitmq-stream://guest:guest@localhost:$stream_port/%2f"
  note "RabbitMQ $version on localhost:$stream_port; management UI: http://localhost:$management_port (guest, guest)"
  if ! said=$(scripts/broker.sh ctl --dir "$DATA/broker" -- rabbitmq-streams add_super_stream "$SUPER" \
    --partitions "${#PARTITIONS[@]}" 2>&1) && [[ $said != *exist* ]]; then
    fail "the super stream could not be created: $said"
  fi
}

# Says what is missing, where the broker is too old or has no such super stream.
check_super_stream() {
  local said
  step 'Asking the broker for the partitions (rillway check --connect)'
  if said=$(rillway check --connect 2>&1); then
    grep 'partition:' <<<"$said" || true
    return
  fi
  printf '%s\n' "$said" | sed 's/^/  /' >&2
  say "This demo needs RabbitMQ 3.11 or later, and there:"
  say "  rabbitmq-streams add_super_stream $SUPER --partitions ${#PARTITIONS[@]}"
  exit "$EXIT_UNAVAILABLE"
}

# publish_all N: that many events into each partition.
publish_all() {
  local STREAM
  for STREAM in "${PARTITIONS[@]}"; do publish --generate "$1" --size 200 --quiet; done
}

# The same in small portions, so that all partitions get some all the time.
PORTION=200
publish_in_turn() {
  local left=$1 portion
  trap - EXIT
  while ((left > 0)); do
    portion=$((left < PORTION ? left : PORTION))
    left=$((left - portion))
    publish_all "$portion"
  done
}

# start_daemon NTH: with a folder for its state, a port and a log of its own.
start_daemon() {
  local nth=$1 who=${WHO[$1]} port
  port=$(free_port $((9552 + nth)))
  ports[nth]=$port
  LOG=$DATA/$who.log
  RILLWAY__STATE_DIR=$DATA/state-$who RILLWAY__ADMIN__LISTEN=127.0.0.1:$port \
    setsid "$RILLWAY" run </dev/null >/dev/null 2>>"$LOG" {demo_lock}>&- &
  daemons[nth]=$!
  port=$port daemon=${daemons[nth]} await_daemon
  note "daemon $who: http://127.0.0.1:$port/"
}

# Fills state, durable and lag, by daemon and partition, as the daemons show them.
ask() {
  local nth object stream port
  state=() durable=() lag=()
  for nth in "${!daemons[@]}"; do
    [[ ${daemons[nth]} ]] || continue
    kill -0 "${daemons[nth]}" 2>/dev/null || fail "daemon ${WHO[nth]} has ended"
    port=${ports[nth]}
    while read -r object || [[ $object ]]; do
      stream=$(field "$object" stream)
      state[$nth:$stream]=$(field "$object" state)
      durable[$nth:$stream]=$(field "$object" durable_offset)
      lag[$nth:$stream]=$(field "$object" lag_messages)
      [[ ${state[$nth:$stream]} != halted ]] ||
        fail "daemon ${WHO[nth]} has halted on $stream (if the broker's data is gone: rm -rf demo-data/super)"
    done < <(get /api/v1/consumers | objects)
  done
}

# reader_of PARTITION: number of the daemon that reads it, if that is exactly one.
reader_of() {
  local nth found=''
  for nth in "${!daemons[@]}"; do
    [[ ${state[$nth:$1]:-} != running ]] || found+=$nth
  done
  [[ ${#found} != 1 ]] || echo "$found"
}

# Each partition is read by one daemon, and each daemon reads some.
is_spread() {
  local partition nth readers=''
  for partition in "${PARTITIONS[@]}"; do
    nth=$(reader_of "$partition")
    [[ $nth ]] || return 1
    readers+=$nth
  done
  for nth in "${!daemons[@]}"; do
    [[ ! ${daemons[nth]} || $readers == *$nth* ]] || return 1
  done
}

# More is written than when it was first asked.
first_sum=
has_moved() {
  local sum
  sum=$(sum_durable)
  : "${first_sum:=$sum}"
  ((sum > first_sum + 500))
}

# Everything that was published is written.
has_landed() {
  local STREAM nth
  is_spread || return 1
  for STREAM in "${PARTITIONS[@]}"; do
    nth=$(reader_of "$STREAM")
    [[ ${lag[$nth:$STREAM]} == 0 && ${durable[$nth:$STREAM]:-} ]] || return 1
    ((${durable[$nth:$STREAM]} + 1 >= $(published))) || return 1
  done
}

sum_durable() {
  local partition nth sum=0
  for partition in "${PARTITIONS[@]}"; do
    nth=$(reader_of "$partition")
    [[ ! $nth ]] || sum=$((sum + ${durable[$nth:$partition]:-0}))
  done
  echo "$sum"
}

# until_shown WHAT CONDITION: shows a line a second, with who reads each partition, until it holds.
until_shown() {
  local deadline=$((SECONDS + STUCK_AFTER)) began=$SECONDS partition nth line
  while :; do
    ask
    line=
    for partition in "${PARTITIONS[@]}"; do
      nth=$(reader_of "$partition")
      line+="$(printf '%s %-4s' "${partition##*-}:" "${nth:+${WHO[nth]}}")"
    done
    printf '  %3d s  %s offsets written: %d\n' $((SECONDS - began)) "$line" "$(sum_durable)"
    ! "$2" || break
    ((SECONDS < deadline)) || fail "not within $STUCK_AFTER s: $1"
    sleep 1
  done
  note "So $1."
}

# Counts the rows of each partition, and compares them with what was published.
verify_super() {
  local STREAM name count distinct total=0 sum=0
  declare -A counts=() distincts=()
  for STREAM in "${PARTITIONS[@]}"; do total=$((total + $(published))); done
  note "published: $total messages by all runs, all confirmed by the broker"
  [[ $READER ]] || { note 'not counted: there is no Python to ask with' && return; }
  while read -r name count distinct || [[ $name ]]; do
    counts[$name]=$count distincts[$name]=$distinct
  done < <("$READER" scripts/lib/demo_query.py count-orders "$DATA/orders.db")
  for STREAM in "${PARTITIONS[@]}"; do
    count=${counts[$STREAM]:-0}
    sum=$((sum + count))
    note "$(printf '%s  %7d published, %7d rows' "$STREAM" "$(published)" "$count")"
    [[ $count == "${distincts[$STREAM]:-0}" ]] || wrong "$STREAM: some offsets are there twice"
    check_count "$STREAM" "$count" "$(published)"
  done
  note "all of them: $sum rows"
}
