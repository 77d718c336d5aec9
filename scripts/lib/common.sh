# shellcheck shell=bash
# Shared by all scripts: messages, locks, root, and paths. Source it; it does nothing by itself.

# Tells callers that something is not available on this machine (skip it, by name), rather than an error.
EXIT_UNAVAILABLE=3

RILLWAY_CACHE=${RILLWAY_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/rillway}

# The folder in which rustup installs cargo; an older shell does not have it in its PATH.
PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
announce() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
unavailable() { say "$*"; exit "$EXIT_UNAVAILABLE"; }
# Prints the comment at the head of the script, up to its `set` line, as its usage.
usage() {
  sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 64
}
# A part that this machine cannot check, and why: deploy-check.sh shows these lines.
not_checked() { echo "NOT CHECKED: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# with_lock NAME COMMAND...: one holder per NAME and cache; the others wait, with a message. Do not use it
# in a condition: there, bash ignores failures inside COMMAND.
with_lock() {
  local name=$1 fd
  shift
  mkdir -p "$RILLWAY_CACHE/locks"
  exec {fd}>"$RILLWAY_CACHE/locks/$name"
  if ! flock -w 2 "$fd"; then
    say "waiting for another run to finish with '$name'"
    flock "$fd"
  fi
  # The descriptor must not leak into processes that COMMAND leaves running: they would keep the lock.
  "$@" {fd}>&-
  exec {fd}>&-
}

# How this user can become root: "direct", "sudo", or nothing (and a failure).
root_by() {
  if [[ $(id -u) == 0 ]]; then
    echo direct
  elif have sudo && { sudo -n true 2>/dev/null || { [[ -t 0 && -t 2 ]] && sudo -v; }; }; then
    echo sudo
  else
    return 1
  fi
}

as_root() {
  case $(root_by) in
  direct) "$@" ;;
  sudo) sudo "$@" ;;
  *) return "$EXIT_UNAVAILABLE" ;;
  esac
}

docker_works() { have docker && docker info >/dev/null 2>&1; }
