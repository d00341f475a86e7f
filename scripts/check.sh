#!/usr/bin/env bash
# make check: formatting, go vet, staticcheck, and the tests of the bench, which is a module of its own. Stops at the first that
# fails.
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

step go test ./bench # what it says of a measurement; the measurements are make bench
go -C bench test ./...
