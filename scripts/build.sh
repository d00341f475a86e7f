#!/usr/bin/env bash
# make build: bin/zkq, which says as its version what git says of this tree.
set -euo pipefail
cd "$(dirname "$0")/.."

# Outside a git checkout there is nothing to describe, and zkq says so.
version=$(git describe --tags --always --dirty 2>/dev/null || true)

mkdir -p bin
CGO_ENABLED=0 go build -trimpath -ldflags "-X main.version=$version" -o bin/zkq ./cmd/zkq
