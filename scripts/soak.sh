#!/usr/bin/env bash
# make soak CYCLES=N: what grows with the number of entries put, taken and finished? Memory, goroutines, open files, the
# server's watches and nodes are compared, on the embedded store, a real etcd and a real ZooKeeper. `make test` does the
# same with fewer cycles. And is a waiter awake within 50 ms? That wants a machine which does nothing else. The last line
# is go test's: ok, or FAIL.
set -euo pipefail
cd "$(dirname "$0")/.."

cycles=${CYCLES:-50000}
CGO_ENABLED=0 go test ./integration/services -run 'LeaveNothing$|^TestWaitersWakeSoon$' -count=1 -timeout 0 -v -cycles "$cycles" -alone
