#!/usr/bin/env bash
# Builds the Debian package, with manual pages and completions, and prints its path on standard output.
#
#   scripts/deb.sh [BINARY]
#
# Without BINARY, a release is built. cargo-deb is installed if it is missing (minutes).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

have dpkg-deb || unavailable "a Debian package is built with dpkg, and there is no dpkg-deb here"
scripts/setup.sh cargo-deb
binary=${1:-}
if [[ ! $binary ]]; then
  cargo build --release --locked --features otel --bin rillway >&2
  binary=${CARGO_TARGET_DIR:-target}/release/rillway
fi

# cargo-deb looks for the binary in its target folder: a folder of our own has what goes into the package, and no more.
stage=target/deploy
rm -rf "$stage"
mkdir -p "$stage/release" "$stage/completions"
# A line of debug information more would only make the package larger.
objcopy --strip-debug "$binary" "$stage/release/rillway" 2>/dev/null || cp "$binary" "$stage/release/rillway"
"$binary" man "$stage/man"
"$binary" completions bash >"$stage/completions/rillway.bash"
"$binary" completions zsh >"$stage/completions/_rillway"
"$binary" completions fish >"$stage/completions/rillway.fish"
CARGO_TARGET_DIR=$stage cargo deb --quiet --no-build --no-strip ${RILLWAY_DEB_FAST:+--fast} --output "$PWD/$stage/" >&2
for package in "$PWD/$stage"/*.deb; do echo "$package"; done
