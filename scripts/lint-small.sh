#!/usr/bin/env bash
# Lints the small daemon, which is built without the heavy sinks. Nothing is linked and hardly any code is
# generated: about a minute the first time, seconds afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

small=(--no-default-features --lib --bins)
if cargo clippy --version >/dev/null 2>&1; then
  exec cargo clippy "${small[@]}" "$@" -- -D warnings
fi
say 'clippy is not installed (rustup component add clippy): the small build is only checked'
exec cargo check "${small[@]}" "$@"
