#!/usr/bin/env bash
# make check: formatting, go vet, staticcheck, and the tests under the race detector. Stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."

# The tools have a module of their own, so that none of what they need is in the library's go.mod.
tool() { go tool -modfile=tools/go.mod "$@"; }
step() { printf '== %s\n' "$*"; }

step gofumpt
unformatted=$(tool gofumpt -l .)
if [ -n "$unformatted" ]; then
  printf '%s\n' "$unformatted"
  echo "not formatted as gofumpt does: go tool -modfile=tools/go.mod gofumpt -w ."
  exit 1
fi

# As the tests without the race detector are built, so that the two share what is built.
export CGO_ENABLED=0

step go vet
go vet ./...
go vet -tags cluster,headtohead,faults ./integration/...
go -C bench vet ./... # a module of its own

step staticcheck
tool staticcheck ./...
tool staticcheck -tags cluster,headtohead,faults ./integration/...
(cd bench && go tool -modfile=../tools/go.mod staticcheck ./...)

step go test -race
if ! printf '#include <stdlib.h>\nint main(void) { return 0; }\n' | "${CC:-gcc}" -x c -o /dev/null - 2>/dev/null; then
  echo "the race detector needs a C compiler, and ${CC:-gcc} does not compile here: make deps"
  exit 1
fi
# Built on all processors first: below, one thing is done at a time.
CGO_ENABLED=1 go build -race ./...
# One package at a time: what waits for a real server shares the processors with one thing less.
# The contract's suite on three members runs the same code as on one, and longer, and what two tests measure means nothing
# under the race detector: make test has them.
CGO_ENABLED=1 go test -race -shuffle=on -p 1 -skip '^(TestConformanceOfThree|TestForeignNodesCostLittleTime$|TestBacklogOf100000)' ./...

step go test ./bench # what it says of a measurement; the measurements are make bench
go -C bench test ./...
