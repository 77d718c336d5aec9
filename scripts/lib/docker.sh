# shellcheck shell=bash
# Nodes in Docker, for machines where no image can be unpacked and entered: the official images, with the
# same folder, configuration and ports. Source after node.sh, whose functions it replaces.
#
# Not tested: the machines on which it was written had no Docker engine.

docker_image() { echo "rabbitmq:$1-management"; }

docker_image_pull() {
  if docker image inspect "$(docker_image "$1")" >/dev/null 2>&1; then return; fi
  announce "pulling the Docker image $(docker_image "$1") (private brokers run in it)"
  docker pull -q "$(docker_image "$1")" >/dev/null
}

docker_container() { echo "rillway-$(<"$DIR/ports")"; }

# Published only on the host's loopback; connections arrive at the container's own interface.
# shellcheck disable=SC2034 # read by node.sh
LISTEN=0.0.0.0

node_launch() {
  local line port options=() version='' stream_port='' amqp_port='' management_port='' prometheus_port=''
  node_settings
  while read -r line; do
    # The unpacked image needs its own PATH and loopback for Erlang's ports; the official one does not.
    [[ $line == PATH=* ]] || options+=(-e "${line/ -kernel inet_dist_use_interface*/}")
  done < <(node_environment)
  for port in "$stream_port" "$amqp_port" "$management_port" "$prometheus_port"; do
    options+=(-p "127.0.0.1:$port:$port")
  done
  docker rm -f "$(docker_container)" >/dev/null 2>&1 || true
  docker run -d --name "$(docker_container)" --user "$(id -u):$(id -g)" -v "$DIR:/node" "${options[@]}" \
    "$(docker_image "$version")" rabbitmq-server
  docker inspect -f '{{.State.Pid}}' "$(docker_container)" >"$DIR/run/pid"
  if [[ $OWNER ]]; then
    # shellcheck disable=SC2016 # expanded by the shell that it is given to
    setsid sh -c 'while kill -0 "$1"; do sleep 1; done; docker rm -f "$2"' watchdog "$OWNER" "$(docker_container)" \
      </dev/null >/dev/null 2>&1 &
  fi
}

node_alive() { [[ $(docker inspect -f '{{.State.Running}}' "$(docker_container)" 2>/dev/null) == true ]]; }

node_signal() {
  node_alive || die "the node in $DIR is not running"
  docker kill -s "$1" "$(docker_container)" >/dev/null
}

node_kill() {
  if [[ -e $DIR/ports ]]; then docker rm -f "$(docker_container)" >/dev/null 2>&1 || true; fi
  rm -f "$DIR/run/pid"
}

node_ctl() { docker exec "$(docker_container)" "$@"; }
