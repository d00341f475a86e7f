#!/usr/bin/env bash
# make test: every test this machine can run, then one line for each part that it could not.
#
# A test that needs something from outside says so itself (internal/testneed): under CI=true it fails, elsewhere it is
# skipped and leaves its line in the file named here. So there is no second list to keep in step with the tests.
set -uo pipefail
cd "$(dirname "$0")/.."

not_run=$(mktemp)
trap 'rm -f "$not_run"' EXIT

# CGO_ENABLED=0: no C compiler is needed. -shuffle=on also means that no result comes from the cache.
ZKQ_TEST_NOT_RUN=$not_run CGO_ENABLED=0 go test -shuffle=on ./...
status=$?

if [ -s "$not_run" ]; then
  echo
  sort -u "$not_run" | sed 's/^/not run: /'
  if [ "${CI:-}" = true ]; then
    echo "CI=true: a part that was not run is a failure"
    status=1
  fi
fi
exit "$status"
