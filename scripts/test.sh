#!/usr/bin/env bash
# make test: every test this machine can run, once, then one line for each part that it could not.
#
# The packages that share memory between goroutines run under the race detector where there is a C compiler. The others drive
# processes and servers: the race detector would see little of that and take twice as long. RACE=all runs everything under the
# race detector, RACE=none nothing.
#
# A test that needs something from outside says so itself (internal/testneed): under CI=true it fails, elsewhere it is
# skipped and leaves its line in the file named here. So there is no second list to keep in step with the tests.
set -uo pipefail
cd "$(dirname "$0")/.."

not_run=$(mktemp)
trap 'rm -f "$not_run"' EXIT
export ZKQ_TEST_NOT_RUN=$not_run
status=0

have_compiler() { printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | "${CC:-gcc}" -x c -o /dev/null - 2>/dev/null; }

race=${RACE:-some}
if [ "$race" != none ] && ! have_compiler; then
  echo "race detector: it needs a C compiler: make deps" >>"$not_run"
  race=none
fi

# -shuffle=on also means that no result comes from the cache.
raced() { CGO_ENABLED=1 go test -race -shuffle=on -timeout 30m "$@"; }
plain() { CGO_ENABLED=0 go test -shuffle=on -timeout 30m "$@"; }

# Some tests measure times, and the drivers' runs of the contract's suite let sessions of a few seconds time out: the race
# detector makes both meaningless, so those run without it.
measured='^(TestForeignNodesCostLittleTime$|TestBacklogOf100000|TestConformance|Test(Paused|Killed)LeaderCostsSeconds$)'
drivers=(./zkqueue ./etcdqueue)

case $race in
  none) plain ./... || status=1 ;;
  all)
    raced -p 1 -skip "$measured" ./... || status=1
    plain -run "$measured" "${drivers[@]}" ./integration/... || status=1
    ;;
  some)
    mapfile -t shared < <(go list ./... | grep -vE '^github.com/zkq/zkq/(cmd/|integration|etcdqueue/embedded)')
    mapfile -t others < <(go list ./cmd/... ./integration/... ./etcdqueue/embedded/...)
    raced -skip "$measured" "${shared[@]}" || status=1
    plain -run "$measured" "${drivers[@]}" || status=1
    plain "${others[@]}" || status=1
    ;;
  *)
    echo "RACE=$race: want all, some or none"
    exit 2
    ;;
esac

if [ -s "$not_run" ]; then
  echo
  sort -u "$not_run" | sed 's/^/not run: /'
  if [ "${CI:-}" = true ]; then
    echo "CI=true: a part that was not run is a failure"
    status=1
  fi
fi
exit "$status"
