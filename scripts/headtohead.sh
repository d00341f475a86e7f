#!/usr/bin/env bash
# make headtohead: the same 50 faults happen to kazoo's LockingQueue and to zkq's; the table of what each lost comes last.
# Needs what make deps installs.
set -euo pipefail
cd "$(dirname "$0")/.."
CI=true CGO_ENABLED=0 go test -tags headtohead -count=1 -timeout 40m -v ./integration/headtohead
