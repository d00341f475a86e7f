#!/usr/bin/env bash
# make simulate SEEDS=N FIRST=M: simulates the schedules of the seeds M to M+N-1, with as many lanes as there are processors.
# Progress and violations go to stderr; the last line on stdout sums up. Ends with 0 only if there was no violation.
set -uo pipefail
cd "$(dirname "$0")/.."

seeds=${SEEDS:-100000} first=${FIRST:-1}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Not `go test`, which keeps back what a test prints until it ends.
go test -c -o "$dir/simulation" ./internal/simulation || exit
"$dir/simulation" -test.run '^TestSimulation$' -test.timeout 0 -test.v \
  -sim.seeds "$seeds" -sim.first "$first" -sim.most 1000000000 -sim.sums "$dir/sums" >&2
status=$?
if [ ! -s "$dir/sums" ]; then
  echo "the simulation broke off: what it printed last says why" >&2
  exit 1
fi
cat "$dir/sums"
exit "$status"
