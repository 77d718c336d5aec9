#!/usr/bin/env bash
# Lints the small daemon (built without the heavy sinks) and its tests. Nothing is linked, so it takes
# about a minute the first time, and seconds afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

small=(--no-default-features --all-targets)
if cargo clippy --version >/dev/null 2>&1; then
  exec cargo clippy "${small[@]}" "$@" -- -D warnings
fi
say 'clippy is not installed (rustup component add clippy): the small build is only checked'
exec cargo check "${small[@]}" "$@"
