#!/usr/bin/env bash
# Builds the documentation as a book, in target/book, with the real mdBook; fails on warnings and on links that lead
# nowhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

mdbook=$(scripts/setup.sh mdbook --where)/bin/mdbook
log=$(mktemp)
trap 'rm -f "$log"' EXIT
rm -rf target/book
"$mdbook" build >"$log" 2>&1 || { cat "$log" >&2; die 'mdbook could not build the book'; }
if grep -E '^ *(WARN|ERROR)' "$log" >&2; then die 'mdbook has warned'; fi
python3 scripts/lib/book.py check target/book || die 'links of the book lead nowhere'
echo "$("$mdbook" --version) has built $PWD/target/book/index.html"
