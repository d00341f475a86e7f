#!/usr/bin/env bash
# make bench: every figure of docs/performance.md beside the one to reach, measured on this machine. BENCH=quick: six
# minutes instead of ten; BENCH=counts: only what is the same on every machine. The exit status is 0 only if every target is reached. More arguments go to the program:
# scripts/bench.sh -run zk-kazoo. Nothing else should run beside it.
set -euo pipefail
cd "$(dirname "$0")/../bench"
mkdir -p ../bin
commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
CGO_ENABLED=0 go build -ldflags "-X main.commit=$commit" -o ../bin/ . ./consumer
exec ../bin/bench "$@"
