# shellcheck shell=bash
# shellcheck disable=SC2034,SC2153,SC2154 # demo.sh sets, and reads, what stands here
# What scripts/demo.sh does, step by step; scripts/demo-super.sh uses some of it. Source after common.sh and
# ports.sh; demo.sh sets DATA, RILLWAY, STREAM, READER, LOG, CONSUMERS, port, daemon, told and interactive.
#
# Only bash, coreutils, grep and sed: a fresh machine has no more; and a Python of the project's own, for
# the readers of what landed.

# Seconds without progress after which something is stuck.
STUCK_AFTER=60

step() { printf '\n== %s\n' "$*"; }
note() { printf '  %s\n' "$*"; }
wrong() { printf '  WRONG: %s\n' "$*"; failed=yes; }
fail() {
  say "$*"
  [[ ! -e $LOG ]] || { say "the end of $LOG:"; tail -n 15 "$LOG" >&2; }
  exit 1
}

# A signal interrupts `wait`, so wait again until the process has ended.
wait_for() {
  local status seen=$told
  while :; do
    status=0
    wait "$1" || status=$?
    kill -0 "$1" 2>/dev/null || return "$status"
    # A second Ctrl-C: do not wait any longer.
    if ((told > seen)); then
      seen=$told
      kill -TERM "$1" 2>/dev/null || true
    fi
  done
}

free_port() {
  local candidate=$1
  while port_answers "$candidate"; do candidate=$((candidate + 1)); done
  echo "$candidate"
}

# The broker of an earlier demo, if there was one; otherwise the newest one that is available here, of
# DEMO_BROKERS if that is set.
start_broker() {
  local version status=$EXIT_UNAVAILABLE options=(start --dir "$DATA/broker" --owner $$)
  if [[ -e $DATA/broker/node.env ]]; then
    scripts/broker.sh "${options[@]}"
    return
  fi
  for version in ${DEMO_BROKERS:-4.3 4.0 3.10}; do
    status=0
    scripts/broker.sh "${options[@]}" --version "$version" --plugins management || status=$?
    [[ $status == "$EXIT_UNAVAILABLE" ]] || return "$status"
  done
  return "$status"
}

rillway() { "$RILLWAY" "$@"; }

# publish ARGS…: counts what was confirmed. While the file `publishing` exists, the count is not complete.
publish() {
  local report=$DATA/published-$STREAM
  touch "$DATA/publishing"
  # A session of its own, so that Ctrl-C does not cut it off in the middle.
  setsid -w "$RILLWAY" publish "$STREAM" --create --json "$@" >>"$report"
  tail -n 1 "$report" | sed 's/^/  /'
  rm -f "$DATA/publishing"
}

# Number of messages that all demos have published to the stream.
published() {
  local sum=0 count
  while read -r count; do sum=$((sum + count)); done < <(
    sed -n 's/.*"confirmed":\([0-9]*\).*/\1/p' "$DATA/published-$STREAM" 2>/dev/null
  )
  echo "$sum"
}

# True if that number is exact: nothing was sent twice, and no demo was interrupted.
published_is_exact() {
  [[ ! -e $DATA/publishing ]] && ! grep -q '"sent_again":[1-9]' "$DATA/published-$STREAM"
}

# 20 events per second, as long as the file `trickle` exists; then the end of the input makes `rillway
# publish` end gracefully. It also ends if this script is killed.
feed() {
  trap - EXIT
  trap '' INT
  local number=0
  while [[ -e $DATA/trickle && -e /proc/$$ ]]; do
    printf '{"tick":%d,"event":"heartbeat","ts":%s}\n' "$number" "$(date +%s%3N)"
    number=$((number + 1))
    sleep 0.05
  done | publish --ndjson --quiet >/dev/null
}

# get PATH: from the admin server, without curl.
get() {
  (
    exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3
    sed '1,/^\r$/d' <&3
  ) 2>/dev/null
}

# One line per consumer from JSON: the objects that contain a name.
objects() { tr -d '\n' | sed 's/{"name":/\n&/g' | sed -n '/^{"name":/p'; }

# field OBJECT KEY: its value, or nothing.
field() {
  local value
  value=$(grep -o "\"$2\":[^,}]*" <<<"$1" | head -n 1) || true
  value=${value#*:}
  value=${value//\"/}
  [[ $value == null ]] || echo "$value"
}

# show KEY: the value in the current object, as text for the terminal.
show() {
  local value
  value=$(field "$object" "$1")
  echo "${value:--}"
}

await_daemon() {
  local deadline=$((SECONDS + STUCK_AFTER))
  until get /livez | grep -q '^ok'; do
    kill -0 "$daemon" 2>/dev/null || fail 'rillway run ended while starting'
    ((SECONDS < deadline)) || fail "rillway run does not answer on port $port"
    sleep 0.1
  done
}

# watch_lag CONDITION: shows a line per consumer and second until the condition holds.
watch_lag() {
  local consumers object last='' now moved=$SECONDS began=$SECONDS
  while :; do
    kill -0 "$daemon" 2>/dev/null || fail 'rillway run has ended'
    mapfile -t consumers < <(get /api/v1/consumers | objects)
    now=
    for object in "${consumers[@]}"; do
      printf '  %3d s  %-10s %-10s lag %7s messages %6.6s s   durable %8s  stored %8s\n' \
        $((SECONDS - began)) "$(show name)" "$(show state)" "$(show lag_messages)" "$(show lag_seconds)" \
        "$(show durable_offset)" "$(show stored_offset)"
      now+="$(show durable_offset) $(show stored_offset) "
      [[ $(show state) != halted ]] ||
        fail "consumer $(show name) has halted (if the broker's data is gone: rm -rf demo-data)"
    done
    ! "$1" || return 0
    [[ $now == "$last" ]] || moved=$SECONDS
    last=$now
    if [[ $1 == until_landed ]]; then
      ((SECONDS < moved + STUCK_AFTER)) || fail "nothing has moved for $STUCK_AFTER s"
    fi
    # Ctrl-C ends it early.
    sleep 1 || true
  done
}

until_told() { ((told > 0)); }

# Waits until everything is written, and shows it.
until_landed() {
  until_told && return
  local object
  [[ ${#consumers[@]} == "${#CONSUMERS[@]}" ]] || return 1
  for object in "${consumers[@]}"; do
    [[ $(show state) == running && $(show lag_messages) == 0 ]] || return 1
  done
}

# query WHAT: the result of an independent reader.
query() {
  case $1 in
  *-analytics) "$READER" scripts/lib/demo_query.py "$1" "$DATA/analytics.db" "$STREAM" ;;
  *-archive) "$READER" scripts/lib/demo_query.py "$1" "$DATA/archive/$STREAM" ;;
  esac
}

# The samples of a metric that come from this stream's messages.
samples() { get /metrics | grep "^$1{.*consumer=\"monitoring\"" || true; }

sum_of() { samples "$1" | sed 's/.* //' | { local sum=0 value; while read -r value; do sum=$((sum + value)); done; echo "$sum"; }; }

show_monitoring() {
  note "monitoring: http://127.0.0.1:$port/metrics, as a scrape finds it"
  samples shop_events_total | grep 'event="purchase"' | sed 's/^/    /'
  samples 'shop_purchase_amount_\(count\|sum\)' | sed 's/^/    /'
}

# Counters begin at 0 with the daemon, so they hold what this run has read.
check_monitoring() {
  local counted wanted=$1
  counted=$(sum_of shop_events_total)
  note "monitoring has counted $counted events, of $wanted that this run published"
  if ! published_is_exact; then return; fi
  ((counted >= wanted)) || wrong "monitoring: $((wanted - counted)) events were not counted"
  ((counted <= wanted)) || note "monitoring: $((counted - wanted)) are of earlier runs, which were cut off"
}

show_landed() {
  [[ $READER ]] || { note 'not shown: there is no Python to ask the database and the Parquet files with' && return; }
  note "analytics: $DATA/analytics.db, asked with SQLite's own library"
  query show-analytics
  note "archiver: $DATA/archive/$STREAM, asked with DuckDB"
  query show-archive
}

# The offset that the broker has stored for a consumer, read by another process.
stored_offset() {
  local object why next
  object=$(sed 's/^ *//; s/": /":/' <<<"$plan" | objects | grep -F "{\"name\":\"$1\",")
  next=$(field "$object" position)
  why=$(field "$object" why)
  case $why in
  *'the broker has '*) why=${why#*the broker has } && echo "${why%% *}" ;;
  *'after the offset stored on the broker'*) next=${next#offset } && echo $((next - 1)) ;;
  esac
}

# verify BEFORE: checks counts and positions, in files and on the broker.
verify() {
  local total lines name last stored plan
  total=$(published)
  note "published: $total messages ($((total - $1)) by this run), all confirmed by the broker"
  plan=$(rillway check --connect --json) || { wrong 'rillway check --connect failed'; return; }
  [[ $READER ]] || { note 'not counted: there is no Python to ask with' && return; }
  for name in analytics archiver; do
    read -r lines last < <(query "count-${name/archiver/archive}") || wrong "$name: cannot be counted"
    stored=$(stored_offset "$name")
    note "$(printf '%-10s %8d messages, the last of offset %s; stored on the broker: %s' "$name" "$lines" "$last" "$stored")"
    [[ $last && $stored == "$last" ]] || wrong "$name: the stored offset is not that of its last message"
    check_count "$name" "$lines" "$total"
  done
  note "monitoring          its position is the one on the broker: $(stored_offset monitoring)"
}

check_count() {
  local name=$1 lines=$2 total=$3
  if ! published_is_exact; then
    # Of what was cut off, anything may have arrived.
    ((lines >= total || told > 0)) || wrong "$name: $((total - lines)) messages are missing"
  elif ((lines > total)); then
    wrong "$name: $((lines - total)) messages too many"
  elif ((lines < total)); then
    if ((told > 0)); then
      note "$name: the other $((total - lines)) are in the stream, for the next run"
    else
      wrong "$name: $((total - lines)) messages are missing"
    fi
  fi
}
