# shellcheck shell=bash
# A clean Debian with its own systemd and journal, in namespaces. Source after common.sh.

MACHINE_ROOT=
MACHINE_LOG=
MACHINE_PID=

machine_of() {
  MACHINE_ROOT=$1
  MACHINE_LOG=$1.log
}

# Starts systemd in it; fails if that is not possible here.
machine_start() {
  local waited=0
  scripts/setup.sh nspawn || return
  # Not registered, and in the caller's own control group: there need be no systemd outside.
  systemd-nspawn --quiet --register=no --keep-unit --boot --directory="$MACHINE_ROOT" --console=pipe \
    </dev/null >"$MACHINE_LOG" 2>&1 &
  MACHINE_NSPAWN=$!
  until MACHINE_PID=$(pgrep -P "$MACHINE_NSPAWN" -x systemd | head -n 1) && [[ $MACHINE_PID ]] &&
    machine systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; do
    kill -0 "$MACHINE_NSPAWN" 2>/dev/null || { MACHINE_PID=; return 1; }
    waited=$((waited + 1))
    [[ $waited -lt 240 ]] || { machine_stop; return 1; }
    sleep 0.25
  done
}

# machine COMMAND...: as root in it.
machine() { nsenter --target "$MACHINE_PID" --mount --uts --ipc --pid --cgroup "$@"; }

# Why it could not be started.
machine_obstacle() {
  have systemd-nspawn || { echo 'systemd-nspawn is not installed'; return; }
  echo "systemd-nspawn could not start one here: $(tail -n 1 "$MACHINE_LOG" 2>/dev/null)"
}

machine_stop() {
  [[ ${MACHINE_NSPAWN:-} ]] || return 0
  # SIGRTMIN+4: power off.
  [[ ! $MACHINE_PID ]] || kill -s RTMIN+4 "$MACHINE_PID" 2>/dev/null || true
  for _ in {1..80}; do
    kill -0 "$MACHINE_NSPAWN" 2>/dev/null || break
    sleep 0.25
  done
  kill -KILL "$MACHINE_NSPAWN" 2>/dev/null || true
  wait "$MACHINE_NSPAWN" 2>/dev/null || true
  MACHINE_NSPAWN='' MACHINE_PID=''
}
