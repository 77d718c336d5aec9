# shellcheck shell=bash
# What all scripts here share: speaking, locking, becoming root, and where things are kept.
# Source it; it does nothing by itself.

# Callers tell "cannot be had on this machine" (skip, by name) from "went wrong" (fail).
EXIT_UNAVAILABLE=3

RILLWAY_CACHE=${RILLWAY_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/rillway}

# Where rustup puts cargo; a shell that was open before does not know yet.
PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
announce() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
unavailable() { say "$*"; exit "$EXIT_UNAVAILABLE"; }
have() { command -v "$1" >/dev/null 2>&1; }

# with_lock NAME COMMAND...: one holder per NAME and cache; the others wait, and say so. Not to be
# put into a condition: bash would then go on after whatever fails inside COMMAND.
with_lock() {
  local name=$1 fd
  shift
  mkdir -p "$RILLWAY_CACHE/locks"
  exec {fd}>"$RILLWAY_CACHE/locks/$name"
  if ! flock -w 2 "$fd"; then
    say "waiting for another run to finish with '$name'"
    flock "$fd"
  fi
  # The descriptor must not leak into what COMMAND leaves running: it would keep the lock.
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
