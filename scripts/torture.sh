#!/usr/bin/env bash
# The torture (tests/torture): kills, freezes and outages, for every sink whose medium can be had here;
# and a table of what was lost or repeated.
#
#   KILLS=200           so many kills at random for each sink, and a tenth of that at each named point
#   FREEZE_SECONDS=90   so long one of two daemons is frozen
#   OUTAGE_SECONDS=10   so long a medium fails, each way
#   SEED=…              the random moments of an earlier run
#
# Arguments are names of tests: `scripts/torture.sh torture::media::file` for one sink.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

export KILLS=${KILLS:-200} FREEZE_SECONDS=${FREEZE_SECONDS:-90} OUTAGE_SECONDS=${OUTAGE_SECONDS:-10}
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
