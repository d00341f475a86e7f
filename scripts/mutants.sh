#!/usr/bin/env bash
# make mutants: builds each mutant of internal/simulation/mutants_table_test.go beside the code, two at a time, and has the simulation (or the test
# that it names) find it. SHARE=INDEX/COUNT selects some of them. The last line on stdout sums up. Ends with 0 only if every
# mutant that was selected was reached and killed.
set -uo pipefail
cd "$(dirname "$0")/.."

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
ZKQ_TEST_SHARE=${SHARE:-} go test -run '^TestMutants' -count 1 -timeout 0 -parallel 2 -v ./internal/simulation -mutants -mutants.sums "$dir/sums" >&2
status=$?
[ -s "$dir/sums" ] || exit 1
cat "$dir/sums"
exit "$status"
