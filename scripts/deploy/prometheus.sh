#!/usr/bin/env bash
# Do the rules and the configuration for Prometheus pass promtool, and the rules their own test?
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/lib/common.sh

promtool=$(scripts/setup.sh prometheus --where)/usr/bin/promtool
cd deploy/prometheus
"$promtool" check config prometheus.yml
"$promtool" test rules alerts.test.yml
echo "promtool accepts the configuration, and the $(grep -c -- '- alert:' alerts.yml) alerts fire when they should"
