# shellcheck shell=bash
# One node: its settings, files, processes. Source after common.sh, image.sh and ports.sh; broker.sh
# sets DIR, OWNER, TIMEOUT and the options `given` and `conf`.
#
# In DIR: node.env (settings), ports (reservation), etc/ data/ log/ home/ tmp/, and run/pid while it
# runs. Inside its image the node sees DIR as /node.
#
# A process is signalled only if its environment has RILLWAY_NODE=DIR: a recorded pid may belong to another
# process by now.

declare -A given
declare -a conf

# Only what streams need: these nodes share small machines with a compiler. `+S` is added.
NODE_ERL_ARGS='+SDcpu 1:1 +SDio 2 +sbwt none +sbwtdcpu none +sbwtdio none +t 1048576 +P 262144'

node_settings() {
  [[ ! -e $DIR/node.env ]] || . "$DIR/node.env"
}

node_set_up() {
  local version='' plugins=rabbitmq_stream stream_port='' amqp_port='' management_port='' prometheus_port='' base key
  local epmd_port='' schedulers=2 files=''
  node_settings
  for key in "${!given[@]}"; do printf -v "$key" %s "${given[$key]}"; done
  [[ $version ]] || die "the version is missing: --version 3.10, 4.0 or 4.3"
  image_suite "$version" >/dev/null
  plugins=${plugins/#management/rabbitmq_stream,rabbitmq_stream_management,rabbitmq_management}
  mkdir -p "$DIR"/{etc,data,log,home,tmp,run}
  [[ -e $DIR/ports ]] || with_lock ports ports_reserve "$DIR"
  base=$(<"$DIR/ports")
  : "${stream_port:=$base}" "${amqp_port:=$((base + 1))}" "${management_port:=$((base + 2))}" "${prometheus_port:=$((base + 3))}"
  : "${epmd_port:=$((base + 4))}"
  if [[ ${#conf[@]} -gt 0 || ! -e $DIR/etc/extra.conf ]]; then
    printf '%s\n' "${conf[@]}" >"$DIR/etc/extra.conf"
  fi
  cat >"$DIR/node.env" <<-ENV
		version=$version
		plugins=$plugins
		stream_port=$stream_port
		amqp_port=$amqp_port
		management_port=$management_port
		prometheus_port=$prometheus_port
		epmd_port=$epmd_port
		dist_port=$((base + 5))
		schedulers=$schedulers
		files=$files
	ENV
  node_write_files
}

# The address to listen on. Only loopback, because everyone can log in as guest.
LISTEN=127.0.0.1
node_write_files() {
  local version plugins stream_port amqp_port management_port prometheus_port
  node_settings
  echo "[$plugins]." >"$DIR/etc/enabled_plugins"
  printf '127.0.0.1 localhost %s\n' "$(uname -n)" >"$DIR/etc/hosts"
  {
    cat <<-CONF
		listeners.tcp.1 = $LISTEN:$amqp_port
		stream.listeners.tcp.1 = $LISTEN:$stream_port
		stream.advertised_host = localhost
		stream.advertised_port = $stream_port
		loopback_users.guest = false
		log.console = false
		log.file = /node/log/rabbit.log
		log.file.level = info
		disk_free_limit.absolute = 64MB
		vm_memory_high_watermark.absolute = 1GB
		vm_memory_calculation_strategy = allocated
	CONF
    if [[ $plugins == *management* ]]; then
      printf 'management.tcp.ip = %s\nmanagement.tcp.port = %s\n' "$LISTEN" "$management_port"
    fi
    if [[ $plugins == *prometheus* ]]; then
      printf 'prometheus.tcp.ip = %s\nprometheus.tcp.port = %s\n' "$LISTEN" "$prometheus_port"
    fi
    cat "$DIR/etc/extra.conf"
  } >"$DIR/etc/rabbitmq.conf"
  if [[ ! -e $DIR/home/.erlang.cookie ]]; then
    (umask 177 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$DIR/home/.erlang.cookie")
  fi
}

# The environment of the node and of its tools, inside the image.
node_environment() {
  local epmd_port dist_port schedulers=2 files=''
  node_settings
  printf '%s\n' "RILLWAY_NODE=$DIR" PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin HOME=/node/home LC_ALL=C.UTF-8 \
    RABBITMQ_NODENAME="node$(<"$DIR/ports")@localhost" RABBITMQ_DIST_PORT="$dist_port" \
    ERL_EPMD_PORT="$epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE=/node/etc/rabbitmq.conf RABBITMQ_LOG_BASE=/node/log \
    RABBITMQ_ENABLED_PLUGINS_FILE=/node/etc/enabled_plugins RABBITMQ_MNESIA_BASE=/node/data \
    RABBITMQ_CTL_DIST_PORT_MIN=0 RABBITMQ_CTL_DIST_PORT_MAX=0 ELIXIR_ERL_OPTIONS=+fnu \
    ERL_CRASH_DUMP=/node/log/erl_crash.dump \
    RILLWAY_FILES="$files" \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S $schedulers:$schedulers $NODE_ERL_ARGS -kernel inet_dist_use_interface {127,0,0,1}"
}

# Runs inside the image; writes its pid down and becomes the Erlang machine.
#   $1 the pid of the owner, or nothing;  $2 when that process started, to know it from a later one
# An owner that has ended and was not waited for yet (state Z) counts as gone.
# epmd and the watchdog are in the same process group, and end with the machine or its owner.
# With RILLWAY_FILES, the machine gets no more file descriptors than that.
# shellcheck disable=SC2016 # expanded by the shell that it is given to
NODE_WATCHED='
set -eu
cd /node/tmp
owner=$1 owner_started=$2 node=$$
ulimit -n "${RILLWAY_FILES:-$(ulimit -Hn)}" 2>/dev/null || true
started() { read -r stat 2>/dev/null <"/proc/$1/stat" || return 0; set -- ${stat##*) }; [ "$1" = Z ] || echo "${20}"; }
owner_lives() {
  [ -z "$owner" ] && return
  kill -0 "$owner" 2>/dev/null || return
  [ ! -e /proc/self ] || [ "$(started "$owner")" = "$owner_started" ]
}
(
  while kill -0 "$node" 2>/dev/null && owner_lives; do
    sleep 1
  done
  kill -s KILL -- "-$node"
) &
# Renamed into place with its content, so that no reader finds it empty.
echo "$node" >/node/run/pid.new
mv /node/run/pid.new /node/run/pid
'
# An epmd that starts beside the cluster's (scripts/cluster.sh) ends at once.
# shellcheck disable=SC2016
NODE_MAIN=$NODE_WATCHED'
epmd -port "$ERL_EPMD_PORT" &
# With "input allowed" the script becomes the machine instead of waiting for it; -noinput takes the
# input away again.
export RABBITMQ_ALLOW_INPUT=1
exec rabbitmq-server -noinput +B i
'

# process_field PID N: the Nth of /proc/PID/stat's fields, as counted in proc(5) from 3 on (those
# before hold a name that may contain anything); nothing if there is no such process.
process_field() {
  local stat
  read -r stat 2>/dev/null <"/proc/$1/stat" || return 0
  read -ra stat <<<"${stat##*) }"
  echo "${stat[$2 - 3]}"
}
PROCESS_STATE=3
PROCESS_GROUP=5
PROCESS_STARTED=22

# While a process executes another program (the node does so several times as it starts), the kernel shows
# an empty environment for a moment: that is no answer yet. A zombie's stays empty.
is_of_node() {
  local environment tries
  for ((tries = 0; tries < 200; tries++)); do
    environment=$(tr '\0' '\n' 2>/dev/null <"/proc/$1/environ") || return 1
    if [[ $environment ]]; then
      grep -qxF "RILLWAY_NODE=$DIR" <<<"$environment"
      return
    fi
    [[ $(process_field "$1" $PROCESS_STATE) == [!Z] ]] || return 1
    sleep 0.005
  done
  return 1
}

# The recorded pid, if any process of its group is still this node's.
node_group() {
  local pid member
  pid=$(cat "$DIR/run/pid" 2>/dev/null) || return 1
  for member in /proc/[0-9]*; do
    member=${member#/proc/}
    if [[ $(process_field "$member" $PROCESS_GROUP) == "$pid" ]] && is_of_node "$member"; then
      echo "$pid"
      return
    fi
  done
  return 1
}

node_alive() {
  local pid
  pid=$(cat "$DIR/run/pid" 2>/dev/null) && is_of_node "$pid"
}

node_env() {
  node_settings
  cat "$DIR/node.env"
  ! node_alive || echo "pid=$(<"$DIR/run/pid")"
}

node_signal() {
  node_alive || die "the node in $DIR is not running"
  kill -s "$1" "$(<"$DIR/run/pid")"
}

# node_wait_gone SECONDS: waits until no process of the group is left.
node_wait_gone() {
  local deadline=$((SECONDS + $1))
  while node_group >/dev/null; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

node_kill() {
  local pid
  if pid=$(node_group); then
    kill -KILL -- "-$pid" 2>/dev/null || true
    node_wait_gone 10 || die "process group $pid of the node in $DIR does not end"
  fi
  rm -f "$DIR/run/pid"
}

# node_stop NOW: gracefully first (the machine closes its files on SIGTERM), by force if that takes too
# long.
node_stop() {
  local deadline=$((SECONDS + 20))
  if [[ ! $1 ]] && node_alive; then
    # The machine may be gone before the second signal: that error is ignored.
    (node_signal TERM && node_signal CONT) 2>/dev/null || true
    while node_alive; do
      ((SECONDS < deadline)) || { say "the node in $DIR did not stop in 20 s: killing it" && break; }
      sleep 0.1
    done
  fi
  node_kill
}

node_ctl() {
  local -a environment
  mapfile -t environment < <(node_environment)
  node_settings
  image_run "$(image_dir "$version")" "$DIR" /usr/bin/env -i "${environment[@]}" "$@"
}

# Whether a server speaks the stream protocol: sends PeerProperties, and expects PeerProperties.
stream_port_answers() (
  exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
  printf '\0\0\0\014\0\021\0\001\0\0\0\001\0\0\0\0' >&3
  answer=$(timeout 2 head -c 6 <&3 | od -An -tx1 | tr -d ' \n')
  [[ ${answer:8} == 8011 ]]
) 2>/dev/null

# In its own session, so that the terminal's signals (Ctrl-C) do not reach it.
node_launch() {
  local -a environment
  mapfile -t environment < <(node_environment)
  RUN_DETACHED=yes image_run "$(image_dir "$version")" "$DIR" /usr/bin/env -i "${environment[@]}" \
    sh -c "$NODE_MAIN" node "$OWNER" "${OWNER:+$(process_field "$OWNER" $PROCESS_STARTED)}" </dev/null
}

node_failed() {
  say "$1 (RabbitMQ $version in $DIR)"
  # Its first errors say what is wrong, its last lines how far it came.
  grep -m 12 -E '\[error\] <[0-9.]+> +[^ ]' "$DIR/log/boot.log" >&2 || true
  tail -n 15 "$DIR/log/boot.log" >&2 || true
  tail -n 15 "$DIR/log/rabbit.log" >&2 2>/dev/null || true
  node_kill
  exit 1
}

node_start() {
  local version stream_port deadline log_before
  if node_alive; then die "the node in $DIR is running already"; fi
  [[ ! $OWNER || $(process_field "$OWNER" $PROCESS_STATE) == [!Z] ]] || die "the owner, process $OWNER, has already ended"
  node_kill
  node_set_up
  node_settings
  "$HERE/setup.sh" "broker-$version"
  deadline=$((SECONDS + TIMEOUT))
  log_before=$(stat -c %s "$DIR/log/rabbit.log" 2>/dev/null) || log_before=0
  trap 'node_kill; exit 130' INT TERM
  node_launch >"$DIR/log/boot.log" 2>&1 || node_failed "the broker could not be started"
  while ! node_is_ready; do
    if [[ -e $DIR/run/pid ]] && ! node_alive; then node_failed "the broker ended while starting"; fi
    ((SECONDS < deadline)) || node_failed "the broker was not ready after $TIMEOUT s"
    sleep 0.1
  done
  trap - INT TERM
  node_env
}

node_is_ready() {
  # No pipe: of a long log, grep reads no more than it needs, and tail would fail.
  grep -q 'Server startup complete' < <(tail -c "+$((log_before + 1))" "$DIR/log/rabbit.log" 2>/dev/null) &&
    stream_port_answers "$stream_port"
}
