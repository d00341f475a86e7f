#!/usr/bin/env bash
# make deep FIRST=M: everything that is too long for every change. Every test under the race detector, SEEDS=1000000 schedules from
# seed M on, TWICE=10000 of them run twice, every mutant, ROUNDS=3 of the real faults, CYCLES=200000 entries on each service,
# FUZZTIME=2m for each target. It takes hours, on a machine that does nothing else. It ends with the row for docs/deep.md, and
# with 0 only if everything held.
set -uo pipefail
cd "$(dirname "$0")/.."

export SEEDS=${SEEDS:-1000000} FIRST=${FIRST:-1} ROUNDS=${ROUNDS:-3} CYCLES=${CYCLES:-200000} FUZZTIME=${FUZZTIME:-2m}
twice=${TWICE:-10000}
said=$(mktemp)
trap 'rm -f "$said"' EXIT
bad=0 last=''

part() { # runs a part; its last line is left in $last
  echo "== $*"
  "$@" | tee "$said" || bad=1
  last=$(tail -n 1 "$said")
}

RACE=all scripts/test.sh || bad=1
part scripts/simulate.sh
schedules=$last
part go test -count=1 -timeout 0 -run 'TestSimulation$' ./internal/simulation -sim.first "$FIRST" -sim.seeds "$twice" -sim.twice 1
equal=${last%%[[:space:]]*}
part go test -count=1 -timeout 0 -run 'TestStoreSurvivesAnEndDuringItsFirstStart$' ./etcdqueue/embedded -births 300
part scripts/mutants.sh
mutants=$last
part scripts/faults.sh
faults=$last
part scripts/soak.sh
soak=${last%%[[:space:]]*}
part scripts/fuzz.sh
fuzz=$last

printf '\n| %s | %s | %s from %s | %s of them twice: %s | %s | %s | %s cycles on each service: %s | %s |\n' \
  "$(date -u +%F)" "$(git rev-parse --short HEAD)" "$schedules" "$FIRST" "$twice" "$equal" "$mutants" "$faults" "$CYCLES" "$soak" "$fuzz"
exit "$bad"
