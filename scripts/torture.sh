#!/usr/bin/env bash
# Runs the torture tests (tests/torture): kills, freezes and outages, for every sink whose destination is
# available on this machine, and rolling restarts of several daemons; with a table of lost and repeated
# messages.
#
#   KILLS=200           random kills for each sink, and a tenth of that at each named point
#   FREEZE_SECONDS=90   time for which one of two daemons is frozen
#   OUTAGE_SECONDS=10   duration of each outage of a destination
#   ROUNDS=30           rounds in which each of three daemons is restarted or killed
#   SEED=…              repeats the random moments of an earlier run
#
# Arguments are names of tests: `scripts/torture.sh torture::media::file` for one sink.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

export KILLS=${KILLS:-200} FREEZE_SECONDS=${FREEZE_SECONDS:-90} OUTAGE_SECONDS=${OUTAGE_SECONDS:-10}
export ROUNDS=${ROUNDS:-30}
table=$(mktemp)
trap 'rm -f "$table"' EXIT
export RILLWAY_TORTURE_TABLE=$table

status=0
[[ $# -gt 0 ]] || set -- torture::
scripts/test.sh --test all -- "$@" || status=$?

printf '\n%-28s %-26s %6s %10s %6s %9s %5s %8s\n' sink what times messages lost repeated torn seconds
sort "$table" | while IFS=$'\t' read -r sink what times messages lost repeated torn seconds; do
  printf '%-28s %-26s %6s %10s %6s %9s %5s %8s\n' \
    "$sink" "$what" "$times" "$messages" "$lost" "$repeated" "$torn" "$seconds"
done
exit "$status"
