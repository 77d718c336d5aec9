#!/usr/bin/env bash
# Starts and stops private RabbitMQ clusters: nodes as of scripts/broker.sh, in DIR/1, DIR/2, …
#
#   scripts/cluster.sh start --dir DIR --version 4.0|4.3 [options]
#       Returns when every node answers and all know each other, and prints `env` of each, with its
#       number before each line (`1.stream_port=…`).
#         --nodes N             default 3
#         --owner PID           everything goes (killed, as in a crash) when this process has gone
#         --conf 'KEY = VALUE'  a line for rabbitmq.conf of each node; repeatable
#         --timeout SECONDS     for becoming ready; default 120
#   scripts/cluster.sh stop --dir DIR           kills all nodes
#
# A single node is stopped, started, frozen and asked with scripts/broker.sh and its folder. The nodes
# find each other through an epmd that has a process group of its own (DIR/epmd): it outlives any node.
# Exit codes: as scripts/broker.sh.
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
. "$HERE/lib/common.sh"
. "$HERE/lib/image.sh"
. "$HERE/lib/ports.sh"
. "$HERE/lib/node.sh"

[[ $# -gt 0 ]] || usage
verb=$1
shift
CLUSTER='' VERSION='' NODES=3 OWNER='' TIMEOUT=120
extra=()
while [[ $# -gt 0 ]]; do
  [[ $# -ge 2 ]] || die "$1 wants a value"
  case $1 in
  --dir) CLUSTER=$2 ;;
  --version) VERSION=$2 ;;
  --nodes) NODES=$2 ;;
  --owner) OWNER=$2 ;;
  --conf) extra+=(--conf "$2") ;;
  --timeout) TIMEOUT=$2 ;;
  *) die "unknown option $1" ;;
  esac
  shift 2
done
[[ $CLUSTER ]] || die "which cluster? Give its folder: --dir DIR"
[[ $CLUSTER == /* ]] || CLUSTER=$PWD/$CLUSTER

# epmd_start: prepares a folder like a node's, and runs epmd in it.
epmd_start() {
  local deadline=$((SECONDS + 20)) base version=$VERSION
  DIR=$CLUSTER/epmd
  mkdir -p "$DIR"/{etc,data,log,home,tmp,run}
  [[ -e $DIR/ports ]] || with_lock ports ports_reserve "$DIR"
  base=$(<"$DIR/ports")
  printf 'version=%s\nepmd_port=%s\ndist_port=%s\n' "$version" "$base" "$((base + 1))" >"$DIR/node.env"
  printf '127.0.0.1 localhost %s\n' "$(uname -n)" >"$DIR/etc/hosts"
  # shellcheck disable=SC2016 # expanded by the shell that it is given to
  NODE_MAIN=$NODE_WATCHED'exec epmd -port "$ERL_EPMD_PORT"' node_launch >"$DIR/log/boot.log" 2>&1 ||
    die "epmd could not be started: $(tail -n 3 "$DIR/log/boot.log")"
  while ! port_answers "$base"; do
    ((SECONDS < deadline)) || die "epmd does not answer: $(tail -n 3 "$DIR/log/boot.log")"
    sleep 0.05
  done
}

start() {
  local n base names=() starting=() failed=0 obstacle
  obstacle=$(image_obstacle)
  # In Docker, the nodes cannot reach each other by their containers' names.
  [[ ! $obstacle ]] || unavailable "no cluster of RabbitMQ can run here: $obstacle"
  [[ $VERSION ]] || die "which RabbitMQ? Give --version 4.0 or 4.3"
  [[ ! -e $CLUSTER/epmd ]] || die "there is a cluster in $CLUSTER already"
  "$HERE/setup.sh" "broker-$VERSION"
  trap 'stop; exit 130' INT TERM
  epmd_start
  base=$(<"$CLUSTER/epmd/ports")
  for ((n = 1; n <= NODES; n++)); do
    mkdir -p "$CLUSTER/$n/home"
    with_lock ports ports_reserve "$CLUSTER/$n"
    names+=(--conf "cluster_formation.classic_config.nodes.$n = node$(<"$CLUSTER/$n/ports")@localhost")
    (umask 177 && printf %s "rillway$base" >"$CLUSTER/$n/home/.erlang.cookie")
  done
  for ((n = 1; n <= NODES; n++)); do
    "$HERE/broker.sh" start --dir "$CLUSTER/$n" --version "$VERSION" --epmd-port "$base" --schedulers 1 \
      --timeout "$TIMEOUT" ${OWNER:+--owner "$OWNER"} \
      --conf 'cluster_formation.peer_discovery_backend = classic_config' "${names[@]}" "${extra[@]}" \
      >"$CLUSTER/$n/started" &
    starting+=($!)
  done
  for n in "${starting[@]}"; do wait "$n" || failed=1; done
  if [[ $failed == 1 ]]; then
    stop
    die "the cluster in $CLUSTER did not start"
  fi
  "$HERE/broker.sh" ctl --dir "$CLUSTER/1" -- rabbitmqctl -q await_online_nodes "$NODES" --timeout "$TIMEOUT" >&2
  trap - INT TERM
  for ((n = 1; n <= NODES; n++)); do sed "s/^/$n./" "$CLUSTER/$n/started"; done
}

stop() {
  local dir
  for dir in "$CLUSTER"/*/; do
    DIR=${dir%/}
    [[ ! -e $DIR/node.env ]] || node_kill
  done
}

case $verb in
start | stop) "$verb" ;;
*) usage ;;
esac
