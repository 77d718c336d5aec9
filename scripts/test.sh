#!/usr/bin/env bash
# Runs all tests: installs what is missing on the machine, builds, runs them against real brokers, and
# lists the skipped ones at the end. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/lib/common.sh

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
target=$(cd "$target" && pwd)
for left in "$target"/test-run.*; do
  # Left by a run that was killed: its brokers have ended with it.
  [[ -e /proc/${left##*.} ]] || rm -rf "$left"
done
run=$target/test-run.$$
mkdir "$run"
export RILLWAY_TEST_BROKERS=$run/brokers RILLWAY_SKIPPED_TESTS=$run/skipped
# Tests wait for brokers most of the time: two at once use a third of one core.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) + 4))}
# As the package and the image are built, so that the tests of traces are among them.
cargo_flags=(--features otel)
locked=()
if [[ ${CI:-} ]]; then
  locked+=(--locked)
  cargo_flags+=("${locked[@]}")
  export CARGO_INCREMENTAL=0 CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never
fi

step() { printf '\n== %3d s  %s\n' "$SECONDS" "$*"; }

finish() {
  if [[ $linting ]] && kill "$linting" 2>/dev/null; then wait "$linting" || true; fi
  if [[ $preparing ]] && kill "$preparing" 2>/dev/null; then wait "$preparing" || true; fi
  scripts/test-brokers.sh down "$run/brokers" || true
  rm -rf "$run"
}
preparing='' linting=''
trap finish EXIT
trap 'exit 130' INT TERM

step 'setting up what builds need'
scripts/setup.sh rust-build

step 'setting up and starting brokers, in the background (a minute the first time, else seconds)'
{
  scripts/setup.sh rstream duckdb s3 prometheus postgres browser schemathesis rotel || true
  scripts/test-brokers.sh up "$run/brokers" --owner $$ || true
} >"$run/preparing" 2>&1 &
preparing=$!

step 'building the tests (minutes the first time)'
cargo test --no-run "${cargo_flags[@]}" "$@"

step 'waiting for the brokers'
wait "$preparing" || true
cat "$run/preparing"

touch "$run/output"
# With arguments, only some tests are wanted.
if [[ $# == 0 ]]; then
  step 'linting the daemon without the heavy sinks, in the background'
  {
    # Not before the first tests run: until then cargo keeps the build folder to itself.
    until grep -q '^ *Running ' "$run/output" || [[ -e $run/ended ]]; do sleep 1; done
    exec nice -n 19 scripts/lint-small.sh "${locked[@]}"
  } >"$run/linted" 2>&1 &
  linting=$!
fi

step 'running the tests'
status=0
cargo test --no-fail-fast "${cargo_flags[@]}" "$@" 2>&1 | tee "$run/output" || status=$?
touch "$run/ended"

if [[ $linting ]]; then
  step 'waiting for the linter'
  lint=0
  wait "$linting" || lint=$?
  linting=
  cat "$run/linted"
  [[ $lint == 0 ]] || echo "The daemon without the heavy sinks has warnings (exit code $lint): see above."
  [[ $status != 0 ]] || status=$lint
fi

step 'results'
# What failed is shown again: above it is far up, and where a log is cut, lost.
awk '/^---- .* stdout ----$/ { lines = 30 } /^failures:$/ { lines = 0 } lines-- > 0' "$run/output"
grep '^test result' "$run/output" || true
if [[ -s $run/skipped ]]; then
  sort -u "$run/skipped"
  echo "$(sort -u "$run/skipped" | wc -l) tests were skipped, for what this machine cannot have."
else
  echo 'No test was skipped.'
fi
if [[ $status == 0 ]]; then
  echo "All tests that ran have passed, in $SECONDS s with everything."
else
  echo "Tests FAILED (exit code $status)."
fi
exit "$status"
