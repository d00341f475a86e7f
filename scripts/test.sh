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

all=$(go list ./...) || exit
raced() { grep -vE '^github.com/zkq/zkq/(cmd/|integration|etcdqueue/embedded)' <<<"$all"; }
case $race in
  all) first=$all rest='' ;;
  none) first='' rest=$all ;;
  some) first=$(raced) rest=$(comm -23 <(sort <<<"$all") <(raced | sort)) ;;
  *) echo "RACE=$race: want all, some or none"; exit 2 ;;
esac

# -shuffle=on also means that no result comes from the cache.
# What two tests measure means nothing under the race detector: they run without it.
measured='^(TestForeignNodesCostLittleTime$|TestBacklogOf100000)'
if [ -n "$first" ]; then
  # shellcheck disable=SC2086 # one word each
  CGO_ENABLED=1 go test -race -shuffle=on -timeout 30m -skip "$measured" $first || status=1
fi
if [ -n "$rest" ]; then
  # shellcheck disable=SC2086
  CGO_ENABLED=0 go test -shuffle=on -timeout 30m $rest || status=1
else
  CGO_ENABLED=0 go test -shuffle=on -timeout 30m -run "$measured" ./integration/... || status=1
fi

if [ -s "$not_run" ]; then
  echo
  sort -u "$not_run" | sed 's/^/not run: /'
  if [ "${CI:-}" = true ]; then
    echo "CI=true: a part that was not run is a failure"
    status=1
  fi
fi
exit "$status"
