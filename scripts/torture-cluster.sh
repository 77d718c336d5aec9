#!/usr/bin/env bash
# Runs the torture tests of clusters (tests/cluster/torture.rs): three nodes of RabbitMQ 4.0 and of 4.3 are
# killed, frozen, drained and restarted under load, with a table of how soon consumers go on.
#
#   FAULTS=30           faults for each version, of six kinds in turn
#
# Arguments are names of tests: `scripts/torture-cluster.sh on_4_3` for one version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

export FAULTS=${FAULTS:-30}
table=$(mktemp)
trap 'rm -f "$table"' EXIT
export RILLWAY_CLUSTER_TABLE=$table

status=0
[[ $# -gt 0 ]] || set -- cluster::torture::
# One cluster at a time: six nodes are too many for a small machine.
scripts/test.sh --test all -- --nocapture --test-threads 1 "$@" || status=$?

printf '\n%-8s %-18s %6s %14s %15s\n' version fault times 's after fault' 's after stream'
while IFS=$'\t' read -r version fault times since_fault since_return; do
  printf '%-8s %-18s %6s %14s %15s\n' "$version" "$fault" "$times" "$since_fault" "$since_return"
done <"$table"
exit "$status"
