#!/usr/bin/env bash
# Starts and stops private RabbitMQ nodes. All files of a node are in one folder.
#
#   scripts/broker.sh start --dir DIR --version 3.10|4.0|4.3 [options]
#       Returns when the node answers on its stream port, and prints the lines of `env`. Started
#       again on the same DIR it keeps version, ports, plugins and configuration; options given
#       then replace the earlier ones.
#         --plugins A,B         default rabbitmq_stream; `management` stands for it with the management UI
#         --conf 'KEY = VALUE'  a line for rabbitmq.conf; repeatable
#         --owner PID           the node is killed, as in a crash, when this process has ended
#         --schedulers N        of the Erlang machine; default 2
#         --files N             file descriptors that it gets; default as many as there may be
#         --epmd-port P         of an epmd that runs already, as in scripts/cluster.sh
#         --stream-port P --amqp-port P --management-port P --prometheus-port P    default: free ones
#         --timeout SECONDS     for becoming ready; default 60
#   scripts/broker.sh stop --dir DIR [--now]      shuts it down; --now kills it, as in a crash
#   scripts/broker.sh env --dir DIR               version= stream_port= amqp_port= management_port= pid= …
#   scripts/broker.sh ctl --dir DIR -- rabbitmqctl ARGS…    or rabbitmq-streams, rabbitmq-diagnostics, …
#   scripts/broker.sh signal --dir DIR STOP|CONT|KILL|…     to the broker's process
#
# The pid is the Erlang machine's own, and the id of the process group in which its helpers run.
# Exit codes: 3 this version is not available on this machine; 1 an error (the end of the log is shown).
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
. "$HERE/lib/common.sh"
. "$HERE/lib/image.sh"
. "$HERE/lib/ports.sh"
. "$HERE/lib/node.sh"

[[ $# -gt 0 ]] || usage
verb=$1
shift
DIR='' NOW='' OWNER='' TIMEOUT=60
declare -A given=()
conf=() rest=()
while [[ $# -gt 0 ]]; do
  case $1 in
  --now) NOW=yes && shift && continue ;;
  --) shift && rest+=("$@") && break ;;
  --*) [[ $# -ge 2 ]] || die "$1 needs a value" ;;
  *) rest+=("$1") && shift && continue ;;
  esac
  case $1 in
  --dir) DIR=$2 ;;
  --owner) OWNER=$2 ;;
  --timeout) TIMEOUT=$2 ;;
  --conf) conf+=("$2") ;;
  --version | --plugins | --stream-port | --amqp-port | --management-port | --prometheus-port | --schedulers | --files | --epmd-port)
    key=${1#--} && given[${key//-/_}]=$2
    ;;
  *) die "unknown option $1" ;;
  esac
  shift 2
done
[[ $DIR ]] || die "the folder of the node is missing: --dir DIR"
[[ $DIR == /* ]] || DIR=$PWD/$DIR
[[ $verb == start || -e $DIR/node.env ]] || die "there is no node in $DIR"

if [[ $verb == start ]]; then
  mkdir -p "$DIR"
  if [[ ! -e $DIR/docker ]]; then
    obstacle=$(image_obstacle)
    if [[ $obstacle ]]; then
      docker_works || unavailable "no RabbitMQ can run here: $obstacle, and Docker cannot be reached"
      touch "$DIR/docker"
    fi
  fi
fi
[[ ! -e $DIR/docker ]] || . "$HERE/lib/docker.sh"

case $verb in
start)
  node_start
  ;;
stop) node_stop "$NOW" ;;
env) node_env ;;
ctl)
  [[ ${#rest[@]} -gt 0 ]] || die "ctl needs a command: ctl --dir DIR -- rabbitmqctl status"
  node_ctl "${rest[@]}"
  ;;
signal)
  [[ ${#rest[@]} == 1 ]] || die "signal needs the name of a signal: signal --dir DIR STOP"
  node_signal "${rest[0]}"
  ;;
*) usage ;;
esac
