#!/usr/bin/env bash
# Does systemd accept the unit, and rate it as secure as before?
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/common.sh

# As systemd 252 rates it; more is a regression.
EXPOSURE_MAX=1.1

have systemd-analyze || unavailable 'there is no systemd-analyze here'
unit=deploy/systemd/rillway.service
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# verify looks for the programs that a unit names.
sed "s|^ExecStart=/usr/bin/rillway|ExecStart=/bin/true|" "$unit" >"$work/rillway.service"
said=$(systemd-analyze verify --man=no "$work/rillway.service" 2>&1 | grep -F rillway || true)
[[ ! $said ]] || die "systemd-analyze verify: $said"
rating=$(systemd-analyze security --offline=yes "$unit" 2>/dev/null | sed -n 's/.*exposure level for rillway.service: \([0-9.]*\).*/\1/p')
[[ $rating ]] || unavailable "$(systemd-analyze --version | head -n 1) cannot rate a unit that is not loaded"
awk -v is="$rating" -v most="$EXPOSURE_MAX" 'BEGIN { exit !(is <= most) }' ||
  die "systemd-analyze security: $rating, and at most $EXPOSURE_MAX is allowed"
echo "systemd accepts the unit, and rates its exposure $rating"
